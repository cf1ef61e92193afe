//! Pacing: segments spread over the round trip, so that a window does not meet a short queue as one burst.
//!
//! What may be sent now goes at a rate of a little more than the window in a round trip (`tcp_update_pacing_rate`); the first
//! segments after silence go at once. Paths so short that no timer could tell segments apart are not paced: acknowledgements do it.

use super::connection::Connection;
use super::cubic::INITIAL_WINDOW;
use crate::num::{Narrow, quotient, whole};
use crate::time::{MS, SECOND, Time};

/// The shortest round trip that is paced.
const LEAST_RTT_US: u64 = 2 * MS;
/// What a timer that comes late may be made good for.
const SLACK_US: u64 = MS;
/// Round trips that count as short for the size of bursts, by halves (`net.ipv4.tcp_tso_rtt_log`).
const RTT_LOG: u32 = 9;

impl Connection {
    /// Bytes a second that pacing aims at; `None` without an estimate of the round trip.
    pub(crate) fn pacing_rate(&self) -> Option<u64> {
        if self.rtt.smoothed == 0 {
            return self.settings.pacing_rate;
        }
        // Twice the window while it may double (`tcp_update_pacing_rate`).
        let (start, later) = self.rules.pacing;
        let percent = if self.cc.window < self.cc.threshold / 2 { start } else { later };
        let window = self.cc.window.max(self.pipe());
        // Bytes in a second: the window times the round trips of a second.
        let bytes = u128::from(window).saturating_mul(u128::from(percent)).saturating_mul(u128::from(SECOND)) / 100;
        let rate: u64 = bytes.checked_div(u128::from(self.rtt.smoothed)).unwrap_or(0).narrow();
        Some(rate.max(self.mss).min(self.settings.pacing_rate.unwrap_or(u64::MAX)))
    }

    /// Whether segments wait for their time.
    fn paces(&self) -> bool {
        self.settings.pacing_rate.is_some() || self.rtt.least().is_some_and(|least| least >= LEAST_RTT_US)
    }

    /// Whether data has to wait; sets the timer then.
    pub(crate) fn must_wait(&mut self, now: Time) -> bool {
        let waits = self.pacer.free == 0 && self.paces() && self.pacer.next > now;
        self.timers.pace = waits.then_some(self.pacer.next);
        waits
    }

    /// Nothing is under way and nothing waits: what comes next may go at once, as at the beginning.
    pub(crate) fn refill_pacer(&mut self) {
        self.pacer.free = INITIAL_WINDOW.saturating_mul(self.mss);
    }

    /// `len` bytes go now: the next ones have their time by that.
    pub(crate) fn charge_pacer(&mut self, len: u64, now: Time) {
        let paid = len.saturating_sub(self.pacer.free);
        self.pacer.free = self.pacer.free.saturating_sub(len);
        let Some(rate) = self.pacing_rate() else { return };
        let from = self.pacer.next.us().max(now.us().saturating_sub(SLACK_US));
        self.pacer.next = Time::from_us(from).after(quotient(paid.saturating_mul(SECOND), rate));
    }

    /// The most that one segment is handed down with, in whole packets: what goes in a millisecond, and on short paths as much as
    /// the device cuts (`tcp_tso_autosize`).
    pub(crate) fn burst(&self) -> u64 {
        let most = self.largest_segment;
        let spread = match self.pacing_rate() {
            // Without a round trip nothing is known of the path.
            None => most,
            Some(rate) => {
                let halves: u32 = (self.rtt.least().unwrap_or(0) >> RTT_LOG).narrow();
                // Halved for each half millisecond of the path.
                (rate >> 10).saturating_add(most.checked_shr(halves).unwrap_or(0))
            }
        };
        whole(spread.max(self.mss.saturating_mul(2)).min(most), self.mss).max(self.mss)
    }
}
