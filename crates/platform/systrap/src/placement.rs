//! [`Placement`]: on which CPUs a guest thread may run while a sentry thread looks at it.
//!
//! A hand-off through memory needs both threads on a CPU each. Most hosts see to that by themselves: a thread that is woken
//! while its waker goes on running is given an idle CPU. Some do not (a scheduler that packs runnable threads on few
//! CPUs, a wake-up that follows the waker): then the guest thread waits behind the very thread that looks at it, and
//! every look is in vain. The policy:
//!
//! - A thread is left to the host until a look at it was in vain because it never ran, or ran in the place of the thread that
//!   looked ([`Placement::starved`]).
//! - From then on, when it is about to be looked at and has last stopped on the CPU of the sentry thread, it is kept off
//!   that CPU, by its affinity, if there is another. So is every other thread then, wherever it has stopped: the host has
//!   shown what it does.
//! - That is taken back as soon as the reason has gone: a look in vain that nothing was gained by before, more runnable guest threads than CPUs for
//!   a while, a clone (which would inherit it).
//! - A thread whose affinity the guest has chosen is never touched, and what the guest is told of affinities never
//!   comes from the host.

use crate::room::Room;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Replies in a row without a free CPU after which a thread may run anywhere again.
const CROWDED: u8 = 8;

/// What is known of a thread that is about to go on.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// It is about to be looked at.
    pub hot: bool,
    /// Whether there may be a CPU for it beside the sentry's.
    pub room: Room,
    /// The host has been seen to run threads in the place of one that looks.
    pub packs: bool,
    /// Where it stopped last, as it says itself.
    pub cpu: u32,
    /// The CPU of the sentry thread that looks.
    pub here: u32,
}

/// A change of a thread's affinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Any CPU but this one.
    KeepOff(u32),
    /// Any CPU.
    Anywhere,
}

/// How one thread is placed.
#[derive(Debug, Default)]
pub struct Placement {
    off: Option<u32>,
    starved: bool,
    crowded: u8,
    barred: bool,
}

impl Placement {
    /// The thread is about to go on.
    pub fn next(&mut self, facts: Facts) -> Option<Step> {
        if self.barred {
            return None;
        }
        self.crowded = if facts.room != Room::None { 0 } else { self.crowded.saturating_add(1) };
        // Not at the first: the count of running threads is a guess that is out of date in a moment.
        if self.crowded >= CROWDED {
            return self.take_back();
        }
        let wrong = match facts.room {
            // Those that would share the sentry's CPU are many.
            Room::Crowd => facts.hot && self.off != Some(facts.here),
            // Only what was seen to go wrong is mended: on a host that spreads threads by itself this is never true.
            _ if facts.packs => facts.hot && self.off != Some(facts.here),
            _ => facts.hot && self.starved && facts.cpu == facts.here,
        };
        wrong.then(|| {
            self.off = Some(facts.here);
            Step::KeepOff(facts.here)
        })
    }

    /// A look at it was in vain, and it had not run beside the thread that looked. True if that is news.
    pub fn starved(&mut self) -> bool {
        !std::mem::replace(&mut self.starved, true)
    }

    /// The thread may run anywhere.
    pub fn take_back(&mut self) -> Option<Step> {
        // One host call to take it back, and none for a thread that was never placed.
        self.off.take().map(|_| Step::Anywhere)
    }

    /// Somebody else sets its affinity from here on.
    pub fn bar(&mut self) -> Option<Step> {
        self.barred = true;
        self.take_back()
    }
}

/// The CPUs that guest threads may run on at all: those of the sentry when it began.
pub struct Cpus(Option<CpuSet>);

impl Cpus {
    /// The calling thread's. On a host with more CPUs than a [`CpuSet`] holds no thread is ever placed.
    pub fn of_this_thread() -> Cpus {
        Cpus(sched_getaffinity(None).ok())
    }

    /// Moves the calling thread to a CPU, which it may leave again.
    pub fn go_to(&self, cpu: u32) {
        if let (Some(all), Ok(cpu)) = (self.0, usize::try_from(cpu))
            && cpu < CpuSet::MAX_CPU
            && all.is_set(cpu)
        {
            let mut one = CpuSet::new();
            one.set(cpu);
            let _ = sched_setaffinity(None, &one);
            let _ = sched_setaffinity(None, &all);
        }
    }

    /// Carries out a step on a host thread. The host may refuse it (a cpuset that has shrunk): the thread is then left
    /// where it may be.
    pub fn apply(&self, tid: i32, step: Step) {
        let Some(mut set) = self.0 else { return };
        if let Step::KeepOff(cpu) = step
            && let Ok(cpu) = usize::try_from(cpu)
            && cpu < CpuSet::MAX_CPU
        {
            set.unset(cpu);
        }
        let _ = sched_setaffinity(rustix::thread::Pid::from_raw(tid), &set);
    }
}

#[cfg(test)]
mod simulator;
