//! Interval timers: setitimer(2), alarm(2), and RLIMIT_CPU.
//!
//! `ITIMER_REAL` runs on the monotonic clock; `ITIMER_VIRTUAL` and `ITIMER_PROF` on the CPU time that the process has
//! used, which is looked at when the earliest of them could have expired.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use moat_abi::PollEvents;
use moat_abi::siginfo::{SI_KERNEL, SigInfo};
use moat_abi::signal::Signal;
use moat_abi::time::{NSEC_PER_SEC, ktime_add, ktime_forward};
use moat_sync::timer::Timer;
use moat_sync::wait::Notify;

use crate::process::group::ThreadGroup;
use crate::signal::send::send_to_process;
use crate::timer::state::{IntervalTimer, next_look_ns};
use moat_identity::limits::{INFINITY, Resource};

pub use crate::timer::state::Setting;

/// Which timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Wall-clock time: SIGALRM.
    Real = 0,
    /// User CPU time: SIGVTALRM.
    Virtual = 1,
    /// CPU time: SIGPROF.
    Prof = 2,
    /// RLIMIT_CPU: SIGXCPU each second from the soft limit on, SIGKILL at the hard one. Guests can't name it.
    Limit = 3,
}

impl Which {
    /// By Linux's number.
    #[must_use]
    pub fn from_number(n: i32) -> Option<Which> {
        match n {
            0 => Some(Which::Real),
            1 => Some(Which::Virtual),
            2 => Some(Which::Prof),
            _ => None,
        }
    }

    fn signal(self) -> Signal {
        match self {
            Which::Real => Signal::SIGALRM,
            Which::Virtual => Signal::SIGVTALRM,
            Which::Prof => Signal::SIGPROF,
            Which::Limit => Signal::SIGXCPU,
        }
    }

    /// What the timer's clock shows, in nanoseconds.
    fn now_ns(self, group: &ThreadGroup) -> u64 {
        match self {
            Which::Real => moat_host::clock::monotonic_ns(),
            Which::Virtual => group.usage().user_ns,
            Which::Prof | Which::Limit => group.usage().cpu_ns(),
        }
    }
}

struct Expiry {
    group: Weak<ThreadGroup>,
    which: Which,
}

impl Notify for Expiry {
    fn notify(&self, _events: PollEvents) {
        if let Some(group) = self.group.upgrade() {
            expire(&group, self.which);
        }
    }
}

/// Reads a timer.
#[must_use]
pub fn get(group: &Arc<ThreadGroup>, which: Which) -> Setting {
    let now = which.now_ns(group);
    let timers = group.timers.interval.lock();
    let t = &timers.timers[which as usize];
    setting(t, now)
}

fn setting(t: &IntervalTimer, now: u64) -> Setting {
    // An armed timer must not show zero, which is off.
    let value_ns = if t.expires_ns == 0 { 0 } else { t.expires_ns.saturating_sub(now).max(1000) };
    Setting { value_ns, interval_ns: t.interval_ns }
}

/// Sets a timer; gives its old setting.
pub fn set(group: &Arc<ThreadGroup>, which: Which, new: Setting) -> Setting {
    let now = which.now_ns(group);
    // Zero is off.
    let expires_ns = if new.value_ns == 0 { 0 } else { ktime_add(now, new.value_ns).max(1) };
    let threads = group.thread_count();
    let (old, gone) = {
        let mut timers = group.timers.interval.lock();
        let t = &mut timers.timers[which as usize];
        let old = setting(t, now);
        t.expires_ns = expires_ns;
        t.interval_ns = if new.value_ns == 0 { 0 } else { new.interval_ns };
        (old, arm(group, which, t, threads, now, 0))
    };
    drop(gone);
    old
}

/// Sets the host timer of a timer of `group` to its next expiry, but not before `least_ns` from `now`; gives the old one, to be dropped
/// unlocked.
///
/// Under the lock of the timers: an expiry must find the setting that it is the end of, and of two settings the later one must be
/// that which is waited for. `threads` is how many the process has, which are behind a lock that comes first.
fn arm(
    group: &Arc<ThreadGroup>,
    which: Which,
    t: &mut IntervalTimer,
    threads: usize,
    now: u64,
    least_ns: u64,
) -> Option<Timer> {
    let host = (t.expires_ns != 0).then(|| {
        let left_ns = t.expires_ns.saturating_sub(now).max(least_ns);
        let wait = match which {
            Which::Real => left_ns,
            _ => next_look_ns(left_ns, threads),
        };
        let deadline = moat_host::clock::deadline_after(wait).max(Instant::now() + Duration::from_nanos(1));
        Timer::set(deadline, Arc::new(Expiry { group: Arc::downgrade(group), which }))
    });
    std::mem::replace(&mut t.timer, host)
}

fn expire(group: &Arc<ThreadGroup>, which: Which) {
    let now = which.now_ns(group);
    let threads = group.thread_count();
    let (fire, gone) = {
        let mut timers = group.timers.interval.lock();
        let t = &mut timers.timers[which as usize];
        if t.expires_ns == 0 {
            // It was switched off meanwhile.
            return;
        }
        // If the threads used less than they could, this is only the next look.
        let fire = now >= t.expires_ns;
        if fire {
            t.expires_ns = match t.interval_ns {
                0 => 0,
                // Expiries that nobody could handle are dropped, as Linux does by re-arming at delivery.
                i => ktime_forward(t.expires_ns, i, now).0,
            };
        }
        // Faster than this a guest could keep the sentry busy by timers alone.
        (fire, arm(group, which, t, threads, now, 50_000))
    };
    drop(gone);
    // SIGXCPU each second from the soft limit on; at the hard one there is no handler to ask.
    if fire && which == Which::Limit {
        let hard = group.limits.get(Resource::Cpu).hard.saturating_mul(NSEC_PER_SEC);
        if now >= hard {
            send_to_process(group, SigInfo::new(Signal::SIGKILL, SI_KERNEL));
            return;
        }
    }
    if fire {
        send_to_process(group, SigInfo::new(which.signal(), SI_KERNEL));
    }
}

/// Watches over RLIMIT_CPU from here on: it has been set, or inherited by a new process.
pub fn watch_cpu_limit(group: &Arc<ThreadGroup>) {
    let limit = group.limits.get(Resource::Cpu);
    if limit.soft == INFINITY && limit.hard == INFINITY {
        return;
    }
    // 0 counts as one second, as on Linux.
    let end = limit.soft.min(limit.hard).max(1).saturating_mul(NSEC_PER_SEC);
    let left = end.saturating_sub(Which::Limit.now_ns(group)).max(1);
    set(group, Which::Limit, Setting { value_ns: left, interval_ns: NSEC_PER_SEC });
}

/// Stops all timers: the process has ended.
pub fn cancel_all(group: &Arc<ThreadGroup>) {
    let gone = std::mem::take(&mut *group.timers.interval.lock());
    drop(gone);
}
