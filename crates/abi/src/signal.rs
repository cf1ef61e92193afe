//! Signals: numbers, sets, actions and default actions. `siginfo_t` is in [`crate::siginfo`], the frame in
//! [`crate::sigframe`].
//!
//! Sources: signal(7), `arch/x86/include/uapi/asm/signal.h`, `asm-generic/signal-defs.h`, `include/linux/signal.h`.

use core::fmt;

/// Highest signal number (`_NSIG`).
pub const NSIG: u8 = 64;
/// Bytes of the kernel's `sigset_t`: the only `sigsetsize` that calls accept.
pub const SIGSET_SIZE: u64 = 8;

/// A signal number, 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

macro_rules! signals {
    ($($name:ident = $num:literal;)*) => {
        impl Signal {
            $(#[doc = concat!("`", stringify!($name), "`, signal(7).")] pub const $name: Signal = Signal($num);)*

            /// The name, `"SIGHUP"`; `None` for a real-time signal.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $($num => Some(stringify!($name)),)* _ => None }
            }
        }
    };
}

signals! {
    SIGHUP = 1; SIGINT = 2; SIGQUIT = 3; SIGILL = 4; SIGTRAP = 5; SIGABRT = 6; SIGBUS = 7; SIGFPE = 8;
    SIGKILL = 9; SIGUSR1 = 10; SIGSEGV = 11; SIGUSR2 = 12; SIGPIPE = 13; SIGALRM = 14; SIGTERM = 15; SIGSTKFLT = 16;
    SIGCHLD = 17; SIGCONT = 18; SIGSTOP = 19; SIGTSTP = 20; SIGTTIN = 21; SIGTTOU = 22; SIGURG = 23; SIGXCPU = 24;
    SIGXFSZ = 25; SIGVTALRM = 26; SIGPROF = 27; SIGWINCH = 28; SIGIO = 29; SIGPWR = 30; SIGSYS = 31;
}

impl Signal {
    /// The first real-time signal of the kernel (glibc keeps two for itself).
    pub const SIGRTMIN: Signal = Signal(32);
    /// The last signal.
    pub const SIGRTMAX: Signal = Signal(NSIG);

    /// Signal `number`, if it is 1 to 64.
    #[must_use]
    pub const fn new(number: i32) -> Option<Signal> {
        if number >= 1 && number <= NSIG as i32 { Some(Signal(number as u8)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0 as i32
    }

    /// The number less one: an index into a table of 64.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize - 1
    }

    /// The set of this signal alone.
    #[must_use]
    pub const fn bit(self) -> SigSet {
        SigSet(1 << (self.0 - 1))
    }

    /// Whether instances queue up (32 and above) rather than merge.
    #[must_use]
    pub const fn is_realtime(self) -> bool {
        self.0 >= 32
    }

    /// What the signal does under `SIG_DFL` to a process that is not an init.
    #[must_use]
    pub const fn default_action(self) -> DefaultAction {
        match self {
            Signal::SIGCONT => DefaultAction::Continue,
            Signal::SIGCHLD | Signal::SIGURG | Signal::SIGWINCH => DefaultAction::Ignore,
            Signal::SIGSTOP | Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU => DefaultAction::Stop,
            Signal::SIGQUIT
            | Signal::SIGILL
            | Signal::SIGTRAP
            | Signal::SIGABRT
            | Signal::SIGBUS
            | Signal::SIGFPE
            | Signal::SIGSEGV
            | Signal::SIGXCPU
            | Signal::SIGXFSZ
            | Signal::SIGSYS => DefaultAction::Core,
            _ => DefaultAction::Terminate,
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Signal {
    /// `SIGINT`, or `SIGRT_3` for number 35, as strace(1) does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "SIGRT_{}", self.0 - 32),
        }
    }
}

/// What a signal does that is neither caught nor ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    /// Ends the process.
    Terminate,
    /// Ends the process with a core dump.
    Core,
    /// Nothing.
    Ignore,
    /// Stops the process.
    Stop,
    /// Continues it if it is stopped (which SIGCONT does even if caught).
    Continue,
}

/// A set of signals, in the layout of the kernel's `sigset_t`: signal n is bit n-1.
#[derive(
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(transparent)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: SigSet = SigSet(0);
    /// All 64.
    pub const FULL: SigSet = SigSet(u64::MAX);
    /// SIGKILL and SIGSTOP: never blocked, caught or ignored.
    pub const UNBLOCKABLE: SigSet = Signal::SIGKILL.bit().union(Signal::SIGSTOP.bit());
    /// The signals that a processor exception raises (`SYNCHRONOUS_MASK`): delivered before others.
    pub const SYNCHRONOUS: SigSet = Signal::SIGSEGV
        .bit()
        .union(Signal::SIGBUS.bit())
        .union(Signal::SIGILL.bit())
        .union(Signal::SIGTRAP.bit())
        .union(Signal::SIGFPE.bit())
        .union(Signal::SIGSYS.bit());
    /// SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU (`SIG_KERNEL_STOP_MASK`).
    pub const STOP: SigSet =
        Signal::SIGSTOP.bit().union(Signal::SIGTSTP.bit()).union(Signal::SIGTTIN.bit()).union(Signal::SIGTTOU.bit());

    /// Whether no signal is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `signal` is in the set.
    #[must_use]
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & signal.bit().0 != 0
    }

    /// Puts `signal` in.
    pub const fn insert(&mut self, signal: Signal) {
        self.0 |= signal.bit().0;
    }

    /// Takes `signal` out.
    pub const fn remove(&mut self, signal: Signal) {
        self.0 &= !signal.bit().0;
    }

    /// Signals in either.
    #[must_use]
    pub const fn union(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }

    /// Signals in both.
    #[must_use]
    pub const fn intersection(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }

    /// Signals in this one and not in `other`.
    #[must_use]
    pub const fn difference(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }

    /// Signals not in the set.
    #[must_use]
    pub const fn complement(self) -> SigSet {
        SigSet(!self.0)
    }

    /// A mask that a guest asked for, without SIGKILL and SIGSTOP.
    #[must_use]
    pub const fn as_mask(self) -> SigSet {
        self.difference(SigSet::UNBLOCKABLE)
    }

    /// The lowest signal.
    #[must_use]
    pub const fn first(self) -> Option<Signal> {
        if self.0 == 0 { None } else { Some(Signal(self.0.trailing_zeros() as u8 + 1)) }
    }

    /// The signals in ascending order.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        let mut rest = self;
        core::iter::from_fn(move || {
            let signal = rest.first()?;
            rest.remove(signal);
            Some(signal)
        })
    }
}

impl FromIterator<Signal> for SigSet {
    fn from_iter<I: IntoIterator<Item = Signal>>(signals: I) -> SigSet {
        signals.into_iter().fold(SigSet::EMPTY, |set, s| set.union(s.bit()))
    }
}

impl fmt::Debug for SigSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

consts! { "Special handlers of sigaction(2).", u64; SIG_DFL = 0, SIG_IGN = 1 }
consts! { "`how` of rt_sigprocmask(2).", u32; SIG_BLOCK = 0, SIG_UNBLOCK = 1, SIG_SETMASK = 2 }

bitflags::bitflags! {
    /// `sa_flags` of sigaction(2). Linux clears the bits that it does not know (`UAPI_SA_FLAGS`, SA_UNSUPPORTED among
    /// them).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SaFlags: u64 {
        /// No SIGCHLD when children stop.
        const NOCLDSTOP = 0x1;
        /// Children do not become zombies.
        const NOCLDWAIT = 0x2;
        /// Three-argument handler.
        const SIGINFO = 0x4;
        /// Tells support for unknown bits apart; always cleared.
        const UNSUPPORTED = 0x400;
        /// Tag bits in si_addr (no meaning on x86-64).
        const EXPOSE_TAGBITS = 0x800;
        /// `sa_restorer` is valid; mandatory on x86-64.
        const RESTORER = 0x0400_0000;
        /// On the alternate stack.
        const ONSTACK = 0x0800_0000;
        /// Restart interrupted calls.
        const RESTART = 0x1000_0000;
        /// Do not block the signal in its handler.
        const NODEFER = 0x4000_0000;
        /// Back to SIG_DFL on delivery.
        const RESETHAND = 0x8000_0000;
    }
}

guest_struct! {
    /// `struct kernel_sigaction` of rt_sigaction(2).
    SigAction: 32 { sa_handler: u64, sa_flags: u64, sa_restorer: u64, sa_mask: SigSet }
}

impl SigAction {
    /// The flags that Linux knows.
    #[must_use]
    pub const fn flags(&self) -> SaFlags {
        SaFlags::from_bits_truncate(self.sa_flags)
    }
}

guest_struct! {
    /// `stack_t`, sigaltstack(2).
    StackT: 24 { ss_sp: u64, ss_flags: i32, pad: u32, ss_size: u64 }
}
consts! { "`ss_flags` of sigaltstack(2).", u32; SS_ONSTACK = 1, SS_DISABLE = 2, SS_AUTODISARM = 1 << 31 }
/// Smallest alternate stack that sigaltstack(2) takes; the kernel may ask more with large register files
/// (AT_MINSIGSTKSZ).
pub const MINSIGSTKSZ: u64 = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let mut s: SigSet = [Signal::SIGKILL, Signal::SIGRTMAX, Signal::SIGHUP].into_iter().collect();
        assert_eq!(s.0, 1 | 1 << 8 | 1 << 63);
        assert_eq!(s.as_mask().0, 1 | 1 << 63);
        s.remove(Signal::SIGHUP);
        assert_eq!(s.iter().map(Signal::number).collect::<Vec<_>>(), [9, 64]);
        assert_eq!(s.first(), Some(Signal::SIGKILL));
        assert_eq!(SigSet::FULL.iter().count(), 64);
    }

    #[test]
    fn numbers_and_names() {
        assert_eq!(Signal::new(0), None);
        assert_eq!(Signal::new(65), None);
        assert_eq!(Signal::new(-1), None);
        assert_eq!(Signal::new(35).map(|s| s.to_string()), Some("SIGRT_3".into()));
        assert_eq!(Signal::SIGSYS.to_string(), "SIGSYS");
    }

    #[test]
    fn default_actions_follow_signal_7() {
        let of = |a| (1..=31).filter_map(Signal::new).filter(|s| s.default_action() == a).count();
        assert_eq!((of(DefaultAction::Core), of(DefaultAction::Stop), of(DefaultAction::Ignore)), (10, 4, 3));
        assert_eq!(Signal::SIGRTMIN.default_action(), DefaultAction::Terminate);
    }
}
