//! Readiness: the event bits of poll(2) and epoll(7).

use bitflags::bitflags;

bitflags! {
    /// `POLL*` / `EPOLL*` readiness bits, which share their values (`uapi/asm-generic/poll.h`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PollEvents: u32 {
        /// Data to read.
        const IN = 0x1;
        /// Urgent data, or an exceptional condition.
        const PRI = 0x2;
        /// Room to write.
        const OUT = 0x4;
        /// An error condition; always reported.
        const ERR = 0x8;
        /// The other end hung up; always reported.
        const HUP = 0x10;
        /// The descriptor is not open (poll only).
        const NVAL = 0x20;
        /// As `IN`.
        const RDNORM = 0x40;
        /// Out-of-band data to read.
        const RDBAND = 0x80;
        /// As `OUT`.
        const WRNORM = 0x100;
        /// Out-of-band data may be written.
        const WRBAND = 0x200;
        /// Unused by Linux.
        const MSG = 0x400;
        /// The peer shut down its writing half.
        const RDHUP = 0x2000;
    }
}

impl PollEvents {
    /// What is reported whether asked for or not.
    pub const ALWAYS: PollEvents = PollEvents::ERR.union(PollEvents::HUP);
    /// Everything that makes a read worth trying.
    pub const READABLE: PollEvents =
        PollEvents::IN.union(PollEvents::RDNORM).union(PollEvents::RDHUP).union(PollEvents::ALWAYS);
    /// Everything that makes a write worth trying.
    pub const WRITABLE: PollEvents = PollEvents::OUT.union(PollEvents::WRNORM).union(PollEvents::ALWAYS);
}
