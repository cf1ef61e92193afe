//! [`host_call`]: host calls that may sleep are made in place, and cost others nothing unless they do.
//!
//! A worker says that it is inside, and since when, and makes the call. Whoever leads or guards while futures run looks each [`TICK`], and
//! takes over from one that has been inside for [`PATIENCE_NS`]: that worker counts as active no more until it is back, and who has seen
//! it does its work. It is `entersyscall` and `sysmon` of Go's scheduler. There is a guard whenever a future runs and nobody
//! leads, if need be a thread more: else two calls on two workers would leave nobody to look.

use std::time::{Duration, Instant};

use super::{ExecutorState, IS_WORKER, executor};
use crate::{busy, watchdog};

/// How often is looked: with [`PATIENCE_NS`], what others wait for a call that sleeps.
pub(super) const TICK: Duration = Duration::from_millis(8);
/// Shorter calls are let finish.
const PATIENCE_NS: u64 = 1_000_000;

/// Makes a host call that may sleep: one that goes to a disk, or to another process.
///
/// Use [`super::block_in_place`] for one that will.
pub fn host_call<R>(f: impl FnOnce() -> R) -> R {
    if !IS_WORKER.get() {
        return f();
    }
    // What `f` makes runnable is for others; and calls inside of it are part of it.
    IS_WORKER.set(false);
    let start = Instant::now();
    watchdog::enter_call();
    let r = f();
    if watchdog::leave_call() == watchdog::Call::TakenOver {
        busy::add_blocked(start.elapsed());
        let mut s = executor().state.lock();
        s.active = s.active.saturating_add(1);
    }
    IS_WORKER.set(true);
    r
}

impl ExecutorState {
    /// Looks at the workers that are in host calls; true if the caller has work of others to do from here on.
    pub(super) fn take_over(&mut self) -> bool {
        let taken = watchdog::take_over(PATIENCE_NS);
        self.active = self.active.saturating_sub(taken);
        taken > 0
    }
}
