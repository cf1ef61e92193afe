//! How a traced thread stops for its tracer and what it does when it goes on.
//!
//! Source: `ptrace_stop`, `ptrace_signal`, `do_jobctl_trap` in `kernel/signal.c`; ptrace(2).

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
use crate::ptrace::after::After;
use crate::ptrace::debug::{self, Watching};
use crate::ptrace::{Run, StopKind, Trace, TraceStop};
use crate::signal::queue::Queued;
use crate::signal::stop::participate;
use crate::task::rest::Resume;
use crate::task::wait::Wait;
use crate::task::{CurrentTask, Task};

const SIGTRAP: u32 = 5;

/// Reads something of the trace of `task`, if it is traced.
pub(crate) fn with_trace<R>(task: &Task, f: impl FnOnce(&mut Trace) -> R) -> Option<R> {
    if !task.traced.load(Ordering::Relaxed) {
        return None;
    }
    let mut s = task.group.signals.lock();
    s.threads.get_mut(&task.id)?.trace.as_deref_mut().map(f)
}

/// Stops until the tracer lets it go on. Gives false if the thread is not traced or must die. A thread that is saved in the stop goes on
/// behind it as `after` says.
async fn stop(t: &mut CurrentTask, kind: StopKind, code: u32, info: SigInfo, after: After) -> bool {
    if !t.traced.load(Ordering::Relaxed) {
        return false;
    }
    // Lent before the stop can be seen, so that the tracer always finds the thread.
    t.park_thread();
    let stopped = begin(t, kind, code, info) && until_resumed(t, after).await;
    t.unpark_thread();
    if stopped {
        apply_step(t);
    }
    stopped
}

/// As [`stop`], of a thread that was in the stop when it was saved. Its host thread is lent already.
pub(super) async fn stop_again(t: &mut CurrentTask, after: After) -> bool {
    let stopped = until_resumed(t, after).await;
    t.unpark_thread();
    if stopped {
        apply_step(t);
    }
    stopped
}

fn begin(t: &CurrentTask, kind: StopKind, code: u32, info: SigInfo) -> bool {
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
    true
}

async fn until_resumed(t: &mut CurrentTask, after: After) -> bool {
    let group = t.group.clone();
    let id = t.id;
    let look = |_: &mut CurrentTask| {
        let s = group.signals.lock();
        let waiting = s.threads.get(&id).is_some_and(|th| !th.killed && th.in_trace_stop());
        if waiting { Poll::Pending } else { Poll::Ready(()) }
    };
    let wait = Wait::resumable("ptrace_stop", Resume::Stopped(after));
    // Only a task that dies leaves the stop early.
    let _ = t.wait_for(&(&group.stop_queue, PollEvents::all()), &wait, look).await;
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

impl CurrentTask {
    /// The trap flag of a thread out of an image was set for its tracer, or for its debug registers.
    pub(crate) fn restore_steps(&mut self, stepping: bool, watching: bool) {
        let debug = with_trace(self.task(), |trace| trace.debug).unwrap_or_default();
        let points = Watching::new(&debug, self.mm()).filter(|_| watching);
        // Registers that have been changed since then watch nothing any more, but the flag is not the program's.
        self.stepping = stepping || (watching && points.is_none());
        self.watching = points;
    }
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
    stop(t, kind, number | PTRACE_EVENT_STOP << 8, info, After::Run).await;
}

/// A group stop of a traced thread.
pub async fn group_stop(t: &mut CurrentTask, signal: Signal) {
    let seized = with_trace(t.task(), |trace| trace.seized).unwrap_or(false);
    let number = signal.number().unsigned_abs();
    let code = if seized { number | PTRACE_EVENT_STOP << 8 } else { number };
    stop(t, StopKind::Group, code, SigInfo::default(), After::Run).await;
}

/// Shows a signal to the tracer; gives what is to be delivered instead.
pub async fn signal(t: &mut CurrentTask, signal: Signal, info: SigInfo) -> Option<(Signal, SigInfo)> {
    if !stop(t, StopKind::Signal, signal.number().unsigned_abs(), info, After::Signal).await {
        return Some((signal, info));
    }
    resumed_with(t)
}

/// The signal that the tracer has left of the one that it was shown (`ptrace_signal`).
pub(super) fn resumed_with(t: &CurrentTask) -> Option<(Signal, SigInfo)> {
    // A tracer that has detached has queued what it wants delivered.
    let (new, info) = with_trace(t.task(), |trace| (trace.resume_signal, trace.resume_info.take()))?;
    let new = Signal::new(new)?;
    // Another signal than the siginfo is about comes from the tracer.
    let info = info.unwrap_or_else(|| SigInfo::kill(new, SI_USER, 0, 0));
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
        stop(t, StopKind::Signal, SIGTRAP, SigInfo::new(Signal::SIGTRAP, SI_USER), After::Run).await;
    }
}

/// Whether entries to and exits from system calls are stops.
pub fn traces_syscalls(t: &CurrentTask) -> bool {
    with_trace(t.task(), |trace| matches!(trace.run, Run::ToSyscall | Run::Emulate)).unwrap_or(false)
}

fn syscall_code(trace: &Trace) -> u32 {
    if trace.options.contains(PtraceOptions::TRACESYSGOOD) { SIGTRAP | 0x80 } else { SIGTRAP }
}

async fn syscall_stop(t: &mut CurrentTask, kind: StopKind, after: After) {
    let code = with_trace(t.task(), |trace| {
        // `PTRACE_EVENTMSG_SYSCALL_ENTRY` and `_EXIT`.
        trace.message = if kind == StopKind::SyscallEntry { 1 } else { 2 };
        syscall_code(trace)
    });
    if let Some(code) = code {
        let info = SigInfo::new(Signal::SIGTRAP, code.cast_signed());
        stop(t, kind, code, info, after).await;
        send_along(t);
    }
}

/// Sends the signal that the tracer has let the thread go on with (`ptrace_report_syscall`).
pub(super) fn send_along(t: &CurrentTask) {
    let signal = with_trace(t.task(), |trace| std::mem::take(&mut trace.resume_signal)).and_then(Signal::new);
    if let Some(s) = signal {
        let info = SigInfo::kill(s, SI_USER, 0, 0);
        let _ = crate::signal::send::send_to_task(t.task(), info, crate::signal::send::Origin::Inside);
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
    syscall_stop(t, StopKind::SyscallEntry, After::Entry { nr, args, emulated }).await;
    call_left(t, nr, args, emulated)
}

/// What the tracer has left of a call.
pub(super) fn call_left(t: &mut CurrentTask, nr: u64, args: [u64; 6], emulated: bool) -> Option<(u64, [u64; 6])> {
    let regs = t.thread().regs();
    let changed = regs.orig_rax != nr || regs.syscall_args() != args;
    // A number of -1 is how a tracer skips a call.
    if emulated || regs.orig_rax == u64::MAX {
        return None;
    }
    Some(if changed { (regs.orig_rax, regs.syscall_args()) } else { (nr, args) })
}

/// The stop that a filter asked for, with its data; gives the call as the tracer left it, `None` if it is not to be made.
pub async fn seccomp_event(
    t: &mut CurrentTask,
    arch: u32,
    nr: u32,
    args: [u64; 6],
    data: u16,
) -> Option<(u64, [u64; 6])> {
    let mut regs = t.thread().regs();
    regs.rax = moat_abi::Errno::ENOSYS.to_ret();
    regs.orig_rax = nr.into();
    t.thread().set_regs(&regs);
    event(t, PTRACE_EVENT_SECCOMP, u64::from(data), After::Filter { arch, nr, args }).await;
    filtered_call_left(t, nr, args)
}

/// What the tracer has left of a call that a filter has shown to it.
pub(super) fn filtered_call_left(t: &mut CurrentTask, nr: u32, args: [u64; 6]) -> Option<(u64, [u64; 6])> {
    if t.work().contains(crate::task::work::Work::KILL) {
        return None;
    }
    let nr = u64::from(nr);
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
        syscall_stop(t, StopKind::SyscallExit, After::Exit).await;
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
pub async fn event(t: &mut CurrentTask, event: u32, message: u64, after: After) {
    let code = SIGTRAP | event << 8;
    with_trace(t.task(), |trace| trace.message = message);
    let info = SigInfo::new(Signal::SIGTRAP, code.cast_signed());
    stop(t, StopKind::Event, code, info, after).await;
}

/// Stops for `event` if the tracer wants to be told of it.
pub async fn event_if(t: &mut CurrentTask, which: u32, message: u64, after: After) {
    if wants_event(t, which) {
        event(t, which, message, after).await;
    }
}

/// execve(2) has succeeded: an event, or the plain SIGTRAP of old.
pub async fn exec_event(t: &mut CurrentTask, old_tid: i32) {
    if wants_event(t, PTRACE_EVENT_EXEC) {
        // The call is still under way.
        let mut regs = t.thread().regs();
        regs.rax = moat_abi::Errno::ENOSYS.to_ret();
        regs.orig_rax = t.call.get().map_or(u64::from(moat_abi::nr::EXECVE), |(nr, _)| nr);
        t.thread().set_regs(&regs);
        let after = After::Result { value: 0, vfork: false };
        event(t, PTRACE_EVENT_EXEC, u64::try_from(old_tid).unwrap_or(0), after).await;
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
    event(t, PTRACE_EVENT_EXIT, u64::from(status.to_raw()), After::End { status }).await;
    past_exit_event(t);
}

/// The thread ends, whatever it has stopped for.
pub(super) fn past_exit_event(t: &CurrentTask) {
    if let Some(th) = t.group.signals.lock().threads.get_mut(&t.id) {
        th.killed = true;
    }
}
