//! [`GroupSignals`]: all signal state of a thread group, under one lock.
//!
//! It also holds what stops and ends threads (group exit, group stop, tracing), because those decide together with
//! signals whether a thread may run.

use std::collections::BTreeMap;
use std::sync::Arc;

use moat_abi::clone::WaitStatus;
use moat_abi::ptrace::UserRegs;
use moat_abi::signal::{SigSet, Signal};

use crate::ptrace::Trace;
use crate::signal::{SigHand, SignalQueue, TimerRef};
use crate::task::work::Work;
use crate::task::{Task, TaskId};

/// Signal state of one thread.
pub struct ThreadSignals {
    /// The thread.
    pub task: Arc<Task>,
    /// Directed at this thread.
    pub pending: SignalQueue,
    /// The mask.
    pub blocked: SigSet,
    /// The mask to put back once sigsuspend(2), ppoll(2) and the like have ended (`saved_sigmask`).
    pub saved_mask: Option<SigSet>,
    /// The mask behind the one that sigtimedwait(2) opened (`real_blocked`).
    pub real_blocked: Option<SigSet>,
    /// To die: group exit, execve of a sibling, the death of a namespace's init.
    pub killed: bool,
    /// To take part in the group stop under way (`JOBCTL_STOP_PENDING`).
    pub stop_pending: bool,
    /// Asleep in a group stop.
    pub stopped: bool,
    /// Its tracer, if it is traced.
    pub trace: Option<Box<Trace>>,
}

impl ThreadSignals {
    /// A running thread with this mask.
    #[must_use]
    pub fn new(task: Arc<Task>, blocked: SigSet) -> ThreadSignals {
        ThreadSignals {
            task,
            pending: SignalQueue::default(),
            blocked,
            saved_mask: None,
            real_blocked: None,
            killed: false,
            stop_pending: false,
            stopped: false,
            trace: None,
        }
    }

    /// Whether the thread is in a ptrace stop.
    #[must_use]
    pub fn in_trace_stop(&self) -> bool {
        self.trace.as_ref().is_some_and(|t| t.stop.is_some())
    }
}

/// A stop or continuation of a whole group that its parent may still wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupReport {
    /// All threads are stopped by this signal.
    Stopped(Signal),
    /// The group was continued.
    Continued,
}

/// The group stop (`do_signal_stop`).
#[derive(Default)]
pub struct GroupStop {
    /// The signal of the stop under way or complete; `None` if the group runs.
    pub signal: Option<Signal>,
    /// All threads have stopped (`SIGNAL_STOP_STOPPED`).
    pub complete: bool,
    /// What wait(2) has not taken yet.
    pub report: Option<GroupReport>,
}

/// Why all threads of the group are to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupExit {
    /// The status for the parent.
    pub status: WaitStatus,
}

/// A thread as a core file shows it.
pub(crate) struct ThreadImage {
    pub(crate) tid: i32,
    pub(crate) regs: UserRegs,
    /// The XSAVE image as NT_X86_XSTATE has it.
    pub(crate) xstate: Vec<u8>,
    pub(crate) pending: SigSet,
    pub(crate) blocked: SigSet,
    pub(crate) user_ns: u64,
    pub(crate) system_ns: u64,
}

/// Signal state of a thread group.
pub struct GroupSignals {
    /// Directed at the process.
    pub shared: SignalQueue,
    /// The live threads.
    pub threads: BTreeMap<TaskId, ThreadSignals>,
    /// The actions.
    pub sighand: Arc<SigHand>,
    /// Set once: the process ends.
    pub exit: Option<GroupExit>,
    /// While a core file is made: the threads that have ended, as they were.
    pub(crate) dump: Option<Vec<ThreadImage>>,
    /// How the leader ended, if it has while others live.
    pub leader_status: Option<WaitStatus>,
    /// The thread whose execve waits for the others to die.
    pub exec: Option<TaskId>,
    /// Group stop.
    pub stop: GroupStop,
    /// An init: signals with the default action do not reach it from inside its namespace.
    pub unkillable: bool,
}

impl GroupSignals {
    /// State of a group without threads yet.
    #[must_use]
    pub fn new(sighand: Arc<SigHand>) -> GroupSignals {
        GroupSignals {
            shared: SignalQueue::default(),
            threads: BTreeMap::new(),
            sighand,
            exit: None,
            dump: None,
            leader_status: None,
            exec: None,
            stop: GroupStop::default(),
            unkillable: false,
        }
    }

    /// Unblocked signals pending for `id`.
    #[must_use]
    pub fn deliverable(&self, id: TaskId) -> SigSet {
        self.threads.get(&id).map_or(SigSet::EMPTY, |t| t.pending.set().union(self.shared.set()).difference(t.blocked))
    }

    /// Recomputes the work flags of `id` (`recalc_sigpending_tsk`); gives them.
    pub fn recalc(&self, id: TaskId) -> Work {
        let Some(t) = self.threads.get(&id) else { return Work::empty() };
        let mut work = Work::empty();
        work.set(Work::SIGNAL, !self.deliverable(id).is_empty());
        work.set(Work::KILL, t.killed);
        work.set(Work::STOP, t.stop_pending);
        // The freezer does not hold up a task that dies.
        work.set(Work::FREEZE, !t.killed && t.task.group.container.is_frozen());
        work.set(Work::SAVE, !t.killed && t.task.group.container.is_being_saved());
        work.set(Work::TRAP, t.trace.as_ref().is_some_and(|t| t.trap_pending()));
        t.task.flags.set(work);
        work
    }

    /// Recomputes the flags of `id` and makes it look at them (`signal_wake_up`).
    pub fn wake(&self, id: TaskId) {
        if self.recalc(id).is_empty() {
            return;
        }
        if let Some(t) = self.threads.get(&id) {
            t.task.interrupt();
        }
    }

    /// Recomputes the flags of all threads.
    pub fn recalc_all(&self) {
        for id in self.threads.keys() {
            self.recalc(*id);
        }
    }

    /// Makes all threads look at their flags.
    pub fn wake_all(&self) {
        for id in self.threads.keys() {
            self.wake(*id);
        }
    }

    /// Has all threads die; the first caller's status counts (`do_group_exit`, `zap_other_threads`).
    pub fn start_exit(&mut self, status: WaitStatus) {
        if self.exit.is_none() {
            self.exit = Some(GroupExit { status });
        }
        // A stop does not outlast the exit.
        self.stop.signal = None;
        for t in self.threads.values_mut() {
            t.killed = true;
            t.stop_pending = false;
        }
        self.wake_all();
    }

    /// Whether the signal of a POSIX timer is pending.
    #[must_use]
    pub fn has_timer(&self, timer: TimerRef) -> bool {
        self.shared.has_timer(timer) || self.threads.values().any(|t| t.pending.has_timer(timer))
    }

    /// Drops pending instances of `gone` everywhere.
    pub fn discard(&mut self, gone: SigSet) {
        self.shared.discard(gone);
        for t in self.threads.values_mut() {
            t.pending.discard(gone);
        }
        self.recalc_all();
    }

    /// Sets the mask of `id`, and wakes siblings for shared signals that it now blocks (`__set_task_blocked`).
    pub fn set_blocked(&mut self, id: TaskId, mask: SigSet) {
        let Some(t) = self.threads.get_mut(&id) else { return };
        let newly = mask.as_mask().difference(t.blocked);
        t.blocked = mask.as_mask();
        let orphaned = newly.intersection(self.shared.set());
        self.recalc(id);
        if !orphaned.is_empty() {
            self.retarget(id, orphaned);
        }
    }

    /// Wakes siblings of `id` that can take the shared signals `which` (`retarget_shared_pending`).
    pub fn retarget(&self, id: TaskId, which: SigSet) {
        let mut left = which.intersection(self.shared.set());
        for (other, t) in &self.threads {
            if left.is_empty() {
                return;
            }
            let takes = left.difference(t.blocked);
            if *other == id || t.killed || takes.is_empty() {
                continue;
            }
            left = left.difference(takes);
            self.wake(*other);
        }
    }
}
