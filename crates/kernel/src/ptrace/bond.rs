//! Who traces whom: bonds between a tracer and its tracees, and what is left of them when one of the two ends.
//!
//! Source: `kernel/ptrace.c`, `exit_ptrace`; ptrace(2).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::PollEvents;
use moat_abi::clone::WaitStatus;
use moat_abi::ptrace::PtraceOptions;
use moat_abi::siginfo::{SI_KERNEL, SI_USER, SigInfo};
use moat_abi::signal::Signal;

use crate::process::notify;
use crate::process::reap::tell_parent;
use crate::ptrace::stop::with_trace;
use crate::ptrace::{EndedTracee, StopKind, Trace};
use crate::signal::queue::Queued;
use crate::signal::send::send_to_process;
use crate::task::{CurrentTask, Task};

/// Has the tracer of `t` trace `child` too, which has not run yet.
pub fn attach_child(t: &CurrentTask, child: &CurrentTask) {
    let copied =
        with_trace(t.task(), |trace| trace.tracer.upgrade().map(|tr| (tr, trace.options, trace.seized))).flatten();
    let Some((tracer, options, seized)) = copied else { return };
    link(&tracer, child.task(), Trace::new(&tracer, options, seized));
    let mut s = child.group.signals.lock();
    if let Some(th) = s.threads.get_mut(&child.id) {
        // A seized child stops by an event, another by a SIGSTOP.
        match th.trace.as_mut() {
            Some(trace) if seized => trace.interrupt = true,
            _ => th.pending.push(Signal::SIGSTOP, Queued::from(SigInfo::new(Signal::SIGSTOP, SI_USER))),
        }
    }
    s.recalc(child.id);
}

/// Makes `task` a tracee of `tracer`.
pub fn link(tracer: &Arc<Task>, task: &Arc<Task>, trace: Trace) {
    let mm = task.state().mm.clone();
    if let Some(mm) = mm {
        mm.space().keep_text();
    }
    {
        let mut s = task.group.signals.lock();
        if let Some(th) = s.threads.get_mut(&task.id) {
            th.trace = Some(Box::new(trace));
        }
        task.traced.store(true, Ordering::Relaxed);
    }
    task.ask_again();
    if let Some(n) = tracer.kernel().family.lock().node_mut(tracer.group.id) {
        n.tracees.push(task.clone());
    }
    // The tracer may have ended meanwhile: then nobody else sets this one free.
    if is_gone(tracer) {
        set_free(tracer, task);
    }
}

/// Whether a tracer has left its group: whoever becomes its tracee, or ends as one, after that sees it here; those who did before
/// are found by [`tracer_exits`].
fn is_gone(tracer: &Task) -> bool {
    !tracer.group.signals.lock().threads.contains_key(&tracer.id)
}

/// Ends the tracing of `task`; it goes on with `signal`, unless its group is stopped.
pub fn detach(tracer: &Arc<Task>, task: &Arc<Task>, signal: i32) {
    unlink(tracer, task);
    let group = task.group.clone();
    {
        let mut s = group.signals.lock();
        let group_stopped = s.stop.signal.is_some() && s.stop.complete;
        let Some(th) = s.threads.get_mut(&task.id) else { return };
        let was = th.trace.take();
        task.traced.store(false, Ordering::Relaxed);
        task.ask_again();
        if let (Some(sig), Some(stop)) = (Signal::new(signal), was.and_then(|w| w.stop)) {
            let info = if stop.info.si_signo == signal { stop.info } else { SigInfo::kill(sig, SI_USER, 0, 0) };
            th.pending.push(sig, Queued::from(info));
        }
        // It goes over from its ptrace stop into the group's.
        if group_stopped {
            th.stop_pending = true;
        }
        s.wake(task.id);
    }
    group.stop_queue.wake_all();
}

fn unlink(tracer: &Arc<Task>, task: &Arc<Task>) {
    if let Some(n) = tracer.kernel().family.lock().node_mut(tracer.group.id) {
        n.tracees.retain(|x| !Arc::ptr_eq(x, task));
    }
}

/// The tracer has ended and left its group: its tracees are set free, or die with it (`PTRACE_O_EXITKILL`).
pub fn tracer_exits(tracer: &Arc<Task>) {
    let tracees = {
        let family = tracer.kernel().family.lock();
        family.node(tracer.group.id).map(|n| n.tracees.clone()).unwrap_or_default()
    };
    for task in tracees {
        set_free(tracer, &task);
    }
}

/// Ends the tracing of `task` by `tracer`, which is gone, if it is its tracer.
fn set_free(tracer: &Arc<Task>, task: &Arc<Task>) {
    let ended = task.ended_for_tracer.lock().as_ref().map(|e| e.tracer.upgrade());
    if let Some(of) = ended {
        if of.is_none_or(|x| Arc::ptr_eq(&x, tracer)) {
            reaped_by_tracer(task);
        }
        return;
    }
    let mine = with_trace(task, |t| {
        // A signal that was being shown is delivered.
        let shown = t.stop.filter(|s| s.kind == StopKind::Signal).map_or(0, |s| s.info.si_signo);
        (t.tracer.upgrade().is_some_and(|x| Arc::ptr_eq(&x, tracer)), t.options, shown)
    });
    if let Some((true, options, shown)) = mine {
        detach(tracer, task, shown);
        if options.contains(PtraceOptions::EXITKILL) {
            send_to_process(&task.group, SigInfo::new(Signal::SIGKILL, SI_KERNEL));
        }
    }
}

/// A traced thread ended: its tracer is told and reaps it.
pub fn thread_ended(task: &Arc<Task>, tracer: &Arc<Task>, status: WaitStatus) {
    *task.ended_for_tracer.lock() = Some(EndedTracee { status, tracer: Arc::downgrade(tracer) });
    let (code, value) = notify::exit_code(status);
    let info = SigInfo::child(code, notify::child_info(task, &tracer.group, value));
    send_to_process(&tracer.group, info);
    tracer.group.child_queue.wake(PollEvents::IN);
    if is_gone(tracer) {
        set_free(tracer, task);
    }
}

/// The tracer was the parent: nothing is left for it as a tracer.
pub fn forget_tracee(task: &Arc<Task>, tracer: &Arc<Task>) {
    *task.ended_for_tracer.lock() = None;
    unlink(tracer, task);
}

/// The tracer has taken note of the end of `task`, or is gone itself. Only the first call has an effect.
pub fn reaped_by_tracer(task: &Arc<Task>) {
    if task.ended_for_tracer.lock().take().is_none() {
        return;
    }
    {
        // Whoever traced it may be gone.
        let mut family = task.kernel().family.lock();
        let holders: Vec<_> =
            family.nodes().filter(|n| n.tracees.iter().any(|x| Arc::ptr_eq(x, task))).map(|n| n.group.id).collect();
        for h in holders {
            if let Some(n) = family.node_mut(h) {
                n.tracees.retain(|x| !Arc::ptr_eq(x, task));
            }
        }
    }
    if !task.is_leader() {
        task.kernel().tasks.unbind(&task.pid());
        return;
    }
    let status = task.kernel().family.lock().node(task.group.id).and_then(|n| n.zombie);
    if let Some(status) = status {
        tell_parent(&task.group, status);
    }
}
