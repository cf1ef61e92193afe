//! [`host_call`]: host calls that may sleep are made in place, and cost others nothing unless they do.
//!
//! A worker says that it is inside, and since when, and makes the call. Whoever leads or guards while futures run looks each [`TICK`], and
//! takes over from one that has been inside for [`PATIENCE_NS`]: that worker counts as active no more until it is back, and who has seen
//! it does its work. It is `entersyscall` and `sysmon` of Go's scheduler. There is a guard whenever a future runs and nobody
//! leads, if need be a thread more: else two calls on two workers would leave nobody to look.
//!
//! Who waits for a lock may wait for one that is inside such a call, and is taken over from in the same way ([`watchdog::wait_for_lock`]).
//!
//! After a call that has slept the next ones are expected to sleep as well, and hand the role over at once ([`Lately`]): a slow disk or a
//! stopped gofer holds up the others once, and not at each call.

use std::sync::atomic::{AtomicU32, Ordering};
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
    let lately = &executor().lately;
    if lately.have_slept() {
        let start = Instant::now();
        let r = super::block_in_place(f);
        lately.took(start.elapsed());
        return r;
    }
    // What `f` makes runnable is for others; and calls inside of it are part of it.
    IS_WORKER.set(false);
    let start = Instant::now();
    watchdog::enter_call();
    let r = f();
    lately.took(start.elapsed());
    if watchdog::leave_call() == watchdog::Call::TakenOver {
        busy::add_blocked(start.elapsed());
        is_back();
    }
    IS_WORKER.set(true);
    r
}

/// Whether calls have lately slept.
#[derive(Debug, Default)]
pub(super) struct Lately {
    /// So many calls more are taken for ones that sleep.
    wary: AtomicU32,
}

/// Calls that a slow one makes wary of.
const WARY: u32 = 8;

impl Lately {
    /// Whether the next call is expected to sleep.
    fn have_slept(&self) -> bool {
        self.wary.load(Ordering::Relaxed) != 0
    }

    /// How long a call took. A worker that was kept from its CPU for so long is taken for one that slept: that costs little.
    fn took(&self, time: Duration) {
        let wary = self.wary.load(Ordering::Relaxed);
        if time > Duration::from_nanos(PATIENCE_NS) {
            self.wary.store(WARY, Ordering::Relaxed);
        } else if wary != 0 {
            // Two at once may count as one: it is a guess.
            self.wary.store(wary.saturating_sub(1), Ordering::Relaxed);
        }
    }
}

/// A worker that was taken over from is at work again.
pub(super) fn is_back() {
    let mut s = executor().state.lock();
    s.active = s.active.saturating_add(1);
}

impl ExecutorState {
    /// Looks at the workers that are in host calls; true if the caller has work of others to do from here on.
    pub(super) fn take_over(&mut self) -> bool {
        let taken = watchdog::take_over(PATIENCE_NS);
        self.active = self.active.saturating_sub(taken);
        taken > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_call_that_slept_the_next_ones_are_expected_to() {
        let lately = Lately::default();
        let quick = Duration::from_micros(50);
        lately.took(quick);
        assert!(!lately.have_slept());
        lately.took(Duration::from_millis(2));
        for _ in 0..WARY {
            assert!(lately.have_slept());
            lately.took(quick);
        }
        assert!(!lately.have_slept());
    }
}
