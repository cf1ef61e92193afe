//! What happens when a connection's time has come.

use moat_abi::Errno;

use super::congestion::{Congestion, Doubt, TailProbe};
use super::connection::{Connection, ConnectionState};
use super::rtt::RTO_MAX_US;
use crate::num::Narrow;
use crate::time::{SECOND, Time};

/// Times that data is sent again of a connection that nobody holds.
const ORPHAN_RETRIES: u32 = 8;
/// Least time to a keepalive.
const LEAST_KEEP_ALIVE_US: u64 = SECOND;

impl Connection {
    /// Does what is due. Call [`Connection::output`] afterwards.
    pub fn on_timer(&mut self, now: Time) {
        // Taken, so that each is done once.
        let due = |t: &mut Option<Time>| t.take_if(|at| *at <= now).is_some();
        if due(&mut self.timers.end) {
            self.close_with(None);
            return;
        }
        if due(&mut self.timers.reorder) {
            self.reorder_timeout(now);
        }
        // The timeout does more than the probe would.
        if due(&mut self.timers.rto) {
            self.retransmission_timeout(now);
        } else if due(&mut self.timers.probe) {
            self.send_tail_probe(now);
        }
        due(&mut self.timers.pace);
        if due(&mut self.timers.persist) {
            self.persist(now);
        }
        if due(&mut self.timers.delayed_ack) {
            // The application does not answer at once after all.
            self.ack.interactive = false;
            self.ack.now = true;
        }
        // Nothing is left that it could hold back.
        if self.timers.cork.is_some_and(|at| at <= now) && self.nxt >= self.send_end() {
            self.timers.cork = None;
        }
        if due(&mut self.timers.keep_alive) {
            self.keep_alive(now);
        }
    }

    /// Whether nothing has been acknowledged for too long.
    fn hopeless(&self, now: Time, retries: u32) -> bool {
        // RFC 5482: the time without progress counts, not the number of tries.
        if self.settings.user_timeout_us > 0 && self.synchronized() {
            return self.stuck_since.is_some_and(|t| now.since(t) >= self.settings.user_timeout_us);
        }
        // A peer that answers may keep its window closed for ever.
        let answers = self.synchronized() && self.send_window == 0 && now.since(self.heard_at) < RTO_MAX_US;
        self.counters.retransmits >= retries && !answers
    }

    fn give_up(&mut self) {
        // What the network has said of the path is more telling than the time.
        let error = self.soft_error.unwrap_or(Errno::ETIMEDOUT);
        self.close_with(Some(error));
    }

    fn retransmission_timeout(&mut self, now: Time) {
        let retries = match self.state {
            ConnectionState::SynSent => self.settings.syn_retries,
            ConnectionState::SynReceived => self.rules.syn_answers,
            _ if self.orphan => ORPHAN_RETRIES,
            _ => self.rules.retries,
        };
        if self.hopeless(now, retries) {
            self.give_up();
            return;
        }
        self.counters.retransmits = self.counters.retransmits.saturating_add(1);
        self.rtt.back_off();
        if matches!(self.state, ConnectionState::SynSent | ConnectionState::SynReceived) {
            self.counters.total_retransmits = self.counters.total_retransmits.saturating_add(1);
            self.send_syn = true;
            return;
        }
        // All has been acknowledged in the meantime.
        if self.board.is_empty() {
            return;
        }
        self.board.time_out(now);
        let fresh = match self.congestion {
            Congestion::Open => true,
            Congestion::Recovery { until, .. } | Congestion::Loss { until, .. } => self.una >= until,
        };
        // What there was before the first mistake is what is given back.
        if fresh {
            self.begin_undo();
        }
        // Once for all that was under way: further timeouts of it tell nothing new.
        let first = !matches!(self.congestion, Congestion::Loss { .. }) || self.counters.retransmits == 1;
        if first {
            self.cc.on_timeout(self.mss);
        }
        // Not where losses were being repaired: then it is one (`tcp_enter_loss`).
        let open = self.congestion == Congestion::Open || self.counters.retransmits > 1;
        let doubt = if open && self.rules.frto { Doubt::Asking } else { Doubt::None };
        self.congestion = Congestion::Loss { until: self.nxt, doubt };
        self.timers.pace = None;
        self.duplicate_acks = 0;
        self.tail_probe = None;
        self.arm_rto(now);
    }

    /// The tail may be lost, which nothing would tell of: the last segment again.
    fn send_tail_probe(&mut self, now: Time) {
        let end = self.nxt;
        if let Some(block) = self.board.probe(self.mss, now) {
            // It is outside of the congestion window: put in the place of what output would find.
            self.tail_probe = Some(TailProbe { end, retransmission: true });
            let segment = self.resend(block, now);
            self.pending.push(segment);
        }
        // Counted from the probe on.
        self.timers.rto = None;
        self.arm_rto(now);
    }

    fn persist(&mut self, now: Time) {
        if self.nxt >= self.send_end() || !self.board.is_empty() {
            return;
        }
        let retries = if self.orphan { ORPHAN_RETRIES } else { self.rules.retries };
        // A peer that answers may keep its window closed for ever.
        if now.since(self.heard_at) > self.rtt.rto() && self.unanswered >= retries {
            self.give_up();
            return;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.rtt.back_off();
        let edge = self.una.saturating_add(self.send_window);
        let part = self.send.end().min(edge).saturating_sub(self.nxt).min(self.mss);
        if part > 0 {
            // A window that is too small to be waited for any longer.
            let segment = self.first_send(part, now);
            self.pending.push(segment);
        } else {
            self.send_probe = true;
        }
        self.timers.persist = Some(now.after(self.rtt.rto()));
    }

    pub(crate) fn arm_keep_alive(&mut self, now: Time) {
        self.timers.keep_alive =
            (self.settings.keep_alive && self.synchronized() && self.state != ConnectionState::TimeWait)
                .then(|| now.after(self.settings.keep_idle_us.max(LEAST_KEEP_ALIVE_US)));
    }

    fn keep_alive(&mut self, now: Time) {
        if !self.board.is_empty() || self.nxt < self.send_end() {
            // The retransmission timer looks after it.
            self.arm_keep_alive(now);
            return;
        }
        // The peer was heard since the timer was set.
        let idle = now.since(self.heard_at);
        if idle < self.settings.keep_idle_us && self.unanswered == 0 {
            self.timers.keep_alive = Some(self.heard_at.after(self.settings.keep_idle_us));
            return;
        }
        let too_long = if self.settings.user_timeout_us > 0 {
            idle >= self.settings.user_timeout_us && self.unanswered > 0
        } else {
            self.unanswered >= self.settings.keep_count
        };
        if too_long {
            // The peer, if it is there after all, is told.
            self.send_reset = true;
            self.give_up();
            return;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.send_probe = true;
        self.timers.keep_alive = Some(now.after(self.settings.keep_interval_us.max(LEAST_KEEP_ALIVE_US)));
    }

    /// Bytes that the timers have under way, for tests and TCP_INFO.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.board.outstanding().narrow()
    }
}
