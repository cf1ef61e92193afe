//! SIGCHLD: telling the parent (or tracer) that a child ended, stopped or went on.
//!
//! Source: `do_notify_parent`, `do_notify_parent_cldstop` in `kernel/signal.c`.

use std::sync::Arc;

use moat_abi::PollEvents;
use moat_abi::clone::{CoreDump, WaitStatus};
use moat_abi::siginfo::{CLD_CONTINUED, CLD_DUMPED, CLD_EXITED, CLD_KILLED, CLD_STOPPED, ChildInfo, SigInfo};
use moat_abi::signal::{SIG_IGN, SaFlags, Signal};

use crate::process::group::ThreadGroup;
use crate::signal::send::send_to_process;
use crate::signal::state::GroupReport;
use crate::signal::stop::Notifications;
use crate::task::Task;

/// What `child` looks like from `reader`: for SIGCHLD and waitid(2).
#[must_use]
pub fn child_info(child: &Task, reader: &ThreadGroup, status: i32) -> ChildInfo {
    let ns = reader.pid().namespace();
    let creds = child.creds();
    let usage = child.group.usage();
    let uid = reader.any_thread().map_or(creds.uid, |t| t.creds().user_ns.show_uid(creds.uid));
    ChildInfo {
        pid: child.pid().number_in(ns),
        uid,
        status,
        utime_ticks: usage.user_ticks(),
        stime_ticks: usage.system_ticks(),
    }
}

/// `si_code` and `si_status` of the end of a child.
#[must_use]
pub fn exit_code(status: WaitStatus) -> (i32, i32) {
    match status {
        WaitStatus::Exited(code) => (CLD_EXITED, i32::from(code)),
        WaitStatus::Signaled { signal, core: CoreDump::Dumped } => (CLD_DUMPED, i32::from(signal)),
        WaitStatus::Signaled { signal, core: CoreDump::NotDumped } => (CLD_KILLED, i32::from(signal)),
        // A zombie's status is one of the above.
        WaitStatus::Stopped(_) | WaitStatus::Continued => (CLD_EXITED, 0),
    }
}

/// What a parent has said about its children's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaping {
    /// It will wait.
    Parent,
    /// It ignores SIGCHLD, or set SA_NOCLDWAIT: no zombie is left.
    Automatic,
}

/// Tells `parent` by `signal` that `child` ended, and says who reaps. The family must not be locked.
pub fn parent_of_exit(parent: &Arc<ThreadGroup>, child: &Task, signal: Option<Signal>, status: WaitStatus) -> Reaping {
    let sighand = parent.signals.lock().sighand.clone();
    let mut reaping = Reaping::Parent;
    let mut signal = signal;
    if signal == Some(Signal::SIGCHLD) && sighand.autoreaps() {
        reaping = Reaping::Automatic;
        // With SA_NOCLDWAIT alone the signal is still sent.
        if sighand.get(Signal::SIGCHLD).sa_handler == SIG_IGN {
            signal = None;
        }
    }
    if let Some(s) = signal {
        let (code, value) = exit_code(status);
        let mut info = SigInfo::child(code, child_info(child, parent, value));
        info.si_signo = s.number();
        send_to_process(parent, info);
    }
    reaping
}

impl Notifications {
    /// Tells the parent and the stopped threads. No signal lock may be held.
    pub fn deliver(self, group: &ThreadGroup) {
        if self.resume {
            group.stop_queue.wake_all();
        }
        match self.parent {
            Some(GroupReport::Stopped(signal)) => parent_of_stop(group, CLD_STOPPED, signal.number()),
            Some(GroupReport::Continued) => parent_of_stop(group, CLD_CONTINUED, Signal::SIGCONT.number()),
            None => {}
        }
    }
}

/// Tells the parent of `group` that it stopped or went on. The family must not be locked.
pub fn parent_of_stop(group: &ThreadGroup, code: i32, status: i32) {
    let (parent, leader) = {
        let family = group.kernel().family.lock();
        let Some(parent) = family.parent(group.id) else { return };
        let Some(node) = family.node(group.id) else { return };
        (parent, node.leader.clone())
    };
    stopped(&parent, &leader, code, status);
}

/// Tells `reader` of a stop of `child`: SIGCHLD unless `SA_NOCLDSTOP`, and a wake-up of wait(2).
pub fn stopped(reader: &Arc<ThreadGroup>, child: &Task, code: i32, status: i32) {
    let action = reader.signals.lock().sighand.get(Signal::SIGCHLD);
    if action.sa_handler != SIG_IGN && !action.flags().contains(SaFlags::NOCLDSTOP) {
        send_to_process(reader, SigInfo::child(code, child_info(child, reader, status)));
    }
    // wait(2) wakes even where no signal is wanted.
    reader.child_queue.wake(PollEvents::IN);
}
