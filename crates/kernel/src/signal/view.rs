//! What system calls, signalfds and /proc do with a group's signals, without its lock in their hands.

use std::sync::Arc;

use moat_abi::siginfo::SigInfo;
use moat_abi::signal::{SigAction, SigSet, Signal};
use moat_identity::Pid;

use crate::process::group::ThreadGroup;
use crate::signal::SigHand;
use crate::signal::queue::Queued;
use crate::signal::state::GroupSignals;
use crate::task::{CurrentTask, Task, TaskId};

/// What a task is doing, as far as signals and tracers decide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// It has ended.
    Dead,
    /// In a ptrace stop.
    TracingStop,
    /// In a group stop.
    Stopped,
    /// It runs or sleeps.
    Live,
}

/// A thread's signals for /proc/PID/status and stat.
#[derive(Clone)]
pub struct SignalReport {
    /// Pending for the thread.
    pub pending: SigSet,
    /// Pending for the process.
    pub shared: SigSet,
    /// The mask.
    pub blocked: SigSet,
    /// Ignored by the process.
    pub ignored: SigSet,
    /// With a handler.
    pub caught: SigSet,
    /// Instances that are queued for the process and all of its threads.
    pub queued: usize,
    /// The process of the tracer.
    pub tracer: Option<Arc<Pid>>,
}

/// Takes the first of `wanted` that is pending for thread `id` or for the process.
fn take(s: &mut GroupSignals, id: TaskId, wanted: SigSet) -> Option<(Signal, Queued)> {
    let own = s.threads.get_mut(&id)?.pending.take(wanted);
    own.or_else(|| s.shared.take(wanted))
}

impl ThreadGroup {
    /// The table of actions, which CLONE_SIGHAND shares.
    #[must_use]
    pub fn sighand(&self) -> Arc<SigHand> {
        self.signals.lock().sighand.clone()
    }

    /// Gives the action of `signal`, after replacing it if there is a `new` one (`do_sigaction`).
    pub fn sigaction(&self, signal: Signal, new: Option<SigAction>) -> SigAction {
        let mut s = self.signals.lock();
        let Some(new) = new else { return s.sighand.get(signal) };
        let previous = s.sighand.set(signal, new);
        // What would be ignored does not stay pending (POSIX.1).
        if s.sighand.ignores(signal) {
            s.discard(signal.bit());
        }
        previous
    }

    /// Lets signals with the default action end it although it is an init.
    pub fn make_killable(&self) {
        self.signals.lock().unkillable = false;
    }

    /// What is pending for thread `id` and for the process.
    #[must_use]
    pub fn pending_for(&self, id: TaskId) -> SigSet {
        let s = self.signals.lock();
        s.threads.get(&id).map_or(SigSet::EMPTY, |t| t.pending.set()).union(s.shared.set())
    }

    /// Takes one of `wanted` that is pending for thread `id`, which may have ended, or for the process.
    #[must_use]
    pub fn take_pending(&self, id: TaskId, wanted: SigSet) -> Option<SigInfo> {
        let mut s = self.signals.lock();
        let own = s.threads.get_mut(&id).and_then(|t| t.pending.take(wanted));
        let (_, taken) = own.or_else(|| s.shared.take(wanted))?;
        s.recalc_all();
        Some(taken.info)
    }
}

impl Task {
    /// What it is doing, as far as signals and tracers decide it.
    #[must_use]
    pub fn run_state(&self) -> RunState {
        match self.group.signals.lock().threads.get(&self.id) {
            None => RunState::Dead,
            Some(t) if t.in_trace_stop() => RunState::TracingStop,
            Some(t) if t.stopped => RunState::Stopped,
            Some(_) => RunState::Live,
        }
    }

    /// Its signals.
    #[must_use]
    pub fn signal_report(&self) -> SignalReport {
        let s = self.group.signals.lock();
        let own = s.threads.get(&self.id);
        let tracer = own.and_then(|t| t.trace.as_ref()).and_then(|t| t.tracer.upgrade());
        let (ignored, caught) = s.sighand.summary();
        SignalReport {
            pending: own.map_or(SigSet::EMPTY, |t| t.pending.set()),
            shared: s.shared.set(),
            blocked: own.map_or(SigSet::EMPTY, |t| t.blocked),
            ignored,
            caught,
            queued: s.shared.len() + s.threads.values().map(|t| t.pending.len()).sum::<usize>(),
            tracer: tracer.map(|t| t.group.pid().clone()),
        }
    }
}

impl CurrentTask {
    /// What is pending and blocked: sigpending(2).
    #[must_use]
    pub fn pending_blocked(&self) -> SigSet {
        self.group.pending_for(self.id).intersection(self.blocked())
    }

    /// Takes one of `wanted` that is pending.
    pub fn take_signal(&self, wanted: SigSet) -> Option<(Signal, SigInfo)> {
        let found = {
            let mut s = self.group.signals.lock();
            let found = take(&mut s, self.id, wanted);
            s.recalc(self.id);
            found
        };
        self.with_overrun(found)
    }

    /// Lets the signals in `wanted` end the wait that follows, though they are blocked (`real_blocked`).
    pub fn open_mask(&self, wanted: SigSet) {
        let mut s = self.group.signals.lock();
        if let Some(t) = s.threads.get_mut(&self.id) {
            t.real_blocked = Some(t.blocked);
            t.blocked = t.blocked.difference(wanted);
        }
        s.recalc(self.id);
    }

    /// Blocks them again, and takes the one that came.
    pub fn close_mask(&self, wanted: SigSet) -> Option<(Signal, SigInfo)> {
        let found = {
            let mut s = self.group.signals.lock();
            if let Some(t) = s.threads.get_mut(&self.id)
                && let Some(mask) = t.real_blocked.take()
            {
                t.blocked = mask;
            }
            let found = take(&mut s, self.id, wanted);
            s.recalc(self.id);
            found
        };
        self.with_overrun(found)
    }

    /// The overrun count of a timer's signal is taken with the signals unlocked.
    fn with_overrun(&self, found: Option<(Signal, Queued)>) -> Option<(Signal, SigInfo)> {
        let (signal, mut queued) = found?;
        if let Some(timer) = queued.timer {
            queued.info.set_overrun(self.timer_delivered(timer));
        }
        Some((signal, queued.info))
    }
}
