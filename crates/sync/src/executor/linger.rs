//! Lingering: a future that expects its event in a moment waits for it on its worker, awake, while nobody else has a use for that.
//!
//! To let go and be found again costs more than the whole of a short system call: two wakers, four locks and two readings of the clock.

use std::time::Duration;

use moat_host::cycles::Clock;

use super::{ExecutorState, IS_WORKER, UNPOLLED, executor};
use crate::{busy, trace};

/// Whether the future that runs may look for its event itself for some microseconds: no other is runnable, nobody else leads, and the
/// descriptors and timers have been looked at lately.
#[must_use]
pub fn may_linger() -> bool {
    // A trace shows each stay in the guest as one outside of futures.
    if !IS_WORKER.get() || trace::is_observed() {
        return false;
    }
    executor().state.lock().may_linger()
}

impl ExecutorState {
    fn may_linger(&mut self) -> bool {
        self.unpolled = self.unpolled.saturating_add(1);
        self.unpolled <= UNPOLLED && !self.leading && !self.stopping && self.queue.is_empty()
    }
}

/// Says that the future that runs has lingered for so many cycles.
pub fn lingered(cycles: u64) {
    busy::add_lingered(cycles);
}

/// How long futures have lingered on the calling worker since it was last asked.
#[must_use]
pub fn take_lingered() -> Duration {
    match busy::take_lingered() {
        0 => Duration::ZERO,
        cycles => executor().began.length(cycles, Clock::now()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_come_first() {
        let mut s = ExecutorState::new();
        assert!(s.may_linger());
        s.leading = true;
        assert!(!s.may_linger());
        (s.leading, s.stopping) = (false, true);
        assert!(!s.may_linger());
        s.stopping = false;
        let (runnable, _task) = async_task::spawn(async {}, |_| ());
        s.queue.push_back(runnable);
        assert!(!s.may_linger());
        s.queue.clear();
        // Descriptors and timers are looked at in between.
        assert_eq!((0..1000).filter(|_| s.may_linger()).count() + 4, UNPOLLED as usize);
        s.unpolled = 0;
        assert!(s.may_linger());
    }

    #[test]
    fn what_is_no_worker_lets_go_at_once() {
        assert!(!may_linger());
    }
}
