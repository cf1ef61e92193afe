//! mount_setattr(2), which rustix lacks, and unshare(2) of mounts.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;

use bitflags::bitflags;

bitflags! {
    /// MOUNT_ATTR_*.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MountAttributes: u64 {
        /// MOUNT_ATTR_RDONLY.
        const RDONLY = libc::MOUNT_ATTR_RDONLY;
        /// MOUNT_ATTR_NOSUID.
        const NOSUID = libc::MOUNT_ATTR_NOSUID;
        /// MOUNT_ATTR_NODEV.
        const NODEV = libc::MOUNT_ATTR_NODEV;
    }
}

/// Sets attributes on the mount tree that `tree` (of open_tree(2)) is the root of, recursively.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN over the mount's namespace; ENOSYS before Linux 5.12.
pub fn set_attributes(tree: impl AsFd, set: MountAttributes) -> io::Result<()> {
    // SAFETY: mount_attr is plain integers, for which zero is valid.
    let mut attr: libc::mount_attr = unsafe { std::mem::zeroed() };
    attr.attr_set = set.bits();
    mount_setattr(tree.as_fd(), libc::AT_RECURSIVE, &attr)
}

/// How far [`map_ids`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdMapped {
    /// The mount itself.
    Mount,
    /// Those below it, too.
    All,
}

/// Has the mount that `tree` (of open_tree(2)) is the root of show ids as `user_namespace` maps them.
///
/// # Errors
/// EINVAL where the file system can't; EPERM without CAP_SYS_ADMIN over it; ENOSYS before Linux 5.12.
pub fn map_ids(tree: impl AsFd, user_namespace: impl AsFd, how_far: IdMapped) -> io::Result<()> {
    // SAFETY: mount_attr is plain integers, for which zero is valid.
    let mut attr: libc::mount_attr = unsafe { std::mem::zeroed() };
    attr.attr_set = libc::MOUNT_ATTR_IDMAP;
    attr.userns_fd = u64::try_from(user_namespace.as_fd().as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let recursion = match how_far {
        IdMapped::Mount => 0,
        IdMapped::All => libc::AT_RECURSIVE,
    };
    mount_setattr(tree.as_fd(), recursion, &attr)
}

fn mount_setattr(tree: BorrowedFd<'_>, recursion: libc::c_int, attr: &libc::mount_attr) -> io::Result<()> {
    // SAFETY: the path is an empty C string and `attr` is valid for the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursion,
            ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives the calling thread a mount namespace, a root and a working directory of its own.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn private_namespace() -> io::Result<()> {
    // SAFETY: takes a number only; without CLONE_FILES the descriptors stay in common.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
