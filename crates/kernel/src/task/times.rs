//! [`CallTimes`]: how long system calls take, while [`Observer::Times`](moat_sync::trace::Observer::Times) wants to know.

use std::sync::atomic::{AtomicU64, Ordering};

use moat_abi::nr;
use moat_sync::trace::Event;

/// All numbers of calls, and one place for those that Linux does not have: as in [`crate::metrics`], which counts them.
const CALLS: usize = nr::TABLE_LEN + 1;

/// Sums of times by system call, while somebody wants to know.
pub struct CallTimes {
    calls_ns: Vec<AtomicU64>,
    guest_ns: AtomicU64,
    wait_ns: AtomicU64,
}

impl Default for CallTimes {
    fn default() -> CallTimes {
        let calls_ns = (0..CALLS).map(|_| AtomicU64::new(0)).collect();
        CallTimes { calls_ns, guest_ns: AtomicU64::new(0), wait_ns: AtomicU64::new(0) }
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
        let known = usize::try_from(event.number).ok().and_then(|number| self.calls_ns.get(number));
        if let Some(sum) = known.or(self.calls_ns.last()) {
            sum.fetch_add(event.duration_ns, Ordering::Relaxed);
        }
    }

    /// How long all calls of a number took, waits included.
    #[must_use]
    pub fn call_ns(&self, number: u64) -> u64 {
        let at = usize::try_from(number).ok();
        at.and_then(|at| self.calls_ns.get(at)).map_or(0, |sum| sum.load(Ordering::Relaxed))
    }

    /// How long tasks were in application code by the sentry's clock, and how long they slept.
    #[must_use]
    pub fn guest_and_wait_ns(&self) -> (u64, u64) {
        (self.guest_ns.load(Ordering::Relaxed), self.wait_ns.load(Ordering::Relaxed))
    }
}
