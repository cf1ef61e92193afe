//! Acknowledgements that come: windows, round trips, losses and congestion (RFC 5681, 6582, 6675, 6937, 8985).

use moat_abi::Errno;

use super::congestion::{Cause, Congestion, Doubt};
use super::connection::{Connection, ConnectionState};
use super::receive_queue::Block;
use super::scoreboard::{Answer, Delivered, Patience};
use super::segment::Segment;
use crate::num::{Narrow, quotient};
use crate::time::{MS, SECOND, Time};

impl Connection {
    /// Takes the acknowledgement of a segment; gives whether the rest of it may be looked at.
    pub(crate) fn take_ack(&mut self, s: &Segment<'_>, ack: u32, now: Time) -> bool {
        let Some(position) = self.sent_position(ack) else { return false };
        // Of what was never sent, or of long ago: nobody who knows the connection sends it (RFC 5961, section 5).
        if position > self.nxt || position.saturating_add(self.largest_window.max(1)) < self.una {
            self.challenge(now);
            return false;
        }
        let window = u64::from(s.window) << self.agreed.send_scale;
        let same_window = window == self.send_window;
        // Before the position moves on: which segment may set the window depends on the old one.
        self.update_window(s, position, window);

        let mut delivered = Delivered::default();
        let before = self.una;
        let answer = self.answer(s, now);
        if position > self.una {
            delivered = self.advance(s, position, &answer);
        }
        let (blocks, duplicate) = self.blocks(s);
        if let Some(range) = duplicate {
            self.counters.duplicates_seen = self.counters.duplicates_seen.saturating_add(1);
            if !self.rules.rack_static {
                self.board.saw_duplicate();
            }
            self.note_duplicate(range);
        }
        let arrived = delivered.bytes;
        self.board.sack(&blocks, self.mss, &answer, &mut delivered);
        // A duplicate in the sense of RFC 5681: nothing new, no data, the same window, while something is under way.
        if position == before && !self.board.is_empty() && s.length() == 0 && same_window && blocks.is_empty() {
            self.take_duplicate_ack(&mut delivered);
        } else if position > before {
            self.duplicate_acks = 0;
        }
        if let Some(rtt) = delivered.rtt {
            self.rtt.sample(rtt, now.us());
        }
        let segments: u32 = quotient(delivered.bytes, self.mss).narrow();
        self.counters.delivered = self.counters.delivered.saturating_add(segments);
        self.end_tail_probe(position, duplicate.is_some());
        let advanced = position > before;
        self.examine_repair(s, advanced, delivered.bytes > arrived, &delivered);
        self.find_losses(now);
        self.take_echo(s);
        self.cc.observe(self.una, self.nxt, delivered.rtt);
        self.adjust_window(before, delivered.bytes, now);
        true
    }

    fn update_window(&mut self, s: &Segment<'_>, position: u64, window: u64) {
        let Some(at) = self.received_position(s.seq) else { return };
        let (seq, ack) = self.window_from;
        // An old segment must not bring an old window back (RFC 9293, section 3.10.7.4).
        if position > self.una
            || at > seq
            || (at == seq && (position > ack || window > self.send_window || window == 0))
        {
            // A writer waits only for its own buffer; a peer that makes room lets it go on.
            if window > self.send_window {
                self.changes.write |= self.starved;
            }
            self.send_window = window;
            self.largest_window = self.largest_window.max(window);
            self.window_from = (at, position);
            // Nobody has to be asked for a window any more.
            if window > 0 {
                self.timers.persist = None;
            }
        }
    }

    /// When a segment comes, and by its echo of the clock what it answers.
    fn answer(&self, s: &Segment<'_>, now: Time) -> Answer {
        let echo = s.options.timestamp.filter(|(_, echo)| self.agreed.timestamps && *echo != 0);
        let ago = echo.map(|(_, echo)| u64::from(self.timestamp(now).wrapping_sub(echo)).saturating_mul(MS));
        let echoed = ago.and_then(|ago| now.us().checked_sub(ago)).map(Time::from_us);
        Answer { now, least_rtt: self.rtt.least(), echoed }
    }

    /// All before `position` has arrived.
    fn advance(&mut self, s: &Segment<'_>, position: u64, answer: &Answer) -> Delivered {
        let acked = position.saturating_sub(self.una);
        let mut delivered = self.board.acknowledge(position, answer);
        self.send.acknowledge(position);
        self.una = position;
        self.counters.bytes_acked = self.counters.bytes_acked.saturating_add(acked);
        // Progress: whatever was said about giving up begins anew.
        self.counters.retransmits = 0;
        self.stuck_since = None;
        self.soft_error = None;
        self.rtt.backoff = 0;
        if delivered.rtt.is_none()
            && let Some((_, echo)) = s.options.timestamp.filter(|(_, echo)| self.agreed.timestamps && *echo != 0)
        {
            // Of what was sent twice only the echo tells which of them has arrived.
            let rtt = u64::from(self.timestamp(answer.now).wrapping_sub(echo)).saturating_mul(MS);
            delivered.rtt = (rtt < 60 * SECOND).then_some(rtt);
        }
        self.grow_send_buffer();
        if self.board.is_empty() && self.nxt >= self.send_end() {
            self.refill_pacer();
        }
        if self.starved && self.room() > 0 {
            self.changes.write = true;
        }
        // Both are set again for what is still under way.
        self.timers.rto = None;
        self.timers.probe = None;
        delivered
    }

    /// The SACK blocks of a segment as positions, and the first of them if it tells of a duplicate (RFC 2883).
    fn blocks(&self, s: &Segment<'_>) -> (Vec<Block>, Option<Block>) {
        if !self.agreed.sack || s.options.sack.is_empty() {
            return (Vec::new(), None);
        }
        let mut duplicate = None;
        let mut out: Vec<Block> = Vec::with_capacity(s.options.sack.len());
        // Blocks are the peer's claims: none may reach beyond what was sent.
        for (i, &(from, to)) in s.options.sack.iter().enumerate() {
            let (Some(from), Some(to)) = (self.sent_position(from), self.sent_position(to)) else { continue };
            if from >= to || to > self.nxt {
                continue;
            }
            // The first block may be of bytes that were acknowledged: they came twice.
            if i == 0 && to <= self.una {
                duplicate = Some((from, to));
            } else if to > self.una {
                out.push((from.max(self.una), to));
            }
        }
        // Or it lies within the second one.
        if let [first, second, ..] = out.as_slice()
            && first.0 >= second.0
            && first.1 <= second.1
        {
            duplicate = Some(*first);
        }
        (out, duplicate)
    }

    /// Without SACK, each duplicate says that one more segment has left the network; the third that one is missing.
    fn take_duplicate_ack(&mut self, delivered: &mut Delivered) {
        self.duplicate_acks = self.duplicate_acks.saturating_add(1);
        if self.agreed.sack {
            return;
        }
        // One segment has left the network, whichever it was.
        delivered.bytes = delivered.bytes.saturating_add(self.mss);
        if self.duplicate_acks == 3 && self.congestion == Congestion::Open {
            self.board.first_is_lost(self.mss);
        }
    }

    fn end_tail_probe(&mut self, position: u64, duplicate: bool) {
        let Some(probe) = self.tail_probe else { return };
        // Until the probe's end is acknowledged nothing is known.
        if position < probe.end {
            return;
        }
        self.tail_probe = None;
        if probe.retransmission && !duplicate && self.congestion == Congestion::Open {
            // The probe repaired a loss that nothing else told of.
            self.cc.window = self.cc.on_loss(self.mss);
        }
    }

    fn find_losses(&mut self, now: Time) {
        // Set again below if something is only late.
        self.timers.reorder = None;
        if self.board.is_empty() {
            return;
        }
        let marks = matches!(self.congestion, Congestion::Recovery { cause: Cause::Marks, .. });
        let patience = Patience {
            least_rtt: self.rtt.least().unwrap_or(0),
            smoothed: self.rtt.smoothed,
            repairing: self.congestion != Congestion::Open && !marks,
            by_number: !self.rules.rack_no_threshold,
        };
        let again = if self.rules.rack || !self.agreed.sack {
            self.board.find_losses(now, &patience, self.mss).1
        } else {
            // Three segments behind a hole, and no clock (RFC 6675).
            self.board.lose_below_sacked(self.mss);
            None
        };
        self.timers.reorder = again;
        if self.board.reordering() {
            self.counters.reordering_seen = 1;
        }
        if self.board.lost() == 0 {
            return;
        }
        match &mut self.congestion {
            Congestion::Open => {
                self.begin_undo();
                self.reduce_window(Cause::Loss);
                self.timers.probe = None;
                self.tail_probe = None;
            }
            // The window is becoming smaller already: once for both (`tcp_enter_recovery`).
            Congestion::Recovery { cause, .. } => *cause = Cause::Loss,
            Congestion::Loss { .. } => {}
        }
    }

    /// Begins to make the window smaller.
    pub(crate) fn reduce_window(&mut self, cause: Cause) {
        let flight = self.board.outstanding().max(1);
        self.cc.on_loss(self.mss);
        // Until all that is under way at this moment is acknowledged, further losses are of the same event.
        self.congestion = Congestion::Recovery { cause, until: self.nxt, flight, delivered: 0, out: 0 };
    }

    /// The timer of reordering went off: what was late is lost.
    pub(crate) fn reorder_timeout(&mut self, now: Time) {
        self.find_losses(now);
        self.adjust_window(self.una, 0, now);
    }

    fn adjust_window(&mut self, before: u64, delivered: u64, now: Time) {
        let acked = self.una.saturating_sub(before);
        match self.congestion {
            Congestion::Recovery { until, .. } if self.una >= until => {
                self.congestion = Congestion::Open;
                // Out of recovery: the window that was aimed at.
                self.cc.window = self.cc.threshold;
                self.duplicate_acks = 0;
                self.board.recovered();
            }
            Congestion::Recovery { cause, until, flight, delivered: total, out } => {
                if acked > 0 && !self.agreed.sack && cause == Cause::Loss {
                    // A partial acknowledgement: the next segment is missing too (RFC 6582).
                    self.board.first_is_lost(self.mss);
                }
                let total = total.saturating_add(delivered);
                self.congestion = Congestion::Recovery { cause, until, flight, delivered: total, out };
                let pipe = self.pipe();
                let target = self.cc.threshold;
                // More is under way than aimed at: sent in proportion to what
                // arrives. Less: up to what arrives, and one more (RFC 6937).
                let allowed = if pipe > target {
                    let share = u128::from(total).saturating_mul(u128::from(target));
                    share.div_ceil(u128::from(flight.max(1))).narrow::<u64>().saturating_sub(out)
                } else {
                    let pace = total.saturating_sub(out).max(delivered).saturating_add(self.mss);
                    target.saturating_sub(pipe).min(pace)
                };
                // The first repair goes out at once.
                let allowed = if out == 0 && cause == Cause::Loss { allowed.max(self.mss) } else { allowed };
                self.cc.window = pipe.saturating_add(allowed);
            }
            Congestion::Loss { until, .. } => {
                if self.una >= until {
                    self.congestion = Congestion::Open;
                }
                if acked > 0 {
                    self.cc.on_ack(acked, self.mss, self.rtt.smoothed, now);
                }
            }
            Congestion::Open => {
                // A window that is not used is not known to be too small (RFC 7661).
                if acked > 0 && self.window_limited {
                    self.cc.on_ack(acked, self.mss, self.rtt.smoothed, now);
                }
            }
        }
    }

    /// Bytes that are thought to be in the network.
    pub(crate) fn pipe(&self) -> u64 {
        let left = if self.agreed.sack { 0 } else { self.duplicate_acks.saturating_mul(self.mss) };
        self.board.in_flight().saturating_sub(left)
    }

    /// What follows from the own stream's being acknowledged.
    pub(crate) fn after_ack(&mut self, now: Time) {
        // The FIN too.
        let all = self.finished && self.una == self.send_end();
        match self.state {
            ConnectionState::FinWait1 if all => {
                self.set_state(ConnectionState::FinWait2);
                // Nobody will read what the peer sends, so it is not waited for without end.
                if self.orphan {
                    self.timers.end = Some(now.after(self.rules.fin_timeout_us));
                }
            }
            ConnectionState::Closing if all => self.enter_time_wait(now),
            ConnectionState::LastAck if all => self.close_with(None),
            _ => {}
        }
    }

    /// ICMP says that the destination can't be reached. `seq`: of the segment that it is about.
    pub fn icmp_error(&mut self, errno: Errno, seq: u32) {
        let Some(position) = self.sent_position(seq) else { return };
        // A message about something that is not under way is forged or late.
        if position < self.una || position > self.nxt {
            return;
        }
        match self.state {
            // Before the connection stands the error ends it; after that it may pass (RFC 1122, section 4.2.3.9).
            ConnectionState::SynSent | ConnectionState::SynReceived => self.close_with(Some(errno)),
            _ => self.soft_error = Some(errno),
        }
    }

    /// The path takes less than was thought. `seq`: of the segment that it is about, if ICMP said so.
    pub fn path_shrank(&mut self, path_mss: u16, seq: Option<u32>) {
        if let Some(seq) = seq
            && !self.sent_position(seq).is_some_and(|p| p >= self.una && p <= self.nxt)
        {
            return;
        }
        if path_mss < self.path_mss && self.state != ConnectionState::Closed {
            // A forged message could else make segments of no use.
            self.path_mss = path_mss.max(48);
            self.update_mss();
            if !self.board.is_empty() {
                // What is under way was dropped; the window is no worse for that.
                self.board.all_is_lost();
                if self.congestion == Congestion::Open {
                    self.congestion = Congestion::Loss { until: self.nxt, doubt: Doubt::None };
                }
            }
        }
    }
}
