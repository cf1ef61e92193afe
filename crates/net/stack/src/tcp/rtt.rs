//! [`RttEstimator`]: round-trip times and the retransmission timeout, RFC 6298 with Linux's bounds.

use crate::time::{MS, SECOND};

/// `TCP_RTO_MIN`, `TCP_RTO_MAX`, `TCP_TIMEOUT_INIT`.
const RTO_MIN_US: u64 = 200 * MS;
pub(crate) const RTO_MAX_US: u64 = 120 * SECOND;
const RTO_INIT_US: u64 = SECOND;
/// How long the least round trip counts (`tcp_min_rtt_wlen`, about).
const MIN_WINDOW_US: u64 = 300 * SECOND;

/// What is known of a path's round trips, in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct RttEstimator {
    /// The smoothed round trip and its deviation; 0 without a sample.
    pub(crate) smoothed: u64,
    pub(crate) deviation: u64,
    min: Option<(u64, u64)>,
    /// How often the timeout was doubled since the last sample.
    pub(crate) backoff: u32,
}

impl RttEstimator {
    pub(crate) fn sample(&mut self, rtt_us: u64, now_us: u64) {
        let rtt = rtt_us.max(1);
        if self.smoothed == 0 {
            self.smoothed = rtt;
            self.deviation = rtt / 2;
        } else {
            let error = self.smoothed.abs_diff(rtt);
            self.deviation = self.deviation.saturating_mul(3).saturating_add(error) / 4;
            self.smoothed = self.smoothed.saturating_mul(7).saturating_add(rtt) / 8;
        }
        self.smoothed = self.smoothed.max(1);
        // The least of a while, so that a path that became longer is believed at last.
        match self.min {
            Some((least, at)) if least < rtt && now_us.saturating_sub(at) < MIN_WINDOW_US => {}
            _ => self.min = Some((rtt, now_us)),
        }
        self.backoff = 0;
    }

    /// The least round trip of the last minutes.
    pub(crate) fn least(&self) -> Option<u64> {
        self.min.map(|(rtt, _)| rtt)
    }

    /// The timeout without backoff.
    fn base(&self) -> u64 {
        if self.smoothed == 0 {
            return RTO_INIT_US;
        }
        // Linux bounds the deviation's part from below, not the sum (`__tcp_set_rto`).
        self.smoothed.saturating_add(self.deviation.saturating_mul(4).max(RTO_MIN_US))
    }

    /// The timeout.
    pub(crate) fn rto(&self) -> u64 {
        self.base().saturating_mul(1u64.checked_shl(self.backoff).unwrap_or(u64::MAX)).min(RTO_MAX_US)
    }

    pub(crate) fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1).min(16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_rfc_6298() {
        let mut e = RttEstimator::default();
        assert_eq!(e.rto(), SECOND);
        e.sample(100 * MS, 0);
        assert_eq!((e.smoothed, e.deviation, e.rto()), (100 * MS, 50 * MS, 300 * MS));
        e.back_off();
        e.back_off();
        assert_eq!(e.rto(), 1200 * MS);
        for _ in 0..99 {
            e.back_off();
        }
        assert_eq!(e.rto(), RTO_MAX_US);
        e.sample(100 * MS, 1);
        assert!(e.rto() <= 300 * MS);
    }
}
