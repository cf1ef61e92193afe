//! What a process has of timers: [`GroupTimers`], part of its thread group. What they do is in `itimer.rs` and `posix.rs`.

use std::collections::BTreeMap;

use moat_abi::signal::Signal;
use moat_identity::TaskId;
use moat_sync::timer::Timer;
use moat_sync::{LockClass, Mutex};

/// The timers of one process.
pub struct GroupTimers {
    /// setitimer(2), alarm(2).
    pub interval: Mutex<IntervalTimers>,
    /// timer_create(2).
    pub posix: Mutex<PosixTimers>,
}

impl Default for GroupTimers {
    fn default() -> Self {
        GroupTimers {
            interval: Mutex::new(LockClass::KernelTimer, IntervalTimers::default()),
            posix: Mutex::new(LockClass::KernelTimer, PosixTimers::default()),
        }
    }
}

/// When to look at a CPU clock of `threads` threads that is to go on by `left_ns`: it can grow as fast as all of them together, and looking
/// early costs little, where looking late is an error. But no oftener than Linux, which looks at each tick.
pub(super) fn next_look_ns(left_ns: u64, threads: usize) -> u64 {
    const TICK_NS: u64 = 4_000_000;
    (left_ns / u64::try_from(threads).unwrap_or(1).max(1)).max(TICK_NS)
}

/// Remaining and repeating time, both in nanoseconds; zero is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// Until the next expiry.
    pub value_ns: u64,
    /// From one expiry to the next.
    pub interval_ns: u64,
}

#[derive(Default)]
pub(super) struct IntervalTimer {
    /// On the timer's clock; 0 is off.
    pub(super) expires_ns: u64,
    pub(super) interval_ns: u64,
    pub(super) timer: Option<Timer>,
}

/// The three timers of a process, and the watch over RLIMIT_CPU.
#[derive(Default)]
pub struct IntervalTimers {
    pub(super) timers: [IntervalTimer; 4],
}

/// What an expiry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `SIGEV_NONE`.
    Nothing,
    /// `SIGEV_SIGNAL`, `SIGEV_THREAD_ID`.
    Signal {
        /// The signal.
        signal: Signal,
        /// `sigev_value`; the timer's id if the caller gave no event.
        value: u64,
        /// One thread, or the process.
        thread: Option<TaskId>,
    },
}

/// The clock of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// A clock of the host.
    Host(i32),
    /// The CPU time of the process.
    ProcessCpu,
    /// The CPU time of one thread.
    ThreadCpu(TaskId),
}

pub(super) struct PosixTimer {
    pub(super) clock: Clock,
    pub(super) event: Event,
    pub(super) expires_ns: u64,
    pub(super) interval_ns: u64,
    /// Expiries while its signal was pending.
    pub(super) overrun: u64,
    pub(super) last_overrun: i32,
    pub(super) timer: Option<Timer>,
}

/// The POSIX timers of a process.
#[derive(Default)]
pub struct PosixTimers {
    pub(super) next: i32,
    pub(super) timers: BTreeMap<i32, PosixTimer>,
}
