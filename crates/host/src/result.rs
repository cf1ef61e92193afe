//! From the C library's way of failing to [`Errno`].

use moat_abi::{Errno, Result};

/// The errno of the C library call that has just failed on this thread.
#[must_use]
pub fn last_errno() -> Errno {
    Errno::from(std::io::Error::last_os_error())
}

/// The result of a C library call or `libc::syscall` that says -1 for failure.
pub(crate) fn check(ret: libc::c_long) -> Result<u64> {
    u64::try_from(ret).map_err(|_| last_errno())
}

/// As [`check`], called again while a signal interrupts it.
pub(crate) fn retry(mut call: impl FnMut() -> libc::c_long) -> Result<u64> {
    loop {
        match check(call()) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}
