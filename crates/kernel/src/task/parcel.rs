//! Which calls take back what they write in their parcel ([`moat_platform::parcel`]).

use std::sync::atomic::Ordering;

use moat_abi::nr;
use moat_platform::parcel;

use crate::task::CurrentTask;

/// Calls whose results nobody looks for in the caller's memory before the call has returned: what they write may be there a moment
/// later than what else they do is seen. A clone is none, for its child reads what it writes; a futex operation neither.
const GIVES: [u32; 52] = [
    nr::READ,
    nr::STAT,
    nr::FSTAT,
    nr::LSTAT,
    nr::POLL,
    nr::RT_SIGACTION,
    nr::RT_SIGPROCMASK,
    nr::PREAD64,
    nr::READV,
    nr::PIPE,
    nr::ACCEPT,
    nr::RECVFROM,
    nr::RECVMSG,
    nr::GETSOCKNAME,
    nr::GETPEERNAME,
    nr::SOCKETPAIR,
    nr::GETSOCKOPT,
    nr::UNAME,
    nr::GETDENTS,
    nr::GETCWD,
    nr::READLINK,
    nr::GETTIMEOFDAY,
    nr::GETRLIMIT,
    nr::GETRUSAGE,
    nr::SYSINFO,
    nr::TIMES,
    nr::GETRESUID,
    nr::GETRESGID,
    nr::RT_SIGPENDING,
    nr::STATFS,
    nr::FSTATFS,
    nr::TIME,
    nr::SCHED_GETAFFINITY,
    nr::GETDENTS64,
    nr::TIMER_SETTIME,
    nr::TIMER_GETTIME,
    nr::CLOCK_GETTIME,
    nr::CLOCK_GETRES,
    nr::EPOLL_WAIT,
    nr::NEWFSTATAT,
    nr::READLINKAT,
    nr::PPOLL,
    nr::EPOLL_PWAIT,
    nr::TIMERFD_SETTIME,
    nr::TIMERFD_GETTIME,
    nr::ACCEPT4,
    nr::PIPE2,
    nr::PREADV,
    nr::PRLIMIT64,
    nr::GETCPU,
    nr::GETRANDOM,
    nr::STATX,
];

/// One bit for each number of [`GIVES`].
const GIVES_BITS: [u64; 8] = {
    let mut bits = [0; 8];
    let mut i = 0;
    while i < GIVES.len() {
        bits[GIVES[i] as usize / 64] |= 1 << (GIVES[i] % 64);
        i += 1;
    }
    bits
};

fn gives(nr: u64) -> bool {
    let word = usize::try_from(nr / 64).ok().and_then(|i| GIVES_BITS.get(i));
    word.is_some_and(|word| word >> (nr % 64) & 1 != 0)
}

impl CurrentTask {
    /// Opens the parcel of the call that the thread has just stopped in.
    ///
    /// Not of a traced task: its tracer may look at its memory, and change it, on either side of the call.
    pub(super) fn open_parcel(&mut self, nr: u64) {
        if !self.task().traced.load(Ordering::Relaxed)
            && let Some(mut parcel) = self.thread().parcel()
        {
            parcel.gives = gives(nr);
            parcel::open(parcel, self.mm().space());
        }
    }

    /// The call is over: the thread takes back what is in the parcel, if nothing else has to be done for it first.
    pub(super) fn close_parcel(&mut self) {
        self.gifts = parcel::close();
    }

    /// Has the thread take back what its call has left for it.
    pub(super) fn take_back(&mut self) {
        if let Some(gifts) = self.gifts.take() {
            self.thread().take_back(gifts);
        }
    }

    /// Writes that to its memory.
    pub(super) fn settle_gifts(&mut self) {
        if let Some(mut gifts) = self.gifts.take() {
            gifts.write_out();
        }
    }
}

/// The poll of a task's future has ended: whatever comes next may look at its memory.
pub(super) fn end_of_poll() {
    if let Some(mut gifts) = parcel::close() {
        gifts.write_out();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_by_their_numbers() {
        let of_list: Vec<u64> = (0..600).filter(|nr| gives(*nr)).collect();
        let mut listed: Vec<u64> = GIVES.iter().map(|nr| u64::from(*nr)).collect();
        listed.sort_unstable();
        assert_eq!(of_list, listed);
        assert!(!gives(u64::MAX) && !gives(1 << 32));
    }
}
