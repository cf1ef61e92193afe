//! An empty read-only root, and host trees that `..` cannot leave.
//!
//! The process has mount, pid and user namespaces of its own when it comes here. [`EmptyRoot::enter`] replaces the
//! host's tree by an empty tmpfs; a host file can be mounted alone in a directory of it, so that it too is reached
//! relative to a directory. [`EmptyRoot::seal`] makes it read-only.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use moat_control::BootError;
use moat_host::mounts::{MountAttributes, with_attributes};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

/// The name of a host file in the directory made for it.
pub const FILE_NAME: &str = "file";

/// Cuts the process's mounts off from the host's: mounts propagate neither there nor here.
///
/// # Errors
/// Of mount(2).
pub fn make_private() -> Result<(), BootError> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| BootError::host("making mounts private", &e.into()))
}

/// A detached copy of the mounts at and below a plain descriptor; to be made before the host's tree is gone.
///
/// # Errors
/// ESTALE if something else is at the descriptor's path in this mount namespace; those of open_tree(2).
pub fn detached_copy(fd: BorrowedFd<'_>, attributes: MountAttributes) -> io::Result<OwnedFd> {
    // The descriptor belongs to the creator's mount namespace, whose mounts cannot be copied here; the same place in
    // this namespace's copy of it can.
    let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, &path, flags)?;
    let (wanted, got) = (rustix::fs::fstat(fd)?, rustix::fs::fstat(&tree)?);
    if (wanted.st_dev, wanted.st_ino) != (got.st_dev, got.st_ino) {
        return Err(io::Error::from(rustix::io::Errno::STALE));
    }
    with_attributes(tree, attributes)
}

/// A procfs that shows this pid namespace's processes and nothing else of the host, mounted nowhere yet.
///
/// # Errors
/// EPERM where the host's own procfs is covered in part, as in many containers.
pub fn new_procfs() -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "subset", "pid")?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// The process's new root, still writable.
#[derive(Debug)]
pub struct EmptyRoot(());

impl EmptyRoot {
    /// Makes an empty tmpfs the root of the mount namespace and unmounts everything else.
    ///
    /// # Errors
    /// What was tried, and the host's errno.
    pub fn enter() -> Result<Self, BootError> {
        let root = new_root().map_err(|e| BootError::host("making an empty root", &e))?;
        pivot(root.as_fd()).map_err(|e| BootError::host("changing to the empty root", &e))?;
        Ok(EmptyRoot(()))
    }

    /// Shows a procfs at /proc, where platforms look at their own process before the seccomp filter is on.
    ///
    /// # Errors
    /// Of mkdir(2) and move_mount(2).
    pub fn mount_proc(&self, procfs: &OwnedFd) -> io::Result<()> {
        rustix::fs::mkdir("/proc", Mode::from_raw_mode(0o555))?;
        Ok(rustix::mount::move_mount(procfs, "", CWD, "/proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    }

    /// Mounts the detached copy of a host file as [`FILE_NAME`] in a directory of its own, which it gives.
    ///
    /// # Errors
    /// EEXIST if the index was used before; those of move_mount(2).
    pub fn mount_file(&self, tree: &OwnedFd, index: usize) -> io::Result<OwnedFd> {
        let directory = Path::new("/").join(index.to_string());
        rustix::fs::mkdir(&directory, Mode::from_raw_mode(0o755))?;
        let dir = rustix::fs::open(&directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(rustix::fs::openat(&dir, FILE_NAME, create, Mode::from_raw_mode(0o600))?);
        rustix::mount::move_mount(tree, "", &dir, FILE_NAME, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        Ok(dir)
    }

    /// Makes the root read-only, for good once the process has no capabilities over its mounts.
    ///
    /// # Errors
    /// Of mount(2).
    pub fn seal(self) -> Result<(), BootError> {
        rustix::mount::mount_remount(
            "/",
            MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
            c"",
        )
        .map_err(|e| BootError::host("making the root read-only", &e.into()))
    }
}

fn new_root() -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "mode", "0755")?;
    rustix::mount::fsconfig_set_string(&context, "size", "1m")?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Makes `root` the root of this mount namespace and unmounts the old one.
fn pivot(root: BorrowedFd<'_>) -> io::Result<()> {
    let old = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::mount::move_mount(root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(root)?;
    // With both at "." the old root ends up on top of the new one.
    rustix::process::pivot_root(".", ".")?;
    rustix::process::fchdir(&old)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}
