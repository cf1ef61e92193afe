//! ptrace(2): tracers and tracees, stops, and threads that have ended and are still known by their number.

use std::collections::HashMap;
use std::sync::Arc;

use moat_abi::ptrace::PtraceOptions;
use moat_abi::siginfo::SigInfo;
use moat_abi::signal::Signal;
use moat_image::state::{
    AfterStop, EndedThreadState, NextStep, TaskState as SavedTask, TraceRun, TraceState, TraceStopKind, TraceStopState,
};
use moat_image::{ImageError, Ref, Refusal};
use zerocopy::{FromBytes, IntoBytes};

use super::convert;
use crate::process::group::GroupId;
use crate::ptrace::debug::DebugRegs;
use crate::ptrace::{EndedTracee, Run, StopKind, Trace, TraceStop, bond};
use crate::task::{CurrentTask, Task, TaskId};

/// Names of threads in the image.
pub(super) type TaskNames = HashMap<TaskId, Ref<SavedTask>>;

/// The trace of a thread; `None` if its tracer has gone, which is about to set it free.
pub(super) fn save(trace: &Trace, names: &TaskNames) -> Option<TraceState> {
    let tracer = *names.get(&trace.tracer.upgrade()?.id)?;
    // The tracer may have let it go on, and it has not done so yet: then there is none.
    let stop = trace.stop.map(|stop| TraceStopState {
        kind: match stop.kind {
            StopKind::Signal => TraceStopKind::Signal,
            StopKind::Group => TraceStopKind::Group,
            StopKind::SyscallEntry => TraceStopKind::SyscallEntry,
            StopKind::SyscallExit => TraceStopKind::SyscallExit,
            StopKind::Event => TraceStopKind::Event,
        },
        code: stop.code,
        info: stop.info.as_bytes().to_vec(),
        reported: stop.reported,
    });
    Some(TraceState {
        tracer,
        options: trace.options.bits(),
        seized: trace.seized,
        stop,
        run: match trace.run {
            Run::Free => TraceRun::Free,
            Run::ToSyscall => TraceRun::ToSyscall,
            Run::Emulate => TraceRun::Emulate,
            Run::Step => TraceRun::Step,
        },
        resume_signal: trace.resume_signal,
        resume_info: trace.resume_info.map(|info| info.as_bytes().to_vec().into()),
        message: trace.message,
        interrupt: trace.interrupt,
        listening: trace.listening,
        notify: trace.notify,
        debug: DebugRegs::SAVED.map(|n| trace.debug.get(n)),
    })
}

fn info_of(bytes: &[u8]) -> Result<SigInfo, ImageError> {
    SigInfo::read_from_bytes(bytes).map_err(|_| ImageError::state("the siginfo of a traced thread is none"))
}

fn trace_of(saved: &TraceState, tracer: &Arc<Task>, next: &NextStep) -> Result<Trace, ImageError> {
    let options = PtraceOptions::from_bits(saved.options).ok_or_else(|| ImageError::state("options of a tracer"))?;
    let mut debug = DebugRegs::default();
    // As PTRACE_POKEUSER would: an address or a kind that it refuses comes from nobody's checkpoint.
    for (n, value) in DebugRegs::SAVED.into_iter().zip(saved.debug) {
        debug.set(n, value).map_err(|errno| ImageError::state(format!("debug register {n}: {errno}")))?;
    }
    // One that is not in the stop could not be let go on.
    let stop = saved.stop.as_ref().filter(|_| matches!(next, NextStep::Stopped(_)));
    let stop = stop.map(|stop| {
        Ok::<_, ImageError>(TraceStop {
            kind: match stop.kind {
                TraceStopKind::Signal => StopKind::Signal,
                TraceStopKind::Group => StopKind::Group,
                TraceStopKind::SyscallEntry => StopKind::SyscallEntry,
                TraceStopKind::SyscallExit => StopKind::SyscallExit,
                TraceStopKind::Event => StopKind::Event,
            },
            code: stop.code,
            info: info_of(&stop.info)?,
            reported: stop.reported,
        })
    });
    Ok(Trace {
        stop: stop.transpose()?,
        run: match saved.run {
            TraceRun::Free => Run::Free,
            TraceRun::ToSyscall => Run::ToSyscall,
            TraceRun::Emulate => Run::Emulate,
            TraceRun::Step => Run::Step,
        },
        resume_signal: Signal::new(saved.resume_signal).map_or(0, Signal::number),
        resume_info: saved.resume_info.as_ref().map(|info| info_of(info)).transpose()?,
        message: saved.message,
        interrupt: saved.interrupt,
        listening: saved.listening,
        notify: saved.notify,
        debug,
        ..Trace::new(tracer, options, saved.seized)
    })
}

/// Gives a thread out of an image its tracer again.
///
/// # Errors
/// A tracer of the same process; what is no trace.
pub(super) fn restore(
    current: &mut CurrentTask,
    saved: &SavedTask,
    trace: &TraceState,
    tracer: &Arc<Task>,
) -> Result<(), ImageError> {
    if Arc::ptr_eq(&tracer.group, &current.group) {
        return Err(ImageError::state("a thread is traced by its own process"));
    }
    bond::link(tracer, current.task(), trace_of(trace, tracer, &saved.thread.next)?);
    current.restore_steps(saved.thread.stepping, saved.thread.watching);
    Ok(())
}

/// The threads that have ended and are known yet, with their processes: those that a tracer has not waited for, and first threads of
/// processes that go on.
///
/// # Errors
/// One whose process is gone.
pub(super) fn ended<'a>(
    leaders: impl Iterator<Item = &'a Arc<Task>>,
    tracees: impl Iterator<Item = &'a Arc<Task>>,
    known: impl Fn(GroupId) -> bool,
) -> Result<Vec<Arc<Task>>, Refusal> {
    let mut all: Vec<Arc<Task>> = Vec::new();
    // A leader is in no list of threads once it has ended, and may be in its tracer's as well.
    for leader in leaders {
        let waited_for = leader.ended_for_tracer.lock().is_some();
        // Of a zombie nothing but its status is left; the first thread of one that goes on has its number.
        let lives = leader.group.thread_count() != 0;
        if waited_for || (lives && leader.group.signals.lock().leader_status.is_some()) {
            all.push(leader.clone());
        }
    }
    for task in tracees {
        if task.ended_for_tracer.lock().is_none() || all.iter().any(|other| Arc::ptr_eq(other, task)) {
            continue;
        }
        if !known(task.group.id) {
            return Err(Refusal::new("a traced thread that has ended, of a process that is gone")
                .at(format!("task {}", task.tid())));
        }
        all.push(task.clone());
    }
    Ok(all)
}

/// How a thread has ended, and who is to wait for it.
pub(super) fn end_of(task: &Task, names: &TaskNames) -> (i32, Option<Ref<SavedTask>>) {
    // Copied: the tracer is dropped with nothing locked, as it may be the last of its kind.
    let for_tracer = task.ended_for_tracer.lock().clone();
    match for_tracer {
        Some(EndedTracee { status, tracer }) => {
            let tracer = tracer.upgrade().and_then(|tracer| names.get(&tracer.id).copied());
            (convert::status(status), tracer)
        }
        None => {
            let status = task.group.signals.lock().leader_status;
            (status.map_or(0, convert::status), None)
        }
    }
}

/// Has `tracer` wait for `task`, which has ended.
pub(super) fn await_end(task: &Arc<Task>, saved: &EndedThreadState, tracer: &Arc<Task>) -> Result<(), ImageError> {
    let status = convert::end_of(saved.status)?;
    *task.ended_for_tracer.lock() = Some(EndedTracee { status, tracer: Arc::downgrade(tracer) });
    if let Some(node) = task.kernel().family.lock().node_mut(tracer.group.id) {
        node.tracees.push(task.clone());
    }
    Ok(())
}

/// The vfork(2) child that a thread waits for, by its number.
pub(super) fn vfork_child(next: &NextStep) -> Option<i32> {
    match next {
        NextStep::Vfork { child } => Some(*child),
        NextStep::Stopped(stopped) => match stopped.after {
            AfterStop::Result { value, vfork: true } => i32::try_from(value).ok(),
            _ => None,
        },
        NextStep::Run | NextStep::Call(_) | NextStep::Interrupted(_) => None,
    }
}
