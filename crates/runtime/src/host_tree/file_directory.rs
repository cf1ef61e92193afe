//! A directory with one host file in it, for a container that joins a sandbox that runs already.
//!
//! A file is mounted by a directory descriptor, so that it can be opened again with other flags. A new sandbox makes such
//! directories in its own root; one that runs can't mount any more, so they are made here.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use crate::error::{Context, Result};

/// The entry's name.
pub(crate) const FILE_NAME: &str = "file";

/// Where the directory is while it is made, in a mount namespace of its own.
const PLACE: &str = "/";

/// Makes a detached tree: a read-only tmpfs with nothing in it but `file`, a detached mount, or one to copy.
pub(crate) fn directory_of_file(file: &OwnedFd) -> Result<OwnedFd> {
    // Only a mount in a mount namespace of this process can have mounts put on it.
    moat_host::mounts::in_private_namespace(|| make(file)).context(|| "making a directory for a host file".into())
}

fn make(file: &OwnedFd) -> io::Result<OwnedFd> {
    // In a mount namespace that this thread has to itself, so that the host never shows it.
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "mode", "0755")?;
    rustix::mount::fsconfig_set_string(&context, "size", "64k")?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let dir = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    rustix::mount::move_mount(&dir, "", rustix::fs::CWD, PLACE, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    // A file to mount on.
    drop(openat(&dir, FILE_NAME, create, Mode::from_raw_mode(0o600))?);
    rustix::mount::move_mount(file, "", &dir, FILE_NAME, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    // The two mounts together, detached: the namespace goes with the thread.
    let clone = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(&dir, "", clone)?)
}
