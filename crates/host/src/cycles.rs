//! The cycle counter, which is what stubs can read, and [`Clock`], which makes the host's time of it.

use std::arch::x86_64::_rdtsc;
use std::time::Duration;

use crate::clock::monotonic_ns;

/// The cycle counter.
#[must_use]
pub fn cycle_count() -> u64 {
    // SAFETY: every x86-64 CPU has it.
    unsafe { _rdtsc() }
}

/// The cycle counter and the monotonic clock at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    cycles: u64,
    ns: u64,
}

impl Clock {
    /// As they are.
    #[must_use]
    pub fn now() -> Clock {
        Clock { cycles: cycle_count(), ns: monotonic_ns() }
    }

    /// How long `cycles` take, by what has passed from this moment to `now`.
    #[must_use]
    pub fn length(self, cycles: u64, now: Clock) -> Duration {
        let passed = u128::from(now.cycles.saturating_sub(self.cycles).max(1));
        let ns = u128::from(cycles).saturating_mul(u128::from(now.ns.saturating_sub(self.ns))).checked_div(passed);
        Duration::from_nanos(ns.and_then(|ns| u64::try_from(ns).ok()).unwrap_or(0))
    }

    /// When the counter was at `cycles`, with `now` as the other moment that is known; the earlier of the two for what lies before it.
    #[must_use]
    pub fn at(self, cycles: u64, now: Clock) -> u64 {
        let passed = u128::from(now.cycles.saturating_sub(self.cycles).max(1));
        let age = u128::from(now.cycles.saturating_sub(cycles)).min(passed);
        let ns = age.saturating_mul(u128::from(now.ns.saturating_sub(self.ns))).checked_div(passed).unwrap_or(0);
        now.ns.saturating_sub(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_become_time() {
        let boot = Clock { cycles: 1_000_000, ns: 5_000 };
        let now = Clock { cycles: 4_000_000, ns: 1_005_000 };
        assert_eq!(boot.at(4_000_000, now), 1_005_000);
        assert_eq!(boot.at(2_500_000, now), 505_000);
        // What a guest makes up.
        assert_eq!((boot.at(0, now), boot.at(u64::MAX, now)), (5_000, 1_005_000));
        assert_eq!(now.at(7, now), 1_005_000);
        assert_eq!(boot.length(1_500_000, now), Duration::from_nanos(500_000));
        assert_eq!(now.length(1_500_000, now), Duration::ZERO);
    }
}
