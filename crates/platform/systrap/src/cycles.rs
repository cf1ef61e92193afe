//! The cycle counter, which is what stubs can read, and [`Clock`], which makes the host's time of it.

use std::arch::x86_64::_rdtsc;

use moat_host::clock::monotonic_ns;

/// The cycle counter.
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
    pub fn now() -> Clock {
        Clock { cycles: cycle_count(), ns: monotonic_ns() }
    }

    /// When the counter was at `cycles`, with `now` as the other moment that is known; the earlier of the two for what lies before it.
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
    }
}
