//! How a traced thread stops for its tracer and what it does when it goes on.
//!
//! Source: `ptrace_stop`, `ptrace_signal`, `do_jobctl_trap` in `kernel/signal.c`; ptrace(2).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use moat_abi::PollEvents;
use moat_abi::clone::WaitStatus;
use moat_abi::ptrace::{
    PTRACE_EVENT_CLONE, PTRACE_EVENT_EXEC, PTRACE_EVENT_EXIT, PTRACE_EVENT_FORK, PTRACE_EVENT_SECCOMP,
    PTRACE_EVENT_STOP, PTRACE_EVENT_VFORK, PTRACE_EVENT_VFORK_DONE, PtraceOptions,
};
use moat_abi::siginfo::{CLD_TRAPPED, SI_KERNEL, SI_USER, SigInfo, TRAP_HWBKPT, TRAP_TRACE};
use moat_abi::signal::Signal;
use moat_platform::regs::RFLAGS_TF;

use crate::process::notify;
use crate::process::reap::tell_parent;
use crate::ptrace::debug::{self, Watching};
use crate::ptrace::{EndedTracee, Run, StopKind, Trace, TraceStop};
use crate::signal::queue::Queued;
use crate::signal::send::send_to_process;
use crate::signal::stop::participate;
use crate::task::wait::Wait;
use crate::task::{CurrentTask, Task};

const SIGTRAP: u32 = 5;

/// Reads something of the trace of `task`, if it is traced.
fn with_trace<R>(task: &Task, f: impl FnOnce(&mut Trace) -> R) -> Option<R> {
    if !task.traced.load(Ordering::Relaxed) {
        return None;
    }
    let mut s = task.group.signals.lock();
    s.threads.get_mut(&task.id)?.trace.as_deref_mut().map(f)
}

/// Stops until the tracer lets it go on. Gives false if the thread is not traced or must die.
async fn stop(t: &mut CurrentTask, kind: StopKind, code: u32, info: SigInfo) -> bool {
    if !t.traced.load(Ordering::Relaxed) {
        return false;
    }
    // Lent before the stop can be seen, so that the tracer always finds the thread.
    t.park_thread();
    let stopped = stop_parked(t, kind, code, info).await;
    t.unpark_thread();
    if stopped {
        apply_step(t);
    }
    stopped
}

async fn stop_parked(t: &mut CurrentTask, kind: StopKind, code: u32, info: SigInfo) -> bool {
    let group = t.group.clone();
    let id = t.id;
    let (tracer, n) = {
        let mut s = group.signals.lock();
        let Some(th) = s.threads.get_mut(&id) else { return false };
        // A stop must not hold up SIGKILL.
        if th.killed {
            return false;
        }
        let Some(trace) = th.trace.as_mut() else { return false };
        let Some(tracer) = trace.tracer.upgrade() else { return false };
        trace.stop = Some(TraceStop { kind, code, info, reported: false });
        trace.resume_signal = 0;
        trace.listening = false;
        // A group stop need not wait for a thread that is stopped anyway.
        let n = if std::mem::take(&mut th.stop_pending) { participate(&mut s) } else { Default::default() };
        s.recalc(id);
        (tracer, n)
    };
    n.deliver(&group);
    // After the stop is set, so that the tracer's wait(2) finds it.
    notify::stopped(&tracer.group, t.task(), CLD_TRAPPED, (code & 0x7f).cast_signed());
    let look = |_: &mut CurrentTask| {
        let s = group.signals.lock();
        let waiting = s.threads.get(&id).is_some_and(|th| !th.killed && th.in_trace_stop());
        if waiting { Poll::Pending } else { Poll::Ready(()) }
    };
    // Only a task that dies leaves the stop early.
    let _ = t.wait_for(&(&group.stop_queue, PollEvents::all()), &Wait::killable("ptrace_stop"), look).await;
    let mut s = group.signals.lock();
    let Some(th) = s.threads.get_mut(&id) else { return false };
    if let Some(trace) = th.trace.as_mut() {
        trace.stop = None;
    }
    let alive = !th.killed;
    s.recalc(id);
    alive
}

/// Sets or clears the trap flag as the tracer asked.
fn apply_step(t: &mut CurrentTask) {
    let asked = with_trace(t.task(), |trace| (trace.run == Run::Step, trace.debug));
    let (step, debug) = asked.unwrap_or_default();
    let watching = Watching::new(&debug, t.mm());
    let (before, wanted) = (single_stepped(t), step || watching.is_some());
    let mut regs = t.thread().regs();
    let set = regs.rflags & RFLAGS_TF != 0;
    // A flag that the program has set itself is left to it.
    if wanted != set && (wanted || before) {
        regs.rflags ^= RFLAGS_TF;
        t.thread().set_regs(&regs);
    }
    (t.stepping, t.watching) = (step, watching);
}

/// Whether the thread runs a step at a time, for its tracer or its debug registers.
pub fn single_stepped(t: &CurrentTask) -> bool {
    t.stepping || t.watching.is_some()
}

/// Has the thread stop after its next instruction, if it is watched: to be called when its flags may have been exchanged.
pub fn rearm(t: &mut CurrentTask) {
    if t.watching.is_some() {
        let mut regs = t.thread().regs();
        regs.rflags |= RFLAGS_TF;
        t.thread().set_regs(&regs);
    }
}

/// A system call may have written to places that are watched, which no watch is for.
pub fn called(t: &mut CurrentTask) {
    if let Some(mut watching) = t.watching.take() {
        watching.look_again(t.mm());
        t.watching = Some(watching);
    }
}

/// What is to come of a step: `None` if it was nothing that the tracer waits for, else the code of SIGTRAP.
pub fn step_done(t: &mut CurrentTask) -> Option<i32> {
    if !t.traced.load(Ordering::Relaxed) {
        // The tracer has gone, and its debug registers with it.
        (t.stepping, t.watching) = (false, None);
        let mut regs = t.thread().regs();
        regs.rflags &= !RFLAGS_TF;
        t.thread().set_regs(&regs);
        return None;
    }
    let rip = t.thread().regs().rip;
    let mut status = if t.stepping { debug::SINGLE_STEP } else { 0 };
    if let Some(mut watching) = t.watching.take() {
        status |= watching.reached(t.mm(), rip);
        t.watching = Some(watching);
    }
    if status == 0 {
        return None;
    }
    with_trace(t.task(), |trace| trace.debug.set_status(status));
    Some(if status & debug::POINTS != 0 { TRAP_HWBKPT } else { TRAP_TRACE })
}

/// PTRACE_EVENT_STOP for PTRACE_INTERRUPT and for changes of the group stop while listening.
pub async fn trap(t: &mut CurrentTask) {
    let signal = {
        let mut s = t.group.signals.lock();
        let signal = s.stop.signal;
        if let Some(trace) = s.threads.get_mut(&t.id).and_then(|th| th.trace.as_mut()) {
            trace.interrupt = false;
            trace.notify = false;
        }
        s.recalc(t.id);
        signal
    };
    // Inside a group stop the tracer sees its signal (`do_jobctl_trap`).
    let (kind, number) = match signal {
        Some(s) => (StopKind::Group, s.number().unsigned_abs()),
        None => (StopKind::Event, SIGTRAP),
    };
    let info = SigInfo::new(Signal::SIGTRAP, SI_KERNEL);
    stop(t, kind, number | PTRACE_EVENT_STOP << 8, info).await;
}

/// A group stop of a traced thread.
pub async fn group_stop(t: &mut CurrentTask, signal: Signal) {
    let seized = with_trace(t.task(), |trace| trace.seized).unwrap_or(false);
    let number = signal.number().unsigned_abs();
    let code = if seized { number | PTRACE_EVENT_STOP << 8 } else { number };
    stop(t, StopKind::Group, code, SigInfo::default()).await;
}

/// Shows a signal to the tracer; gives what is to be delivered instead.
pub async fn signal(t: &mut CurrentTask, signal: Signal, info: SigInfo) -> Option<(Signal, SigInfo)> {
    let number = signal.number();
    if !stop(t, StopKind::Signal, number.unsigned_abs(), info).await {
        return Some((signal, info));
    }
    // A tracer that has detached has queued what it wants delivered.
    let (new, new_info) = with_trace(t.task(), |trace| (trace.resume_signal, trace.resume_info.take()))?;
    let new = Signal::new(new)?;
    let info = if new == signal { new_info.unwrap_or(info) } else { SigInfo::kill(new, SI_USER, 0, 0) };
    // The mask may have been changed meanwhile.
    let mut s = t.group.signals.lock();
    let th = s.threads.get_mut(&t.id)?;
    if th.blocked.contains(new) {
        th.pending.push(new, Queued::from(info));
        s.recalc(t.id);
        return None;
    }
    Some((new, info))
}

/// A handler is about to run: a stepping tracer sees its first instruction.
pub async fn handler_entered(t: &mut CurrentTask) {
    if t.stepping {
        stop(t, StopKind::Signal, SIGTRAP, SigInfo::new(Signal::SIGTRAP, SI_USER)).await;
    }
}

/// Whether entries to and exits from system calls are stops.
pub fn traces_syscalls(t: &CurrentTask) -> bool {
    with_trace(t.task(), |trace| matches!(trace.run, Run::ToSyscall | Run::Emulate)).unwrap_or(false)
}

fn syscall_code(trace: &Trace) -> u32 {
    if trace.options.contains(PtraceOptions::TRACESYSGOOD) { SIGTRAP | 0x80 } else { SIGTRAP }
}

async fn syscall_stop(t: &mut CurrentTask, kind: StopKind) {
    let code = with_trace(t.task(), |trace| {
        // `PTRACE_EVENTMSG_SYSCALL_ENTRY` and `_EXIT`.
        trace.message = if kind == StopKind::SyscallEntry { 1 } else { 2 };
        syscall_code(trace)
    });
    if let Some(code) = code {
        let info = SigInfo::new(Signal::SIGTRAP, code.cast_signed());
        stop(t, kind, code, info).await;
        // The tracer may send a signal along (`ptrace_report_syscall`).
        let signal = with_trace(t.task(), |trace| std::mem::take(&mut trace.resume_signal)).and_then(Signal::new);
        if let Some(s) = signal {
            let _ = crate::signal::send::send_to_task(
                t.task(),
                SigInfo::kill(s, SI_USER, 0, 0),
                crate::signal::send::Origin::Inside,
            );
        }
    }
}

/// The stop before a call; gives the call as the tracer left it, `None` if it is not to be made.
pub async fn syscall_entry(t: &mut CurrentTask, nr: u64, args: [u64; 6]) -> Option<(u64, [u64; 6])> {
    let mut regs = t.thread().regs();
    // What Linux has in `rax` while a call is under way.
    regs.rax = moat_abi::Errno::ENOSYS.to_ret();
    regs.orig_rax = nr;
    t.thread().set_regs(&regs);
    // As it was resumed last: this stop's end counts for the next call (`syscall_trace_enter`).
    let emulated = with_trace(t.task(), |trace| trace.run == Run::Emulate).unwrap_or(false);
    syscall_stop(t, StopKind::SyscallEntry).await;
    let regs = t.thread().regs();
    let changed = regs.orig_rax != nr || regs.syscall_args() != args;
    // A number of -1 is how a tracer skips a call.
    if emulated || regs.orig_rax == u64::MAX {
        return None;
    }
    Some(if changed { (regs.orig_rax, regs.syscall_args()) } else { (nr, args) })
}

/// The stop that a filter asked for, with its data; gives the call as the tracer left it, `None` if it is not to be made.
pub async fn seccomp_event(t: &mut CurrentTask, nr: u64, args: [u64; 6], data: u16) -> Option<(u64, [u64; 6])> {
    let mut regs = t.thread().regs();
    regs.rax = moat_abi::Errno::ENOSYS.to_ret();
    regs.orig_rax = nr;
    t.thread().set_regs(&regs);
    event(t, PTRACE_EVENT_SECCOMP, u64::from(data)).await;
    if t.work().contains(crate::task::work::Work::KILL) {
        return None;
    }
    let regs = t.thread().regs();
    if regs.syscall_args() == args && regs.orig_rax == nr {
        return Some((nr, args));
    }
    // A negative number is how a tracer says that the call is done.
    let number = u32::try_from(regs.orig_rax & 0xffff_ffff).unwrap_or(u32::MAX);
    (number.cast_signed() >= 0).then(|| (number.into(), regs.syscall_args()))
}

/// The stop after a call.
pub async fn syscall_exit(t: &mut CurrentTask) {
    let wanted = with_trace(t.task(), |trace| trace.run == Run::ToSyscall).unwrap_or(false);
    if wanted {
        syscall_stop(t, StopKind::SyscallExit).await;
    }
}

/// Whether the tracer of `t` wants to be told of `event`.
pub fn wants_event(t: &CurrentTask, event: u32) -> bool {
    let option = match event {
        PTRACE_EVENT_FORK => PtraceOptions::TRACEFORK,
        PTRACE_EVENT_VFORK => PtraceOptions::TRACEVFORK,
        PTRACE_EVENT_CLONE => PtraceOptions::TRACECLONE,
        PTRACE_EVENT_EXEC => PtraceOptions::TRACEEXEC,
        PTRACE_EVENT_VFORK_DONE => PtraceOptions::TRACEVFORKDONE,
        PTRACE_EVENT_EXIT => PtraceOptions::TRACEEXIT,
        PTRACE_EVENT_SECCOMP => PtraceOptions::TRACESECCOMP,
        _ => return false,
    };
    with_trace(t.task(), |trace| trace.options.contains(option)).unwrap_or(false)
}

/// Stops for `event`.
pub async fn event(t: &mut CurrentTask, event: u32, message: u64) {
    let code = SIGTRAP | event << 8;
    with_trace(t.task(), |trace| trace.message = message);
    let info = SigInfo::new(Signal::SIGTRAP, code.cast_signed());
    stop(t, StopKind::Event, code, info).await;
}

/// Stops for `event` if the tracer wants to be told of it.
pub async fn event_if(t: &mut CurrentTask, which: u32, message: u64) {
    if wants_event(t, which) {
        event(t, which, message).await;
    }
}

/// execve(2) has succeeded: an event, or the plain SIGTRAP of old.
pub async fn exec_event(t: &mut CurrentTask, old_tid: i32) {
    if wants_event(t, PTRACE_EVENT_EXEC) {
        event(t, PTRACE_EVENT_EXEC, u64::try_from(old_tid).unwrap_or(0)).await;
    } else if with_trace(t.task(), |trace| !trace.seized).unwrap_or(false) {
        t.send_to_self(Signal::SIGTRAP);
    }
}

/// The last stop of a thread that ends.
pub async fn exit_event(t: &mut CurrentTask, status: WaitStatus) {
    if !wants_event(t, PTRACE_EVENT_EXIT) {
        return;
    }
    // Its own exit does not keep it from stopping; a SIGKILL that comes while it is stopped ends the stop.
    if let Some(th) = t.group.signals.lock().threads.get_mut(&t.id) {
        th.killed = false;
    }
    event(t, PTRACE_EVENT_EXIT, u64::from(status.to_raw())).await;
    if let Some(th) = t.group.signals.lock().threads.get_mut(&t.id) {
        th.killed = true;
    }
}

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
