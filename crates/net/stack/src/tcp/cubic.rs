//! [`Cubic`]: congestion control, RFC 9438.

use super::hystart::HyStart;
use crate::num::{Narrow, quotient, whole};
use crate::time::Time;

/// The window that a connection begins with, in segments (RFC 6928).
pub(crate) const INITIAL_WINDOW: u64 = 10;
/// Windows larger than this make no difference.
const MOST: u64 = 1 << 30;

/// The congestion window of a connection, in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Cubic {
    pub(crate) window: u64,
    pub(crate) threshold: u64,
    /// Bytes acknowledged towards the next segment of growth.
    credit: u64,
    /// The window before the last loss, in bytes.
    peak: u64,
    /// When the present growth began, with the window then and the time to the peak in ms.
    epoch: Option<(Time, u64, u64)>,
    /// What AIMD would have, in bytes.
    friendly: u64,
    /// Where the first slow start ends.
    start: HyStart,
}

impl Cubic {
    pub(crate) fn new(mss: u64) -> Cubic {
        Cubic {
            window: INITIAL_WINDOW.saturating_mul(mss),
            threshold: MOST,
            credit: 0,
            peak: 0,
            epoch: None,
            friendly: 0,
            start: HyStart::new(),
        }
    }

    pub(crate) fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// An acknowledgement came, whatever the window is used for: the rounds of slow start go by it. See [`HyStart::on_ack`].
    pub(crate) fn observe(&mut self, una: u64, nxt: u64, rtt: Option<u64>) {
        if self.start.on_ack(una, nxt, rtt) && self.in_slow_start() {
            self.threshold = self.window;
        }
    }

    /// `acked` bytes were acknowledged while the window was in full use.
    pub(crate) fn on_ack(&mut self, acked: u64, mss: u64, rtt_us: u64, now: Time) {
        let mut acked = acked;
        if self.in_slow_start() {
            // Slow start ends exactly at the threshold; what is left counts for what follows.
            let growth = self.start.growth(acked);
            let step = growth.min(self.threshold.saturating_sub(self.window));
            self.window = self.window.saturating_add(step).min(MOST);
            acked = if step < growth { acked.saturating_sub(step) } else { 0 };
        }
        if acked > 0 && !self.in_slow_start() {
            self.avoid(acked, mss.max(1), rtt_us, now);
        }
    }

    fn avoid(&mut self, acked: u64, mss: u64, rtt_us: u64, now: Time) {
        let window = self.window;
        let (began, origin, k_ms) = self.epoch.unwrap_or_else(|| {
            let missing = quotient(self.peak.saturating_sub(window), mss);
            // K is the cube root of missing / 0.4, in seconds.
            let k_ms = cube_root(missing.saturating_mul(2_500_000_000));
            self.friendly = window;
            (now, window.max(self.peak), k_ms)
        });
        self.epoch = Some((began, origin, k_ms));
        // What the curve says for one round trip ahead.
        let t_ms = now.since(began).saturating_add(rtt_us) / 1000;
        // In milliseconds; a bound that keeps the cube within 64 bits.
        let distance = t_ms.abs_diff(k_ms).min(1_000_000);
        let cubed = distance.saturating_mul(distance).saturating_mul(distance);
        let delta = (u128::from(cubed).saturating_mul(4).saturating_mul(u128::from(mss)) / 10_000_000_000u128).narrow();
        let target: u64 = if t_ms >= k_ms { origin.saturating_add(delta) } else { origin.saturating_sub(delta) };
        // No more than half a window more in one round trip.
        let target = target.clamp(window, window.saturating_mul(3) / 2);
        // AIMD of the same average: 3 * (1 - beta) / (1 + beta), about 0.53 segments per round trip.
        let friendly_step = quotient(acked.saturating_mul(mss).saturating_mul(53), window.saturating_mul(100));
        self.friendly = self.friendly.saturating_add(friendly_step);
        let target = target.max(self.friendly);
        // The distance to the target is walked in one round trip, which acknowledges a window.
        self.credit = self.credit.saturating_add(quotient(acked.saturating_mul(target.saturating_sub(window)), window));
        if self.credit >= mss {
            let step = whole(self.credit, mss);
            self.window = window.saturating_add(step).min(MOST);
            self.credit = self.credit.saturating_sub(step);
        }
    }

    /// A loss was found: the window that recovery aims at, 0.7 times what it was.
    pub(crate) fn on_loss(&mut self, mss: u64) -> u64 {
        self.epoch = None;
        self.friendly = 0;
        self.credit = 0;
        // Slow starts after it have a threshold that is known.
        self.start.end();
        // Fast convergence: a flow that lost below its last peak makes room.
        self.peak = if self.window < self.peak { self.window.saturating_mul(17) / 20 } else { self.window };
        self.threshold = (self.window.saturating_mul(7) / 10).max(mss.saturating_mul(2));
        self.threshold
    }

    /// The retransmission timer went off.
    pub(crate) fn on_timeout(&mut self, mss: u64) {
        self.on_loss(mss);
        self.window = mss;
    }

    /// Nothing was sent for `idle_us`: the window is no longer known to be good (RFC 2861).
    pub(crate) fn on_idle(&mut self, idle_us: u64, rto_us: u64, mss: u64) {
        let restart = INITIAL_WINDOW.saturating_mul(mss).min(self.window);
        let mut left = idle_us;
        self.threshold = self.threshold.max(self.window.saturating_mul(3) / 4);
        while left > rto_us && self.window > restart {
            self.window = (self.window / 2).max(restart);
            left = left.saturating_sub(rto_us.max(1));
        }
        self.epoch = None;
    }
}

/// The cube root, rounded down.
fn cube_root(n: u64) -> u64 {
    let mut root = 0u64;
    for bit in (0..21).rev() {
        let next = root | (1 << bit);
        if next.checked_mul(next).and_then(|s| s.checked_mul(next)).is_some_and(|c| c <= n) {
            root = next;
        }
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MS;

    #[test]
    fn cube_roots() {
        for (n, root) in [(0, 0), (7, 1), (8, 2), (26, 2), (27, 3), (1_000_000_000_000, 10_000)] {
            assert_eq!(cube_root(n), root);
        }
    }

    #[test]
    fn the_window_returns_to_its_peak_in_k_and_then_grows_on() {
        let mss = 1000;
        let mut c = Cubic::new(mss);
        c.window = 100 * mss;
        c.window = c.on_loss(mss);
        assert_eq!(c.window, 70 * mss);
        // K is the cube root of 30 / 0.4: 4.2 seconds.
        let mut now = Time::default();
        let rtt = 100 * MS;
        let mut at_k = 0;
        for round in 0..80 {
            c.on_ack(c.window, mss, rtt, now);
            now = now.after(rtt);
            if round == 42 {
                at_k = c.window / mss;
            }
        }
        assert!((95..=106).contains(&at_k), "{at_k}");
        assert!((115..200).contains(&(c.window / mss)), "{}", c.window);
    }

    #[test]
    fn slow_start_doubles() {
        let mut c = Cubic::new(1000);
        c.on_ack(10_000, 1000, MS, Time::default());
        assert_eq!(c.window, 20_000);
        c.on_timeout(1000);
        assert_eq!((c.window, c.threshold), (1000, 14_000));
    }
}
