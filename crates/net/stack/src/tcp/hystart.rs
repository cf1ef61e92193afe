//! [`HyStart`]: where the first slow start ends before the path's queue runs over (HyStart++, RFC 9406).
//!
//! Slow start doubles what is under way in each round trip; without a bound it learns of the path's size by losing a whole
//! window. A queue that fills shows in round trips first: growth becomes conservative then, and ends if that was no accident.

use crate::num::quotient;
use crate::time::MS;

/// What the least round trip of a round may rise by, at least and at most (`MIN_RTT_THRESH`, `MAX_RTT_THRESH`).
const LEAST_RISE_US: u64 = 4 * MS;
const MOST_RISE_US: u64 = 16 * MS;
/// Samples without which a round says nothing (`N_RTT_SAMPLE`).
const SAMPLES: u32 = 8;
/// Rounds of conservative growth, and what growth is divided by in them (`CSS_ROUNDS`, `CSS_GROWTH_DIVISOR`).
const CAREFUL_ROUNDS: u32 = 5;
const CAREFUL_DIVISOR: u64 = 4;

/// How the window grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Doubling.
    Quick,
    /// By a quarter: round trips rose above `baseline`, `rounds` rounds ago.
    Careful { baseline: u64, rounds: u32 },
    /// Slow start is over.
    Over,
}

/// The rounds of a slow start and their least round trips, in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct HyStart {
    phase: Phase,
    /// The round ends when this position is acknowledged.
    round_end: u64,
    last_least: Option<u64>,
    least: Option<u64>,
    samples: u32,
}

impl HyStart {
    pub(crate) fn new() -> HyStart {
        HyStart { phase: Phase::Quick, round_end: 0, last_least: None, least: None, samples: 0 }
    }

    /// Slow start is over, as after a loss.
    pub(crate) fn end(&mut self) {
        self.phase = Phase::Over;
    }

    /// All before `una` is acknowledged and all before `nxt` was sent; `rtt` is the sample of the acknowledgement. Gives
    /// whether slow start ends here.
    pub(crate) fn on_ack(&mut self, una: u64, nxt: u64, rtt: Option<u64>) -> bool {
        if self.phase == Phase::Over {
            return false;
        }
        if let Some(rtt) = rtt {
            self.least = Some(self.least.map_or(rtt, |least| least.min(rtt)));
            self.samples = self.samples.saturating_add(1);
        }
        if self.samples >= SAMPLES
            && let Some(least) = self.least
        {
            self.judge(least);
        }
        // Past the end, not at it: acknowledgements of the round's last bytes belong to it.
        una >= self.round_end && self.next_round(nxt)
    }

    fn judge(&mut self, least: u64) {
        match self.phase {
            Phase::Quick => {
                let Some(last) = self.last_least else { return };
                let rise = (last / 8).clamp(LEAST_RISE_US, MOST_RISE_US);
                if least >= last.saturating_add(rise) {
                    self.phase = Phase::Careful { baseline: least, rounds: 0 };
                }
            }
            // The rise has passed: it was no queue of ours.
            Phase::Careful { baseline, .. } if least < baseline => self.phase = Phase::Quick,
            _ => {}
        }
    }

    fn next_round(&mut self, nxt: u64) -> bool {
        self.round_end = nxt;
        self.last_least = self.least.take();
        self.samples = 0;
        if let Phase::Careful { rounds, .. } = &mut self.phase {
            *rounds = rounds.saturating_add(1);
            // The queue stood for as long as that: the path is full.
            if *rounds >= CAREFUL_ROUNDS {
                self.phase = Phase::Over;
                return true;
            }
        }
        false
    }

    /// What the window grows by when `acked` bytes were acknowledged in slow start.
    pub(crate) fn growth(&self, acked: u64) -> u64 {
        match self.phase {
            Phase::Careful { .. } => quotient(acked, CAREFUL_DIVISOR),
            _ => acked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round of ten acknowledgements with this round trip.
    fn round(h: &mut HyStart, n: u64, rtt_ms: u64) -> bool {
        (1..=10).fold(false, |over, i| over | h.on_ack(n * 10 + i, n * 10 + 20, Some(rtt_ms * MS)))
    }

    #[test]
    fn a_queue_that_stands_ends_slow_start_after_five_careful_rounds() {
        let mut h = HyStart::new();
        assert!(!round(&mut h, 0, 50) && !round(&mut h, 1, 55));
        assert_eq!(h.growth(1000), 1000, "below an eighth more");
        assert!(!round(&mut h, 2, 63));
        assert_eq!(h.growth(1000), 250);
        let ends: Vec<bool> = (3..8).map(|n| round(&mut h, n, 70)).collect();
        assert_eq!(ends.iter().filter(|e| **e).count(), 1, "{ends:?}");
        assert!(!round(&mut h, 8, 200), "over once");
    }

    #[test]
    fn a_rise_that_passes_lets_slow_start_go_on() {
        let mut h = HyStart::new();
        for (n, rtt) in [(0, 50), (1, 50), (2, 70), (3, 50)] {
            assert!(!round(&mut h, n, rtt));
        }
        assert_eq!(h.growth(1000), 1000);
    }

    #[test]
    fn few_samples_and_small_rises_say_nothing() {
        let mut h = HyStart::new();
        // Two samples a round, ever slower.
        for n in 0..20 {
            h.on_ack(n * 10 + 5, n * 10 + 20, Some((50 + 20 * n) * MS));
            h.on_ack(n * 10 + 10, n * 10 + 20, Some((50 + 20 * n) * MS));
        }
        assert_eq!(h.growth(8), 8);
        let mut h = HyStart::new();
        // Fast paths wait for others by more than an eighth.
        for n in 0..20 {
            round(&mut h, n, 1 + n % 4);
        }
        assert_eq!(h.growth(8), 8);
    }
}
