//! Calls that fail at once, in a way that tells whether the host has them.

use std::io;
use std::ptr::null;

use super::Version;

/// How a host is asked.
#[derive(Debug)]
pub(super) enum Probe {
    /// By a call.
    Call(fn() -> bool),
    /// By its version: what can't be tried without doing it.
    Release,
}

impl Probe {
    pub(super) fn ask(&self, since: Version) -> bool {
        match self {
            Probe::Call(call) => call(),
            // A distribution may have taken the call over into an older kernel: then the other way is taken, which works too.
            Probe::Release => Version::of_host() >= since,
        }
    }
}

/// The errno of a call.
fn errno(result: libc::c_long) -> i32 {
    if result == -1 { io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 }
}

/// EPERM is the answer of a container's filter: the arguments are refused before privileges are looked at.
fn is_known(result: libc::c_long) -> bool {
    !matches!(errno(result), libc::ENOSYS | libc::EPERM)
}

const INVALID: libc::c_uint = libc::c_uint::MAX;

macro_rules! probe {
    ($name:ident, $($argument:expr),+) => {
        pub(super) fn $name() -> bool {
            // SAFETY: the call refuses its arguments before it does anything or looks at memory.
            is_known(unsafe { libc::syscall($($argument),+) })
        }
    };
}

// A structure's size that no kernel has.
probe!(clone3, libc::SYS_clone3, null::<u8>(), 0usize);
probe!(openat2, libc::SYS_openat2, -1, null::<u8>(), null::<u8>(), 0usize);
probe!(mount_setattr, libc::SYS_mount_setattr, -1, null::<u8>(), 0, null::<u8>(), 0usize);
// Flags that do not exist.
probe!(open_tree, libc::SYS_open_tree, -1, null::<u8>(), INVALID);
probe!(pidfd_getfd, libc::SYS_pidfd_getfd, -1, -1, INVALID);
probe!(close_range, libc::SYS_close_range, 1, 0, INVALID);
probe!(fchmodat2, libc::SYS_fchmodat2, -1, null::<u8>(), 0, INVALID);
probe!(futex_waitv, libc::SYS_futex_waitv, null::<u8>(), 0, INVALID, null::<u8>(), 0);
probe!(rseq, libc::SYS_rseq, null::<u8>(), 0, INVALID, 0);
/// Kernels are built without (CONFIG_TIME_NS).
pub(super) fn time_namespaces() -> bool {
    std::fs::exists("/proc/self/ns/time").unwrap_or(false)
}

// No process.
probe!(pidfd_open, libc::SYS_pidfd_open, 0, 0);
// A path that is not there to be read.
probe!(xattr_at, crate::objects::SYS_GETXATTRAT, -1, null::<u8>(), INVALID, null::<u8>(), null::<u8>(), 0usize);

pub(super) fn seccomp_notifications() -> bool {
    // Seccomp itself is older: the question is whether it knows this action.
    let action = libc::SECCOMP_RET_USER_NOTIF;
    // SAFETY: reads one number.
    errno(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) }) == 0
}

/// With a null program a known flag gives EFAULT and an unknown one EINVAL (seccomp(2), NOTES).
pub(super) fn seccomp_wait_killable() -> bool {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: the null pointer is refused.
    errno(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, null::<u8>()) })
        == libc::EFAULT
}

/// An unknown flag is refused before the name is read.
pub(super) fn memfd_exec() -> bool {
    // SAFETY: the null pointer is refused.
    errno(unsafe { libc::syscall(libc::SYS_memfd_create, null::<u8>(), crate::spawn::MFD_EXEC) }) == libc::EFAULT
}
