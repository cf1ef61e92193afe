//! Workers that have nothing to do: how they sleep, and the [`Guard`] among them.

use parking_lot::MutexGuard;

use super::{Executor, ExecutorState};
use crate::watchdog;

/// The sleeper that wakes up by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// There is none.
    None,
    /// A sleeper has been woken to become it.
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
        s.asleep += 1;
        self.idle.wait(s);
        s.asleep -= 1;
        if s.guard != Guard::Wanted {
            return;
        }
        s.guard = Guard::None;
        // Who has something to run has woken up for that; whoever runs the next future asks again.
        if s.queue.is_empty() && !s.stopping {
            s.guard = Guard::Kept;
            self.guarding.wait_for(s, watchdog::INTERVAL);
            s.guard = Guard::None;
        }
    }
}
