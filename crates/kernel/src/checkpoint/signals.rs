//! Pending signals, actions and timers.

use std::sync::Arc;

use moat_abi::siginfo::SigInfo;
use moat_abi::signal::{SigAction, SigSet, Signal};
use moat_image::state::{
    IntervalTimerState, PosixTimerState, QueuedSignal, SignalHandlersState, TaskState, TimerClock, TimerEvent,
};
use moat_image::{ImageError, Ref};
use zerocopy::{FromBytes, IntoBytes};

use crate::process::group::ThreadGroup;
use crate::signal::queue::{Queued, SignalQueue};
use crate::signal::{SigHand, TimerRef};
use crate::task::TaskId;
use crate::timer::itimer::{self, Setting, Which};
use crate::timer::posix::{self, Clock, Event, SavedTimer};

/// The timers of setitimer(2), in the order of their numbers.
const INTERVAL_TIMERS: [Which; 3] = [Which::Real, Which::Virtual, Which::Prof];

pub(super) fn queue(queue: &SignalQueue) -> Vec<QueuedSignal> {
    let one = |q: &Queued| QueuedSignal { info: q.info.as_bytes().to_vec(), timer: q.timer.map(|t| t.id) };
    queue.iter().map(one).collect()
}

/// # Errors
/// What is no signal.
pub(super) fn queue_of(saved: &[QueuedSignal]) -> Result<SignalQueue, ImageError> {
    let mut queue = SignalQueue::default();
    for entry in saved {
        let info = SigInfo::read_from_bytes(&entry.info).ok();
        let found = info.and_then(|info| Some((info.signal()?, info)));
        let (signal, info) = found.ok_or_else(|| ImageError::state("a pending signal is none"))?;
        queue.push(signal, Queued { info, timer: entry.timer.map(|id| TimerRef { id }) });
    }
    Ok(queue)
}

pub(super) fn handlers(sighand: &SigHand) -> SignalHandlersState {
    let action = |n: i32| Signal::new(n).map_or_else(SigAction::default, |signal| sighand.get(signal));
    let words = |a: SigAction| (a.sa_handler, a.sa_flags, a.sa_restorer, a.sa_mask.0);
    SignalHandlersState { actions: (1..=64).map(action).map(words).collect() }
}

/// # Errors
/// Another number of actions than of signals.
pub(super) fn handlers_of(saved: &SignalHandlersState) -> Result<Arc<SigHand>, ImageError> {
    if saved.actions.len() != 64 {
        return Err(ImageError::state(format!("{} signal actions", saved.actions.len())));
    }
    // Those of SIGKILL and SIGSTOP can't be set by anybody.
    let sighand = SigHand::new();
    for (n, (sa_handler, sa_flags, sa_restorer, mask)) in (1..).zip(&saved.actions) {
        let action = SigAction {
            sa_handler: *sa_handler,
            sa_flags: *sa_flags,
            sa_restorer: *sa_restorer,
            sa_mask: SigSet(*mask).as_mask(),
        };
        if let Some(signal) = Signal::new(n).filter(|s| !SigSet::UNBLOCKABLE.contains(*s)) {
            sighand.set(signal, action);
        }
    }
    Ok(Arc::new(sighand))
}

pub(super) fn interval_timers(group: &Arc<ThreadGroup>) -> Vec<IntervalTimerState> {
    let one = |which| itimer::get(group, which);
    let state = |s: Setting| IntervalTimerState { left_ns: s.value_ns, interval_ns: s.interval_ns };
    INTERVAL_TIMERS.map(one).map(state).to_vec()
}

pub(super) fn set_interval_timers(group: &Arc<ThreadGroup>, saved: &[IntervalTimerState]) {
    for (which, timer) in INTERVAL_TIMERS.into_iter().zip(saved) {
        itimer::set(group, which, Setting { value_ns: timer.left_ns, interval_ns: timer.interval_ns });
    }
}

/// The timers of timer_create(2); `name` gives the names of threads. A timer of a thread that is gone sends nothing.
pub(super) fn posix_timers(
    group: &Arc<ThreadGroup>,
    name: impl Fn(TaskId) -> Option<Ref<TaskState>>,
) -> (i32, Vec<PosixTimerState>) {
    let (next, timers) = posix::saved(group);
    let one = |t: SavedTimer| {
        let clock = match t.clock {
            Clock::Host(id) => TimerClock::Host(id),
            Clock::ProcessCpu => TimerClock::ProcessCpu,
            // The clock of a thread that has ended shows nothing any more.
            Clock::ThreadCpu(id) => name(id).map_or(TimerClock::ProcessCpu, TimerClock::ThreadCpu),
        };
        let event = match t.event {
            Event::Nothing => None,
            Event::Signal { signal, value, thread } => match thread.map(&name) {
                // The thread that it was for has ended: nobody would get it.
                Some(None) => None,
                thread => Some(TimerEvent { signal: signal.number(), value, thread: thread.flatten() }),
            },
        };
        PosixTimerState {
            id: t.id,
            clock,
            event,
            left_ns: t.left_ns,
            interval_ns: t.interval_ns,
            overrun: t.overrun,
            last_overrun: t.last_overrun,
        }
    };
    (next, timers.into_iter().map(one).collect())
}

/// # Errors
/// What is no signal, and no thread.
pub(super) fn set_posix_timers(
    group: &Arc<ThreadGroup>,
    next: i32,
    saved: &[PosixTimerState],
    id_of: impl Fn(Ref<TaskState>) -> Result<TaskId, ImageError>,
) -> Result<(), ImageError> {
    let mut timers = Vec::new();
    for t in saved {
        let clock = match t.clock {
            TimerClock::Host(id) => Clock::Host(id),
            TimerClock::ProcessCpu => Clock::ProcessCpu,
            TimerClock::ThreadCpu(name) => Clock::ThreadCpu(id_of(name)?),
        };
        let event = match &t.event {
            None => Event::Nothing,
            Some(e) => Event::Signal {
                signal: Signal::new(e.signal).ok_or_else(|| ImageError::state("a timer sends no signal"))?,
                value: e.value,
                thread: e.thread.map(&id_of).transpose()?,
            },
        };
        timers.push(SavedTimer {
            id: t.id,
            clock,
            event,
            left_ns: t.left_ns,
            interval_ns: t.interval_ns,
            overrun: t.overrun,
            last_overrun: t.last_overrun,
        });
    }
    posix::set_saved(group, next, timers);
    Ok(())
}
