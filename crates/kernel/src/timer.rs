//! Timers of guests: sleeping, interval timers, POSIX timers.

pub mod itimer;
pub mod posix;
pub mod sleep;

use moat_sync::{LockClass, Mutex};

/// The timers of one process.
pub struct GroupTimers {
    /// setitimer(2), alarm(2).
    pub interval: Mutex<itimer::IntervalTimers>,
    /// timer_create(2).
    pub posix: Mutex<posix::PosixTimers>,
}

impl Default for GroupTimers {
    fn default() -> Self {
        GroupTimers {
            interval: Mutex::new(LockClass::KernelTimer, itimer::IntervalTimers::default()),
            posix: Mutex::new(LockClass::KernelTimer, posix::PosixTimers::default()),
        }
    }
}
