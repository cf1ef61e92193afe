//! Generation of signals: queueing, the choice of a thread, and who may send to whom.
//!
//! Source: `send_signal_locked`, `prepare_signal`, `complete_signal`, `check_kill_permission` in `kernel/signal.c`; kill(2).

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::clone::{CoreDump, WaitStatus};
use moat_abi::siginfo::SI_USER;
use moat_abi::signal::{DefaultAction, SIG_DFL, SIG_IGN, SigSet, Signal};
use moat_abi::{Errno, Result};
use moat_vfs::cred::Credentials;

use crate::process::group::ThreadGroup;
use crate::signal::queue::Queued;
use crate::signal::state::GroupSignals;
use crate::signal::stop;
use crate::task::{Task, TaskId};
use moat_identity::Resource;

/// Who is to get a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Any thread of the process.
    Process,
    /// One thread.
    Thread(TaskId),
}

/// Where a signal comes from, as far as an init process is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A process of the same pid namespace, or below.
    Inside,
    /// The kernel, or an ancestor namespace: SIGKILL and SIGSTOP reach even an init.
    Outside,
}

impl ThreadGroup {
    /// Sends a signal.
    ///
    /// A group without threads (a zombie) takes it and nothing happens, as on Linux.
    ///
    /// # Errors
    /// EAGAIN if a real-time signal with a value exceeds RLIMIT_SIGPENDING.
    pub fn send(&self, target: Target, entry: impl Into<Queued>, origin: Origin) -> Result<()> {
        let entry = entry.into();
        let Some(signal) = entry.info.signal() else { return Ok(()) };
        let limit = self.limits.get(Resource::SigPending).soft;
        let mut notify = stop::Notifications::default();
        let result = {
            let mut s = self.signals.lock();
            // Whether it is queued or not: an ignored SIGCONT continues as well.
            notify.merge(stop::prepare_signal(&mut s, signal));
            queue(&mut s, target, signal, entry, origin, limit)
        };
        notify.deliver(self);
        if matches!(result, Ok(Sent::Queued)) {
            self.signalfd_queue.wake_all();
        }
        result.map(|_| ())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Queued,
    Ignored,
}

fn queue(
    s: &mut GroupSignals,
    target: Target,
    signal: Signal,
    entry: Queued,
    origin: Origin,
    limit: u64,
) -> Result<Sent> {
    // Nothing is delivered any more; SIGKILL must still end a thread that its tracer holds up.
    if s.exit.is_some() && signal != Signal::SIGKILL {
        return Ok(Sent::Ignored);
    }
    if ignored(s, target, signal, origin) {
        return Ok(Sent::Ignored);
    }
    if signal == Signal::SIGKILL {
        // It is not queued: all threads die by it at once, whatever they block.
        s.start_exit(WaitStatus::Signaled { signal: 9, core: CoreDump::NotDumped });
        return Ok(Sent::Queued);
    }
    if signal.is_realtime() && realtime_pending(s) >= limit && entry.timer.is_none() {
        // A plain kill(2) never fails for lack of room: the instance is dropped if one is pending anyway.
        if entry.info.si_code != SI_USER {
            return Err(Errno::EAGAIN);
        }
        if s.shared.set().contains(signal) {
            return Ok(Sent::Ignored);
        }
    }
    match target {
        Target::Process => s.shared.push(signal, entry),
        Target::Thread(id) => match s.threads.get_mut(&id) {
            Some(t) => t.pending.push(signal, entry),
            None => return Ok(Sent::Ignored),
        },
    }
    if let Some(id) = choose(s, target, signal) {
        s.wake(id);
    }
    Ok(Sent::Queued)
}

fn realtime_pending(s: &GroupSignals) -> u64 {
    let all = s.shared.realtime_len() + s.threads.values().map(|t| t.pending.realtime_len()).sum::<usize>();
    u64::try_from(all).unwrap_or(u64::MAX)
}

/// Whether the signal is dropped at once (`sig_ignored`).
fn ignored(s: &GroupSignals, target: Target, signal: Signal, origin: Origin) -> bool {
    let action = s.sighand.get(signal).sa_handler;
    let forced = origin == Origin::Outside && SigSet::UNBLOCKABLE.contains(signal);
    // A blocked or traced signal is kept: the mask may change, and the tracer wants to see it.
    let kept = |t: &crate::signal::state::ThreadSignals| {
        t.blocked.contains(signal)
            || t.real_blocked.is_some_and(|m| m.contains(signal))
            || (t.trace.is_some() && signal != Signal::SIGKILL)
    };
    let thread = match target {
        Target::Thread(id) => s.threads.get(&id),
        Target::Process => s.threads.values().next(),
    };
    if s.unkillable && action == SIG_DFL && !forced {
        // An init drops these, unless it has them blocked: it may wait for them by sigtimedwait(2).
        return !thread.is_some_and(kept);
    }
    let by_action = match action {
        SIG_IGN => true,
        SIG_DFL => matches!(signal.default_action(), DefaultAction::Ignore | DefaultAction::Continue),
        _ => false,
    };
    by_action && !thread.is_some_and(kept)
}

/// The thread that is to take the signal now (`complete_signal`).
fn choose(s: &GroupSignals, target: Target, signal: Signal) -> Option<TaskId> {
    let wants =
        |id: TaskId| s.threads.get(&id).is_some_and(|t| !t.blocked.contains(signal) && !t.killed && !t.in_trace_stop());
    match target {
        Target::Thread(id) => wants(id).then_some(id),
        // The leader has the lowest id and is preferred, then threads that have nothing to do yet.
        Target::Process => {
            let ids = || s.threads.keys().copied().filter(|id| wants(*id));
            ids().find(|id| s.threads[id].task.flags.get().is_empty()).or_else(|| ids().next())
        }
    }
}

/// Sends `info` to one thread.
///
/// # Errors
/// As [`ThreadGroup::send`].
pub fn send_to_task(task: &Task, info: impl Into<Queued>, origin: Origin) -> Result<()> {
    task.group.send(Target::Thread(task.id), info, origin)
}

/// Sends `info` to a process, as the kernel itself.
pub fn send_to_process(group: &Arc<ThreadGroup>, info: impl Into<Queued>) {
    // The kernel's own signals are never refused for lack of room.
    let _ = group.send(Target::Process, info, Origin::Outside);
}

/// Whether `sender` may send `signal` to `target` (`kill_ok_by_cred` and the SIGCONT rule).
///
/// # Errors
/// EPERM.
pub fn check_permission(
    sender: &Task,
    sender_creds: &Credentials,
    target: &Task,
    signal: Option<Signal>,
) -> Result<()> {
    if Arc::ptr_eq(&sender.group, &target.group) {
        return Ok(());
    }
    let t = target.creds();
    // The saved id counts and the effective one does not: who has become somebody else for a while stays reachable
    // (kill(2)).
    let by_id = [sender_creds.euid, sender_creds.uid].iter().any(|id| *id == t.suid || *id == t.uid);
    if by_id || sender_creds.has_cap_in(&t.user_ns, Cap::KILL) {
        return Ok(());
    }
    if signal == Some(Signal::SIGCONT)
        && sender.group.session().map(|s| s.id()) == target.group.session().map(|s| s.id())
    {
        return Ok(());
    }
    Err(Errno::EPERM)
}
