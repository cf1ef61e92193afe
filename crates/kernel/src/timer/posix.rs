//! POSIX timers: timer_create(2) and its family.
//!
//! Source: timer_create(2), `kernel/time/posix-timers.c`. A timer has at most one signal pending; expiries meanwhile are
//! its overrun count, given at delivery.

use std::sync::{Arc, Weak};

use moat_abi::siginfo::SigInfo;
use moat_abi::time::{ktime_add, ktime_forward};
use moat_abi::{Errno, PollEvents, Result};
use moat_sync::timer::Timer;
use moat_sync::wait::Notify;

use crate::process::group::ThreadGroup;
use crate::signal::TimerRef;
use crate::signal::queue::Queued;
use crate::signal::send::{Origin, Target};
use crate::task::CurrentTask;
use crate::timer::state::{PosixTimer, Setting, next_look_ns};

pub use crate::timer::state::{Clock, Event};

impl Clock {
    fn now_ns(self, group: &ThreadGroup) -> u64 {
        match self {
            Clock::Host(id) => moat_host::clock::host_ns(id).unwrap_or(0),
            Clock::ProcessCpu => group.usage().cpu_ns(),
            Clock::ThreadCpu(id) => group.thread(id).map_or(0, |t| t.usage.get().cpu_ns()),
        }
    }
}

struct Expiry {
    group: Weak<ThreadGroup>,
    id: i32,
}

impl Notify for Expiry {
    fn notify(&self, _events: PollEvents) {
        if let Some(group) = self.group.upgrade() {
            expire(&group, self.id);
        }
    }
}

/// Makes a timer; gives its id. `event` learns the id, which is the default value.
///
/// # Errors
/// EAGAIN with as many timers as RLIMIT_SIGPENDING allows signals.
pub fn create(group: &Arc<ThreadGroup>, clock: Clock, event: impl FnOnce(i32) -> Event) -> Result<i32> {
    let limit = group.limits.get(crate::Resource::SigPending).soft;
    let mut t = group.timers.posix.lock();
    if u64::try_from(t.timers.len()).unwrap_or(u64::MAX) >= limit {
        return Err(Errno::EAGAIN);
    }
    // In a circle, so that an id that was just deleted is not another timer's at once.
    let mut id = t.next;
    while t.timers.contains_key(&id) {
        id = id.checked_add(1).unwrap_or(0);
    }
    t.next = id.checked_add(1).unwrap_or(0);
    let event = event(id);
    let timer = PosixTimer { clock, event, expires_ns: 0, interval_ns: 0, overrun: 0, last_overrun: 0, timer: None };
    t.timers.insert(id, timer);
    Ok(id)
}

/// Deletes a timer.
///
/// # Errors
/// EINVAL for an unknown id.
pub fn delete(group: &Arc<ThreadGroup>, id: i32) -> Result<()> {
    let gone = group.timers.posix.lock().timers.remove(&id).ok_or(Errno::EINVAL)?;
    drop(gone);
    forget_signal(group, id);
    Ok(())
}

/// Deletes all timers: exec, or the end of the process.
pub fn delete_all(group: &Arc<ThreadGroup>) {
    let gone = std::mem::take(&mut *group.timers.posix.lock());
    for id in gone.timers.keys() {
        forget_signal(group, *id);
    }
}

fn forget_signal(group: &Arc<ThreadGroup>, id: i32) {
    let mut s = group.signals.lock();
    s.shared.discard_timer(TimerRef { id });
    for t in s.threads.values_mut() {
        t.pending.discard_timer(TimerRef { id });
    }
    let ids: Vec<_> = s.threads.keys().copied().collect();
    for t in ids {
        s.recalc(t);
    }
}

/// Whether a time is a point on the clock or a span from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// From here on.
    Relative,
    /// `TIMER_ABSTIME`.
    Absolute,
}

/// Reads a timer.
///
/// # Errors
/// EINVAL for an unknown id.
pub fn get(group: &Arc<ThreadGroup>, id: i32) -> Result<Setting> {
    // The clock is read unlocked: CPU clocks lock the signals, which come first.
    let clock = group.timers.posix.lock().timers.get(&id).ok_or(Errno::EINVAL)?.clock;
    let now = clock.now_ns(group);
    let mut t = group.timers.posix.lock();
    let timer = t.timers.get_mut(&id).ok_or(Errno::EINVAL)?;
    Ok(setting(timer, now))
}

fn setting(t: &PosixTimer, now: u64) -> Setting {
    let value_ns = match t.expires_ns {
        0 => 0,
        at if at > now => at.saturating_sub(now),
        // Due, with its signal not yet delivered: a periodic timer shows the next expiry.
        at if t.interval_ns != 0 => t.interval_ns - (now - at) % t.interval_ns,
        _ => 0,
    };
    Setting { value_ns, interval_ns: t.interval_ns }
}

/// Sets a timer; gives its old setting.
///
/// # Errors
/// EINVAL for an unknown id.
pub fn set(group: &Arc<ThreadGroup>, id: i32, new: Setting, when: When) -> Result<Setting> {
    let clock = group.timers.posix.lock().timers.get(&id).ok_or(Errno::EINVAL)?.clock;
    let now = clock.now_ns(group);
    let expires_ns = match when {
        _ if new.value_ns == 0 => 0,
        When::Relative => ktime_add(now, new.value_ns).max(1),
        When::Absolute => new.value_ns,
    };
    let threads = group.thread_count();
    // Off first, so that the signal that is forgotten is one of the old setting, whose time may come at any moment.
    let (old, gone) = {
        let mut t = group.timers.posix.lock();
        let timer = t.timers.get_mut(&id).ok_or(Errno::EINVAL)?;
        let old = setting(timer, now);
        timer.expires_ns = 0;
        (old, timer.timer.take())
    };
    drop(gone);
    forget_signal(group, id);
    let gone = {
        let mut t = group.timers.posix.lock();
        let timer = t.timers.get_mut(&id).ok_or(Errno::EINVAL)?;
        timer.expires_ns = expires_ns;
        timer.interval_ns = if new.value_ns == 0 { 0 } else { new.interval_ns };
        timer.overrun = 0;
        timer.last_overrun = 0;
        arm(group, id, timer, threads, now, 0)
    };
    drop(gone);
    Ok(old)
}

/// Sets the host timer of a timer of `group` to its next expiry, but not before `least_ns` from `now`; gives the old one, to be dropped
/// unlocked.
///
/// Under the lock of the timers: an expiry must find the setting that it is the end of, and of two settings the later one must be
/// that which is waited for. `threads` is how many the process has, which are behind a lock that comes first.
fn arm(
    group: &Arc<ThreadGroup>,
    id: i32,
    timer: &mut PosixTimer,
    threads: usize,
    now: u64,
    least_ns: u64,
) -> Option<Timer> {
    let host = (timer.expires_ns != 0).then(|| {
        let left_ns = timer.expires_ns.saturating_sub(now).max(least_ns);
        let wait = match timer.clock {
            Clock::Host(_) => left_ns,
            Clock::ProcessCpu | Clock::ThreadCpu(_) => next_look_ns(left_ns, threads),
        };
        Timer::set(moat_host::clock::deadline_after(wait), Arc::new(Expiry { group: Arc::downgrade(group), id }))
    });
    std::mem::replace(&mut timer.timer, host)
}

/// The overrun count of the last delivery.
///
/// # Errors
/// EINVAL for an unknown id.
pub fn overrun(group: &Arc<ThreadGroup>, id: i32) -> Result<i32> {
    group.timers.posix.lock().timers.get(&id).map(|t| t.last_overrun).ok_or(Errno::EINVAL)
}

fn expire(group: &Arc<ThreadGroup>, id: i32) {
    let Some(clock) = group.timers.posix.lock().timers.get(&id).map(|t| t.clock) else { return };
    let now = clock.now_ns(group);
    // Looked up each time: a pending signal also vanishes when it is ignored or cancelled by another.
    let pending = group.signals.lock().has_timer(TimerRef { id });
    let signal = {
        let mut t = group.timers.posix.lock();
        let Some(timer) = t.timers.get_mut(&id).filter(|t| t.expires_ns != 0) else { return };
        let mut signal = None;
        if now >= timer.expires_ns {
            let (next, expiries) = match timer.interval_ns {
                0 => (0, 1),
                i => ktime_forward(timer.expires_ns, i, now),
            };
            timer.expires_ns = next;
            if pending {
                timer.overrun = timer.overrun.saturating_add(expiries);
            } else {
                timer.overrun = timer.overrun.saturating_add(expiries - 1);
                signal = Some(timer.event);
            }
        }
        signal
    };
    // Before the next expiry can come, which looks for this signal.
    if let Some(Event::Signal { signal, value, thread }) = signal {
        let info = SigInfo::timer(signal, id, 0, value);
        let target = thread.map_or(Target::Process, Target::Thread);
        let entry = Queued { info, timer: Some(TimerRef { id }) };
        // A timer's signal has its place reserved.
        let _ = group.send(target, entry, Origin::Outside);
    }
    let threads = group.thread_count();
    let gone = {
        let mut t = group.timers.posix.lock();
        let Some(timer) = t.timers.get_mut(&id) else { return };
        // Faster than this a guest could keep the sentry busy by timers alone.
        arm(group, id, timer, threads, now, 50_000)
    };
    drop(gone);
}

/// A timer as an image has it.
pub(crate) struct SavedTimer {
    pub(crate) id: i32,
    pub(crate) clock: Clock,
    pub(crate) event: Event,
    /// To the next expiry, which may be past; `None` if it is off.
    pub(crate) left_ns: Option<i64>,
    pub(crate) interval_ns: u64,
    pub(crate) overrun: u64,
    pub(crate) last_overrun: i32,
}

/// The next id, and all timers.
pub(crate) fn saved(group: &ThreadGroup) -> (i32, Vec<SavedTimer>) {
    // Clocks are read unlocked, as in `get`.
    let (next, clocks) = {
        let t = group.timers.posix.lock();
        (t.next, t.timers.iter().map(|(id, t)| (*id, t.clock)).collect::<Vec<_>>())
    };
    let now: Vec<_> = clocks.into_iter().map(|(id, clock)| (id, clock.now_ns(group))).collect();
    let t = group.timers.posix.lock();
    let timers = now.into_iter().filter_map(|(id, now)| {
        let timer = t.timers.get(&id)?;
        let left = i128::from(timer.expires_ns).saturating_sub(i128::from(now));
        let left = i64::try_from(left).unwrap_or(i64::MAX);
        Some(SavedTimer {
            id,
            clock: timer.clock,
            event: timer.event,
            left_ns: (timer.expires_ns != 0).then_some(left),
            interval_ns: timer.interval_ns,
            overrun: timer.overrun,
            last_overrun: timer.last_overrun,
        })
    });
    (next, timers.collect())
}

/// Gives a process that has no timers yet those of an image.
pub(crate) fn set_saved(group: &Arc<ThreadGroup>, next: i32, timers: Vec<SavedTimer>) {
    for s in timers {
        let now = s.clock.now_ns(group);
        let expires_ns = s.left_ns.map_or(0, |left| now.saturating_add_signed(left).max(1));
        let mut timer = PosixTimer {
            clock: s.clock,
            event: s.event,
            expires_ns,
            interval_ns: s.interval_ns,
            overrun: s.overrun,
            last_overrun: s.last_overrun,
            timer: None,
        };
        let threads = group.thread_count();
        let mut t = group.timers.posix.lock();
        let none_before = arm(group, s.id, &mut timer, threads, now, 0);
        debug_assert!(none_before.is_none());
        t.timers.insert(s.id, timer);
    }
    group.timers.posix.lock().next = next.max(0);
}

impl CurrentTask {
    /// The signal of `timer` is being delivered: gives and resets the overrun count.
    pub fn timer_delivered(&self, timer: TimerRef) -> i32 {
        let mut t = self.group.timers.posix.lock();
        let Some(timer) = t.timers.get_mut(&timer.id) else { return 0 };
        timer.last_overrun = i32::try_from(std::mem::take(&mut timer.overrun)).unwrap_or(i32::MAX);
        timer.last_overrun
    }
}
