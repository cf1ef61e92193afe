//! Group stops: SIGSTOP and its like stop all threads of a process, SIGCONT continues them.
//!
//! Source: `prepare_signal`, `do_signal_stop`, `do_notify_parent_cldstop` in `kernel/signal.c`.

use std::task::Poll;

use moat_abi::PollEvents;
use moat_abi::siginfo::{CLD_CONTINUED, CLD_STOPPED};
use moat_abi::signal::{SigSet, Signal};

use crate::process::group::ThreadGroup;
use crate::process::notify;
use crate::signal::state::{GroupReport, GroupSignals};
use crate::task::CurrentTask;
use crate::task::wait::Wait;

/// What a change of the stop state has others be told, once the signal lock is released.
#[derive(Default)]
pub struct Notifications {
    /// The parent is told of a stop or continuation.
    parent: Option<GroupReport>,
    /// Stopped threads may look again.
    resume: bool,
}

impl Notifications {
    /// Adds what `other` says.
    pub fn merge(&mut self, other: Notifications) {
        self.parent = other.parent.or(self.parent);
        self.resume |= other.resume;
    }

    /// Tells the parent and the stopped threads. No signal lock may be held.
    pub fn deliver(self, group: &ThreadGroup) {
        if self.resume {
            group.stop_queue.wake_all();
        }
        match self.parent {
            Some(GroupReport::Stopped(signal)) => notify::parent_of_stop(group, CLD_STOPPED, signal.number()),
            Some(GroupReport::Continued) => notify::parent_of_stop(group, CLD_CONTINUED, Signal::SIGCONT.number()),
            None => {}
        }
    }
}

/// What sending `signal` does at once, whether it is blocked, ignored or not (`prepare_signal`).
pub fn prepare_signal(s: &mut GroupSignals, signal: Signal) -> Notifications {
    let mut n = Notifications::default();
    if SigSet::STOP.contains(signal) {
        s.discard(Signal::SIGCONT.bit());
    } else if signal == Signal::SIGCONT {
        s.discard(SigSet::STOP);
        n = resume(s);
    } else if signal == Signal::SIGKILL {
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
    if s.exit.is_some() || s.exec.is_some() {
        return;
    }
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

impl CurrentTask {
    /// Takes part in the group stop under way and sleeps until it ends.
    pub async fn group_stop(&mut self) {
        let group = self.task().group.clone();
        let id = self.task().id;
        let traced = {
            let mut s = group.signals.lock();
            let Some(t) = s.threads.get_mut(&id) else { return };
            if !t.stop_pending {
                s.recalc(id);
                return;
            }
            t.stop_pending = false;
            let traced = t.trace.is_some();
            t.stopped = !traced;
            let n = participate(&mut s);
            s.recalc(id);
            let signal = s.stop.signal;
            drop(s);
            n.deliver(&group);
            traced.then_some(signal).flatten()
        };
        if let Some(signal) = traced {
            crate::ptrace::stop::group_stop(self, signal).await;
            return;
        }
        let look = |_: &mut CurrentTask| {
            let stopped = group.signals.lock().threads.get(&id).is_some_and(|t| t.stopped && !t.killed);
            if stopped { Poll::Pending } else { Poll::Ready(()) }
        };
        // Only a task that dies leaves the stop early.
        let _ = self.wait_for(&(&group.stop_queue, PollEvents::all()), &Wait::killable("do_signal_stop"), look).await;
        let mut s = group.signals.lock();
        if let Some(t) = s.threads.get_mut(&id) {
            t.stopped = false;
        }
        s.recalc(id);
    }
}
