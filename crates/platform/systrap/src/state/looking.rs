//! A guest thread as sentry threads look at it: how long, and where it runs meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_host::cycles::{Clock, cycle_count};
use moat_platform::Stay;
use moat_stub::layout::info;
use moat_sync::executor;

use crate::area::{call_slot, control};
use crate::pace::LINGER_CYCLES;
use crate::placement::Step;
use crate::state::{HostThread, Phase, TakenIn, Wait};

impl HostThread {
    /// Takes the stop of a thread that waits awake; false if there is none.
    pub fn look(self: &Arc<Self>) -> bool {
        self.area.requests() && self.stopped(None)
    }

    /// Waits a moment for the stop of a thread that is expected to stop soon, on its owner's worker, unless others have a use for that.
    pub fn linger(self: &Arc<Self>) {
        if !self.core.spinner.is_watching() || !executor::may_linger() {
            return;
        }
        let start = cycle_count();
        loop {
            // The clock is dearer than a look.
            if (0..16).any(|_| self.stops()) {
                // If its call has to wait, it is told so when this worker looks for others.
                self.core.spinner.found(self, cycle_count());
                break;
            }
            if self.rings() || cycle_count().wrapping_sub(start) > LINGER_CYCLES {
                break;
            }
        }
        executor::lingered(cycle_count().wrapping_sub(start));
    }

    /// Takes the stop of a thread that waits awake, for its owner, who has asked for it; false if there is none.
    fn stops(self: &Arc<Self>) -> bool {
        if self.area.requests() {
            return matches!(self.take_in(None), TakenIn::Stop(_));
        }
        std::hint::spin_loop();
        false
    }

    /// Whether the thread has stopped and rung, which is not taken in yet.
    pub fn rings(&self) -> bool {
        self.area.rings() && self.is_away()
    }

    /// For how many cycles it is worth looking at the thread, if it is.
    pub fn look_cycles(&self) -> Option<u64> {
        let s = self.state.lock();
        let hot = matches!(s.phase, Phase::Running | Phase::Ordered) && s.pace.is_hot();
        hot.then(|| s.pace.look_cycles())
    }

    /// Has it sleep, if it waits awake: its reply will take long, and others need the CPU.
    pub fn lie_down(&self) {
        let mut s = self.state.lock();
        if matches!(s.phase, Phase::Parked { wait: Wait::Awake, .. }) && self.area.lie_down() {
            self.enter(&mut s, Phase::Parked { id: 0, wait: Wait::Futex });
        }
    }

    /// Nobody in a crowd has stopped for some time: it may be the one that runs.
    pub fn seems_to_compute(&self) {
        let mut s = self.state.lock();
        let runs = matches!(s.phase, Phase::Running) && self.area.read(control!(resumed_at)) != s.resumed_at;
        if runs && std::mem::take(&mut s.brief) {
            self.core.spinner.not_brief();
        }
    }

    /// Whether it waits in a call that the host carries out, by its own word.
    pub fn rests(&self) -> bool {
        self.area.read32(control!(in_host)) != 0 && self.is_away()
    }

    /// Counts it among those that wait in the host, or not any more.
    pub fn note_rest(&self) {
        let mut s = self.state.lock();
        let rests = s.waits || self.area.read32(control!(in_host)) != 0;
        if s.phase != Phase::Running || rests == s.rests {
            return;
        }
        s.rests = rests;
        self.core.spinner.rest(if rests { 1 } else { -1 });
        if rests && std::mem::take(&mut s.brief) {
            self.core.spinner.not_brief();
        }
    }

    /// It is not on the list of those that are looked at any more.
    pub fn unwatch(&self) {
        self.watched.store(false, Ordering::Relaxed);
    }

    /// The thread did not stop while it was looked at on CPU `here`.
    pub fn cool(&self, here: u32) {
        let mut s = self.state.lock();
        if !s.pace.is_loss() {
            return;
        }
        let placed = s.placement.take_back();
        // Either it never ran, or in the place of the thread that looked; then it has rung.
        let in_place = self.area.rings() && self.area.read32(call_slot!(info)) & info::CPU == here;
        let starved = placed.is_none() && (in_place || self.area.read(control!(resumed_at)) == s.resumed_at);
        if starved && s.placement.starved() {
            s.pace.starved();
            self.core.spinner.host_packs();
        } else {
            s.pace.cool();
        }
        drop(s);
        self.place(placed);
    }

    /// The last stay in application code. The guest can have written anything there.
    pub fn stay(&self) -> Stay {
        let now = Clock::now();
        let at = |cycles| self.core.clock.at(cycles, now);
        let (taken, stopped) = (self.area.read(control!(resumed_at)), self.area.read(control!(stopped_at)));
        let way = if self.waits_awake() { "memory" } else { "doorbell" };
        Stay { taken_ns: at(taken), stopped_ns: at(stopped), way }
    }

    /// Whether it is parked where a reply in memory reaches it.
    fn waits_awake(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Parked { wait: Wait::Awake, .. })
    }

    pub(super) fn place(&self, step: Option<Step>) {
        if let Some(step) = step {
            self.core.spinner.places.apply(self.tid, step);
        }
    }

    /// The thread may run anywhere: it is about to make another.
    pub fn place_anywhere(&self) {
        let step = self.state.lock().placement.take_back();
        self.place(step);
    }

    /// The guest chooses where the thread runs from here on.
    pub fn leave_placement(&self) {
        let step = self.state.lock().placement.bar();
        self.place(step);
    }
}
