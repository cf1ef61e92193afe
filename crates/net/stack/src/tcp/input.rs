//! Segments that come: RFC 9293, section 3.10.7, with RFC 5961's rules against blind attacks and RFC 7323's PAWS.

use moat_abi::Errno;

use super::connection::{Connection, ConnectionState, TIME_WAIT_US, WINDOW_SCALE};
use super::receive_queue::Arrival;
use super::segment::{Options, Segment};
use super::settings::{EcnRule, Parameters};
use crate::num::Narrow;
use crate::time::{MS, SECOND, Time};

/// Least time between two answers to segments that make no sense.
const CHALLENGE_INTERVAL_US: u64 = 500 * MS;
/// How long an acknowledgement waits for company (`TCP_ATO_MIN`).
pub(crate) const DELAYED_ACK_US: u64 = 40 * MS;

impl Connection {
    /// A connection that a SYN asks for: its first output answers it.
    #[must_use]
    pub fn accept(p: Parameters, syn: &Segment<'_>, now: Time) -> Connection {
        let mut c = Connection::new(p, ConnectionState::SynReceived, now);
        c.begin_receiving(syn);
        c.agree(&syn.options);
        c.agreed.ecn = c.accepts_ecn(syn);
        c.send_window = u64::from(syn.window);
        c.largest_window = c.send_window;
        c
    }

    fn begin_receiving(&mut self, syn: &Segment<'_>) {
        self.irs = syn.seq;
        self.rcv_nxt = 1;
        self.ack.told = 1;
        self.ack.edge = self.rcv_nxt;
        self.window_from = (0, 0);
    }

    /// Takes what the peer's SYN offers.
    fn agree(&mut self, o: &Options) {
        // RFC 9293, section 3.7.1; a smaller value is raised so that segments carry something.
        self.peer_mss = o.mss.unwrap_or(536).max(48);
        self.agreed.timestamps = o.timestamp.is_some() && self.rules.timestamps;
        self.agreed.sack = o.sack_permitted && self.rules.sack;
        // Scaling takes both ends' agreement: without the option neither window is shifted (RFC 7323, section 2.2).
        if let Some(shift) = o.window_scale.filter(|_| self.rules.window_scaling) {
            self.agreed.send_scale = shift;
            self.agreed.receive_scale = WINDOW_SCALE;
        }
        if let Some((value, _)) = o.timestamp {
            self.ts_recent = value;
        }
        self.update_mss();
        // The window begins anew: its size counts in segments.
        self.cc = super::cubic::Cubic::new(self.mss);
        self.ack.peer_segment = self.mss;
    }

    /// Takes a segment of this connection.
    pub fn input(&mut self, segment: &Segment<'_>, now: Time) {
        self.counters.segments_in = self.counters.segments_in.saturating_add(1);
        match self.state {
            ConnectionState::Closed => {}
            ConnectionState::SynSent => self.input_syn_sent(segment, now),
            _ => self.input_synchronized(segment, now),
        }
    }

    fn input_syn_sent(&mut self, s: &Segment<'_>, now: Time) {
        let acknowledged = match s.ack {
            Some(ack) => match self.sent_position(ack) {
                Some(position) if position == self.nxt && position > 0 => true,
                // Not ours: whoever sent it gets a reset from the demultiplexer.
                _ => return,
            },
            None => false,
        };
        // Without an acknowledgement of the SYN anybody could have sent it.
        if s.flags.rst {
            if acknowledged {
                self.close_with(Some(Errno::ECONNREFUSED));
            }
            return;
        }
        if !s.flags.syn {
            return;
        }
        self.begin_receiving(s);
        self.agree(&s.options);
        self.agreed.ecn = self.rules.ecn == EcnRule::Ask && acknowledged && s.flags.ece && !s.flags.cwr;
        // The window of a SYN is not shifted.
        self.send_window = u64::from(s.window);
        self.largest_window = self.send_window;
        self.heard_at = now;
        if acknowledged {
            // The window and the round trip first, then the data that may come with it.
            self.acknowledged_syn(s, now);
            self.establish(now);
            self.ack.now = true;
            self.take_payload(s, now);
        } else {
            // Both ends have sent a SYN: this one is sent again with an acknowledgement.
            self.set_state(ConnectionState::SynReceived);
            self.timers.rto = None;
            self.send_syn = true;
        }
    }

    fn acknowledged_syn(&mut self, s: &Segment<'_>, now: Time) {
        self.una = 1;
        let clock = self.timestamp(now);
        match s.options.timestamp {
            // Nothing tells when the answer went out.
            _ if self.unmeasured => {}
            Some((_, echo)) if self.agreed.timestamps && self.counters.retransmits > 0 => {
                self.rtt.sample(u64::from(clock.wrapping_sub(echo)).saturating_mul(MS).min(60 * SECOND), now.us());
            }
            // Of a SYN that was sent twice nobody knows which was answered (Karn), unless a timestamp tells.
            _ if self.counters.retransmits == 0 => self.rtt.sample(now.since(self.sent_at), now.us()),
            _ => {}
        }
        if self.counters.retransmits > 1 {
            // The path is not so good that a large window is due.
            self.cc.window = self.mss;
        }
        self.counters.retransmits = 0;
        self.rtt.backoff = 0;
        self.send_syn = false;
        self.timers.rto = None;
    }

    fn establish(&mut self, now: Time) {
        self.set_state(ConnectionState::Established);
        self.changes.write = true;
        self.stuck_since = None;
        self.tuning.began = now;
        self.refill_pacer();
        self.arm_keep_alive(now);
    }

    fn input_synchronized(&mut self, s: &Segment<'_>, now: Time) {
        if !self.acceptable(s, now) {
            return;
        }
        if s.flags.syn
            && s.ack.is_some()
            && self.state == ConnectionState::SynReceived
            && self.received_position(s.seq) == Some(0)
        {
            // The other half of a simultaneous open.
        } else if s.flags.syn {
            self.challenge(now);
            return;
        }
        let Some(ack) = s.ack else { return };
        self.heard_at = now;
        self.unanswered = 0;
        if self.state == ConnectionState::SynReceived {
            if self.sent_position(ack) != Some(self.nxt) || self.nxt == 0 {
                // RFC 9293: a reset from the demultiplexer, which has the segment.
                return;
            }
            self.acknowledged_syn(s, now);
            self.send_window = u64::from(s.window) << self.agreed.send_scale;
            self.largest_window = self.send_window;
            self.establish(now);
        }
        if !self.take_ack(s, ack, now) {
            return;
        }
        self.remember_timestamp(s);
        self.after_ack(now);
        if self.state == ConnectionState::Closed {
            return;
        }
        self.take_payload(s, now);
    }

    /// The checks that come first: old timestamps, numbers out of the window, resets.
    fn acceptable(&mut self, s: &Segment<'_>, now: Time) -> bool {
        let Some(position) = self.received_position(s.seq) else {
            return false;
        };
        if let Some((value, _)) = s.options.timestamp
            && self.agreed.timestamps
            && !s.flags.rst
            && !s.flags.syn
            // PAWS: a segment of an earlier turn of the numbers.
            && value.wrapping_sub(self.ts_recent).cast_signed() < 0
        {
            self.challenge_data(s, now);
            return false;
        }
        let end = position.saturating_add(s.length());
        let edge = self.ack.edge.max(self.rcv_nxt);
        // One beyond an empty window is let through for its acknowledgement; its bytes are cut.
        let fine = end >= self.ack.told.min(self.rcv_nxt) && position <= edge;
        if !fine {
            // A reset out of the window is forged, and not even answered.
            if !s.flags.rst {
                // Noted as a duplicate, so that the answer tells of it (D-SACK).
                if end < self.rcv_nxt && !s.payload.is_empty() {
                    self.receive.insert(position, s.payload, self.rcv_nxt);
                }
                self.challenge_data(s, now);
            }
            return false;
        }
        if s.flags.rst {
            // Exactly the next number is a reset; one elsewhere in the window is asked about (RFC 5961, section 3.2).
            if position == self.rcv_nxt {
                self.take_reset();
            } else {
                self.challenge(now);
            }
            return false;
        }
        true
    }

    fn take_reset(&mut self) {
        let error = match self.state {
            ConnectionState::SynReceived => Errno::ECONNREFUSED,
            ConnectionState::CloseWait => Errno::EPIPE,
            // Both streams have ended: there is nothing left to lose.
            ConnectionState::TimeWait | ConnectionState::LastAck | ConnectionState::Closing => {
                self.close_with(None);
                return;
            }
            _ => Errno::ECONNRESET,
        };
        self.close_with(Some(error));
    }

    /// Answers with an acknowledgement, not too often (RFC 5961, section 7).
    pub(crate) fn challenge(&mut self, now: Time) {
        if self.ack.challenged.is_none_or(|at| now.since(at) >= CHALLENGE_INTERVAL_US) {
            self.ack.challenged = Some(now);
            self.ack.now = true;
        }
    }

    /// Answers a segment that is out of the window: one with bytes always, since its sender has lost an acknowledgement.
    fn challenge_data(&mut self, s: &Segment<'_>, now: Time) {
        if s.length() > 0 {
            self.ack.now = true
        } else {
            self.challenge(now)
        }
        if self.state == ConnectionState::TimeWait {
            self.timers.end = Some(now.after(TIME_WAIT_US));
        }
    }

    fn remember_timestamp(&mut self, s: &Segment<'_>) {
        let Some((value, _)) = s.options.timestamp.filter(|_| self.agreed.timestamps) else { return };
        // Only of what the last acknowledgement asked for, so that delayed ones show the whole delay (RFC 7323, section 4.3).
        if self.received_position(s.seq).is_some_and(|p| p <= self.ack.told)
            && value.wrapping_sub(self.ts_recent).cast_signed() >= 0
        {
            self.ts_recent = value;
        }
    }

    fn take_payload(&mut self, s: &Segment<'_>, now: Time) {
        let Some(mut position) = self.received_position(s.seq) else { return };
        // A SYN takes the first number.
        position = position.saturating_add(u64::from(s.flags.syn));
        let end = position.saturating_add(s.payload.len().narrow());
        let receiving =
            matches!(self.state, ConnectionState::Established | ConnectionState::FinWait1 | ConnectionState::FinWait2);
        if !s.payload.is_empty() {
            if !receiving {
                self.ack.now = true;
            } else if self.orphan && end > self.rcv_nxt {
                // Nobody will read it: the peer is to know (RFC 2525, section 2.17).
                self.send_reset = true;
                self.close_with(None);
                return;
            } else {
                self.take_bytes(position, s, now);
            }
        }
        if s.flags.fin {
            self.ack.now = true;
            // Noted where it is: a gap may lie ahead of it.
            if receiving && end >= self.rcv_nxt {
                self.fin_at = Some(end);
            }
            // The last acknowledgement was lost: the wait begins again.
            if self.state == ConnectionState::TimeWait {
                self.timers.end = Some(now.after(TIME_WAIT_US));
            }
        }
        if receiving && self.fin_at == Some(self.rcv_nxt) {
            self.take_fin(now);
        }
    }

    fn take_bytes(&mut self, position: u64, s: &Segment<'_>, now: Time) {
        // Never more than the window that was told, whatever the peer sends.
        let edge = self.ack.edge.max(self.rcv_nxt);
        let room: usize = edge.saturating_sub(position).narrow();
        let data = s.payload.get(..room.min(s.payload.len())).unwrap_or_default();
        // The peer is told what is really taken.
        if data.len() < s.payload.len() {
            self.ack.now = true;
        }
        if data.is_empty() {
            return;
        }
        self.note_marks(s);
        self.counters.data_segments_in = self.counters.data_segments_in.saturating_add(1);
        let part: u64 = s.part.min(data.len()).narrow();
        self.ack.peer_segment = self.ack.peer_segment.max(part.min(u64::from(self.path_mss)));
        match self.receive.insert(position, data, self.rcv_nxt) {
            Arrival::InOrder { readable, filled_gap } => {
                self.rcv_nxt = self.rcv_nxt.saturating_add(readable.narrow());
                self.counters.bytes_received = self.counters.bytes_received.saturating_add(readable.narrow());
                self.changes.read = true;
                self.measure_receiver(s, now);
                self.plan_ack(filled_gap, now);
            }
            Arrival::Ahead | Arrival::Duplicate => {
                // Out of order: the sender needs each acknowledgement to find the loss.
                self.ack.quick = self.ack.quick.max(4);
                self.ack.now = true;
            }
        }
        self.ack.received_at = now;
    }

    /// Whether the bytes that came in order are acknowledged at once.
    fn plan_ack(&mut self, filled_gap: bool, now: Time) {
        // After a pause the peer begins with a small window again.
        if now.since(self.ack.received_at) > SECOND {
            self.ack.quick = 16;
        }
        let waiting = self.rcv_nxt.saturating_sub(self.ack.told);
        let quick = self.ack.quick > 0 && !self.ack.interactive;
        // At least every second full segment is acknowledged (RFC 9293, section 3.8.6.3).
        if filled_gap || self.receive.has_duplicate() || waiting > self.ack.peer_segment || quick {
            self.ack.now = true;
            self.ack.quick = self.ack.quick.saturating_sub(1);
        } else if self.timers.delayed_ack.is_none() {
            self.timers.delayed_ack = Some(now.after(DELAYED_ACK_US));
        }
    }

    fn take_fin(&mut self, now: Time) {
        self.rcv_nxt = self.rcv_nxt.saturating_add(1);
        self.fin_received = true;
        self.changes.read = true;
        self.ack.now = true;
        match self.state {
            ConnectionState::Established => self.set_state(ConnectionState::CloseWait),
            ConnectionState::FinWait1 => self.set_state(ConnectionState::Closing),
            ConnectionState::FinWait2 => self.enter_time_wait(now),
            _ => {}
        }
    }

    /// The round trip as the receiver of data sees it: from a stamp that was sent to its echo.
    fn measure_receiver(&mut self, s: &Segment<'_>, now: Time) {
        if let Some((_, echo)) = s.options.timestamp.filter(|(_, echo)| self.agreed.timestamps && *echo != 0) {
            let rtt = u64::from(self.timestamp(now).wrapping_sub(echo)).saturating_mul(MS).max(MS);
            if rtt < 60 * SECOND {
                let old = self.tuning.rtt;
                // The least of what is seen, since an echo may have waited for data.
                self.tuning.rtt = if old == 0 { rtt } else { rtt.min(old.saturating_mul(7).saturating_add(rtt) / 8) };
            }
        }
    }

    /// Whether a segment shows that its sender knows nothing of this connection: it is answered with a reset.
    #[must_use]
    pub fn is_foreign(&self, s: &Segment<'_>) -> bool {
        let Some(ack) = s.ack.filter(|_| !s.flags.rst) else { return false };
        match self.state {
            ConnectionState::SynSent => self.sent_position(ack) != Some(self.nxt) || self.nxt == 0,
            ConnectionState::SynReceived => {
                let in_window = self.received_position(s.seq).is_some_and(|p| p <= self.ack.edge.max(self.rcv_nxt));
                in_window && (self.sent_position(ack) != Some(self.nxt) || self.nxt == 0)
            }
            _ => false,
        }
    }

    /// Whether this connection only waits for stray segments, and a SYN can be none of them (RFC 6191).
    #[must_use]
    pub fn is_older_than(&self, syn: &Segment<'_>) -> bool {
        if self.state != ConnectionState::TimeWait {
            return false;
        }
        match syn.options.timestamp {
            // A later clock, or a later number: the new connection can't be mistaken for the old.
            Some((value, _)) if self.agreed.timestamps && value != self.ts_recent => {
                value.wrapping_sub(self.ts_recent).cast_signed() > 0
            }
            _ => self.received_position(syn.seq).is_some_and(|p| p > self.rcv_nxt),
        }
    }

    /// Whether a number is of what was sent and is not acknowledged.
    #[must_use]
    pub fn is_under_way(&self, seq: u32) -> bool {
        self.sent_position(seq).is_some_and(|p| p >= self.una && p <= self.nxt)
    }
}
