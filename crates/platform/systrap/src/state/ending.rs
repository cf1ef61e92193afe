//! A guest thread whose owner has gone: it ends, or is kept for the next task.

use std::sync::Arc;

use moat_stub::layout::REPLY_EXIT;

use crate::area::control;
use crate::state::{HostThread, Leaves, Phase, Wait};

impl HostThread {
    /// The owner has gone: the host thread ends, now or at its next stop, or is kept for the next task.
    pub fn abandon(self: &Arc<Self>, leaves: Leaves) {
        let mut s = self.state.lock();
        s.orphan = true;
        let (waker, born) = (s.waker.take(), s.born.take());
        match s.phase {
            Phase::Parked { id, wait } => {
                drop(s);
                if leaves == Leaves::Traces || self.is_leader() || !self.space.keep(self) {
                    self.end(id, wait);
                }
            }
            Phase::Running => {
                drop(s);
                self.kick();
            }
            Phase::Ordered | Phase::Dead => drop(s),
        }
        drop((waker, born));
    }

    /// Notes what the host thread is called, for its next owner.
    pub fn set_name(&self, name: Option<[u8; 16]>) {
        self.state.lock().name = name;
    }

    /// What the host thread is called, if its last owner has named it.
    pub fn name(&self) -> Option<[u8; 16]> {
        self.state.lock().name
    }

    /// Gives a kept thread a new owner: where it is parked and how quick it is stay as they were, all else is as of a new one. False if
    /// it is not parked.
    pub fn adopt(&self) -> bool {
        let mut s = self.state.lock();
        let parked = matches!(s.phase, Phase::Parked { .. });
        if parked {
            // What came for the last owner is not for the next one.
            (s.orphan, s.kick, s.stop) = (false, false, None);
        }
        parked
    }

    /// Ends a parked thread that has no owner. The first thread of a process stays parked instead: the host finds the
    /// memory of a process by it, and it dies with the process.
    pub(super) fn end(&self, id: u64, wait: Wait) {
        if self.is_leader() {
            return;
        }
        self.area.write32(control!(order_count), 0);
        self.area.write32(control!(reply), REPLY_EXIT);
        if wait == Wait::Futex {
            self.ended(None);
            self.area.wake();
            return;
        }
        let mut ring = Some(id);
        if wait == Wait::Awake {
            let mut s = self.state.lock();
            // It may have rung since.
            ring = match s.phase {
                Phase::Parked { id, wait: Wait::Doorbell } => Some(id),
                _ => None,
            };
            if ring.is_none() && !self.area.reply_awake() {
                // It rings next: the ring finds what is owed, and this is called again.
                self.enter(&mut s, Phase::Running);
                self.goes_on(&mut s);
                s.owed = true;
                return;
            }
        }
        self.ended(ring);
    }

    /// The reply that ends the thread is in its area.
    pub(super) fn ended(&self, ring: Option<u64>) {
        self.core.forget_thread_if(self);
        self.died();
        if let Some(id) = ring {
            self.core.answer(id, Wait::Doorbell);
        }
        self.space.release_slot(self.slot);
    }
}
