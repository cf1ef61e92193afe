//! Workers that have nothing to do: how they sleep, and the [`Guard`] among them.

use std::time::Instant;

use parking_lot::MutexGuard;

use super::{Executor, ExecutorState, calls};
use crate::watchdog;

/// The sleeper that wakes up by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// There is none.
    None,
    /// A sleeper has been woken to become it, a thread has been started, or the next one who has nothing to do will.
    Wanted,
    /// It sleeps, for a time.
    Kept,
}

impl ExecutorState {
    pub(super) fn has_sleepers(&self) -> bool {
        self.asleep > 0 || self.guard == Guard::Kept
    }
}

impl Executor {
    pub(super) fn wake_sleeper(&self, s: &ExecutorState) {
        if s.asleep > 0 {
            self.idle.notify_one()
        } else {
            self.guarding.notify_one()
        };
    }

    pub(super) fn wake_all(&self) {
        self.idle.notify_all();
        self.guarding.notify_all();
    }

    /// Sleeps until somebody has something to do; as the guard, if one is wanted by then, a time longer.
    pub(super) fn sleep(&self, s: &mut MutexGuard<'_, ExecutorState>) {
        if s.guard != Guard::Wanted {
            s.asleep += 1;
            self.idle.wait(s);
            s.asleep -= 1;
        }
        // Who has something to run has woken up for that; whoever runs the next future asks again.
        if s.guard == Guard::Wanted {
            s.guard = Guard::None;
            if s.queue.is_empty() {
                self.guard(s);
            }
        }
    }

    /// Sleeps as the guard, and looks now and then whether work of others is to be done.
    pub(super) fn guard(&self, s: &mut MutexGuard<'_, ExecutorState>) {
        if s.guard == Guard::Kept || s.stopping {
            return;
        }
        s.guard = Guard::Kept;
        let start = Instant::now();
        // With nobody at work there is nobody to take over from: events are to be taken in.
        while s.active > 0
            && self.guarding.wait_for(s, calls::TICK).timed_out()
            && !s.take_over()
            && start.elapsed() < watchdog::INTERVAL
        {}
        s.guard = Guard::None;
    }
}
