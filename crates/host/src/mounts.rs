//! mount_setattr(2), which rustix lacks, and unshare(2) of mounts.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

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
    // SAFETY: the path is an empty C string and `attr` is valid for the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attr,
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
