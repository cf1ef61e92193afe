//! [`Listener`]: the sentry's end of a seccomp filter that notifies (seccomp_unotify(2)).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use moat_abi::{Errno, Result};

use crate::last_errno;
use crate::result::retry;

/// A syscall that a filter has passed to the listener; the caller sleeps until it is answered.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    /// Names it in answers.
    pub id: u64,
    /// The calling thread, in the listener's pid namespace; 0 if it is not in it.
    pub tid: i32,
    /// The number, as in eax.
    pub nr: u32,
    /// The six arguments, as in the registers: they cannot change while the caller sleeps.
    pub args: [u64; 6],
}

/// How a notification is answered.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// The call is not made; the caller gets this value.
    Value(i64),
    /// The call is not made; the caller gets this errno.
    Fail(Errno),
    /// The call is made. Safe only where no argument is a pointer to memory that decides what is allowed.
    Continue,
}

/// Where a woken thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeUp {
    /// Wherever the host's scheduler thinks best.
    Anywhere,
    /// On the CPU of the thread that wakes it, which is about to sleep.
    SameCpu,
}

/// The listening descriptor of a filter.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Takes over the descriptor that seccomp(2) gave.
    ///
    /// # Errors
    /// ENOSYS if this kernel's notifications have another layout.
    pub fn new(fd: OwnedFd) -> Result<Listener> {
        let mut sizes = libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
        // SAFETY: the call writes one struct of this type.
        let r = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &raw mut sizes) };
        let fits = usize::from(sizes.seccomp_notif) <= size_of::<libc::seccomp_notif>()
            && usize::from(sizes.seccomp_notif_resp) <= size_of::<libc::seccomp_notif_resp>();
        if r == 0 && fits { Ok(Listener(fd)) } else { Err(Errno::ENOSYS) }
    }

    /// Has answers wake the caller on the CPU of the answering thread, and notifications the listener on the
    /// caller's (Linux 6.6), or not.
    ///
    /// # Errors
    /// EINVAL on an older kernel.
    pub fn set_wake_up(&self, how: WakeUp) -> Result<()> {
        let flags: libc::c_ulong = match how {
            WakeUp::Anywhere => 0,
            WakeUp::SameCpu => 1,
        };
        // SAFETY: this request takes its argument by value.
        let r = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, flags) };
        if r == 0 { Ok(()) } else { Err(last_errno()) }
    }

    /// Whether a notification waits.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok() && fds[0].revents().contains(PollFlags::IN)
    }

    /// Takes in one notification. Blocks if there is none: poll(2) the descriptor first.
    ///
    /// # Errors
    /// ENOENT if the caller died meanwhile.
    pub fn receive(&self) -> Result<Notification> {
        // SAFETY: all-zero is a value of this plain struct, and what the kernel demands.
        let mut raw: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes at most one struct of this size (checked by `new`).
        retry(|| unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut raw) }.into())?;
        Ok(Notification {
            id: raw.id,
            tid: raw.pid.cast_signed(),
            nr: raw.data.nr.cast_unsigned(),
            args: raw.data.args,
        })
    }

    /// Answers a notification.
    ///
    /// # Errors
    /// ENOENT if the caller is gone or was interrupted.
    pub fn answer(&self, id: u64, answer: Answer) -> Result<()> {
        let (val, error, flags) = match answer {
            Answer::Value(val) => (val, 0, 0),
            Answer::Fail(errno) => (0, -errno.raw(), 0),
            Answer::Continue => (0, 0, u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or(0)),
        };
        let mut raw = libc::seccomp_notif_resp { id, val, error, flags };
        // A signal ends the wait for the filter's lock; an answer that got lost would leave the caller stopped for ever.
        // SAFETY: the kernel reads one struct of this size (checked by `new`).
        retry(|| unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut raw) }.into())
            .map(drop)
    }

    /// Puts a copy of `fd` into the caller's descriptor table as `number`, replacing what is there.
    ///
    /// # Errors
    /// ENOENT if the caller is gone; EBADF if the number is above the caller's limit.
    pub fn add_fd(&self, id: u64, fd: BorrowedFd<'_>, number: u32) -> Result<()> {
        let mut raw = libc::seccomp_notif_addfd {
            id,
            flags: u32::try_from(libc::SECCOMP_ADDFD_FLAG_SETFD).unwrap_or(0),
            srcfd: fd.as_raw_fd().cast_unsigned(),
            newfd: number,
            newfd_flags: 0,
        };
        // SAFETY: the kernel reads one struct of this size.
        retry(|| unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw mut raw) }.into())
            .map(drop)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether a filter is in force for the calling thread: before a process installs one, that of a container or service
/// around it. What such a filter refuses never becomes a notification.
#[must_use]
pub fn is_filtered() -> bool {
    // SAFETY: reads a number of the calling thread's.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP) == libc::SECCOMP_MODE_FILTER.cast_signed() }
}
