//! poll(2), select(2), epoll(7), and the eventfd and signalfd flags.
//!
//! Sources: `asm-generic/poll.h`, `linux/eventpoll.h`, `linux/eventfd.h`, `linux/signalfd.h`.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags! {
    /// What a file is ready for: `POLL*` of poll(2), which are also `EPOLL*` of epoll_ctl(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PollEvents: u32 {
        /// Readable.
        const IN = 0x1;
        /// Exceptional condition.
        const PRI = 0x2;
        /// Writable.
        const OUT = 0x4;
        /// Error; always reported.
        const ERR = 0x8;
        /// Hang-up; always reported.
        const HUP = 0x10;
        /// Bad descriptor; poll(2) only.
        const NVAL = 0x20;
        /// Normal data readable.
        const RDNORM = 0x40;
        /// Priority data readable.
        const RDBAND = 0x80;
        /// Normal data writable.
        const WRNORM = 0x100;
        /// Priority data writable.
        const WRBAND = 0x200;
        /// A SIGPOLL message (unused).
        const MSG = 0x400;
        /// Removed (internal to Linux, visible in the header).
        const REMOVE = 0x1000;
        /// The peer has shut down its writing half.
        const RDHUP = 0x2000;
    }
}

impl PollEvents {
    /// What a file reports that has data to read (`EPOLLIN | EPOLLRDNORM`).
    pub const READ_READY: PollEvents = Self::IN.union(Self::RDNORM);
    /// What a file reports that has room to write (`EPOLLOUT | EPOLLWRNORM`).
    pub const WRITE_READY: PollEvents = Self::OUT.union(Self::WRNORM);
    /// To wait for: everything that makes a read worth trying. Not a thing to report, see [`PollEvents::READ_READY`].
    pub const READABLE: PollEvents = Self::READ_READY.union(Self::RDHUP).union(Self::ALWAYS);
    /// To wait for: everything that makes a write worth trying. Not a thing to report, see [`PollEvents::WRITE_READY`].
    pub const WRITABLE: PollEvents = Self::WRITE_READY.union(Self::ALWAYS);
    /// What is reported whether asked for or not.
    pub const ALWAYS: PollEvents = Self::ERR.union(Self::HUP);
    /// What select(2) counts as readable (`POLLIN_SET`).
    pub const SELECT_IN: PollEvents =
        Self::RDNORM.union(Self::RDBAND).union(Self::IN).union(Self::HUP).union(Self::ERR).union(Self::NVAL);
    /// What select(2) counts as writable (`POLLOUT_SET`).
    pub const SELECT_OUT: PollEvents =
        Self::WRBAND.union(Self::WRNORM).union(Self::OUT).union(Self::ERR).union(Self::NVAL);
    /// What select(2) counts as exceptional (`POLLEX_SET`).
    pub const SELECT_EX: PollEvents = Self::PRI.union(Self::NVAL);

    /// The events of a `struct pollfd`; unknown bits are kept out.
    #[must_use]
    pub const fn from_pollfd(events: i16) -> PollEvents {
        PollEvents::from_bits_truncate(events as u16 as u32)
    }

    /// The value of `revents`.
    #[must_use]
    pub const fn to_pollfd(self) -> i16 {
        self.bits() as u16 as i16
    }
}

guest_struct! {
    /// `struct pollfd`.
    Pollfd: 8 { fd: i32, events: i16, revents: i16 }
}

bitflags! {
    /// Input flags of epoll_ctl(2) beyond [`PollEvents`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct EpollFlags: u32 {
        /// Wake one of several epolls only.
        const EXCLUSIVE = 1 << 28;
        /// Keeps the system awake.
        const WAKEUP = 1 << 29;
        /// Disable after one event.
        const ONESHOT = 1 << 30;
        /// Edge-triggered.
        const ET = 1 << 31;
    }
}
consts! { "epoll_ctl(2) operations.", u32; EPOLL_CTL_ADD = 1, EPOLL_CTL_DEL = 2, EPOLL_CTL_MOD = 3 }
consts! { "epoll_create1(2) flag.", u32; EPOLL_CLOEXEC = 0o2_000_000 }
/// Most events that one epoll_wait(2) may ask for (`EP_MAX_EVENTS`).
pub const EP_MAX_EVENTS: i32 = i32::MAX / 12;

/// `struct epoll_event`, packed on x86-64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub struct EpollEvent {
    /// [`PollEvents`] and [`EpollFlags`].
    pub events: u32,
    /// The guest's own value.
    pub data: u64,
}
const _: () = assert!(size_of::<EpollEvent>() == 12);

guest_struct! {
    /// The sixth argument of pselect6(2): a signal mask by address and size.
    SigsetArg: 16 { addr: u64, size: u64 }
}
guest_struct! {
    /// `struct epoll_params`, EPIOCSPARAMS.
    EpollParams: 8 { busy_poll_usecs: u32, busy_poll_budget: u16, prefer_busy_poll: u8, pad: u8 }
}

consts! { "eventfd2(2) flags.", u32; EFD_SEMAPHORE = 1, EFD_NONBLOCK = 0o4000, EFD_CLOEXEC = 0o2_000_000 }
consts! { "signalfd4(2) flags.", u32; SFD_NONBLOCK = 0o4000, SFD_CLOEXEC = 0o2_000_000 }
consts! { "pidfd_open(2) flags.", u32; PIDFD_NONBLOCK = 0o4000, PIDFD_THREAD = 0o200 }
consts! { "Descriptors in an `fd_set` of select(2) in glibc; the kernel takes more.", usize; FD_SETSIZE = 1024 }
