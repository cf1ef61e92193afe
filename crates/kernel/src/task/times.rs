//! [`CallTimes`]: how long system calls take, while [`Observer::Times`](moat_sync::trace::Observer::Times) wants to know.

use std::sync::atomic::{AtomicU64, Ordering};

use moat_abi::nr;
use moat_sync::trace::Event;

/// Results from here on are errors (`MAX_ERRNO`).
const FIRST_ERROR: u64 = 4095u64.wrapping_neg();

/// All numbers of calls, and one place for those that Linux does not have.
const CALLS: usize = 513;

/// What one call has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallTime {
    /// Its number.
    pub number: u64,
    /// How often it was made.
    pub calls: u64,
    /// How often it failed.
    pub errors: u64,
    /// How long it took in all, waits included.
    pub time_ns: u64,
}

#[derive(Default)]
struct Sums {
    calls: AtomicU64,
    errors: AtomicU64,
    time_ns: AtomicU64,
}

/// Sums of times by system call, while somebody wants to know.
pub struct CallTimes {
    calls: Vec<Sums>,
    guest_ns: AtomicU64,
    wait_ns: AtomicU64,
}

impl Default for CallTimes {
    fn default() -> CallTimes {
        let calls = (0..CALLS).map(|_| Sums::default()).collect();
        CallTimes { calls, guest_ns: AtomicU64::new(0), wait_ns: AtomicU64::new(0) }
    }
}

impl CallTimes {
    pub(crate) fn add_guest(&self, ns: u64) {
        self.guest_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// A task has slept for so long.
    pub(crate) fn add_wait(&self, ns: u64) {
        self.wait_ns.fetch_add(ns, Ordering::Relaxed);
    }

    pub(crate) fn add_call(&self, event: &Event) {
        // Guests can make calls of any number.
        let known = u32::try_from(event.number).ok().filter(|number| nr::name(*number).is_some());
        let at = known.and_then(|number| usize::try_from(number).ok()).unwrap_or(CALLS);
        let Some(sums) = self.calls.get(at).or(self.calls.last()) else { return };
        sums.calls.fetch_add(1, Ordering::Relaxed);
        sums.time_ns.fetch_add(event.duration_ns, Ordering::Relaxed);
        if event.result >= FIRST_ERROR {
            sums.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The calls that were made.
    pub fn calls(&self) -> Vec<CallTime> {
        let all = self.calls.iter().zip(0u64..).map(|(sums, number)| CallTime {
            number,
            calls: sums.calls.load(Ordering::Relaxed),
            errors: sums.errors.load(Ordering::Relaxed),
            time_ns: sums.time_ns.load(Ordering::Relaxed),
        });
        // One may be counted between two of these loads: the sums are for people.
        all.filter(|call| call.calls > 0).collect()
    }

    /// How long tasks were in application code by the sentry's clock, and how long they slept.
    #[must_use]
    pub fn guest_and_wait_ns(&self) -> (u64, u64) {
        (self.guest_ns.load(Ordering::Relaxed), self.wait_ns.load(Ordering::Relaxed))
    }
}
