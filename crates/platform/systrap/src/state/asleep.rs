//! A parked guest thread that is told to wait on a futex instead of in its notification.

use moat_host::seccomp::Answer;
use moat_stub::layout::RING_SLEEP;

use crate::sleepers::{Parked, Sleeper};
use crate::state::{HostThread, Phase, Wait};

impl HostThread {
    /// Lets a parked thread go on that does not wait awake.
    pub(super) fn answer(&self, id: u64, wait: Wait) {
        if wait == Wait::Futex {
            self.area.wake();
        } else {
            self.core.answer(id, wait);
        }
    }
}

impl Sleeper for HostThread {
    fn parked(&self, id: u64, send_to_sleep: bool) -> Parked {
        let mut s = self.state.lock();
        if s.phase != (Phase::Parked { id, wait: Wait::Doorbell }) {
            return Parked::Gone;
        }
        if !send_to_sleep {
            return Parked::Still;
        }
        // Before the answer, so that a thread that finds another state there has a reply.
        self.area.sleep();
        self.enter(&mut s, Phase::Parked { id: 0, wait: Wait::Futex });
        drop(s);
        // If the thread is gone the reaper notices its process's end.
        let _ = self.core.listener.answer(id, Answer::Value(RING_SLEEP));
        Parked::Asleep
    }
}
