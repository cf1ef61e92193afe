//! Signals of host processes and threads: tgkill(2), pidfd_send_signal(2), masks, signalfd(2), ppoll(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use libc::pid_t;
use moat_abi::siginfo::SignalfdSiginfo;
use moat_abi::time::Timespec;
use moat_abi::{Result, SigSet, Signal};
use rustix::event::PollFd;
use zerocopy::IntoBytes;

use crate::result::check;

/// Sends `signal` to thread `tid` of process `tgid`; no other thread that came to have that id can be hit.
///
/// # Errors
/// ESRCH if there is no such thread, EPERM if it may not be signalled.
pub fn tgkill(tgid: pid_t, tid: pid_t, signal: Signal) -> Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_tgkill, tgid, tid, signal.number()) }).map(drop)
}

/// Sends `signal` to the process of a pidfd.
///
/// # Errors
/// ESRCH if it has been reaped, EPERM if it may not be signalled.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed; the other arguments are numbers.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal.number(), none, 0) }).map(drop)
}

/// Replaces the calling thread's signal mask; gives the old one.
///
/// # Errors
/// None that the host documents for these arguments.
pub fn set_mask(mask: SigSet) -> Result<SigSet> {
    let mut old = SigSet::EMPTY;
    // SAFETY: both pointers are to live sets of the size given.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut old, size_of::<SigSet>())
    })?;
    Ok(old)
}

/// A descriptor (close-on-exec, non-blocking) from which the signals of `mask` can be read while they are blocked.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn signalfd(mask: SigSet) -> Result<OwnedFd> {
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: `mask` is a live set of the size given.
    let fd = check(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, size_of::<SigSet>(), flags) })?;
    // SAFETY: the call gave a new descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Takes one signal from a [`signalfd`].
///
/// # Errors
/// EAGAIN if none is pending.
pub fn read_signalfd(fd: BorrowedFd<'_>) -> Result<SignalfdSiginfo> {
    let mut info = SignalfdSiginfo::default();
    rustix::io::retry_on_intr(|| rustix::io::read(fd, info.as_mut_bytes()))?;
    Ok(info)
}

/// poll(2) with a time limit in nanoseconds (`None` waits for ever) and with `mask` in force while it waits.
///
/// # Errors
/// EINTR after a signal.
pub fn ppoll(fds: &mut [PollFd<'_>], timeout: Option<Duration>, mask: Option<SigSet>) -> Result<usize> {
    // The host writes the time that is left into it.
    let mut limit = timeout.map(Timespec::from_duration);
    let limit = limit.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
    let mask = mask.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: PollFd has the layout of `struct pollfd` and the slice lives through the call, as do the timespec and
    // the mask, each null or of the size that the host expects.
    let n = unsafe { libc::syscall(libc::SYS_ppoll, fds.as_mut_ptr(), fds.len(), limit, mask, size_of::<SigSet>()) };
    check(n).map(|n| n as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_abi::Errno;
    use rustix::event::PollFlags;
    use std::os::fd::AsFd;

    #[test]
    fn a_blocked_signal_arrives_at_the_signalfd() {
        let old = set_mask(Signal::SIGUSR1.bit()).expect("mask");
        let fd = signalfd(Signal::SIGUSR1.bit()).expect("signalfd");
        assert_eq!(read_signalfd(fd.as_fd()), Err(Errno::EAGAIN));
        let (pid, tid) = (rustix::process::getpid(), rustix::thread::gettid());
        tgkill(pid.as_raw_nonzero().get(), tid.as_raw_nonzero().get(), Signal::SIGUSR1).expect("tgkill");
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        assert_eq!(ppoll(&mut fds, Some(Duration::from_secs(5)), None), Ok(1));
        let info = read_signalfd(fd.as_fd()).expect("signal");
        assert_eq!((info.ssi_signo, info.ssi_pid), (10, pid.as_raw_nonzero().get() as u32));
        set_mask(old).expect("mask");
    }

    #[test]
    fn ppoll_times_out() {
        assert_eq!(ppoll(&mut [], Some(Duration::from_micros(10)), Some(SigSet::FULL.as_mask())), Ok(0));
    }

    #[test]
    fn pidfd_signals() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("spawn");
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("pidfd");
        pidfd_send_signal(pidfd.as_fd(), Signal::SIGKILL).expect("kill");
        child.wait().expect("wait");
        assert_eq!(pidfd_send_signal(pidfd.as_fd(), Signal::SIGKILL), Err(Errno::ESRCH));
    }
}
