//! [`Room`]: whether a sentry thread has a CPU to wait awake on, by what runs; [`Crowd`]: whether that pays where there is none left.
//!
//! With a CPU to spare nobody loses by a sentry thread that looks. With more guest threads than CPUs it takes one away from
//! them. That pays if they leave application code at once each time: then what is dear is the two switches of address space
//! that a call costs through the host, and guest threads that share the other CPUs don't pay them. A single thread serves all calls
//! then, so what it does for one must be short, too.

/// What a call costs through the host more than through memory (some 8 us).
const RING_CYCLES: u64 = 25_000;
/// Events between two judgements, and what a look in vain must be paid for by.
const JUDGED: u32 = 64;
/// Events in a row that were worth it, after which what was seen long ago is forgotten.
const FORGIVEN: u32 = 1024;
/// Looks in vain in a row that were not paid for.
const LOSSES: u32 = 3;
/// How long it is not tried again (some ms), and how often that doubles.
const BARRED_CYCLES: u64 = 3_000_000;
const MAX_DOUBLINGS: u32 = 4;

/// Where a sentry thread may wait awake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Nowhere: guest threads have the CPUs.
    None,
    /// On a CPU that nobody else needs.
    Spare,
    /// On a CPU that guest threads are kept off.
    Crowd,
}

impl Room {
    /// By how many guest threads run, how many of them are brief, and how many CPUs there are.
    pub fn of(running: i64, brief: i64, cpus: i64) -> Room {
        // The sentry's thread is one more: with as many guest threads as CPUs one of them would wait for the CPU that looks.
        if running < cpus {
            return Room::Spare;
        }
        // One that computes loses up to a CPU's worth to those that don't: a few may.
        let most_are = brief.saturating_mul(4) >= running.saturating_mul(3);
        if cpus > 1 && most_are { Room::Crowd } else { Room::None }
    }
}

/// What has been seen of looking in a crowd.
#[derive(Debug, Default)]
pub struct Crowd {
    /// Events since the last look in vain, and since the last bar.
    found: u32,
    good: u32,
    /// Looks in vain in a row that were not paid for.
    losses: u32,
    /// What the thread that looks does for an event, on average.
    serves: u64,
    doublings: u32,
}

impl Crowd {
    /// An event was found, and taken care of in so many cycles. Until when it is not to be tried again, if it does not pay.
    pub fn served(&mut self, cycles: u64, cpus: u64, now: u64) -> Option<u64> {
        self.found = self.found.saturating_add(1);
        self.good = self.good.saturating_add(1);
        self.serves = self.serves.saturating_mul(31).saturating_add(cycles.min(RING_CYCLES.saturating_mul(4))) / 32;
        if self.good >= FORGIVEN {
            self.doublings = 0;
        }
        // The others would do as much beside each other, at the price of the rings.
        let dear = self.serves.saturating_mul(cpus.saturating_sub(1)) > RING_CYCLES;
        (dear && self.good.is_multiple_of(JUDGED)).then(|| self.bar(now))
    }

    /// A look was in vain.
    pub fn failed(&mut self, now: u64) -> Option<u64> {
        let paid = std::mem::take(&mut self.found) >= JUDGED;
        // At first the host has yet to move and wake them.
        self.losses = if paid { 0 } else { self.losses.saturating_add(1) };
        (self.losses >= LOSSES).then(|| self.bar(now))
    }

    fn bar(&mut self, now: u64) -> u64 {
        let until = now.saturating_add(BARRED_CYCLES << self.doublings);
        let doublings = self.doublings.saturating_add(1).min(MAX_DOUBLINGS);
        *self = Crowd { doublings, ..Crowd::default() };
        until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_runs_decides() {
        assert_eq!(Room::of(1, 0, 2), Room::Spare);
        assert_eq!(Room::of(2, 1, 2), Room::None);
        assert_eq!(Room::of(2, 2, 2), Room::Crowd);
        assert_eq!(Room::of(64, 47, 2), Room::None);
        assert_eq!(Room::of(64, 48, 2), Room::Crowd);
        assert_eq!(Room::of(1, 1, 1), Room::None);
        assert_eq!(Room::of(1000, 1000, 1), Room::None);
    }

    #[test]
    fn what_does_not_pay_is_tried_less_and_less() {
        let mut crowd = Crowd::default();
        // Long calls: nothing is gained by serving them one after the other.
        let (mut now, mut tries) = (0, 0);
        for _ in 0..100_000 {
            now += 20_000;
            if let Some(until) = crowd.served(20_000, 4, now) {
                (now, tries) = (until, tries + 1);
            }
        }
        assert!(tries > 10, "{tries}");
        assert!(now / tries > 40_000_000, "tried {tries} times in {now} cycles");
        // Short ones on two CPUs are worth it for ever.
        let mut crowd = Crowd::default();
        assert!((0..10_000).all(|now| crowd.served(2000, 2, now).is_none()));
        assert_eq!(crowd.failed(5), None, "paid for");
        assert_eq!([crowd.failed(5), crowd.failed(5), crowd.failed(5)], [None, None, Some(5 + BARRED_CYCLES)]);
        // On many CPUs one thread can't serve all.
        let mut crowd = Crowd::default();
        assert!((0..10_000).any(|now| crowd.served(2000, 64, now).is_some()));
    }
}
