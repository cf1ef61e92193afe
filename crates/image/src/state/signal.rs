//! Signals and timers.

use serde::{Deserialize, Serialize};

use super::TaskState;
use crate::refs::{Named, Ref};

/// One pending signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedSignal {
    /// `siginfo_t`, 128 bytes.
    #[serde(with = "serde_bytes")]
    pub info: Vec<u8>,
    /// The POSIX timer that sent it.
    pub timer: Option<i32>,
}

/// The 64 actions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalHandlersState {
    /// Handler, flags, restorer and mask of each, from signal 1 on.
    pub actions: Vec<(u64, u64, u64, u64)>,
}

/// A timer of setitimer(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntervalTimerState {
    /// Nanoseconds to the next expiry; 0 is off.
    pub left_ns: u64,
    /// From one expiry to the next.
    pub interval_ns: u64,
}

/// A timer of timer_create(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PosixTimerState {
    /// Its id.
    pub id: i32,
    /// Its clock.
    pub clock: TimerClock,
    /// The signal of an expiry, if it sends one.
    pub event: Option<TimerEvent>,
    /// Nanoseconds to the next expiry, which may be past; none if it is off.
    pub left_ns: Option<i64>,
    /// From one expiry to the next.
    pub interval_ns: u64,
    /// Expiries while its signal was pending.
    pub overrun: u64,
    /// The overrun count of the last delivery.
    pub last_overrun: i32,
}

/// The clock of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum TimerClock {
    /// A clock of clock_gettime(2).
    Host(i32),
    ProcessCpu,
    ThreadCpu(Ref<TaskState>),
}

/// What a timer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TimerEvent {
    pub signal: i32,
    pub value: u64,
    /// One thread, or the process.
    pub thread: Option<Ref<TaskState>>,
}

impl Named for SignalHandlersState {
    const WHAT: &'static str = "table of signal actions";
}
