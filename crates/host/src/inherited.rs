//! Taking over the descriptors that a process was started with.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

static CLAIMED: AtomicBool = AtomicBool::new(false);

/// Takes ownership of the descriptors `first`, `first + 1`, ... that this process was executed with.
///
/// To be called once, before anything else in the process opens a descriptor. Marks them close-on-exec.
///
/// # Errors
/// EBADF if one of them is not open; EBUSY on a second call.
pub fn claim(first: RawFd, count: usize) -> io::Result<Vec<OwnedFd>> {
    let numbers: BTreeSet<RawFd> = (first..).take(count).collect();
    claim_some(&numbers)
}

/// The same for descriptors with these numbers; gives them in ascending order.
///
/// # Errors
/// As [`claim`], of which only one may be called.
pub fn claim_some(numbers: &BTreeSet<RawFd>) -> io::Result<Vec<OwnedFd>> {
    if CLAIMED.swap(true, Ordering::Relaxed) {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let mut fds = Vec::with_capacity(numbers.len());
    for &number in numbers {
        // SAFETY: fcntl takes no pointers here and fails with EBADF on a number that is not open.
        if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is open and was inherited by exec; CLAIMED and the set, in which each number is once,
        // make this its only owner.
        fds.push(unsafe { OwnedFd::from_raw_fd(number) });
    }
    Ok(fds)
}
