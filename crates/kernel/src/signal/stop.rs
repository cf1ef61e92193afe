//! Group stops: SIGSTOP and its like stop all threads of a process, SIGCONT continues them. This is what changes in a
//! [`GroupSignals`]; who sleeps is in `group_stop.rs`, who is told in `process/notify.rs`.
//!
//! Source: `prepare_signal`, `do_signal_stop` in `kernel/signal.c`.

use moat_abi::signal::{SigSet, Signal};

use crate::signal::state::{GroupReport, GroupSignals};

/// What a change of the stop state has others be told, once the signal lock is released.
#[derive(Default)]
pub struct Notifications {
    /// The parent is told of a stop or continuation.
    pub(crate) parent: Option<GroupReport>,
    /// Stopped threads may look again.
    pub(crate) resume: bool,
}

impl Notifications {
    /// Adds what `other` says.
    pub fn merge(&mut self, other: Notifications) {
        self.parent = other.parent.or(self.parent);
        self.resume |= other.resume;
    }
}

/// What sending `signal` does at once, whether it is blocked, ignored or not (`prepare_signal`).
pub fn prepare_signal(s: &mut GroupSignals, signal: Signal) -> Notifications {
    let mut n = Notifications::default();
    if SigSet::STOP.contains(signal) {
        // Each cancels the other, even if blocked or ignored.
        s.discard(Signal::SIGCONT.bit());
    } else if signal == Signal::SIGCONT {
        s.discard(SigSet::STOP);
        n = resume(s);
    } else if signal == Signal::SIGKILL {
        // Stopped threads must wake to die.
        n.resume = true;
    }
    n
}

/// Ends the group stop.
fn resume(s: &mut GroupSignals) -> Notifications {
    let mut n = Notifications::default();
    if let Some(signal) = s.stop.signal.take() {
        // A stop that was not complete is reported as if it had been: CLD_STOPPED, as Linux does.
        n.parent = Some(if s.stop.complete { GroupReport::Continued } else { GroupReport::Stopped(signal) });
        s.stop.report = Some(GroupReport::Continued);
        n.resume = true;
    }
    s.stop.complete = false;
    let ids: Vec<_> = s.threads.keys().copied().collect();
    for id in ids {
        if let Some(t) = s.threads.get_mut(&id) {
            t.stop_pending = false;
            t.stopped = false;
            if let Some(trace) = &mut t.trace {
                trace.group_continued();
            }
        }
        s.wake(id);
    }
    n
}

/// Starts a group stop for `signal`, unless the process is ending. The caller then takes part in it by its work flags.
pub fn start(s: &mut GroupSignals, signal: Signal) {
    // A thread that waits for its siblings' deaths, or dies, does not stop.
    if s.exit.is_some() || s.exec.is_some() {
        return;
    }
    // A second stop signal changes nothing.
    if s.stop.signal.is_none() {
        s.stop.signal = Some(signal);
        s.stop.complete = false;
    }
    let ids: Vec<_> = s.threads.keys().copied().collect();
    for id in ids {
        if let Some(t) = s.threads.get_mut(&id)
            && !t.stopped
            && !t.killed
        {
            t.stop_pending = true;
        }
        s.wake(id);
    }
}

/// Takes note that a thread has stopped or will not: the stop is complete with the last one (`task_participate_group_stop`).
#[must_use]
pub fn participate(s: &mut GroupSignals) -> Notifications {
    let mut n = Notifications::default();
    let Some(signal) = s.stop.signal else { return n };
    if !s.stop.complete && s.threads.values().all(|t| !t.stop_pending) {
        s.stop.complete = true;
        s.stop.report = Some(GroupReport::Stopped(signal));
        n.parent = Some(GroupReport::Stopped(signal));
    }
    n
}
