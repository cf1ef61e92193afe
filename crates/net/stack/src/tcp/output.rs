//! What is to be sent: bytes and acknowledgements, as windows, Nagle and the corks allow.

use super::congestion::{Congestion, Doubt};
use super::connection::{Connection, ConnectionState, MOST_RECEIVE_BUFFER, MOST_SEND_BUFFER, WINDOW_SCALE};
use super::receive_queue::Block;
use super::segment::{Flags, Options, SegmentOut};
use super::settings::EcnRule;
use crate::num::{Narrow, whole};
use crate::time::{MS, Time};

/// How long bytes are held back by a cork.
const CORK_US: u64 = 200 * MS;
/// Least time to the probe of a silent tail, and what the peer may delay an acknowledgement by.
const PROBE_MIN_US: u64 = 10 * MS;
const PEER_DELAY_US: u64 = 200 * MS;
/// Blocks that are told of in one segment: what fits beside timestamps.
const MOST_SENT_BLOCKS: usize = 3;

impl Connection {
    /// Appends what is to be sent at present, at most `budget` segments; call it after each change. Gives whether there is more.
    pub fn output(&mut self, now: Time, budget: usize, out: &mut Vec<SegmentOut>) -> bool {
        // A reset goes alone, even out of a connection that is closed.
        if self.send_reset {
            self.send_reset = false;
            out.push(self.reset());
            return false;
        }
        let before = out.len();
        match self.state {
            ConnectionState::Closed => return false,
            ConnectionState::SynSent | ConnectionState::SynReceived => {
                self.output_syn(now, out);
                return false;
            }
            _ => {}
        }
        let mut left = budget;
        // What the timers made is outside of the windows.
        out.append(&mut self.pending);
        // Losses are repaired before anything new is sent.
        while left > 0 && self.retransmit_lost(now, out) {
            left = left.saturating_sub(1);
        }
        while left > 0 && self.send_new(now, out) {
            left = left.saturating_sub(1);
        }
        if self.send_probe {
            self.send_probe = false;
            // A byte before the window makes the peer answer.
            let probe = self.segment(now, self.una.saturating_sub(1), 0);
            out.push(probe);
        }
        // An acknowledgement of its own, unless one of the segments above has carried it.
        if self.ack.now {
            let position = self.nxt;
            let ack = self.segment(now, position, 0);
            out.push(ack);
        }
        if out.len() > before {
            self.arm_after_sending(now);
        } else {
            self.arm_persist(now);
        }
        left == 0
    }

    fn output_syn(&mut self, now: Time, out: &mut Vec<SegmentOut>) {
        if !std::mem::take(&mut self.send_syn) && !std::mem::take(&mut self.ack.now) {
            return;
        }
        self.ack.now = false;
        let answering = self.state == ConnectionState::SynReceived;
        // Answering, only what the peer has offered.
        let offer = |agreed: bool, rule: bool| if answering { agreed } else { rule };
        let rules = self.rules;
        let options = Options {
            mss: Some(self.path_mss),
            window_scale: offer(self.agreed.receive_scale > 0, rules.window_scaling).then_some(WINDOW_SCALE),
            sack_permitted: offer(self.agreed.sack, rules.sack),
            timestamp: offer(self.agreed.timestamps, rules.timestamps)
                .then(|| (self.timestamp(now), if answering { self.ts_recent } else { 0 })),
            sack: Vec::new(),
        };
        // A SYN's window has no shift, so it is no larger.
        let window = self.offered_window().min(65535);
        self.ack.edge = self.rcv_nxt.saturating_add(window);
        // The time of the first SYN, unless it is sent again: the round trip counts from it.
        if self.nxt == 0 || self.counters.retransmits == 0 {
            self.sent_at = now;
        }
        self.nxt = 1;
        self.counters.segments_out = self.counters.segments_out.saturating_add(1);
        out.push(SegmentOut {
            seq: self.iss,
            ack: answering.then(|| self.peer_seq(self.rcv_nxt)),
            flags: Flags {
                syn: true,
                // A second SYN does without: the first may have been dropped for its bits (`tcp_ecn_fallback`).
                ece: if answering { self.agreed.ecn } else { self.asks_for_ecn() },
                cwr: !answering && self.asks_for_ecn(),
                ..Flags::default()
            },
            window: window.narrow(),
            options,
            ..SegmentOut::default()
        });
        self.timers.rto = Some(now.after(self.rtt.rto()));
        self.stuck_since.get_or_insert(now);
    }

    fn asks_for_ecn(&self) -> bool {
        self.rules.ecn == EcnRule::Ask && self.counters.retransmits == 0
    }

    /// The segment that ends the connection at once.
    fn reset(&mut self) -> SegmentOut {
        // Without a segment from the peer there is nothing to acknowledge.
        let ack = (self.rcv_nxt > 0).then(|| self.peer_seq(self.rcv_nxt));
        SegmentOut {
            seq: self.seq(self.nxt),
            ack,
            flags: Flags { rst: true, ..Flags::default() },
            ..SegmentOut::default()
        }
    }

    fn may_send(&self) -> bool {
        matches!(
            self.state,
            ConnectionState::Established
                | ConnectionState::CloseWait
                | ConnectionState::FinWait1
                | ConnectionState::Closing
                | ConnectionState::LastAck
        )
    }

    fn retransmit_lost(&mut self, now: Time, out: &mut Vec<SegmentOut>) -> bool {
        // Whether there is something to be repaired is still asked.
        let asking = matches!(self.congestion, Congestion::Loss { doubt: Doubt::Probing, .. });
        if !self.may_send() || self.board.lost() == 0 || asking || self.must_wait(now) {
            return false;
        }
        let room = self.cc.window.saturating_sub(self.pipe());
        // A segment that is not full waits for room, unless nothing would make any.
        if room < self.mss && self.pipe() > 0 {
            return false;
        }
        // The first is always tried, even if the peer has closed its window meanwhile.
        let most = whole(room, self.mss).max(self.mss);
        let Some(block) = self.board.retransmit(most.min(self.burst()), now) else { return false };
        // The answer to this sending is what is waited for, not that to the first (`rearm_timer` of Linux).
        if block.0 == self.una {
            self.timers.rto = None;
        }
        let segment = self.resend(block, now);
        out.push(segment);
        true
    }

    /// The segment of a range that was sent before.
    pub(crate) fn resend(&mut self, block: Block, now: Time) -> SegmentOut {
        let data_end = block.1.min(self.send.end());
        let len = data_end.saturating_sub(block.0);
        self.counters.total_retransmits = self.counters.total_retransmits.saturating_add(1);
        self.counters.bytes_retransmitted = self.counters.bytes_retransmitted.saturating_add(len);
        self.count_recovery(len);
        self.note_resent(len.max(1), now);
        self.charge_pacer(len, now);
        let mut segment = self.segment(now, block.0, len);
        segment.flags.fin = self.finished && block.1 > self.send.end();
        segment
    }

    fn count_recovery(&mut self, len: u64) {
        if let Congestion::Recovery { out, .. } = &mut self.congestion {
            *out = out.saturating_add(len);
        }
    }

    fn send_new(&mut self, now: Time, out: &mut Vec<SegmentOut>) -> bool {
        if !self.may_send() || self.nxt >= self.send_end() {
            return false;
        }
        let idle = now.since(self.sent_at);
        // After a pause the window is not known to be good.
        if self.board.is_empty() && self.nxt > 1 && idle > self.rtt.rto() && self.rules.restart_after_idle {
            self.cc.on_idle(idle, self.rtt.rto(), self.mss);
            self.sent_at = now;
        }
        let waiting = self.send.end().saturating_sub(self.nxt);
        let edge = self.una.saturating_add(self.send_window);
        let in_window = edge.saturating_sub(self.nxt);
        let pipe = self.pipe();
        let room = self.cc.window.saturating_sub(pipe);
        // What there is, what the peer takes, what the network takes.
        let can = waiting.min(in_window).min(room);
        // Half of the window counts as full use while it doubles.
        self.window_limited = room <= waiting || (self.cc.in_slow_start() && pipe.saturating_mul(2) >= self.cc.window);
        if waiting == 0 {
            // The FIN alone; it goes even into a closed window.
            return self.send_fin(now, out);
        }
        if self.must_wait(now) {
            return false;
        }
        let full = whole(can, self.mss);
        // Whole segments first; the rest goes if nothing is to be waited for.
        let len = if can == waiting && (full == can || self.tail_may_go(now)) {
            can
        } else if full > 0 {
            full
        } else if can > 0 && can == in_window && self.board.is_empty() && can >= self.largest_window / 2 {
            // The peer's buffer is small: half of it is worth a segment (RFC 9293, section 3.8.6.2.1).
            can
        } else {
            return false;
        };
        // What is heard of marks is told in one packet, which no device is to cut.
        let most = if self.ecn.heard { self.mss } else { self.burst() };
        let len = len.min(most);
        if len == 0 {
            return false;
        }
        let segment = self.first_send(len, now);
        out.push(segment);
        true
    }

    /// The next `len` bytes, which are on their way with it.
    pub(crate) fn first_send(&mut self, len: u64, now: Time) -> SegmentOut {
        let start = self.nxt;
        let end = start.saturating_add(len);
        let mut segment = self.segment(now, start, len);
        self.put_ecn(&mut segment);
        let last = end == self.send.end();
        segment.flags.psh = last;
        segment.flags.fin = last && self.finished;
        let end = end.saturating_add(u64::from(segment.flags.fin));
        self.charge_pacer(len, now);
        // On the board from the moment it is handed down.
        self.board.push(start, end, now);
        self.nxt = end;
        self.sent_at = now;
        if len.checked_rem(self.mss) != Some(0) {
            self.small_end = end;
        }
        self.counters.bytes_sent = self.counters.bytes_sent.saturating_add(len);
        self.counters.data_segments_out = self.counters.data_segments_out.saturating_add(1);
        self.count_recovery(len);
        // The application answers what it gets soon: acknowledgements can wait for its data.
        if now.since(self.ack.received_at) < super::input::DELAYED_ACK_US {
            self.ack.interactive = true;
        }
        segment
    }

    fn send_fin(&mut self, now: Time, out: &mut Vec<SegmentOut>) -> bool {
        let start = self.nxt;
        let mut segment = self.segment(now, start, 0);
        segment.flags.fin = true;
        let end = start.saturating_add(1);
        self.board.push(start, end, now);
        self.nxt = end;
        self.sent_at = now;
        out.push(segment);
        true
    }

    /// Whether a segment that is not full may go: Nagle's rule in Minshall's form, and the corks.
    fn tail_may_go(&mut self, now: Time) -> bool {
        // Nothing more will come to fill it.
        if self.finished {
            return true;
        }
        // TCP_CORK holds whatever follows; MSG_MORE only its own bytes.
        let held = self.settings.cork || self.more_after.is_some_and(|at| at >= self.send.end());
        if held {
            let until = *self.timers.cork.get_or_insert(now.after(CORK_US));
            if until > now {
                return false;
            }
        }
        self.timers.cork = None;
        // Minshall: one small segment may be under way at a time.
        held || self.settings.no_delay || self.small_end <= self.una || self.board.is_empty()
    }

    /// A segment of `len` bytes at a position, with the acknowledgement of all that has come.
    fn segment(&mut self, now: Time, position: u64, len: u64) -> SegmentOut {
        let window = self.offered_window();
        let shift = u32::from(self.agreed.receive_scale);
        let shifted: u16 = window.checked_shr(shift).unwrap_or(0).narrow();
        // What the peer understands after the shift, which drops the low bits.
        let told = u64::from(shifted).checked_shl(shift).unwrap_or(0);
        self.ack.edge = self.ack.edge.max(self.rcv_nxt.saturating_add(told));
        // Every segment carries the acknowledgement, so none is due any more.
        self.ack.told = self.rcv_nxt;
        self.timers.delayed_ack = None;
        // Blocks go with a segment of their own, so that those with bytes are all of one size.
        if !self.rules.dsack {
            self.receive.forget_duplicate();
        }
        let news = self.agreed.sack && (self.receive.has_gap() || self.receive.has_duplicate());
        self.ack.now &= news && len > 0;
        let sack = if news && len == 0 {
            let blocks = self.receive.blocks(MOST_SENT_BLOCKS);
            blocks.iter().map(|b| (self.peer_seq(b.0), self.peer_seq(b.1))).collect()
        } else {
            Vec::new()
        };
        let options = Options {
            timestamp: self.agreed.timestamps.then(|| (self.timestamp(now), self.ts_recent)),
            sack,
            ..Options::default()
        };
        self.counters.segments_out = self.counters.segments_out.saturating_add(1);
        let flags = Flags { ece: self.agreed.ecn && self.ecn.echo, ..Flags::default() };
        SegmentOut {
            seq: self.seq(position),
            ack: Some(self.peer_seq(self.rcv_nxt)),
            flags,
            window: shifted,
            options,
            payload: if len > 0 { self.send.slice(position, len.narrow()) } else { Vec::new() },
            mss: self.mss.narrow(),
            capable: false,
        }
    }

    /// The window that the receive buffer has room for, never less than what was told before.
    pub(crate) fn offered_window(&self) -> u64 {
        // Half of a buffer is for what the kernel needs beside the bytes (`tcp_adv_win_scale`).
        let room = (self.receive_buffer / 2).saturating_sub(self.receive.held());
        let told = self.ack.edge.saturating_sub(self.rcv_nxt);
        let room: u64 = room.narrow();
        let most = 65535u64.checked_shl(u32::from(self.agreed.receive_scale)).unwrap_or(u64::MAX);
        let small = room < self.ack.peer_segment.min((self.receive_buffer / 4).narrow());
        // No silly windows (RFC 9293, section 3.8.6.2.2).
        let fresh = if small { 0 } else { room };
        // Taking back a window that was told would make the peer's segments ours to drop.
        fresh.max(told).min(most)
    }

    /// Whether what was read since makes an update of the window worth a segment.
    pub(crate) fn window_opened(&self) -> bool {
        let told = self.ack.edge.saturating_sub(self.rcv_nxt);
        let fresh = self.offered_window();
        // Two segments or a quarter of the buffer, and twice what it had.
        fresh >= told.saturating_add(self.ack.peer_segment.saturating_mul(2)).min((self.receive_buffer / 4).narrow())
            && fresh >= told.saturating_mul(2)
            && fresh > told
    }

    fn arm_after_sending(&mut self, now: Time) {
        self.timers.persist = None;
        if self.board.is_empty() {
            self.timers.rto = None;
            self.arm_persist(now);
            return;
        }
        self.stuck_since.get_or_insert(now);
        self.arm_rto(now);
    }

    pub(crate) fn arm_rto(&mut self, now: Time) {
        if self.timers.rto.is_none() {
            self.timers.rto = Some(now.after(self.rtt.rto()));
        }
        let quiet = self.congestion == Congestion::Open && self.board.sacked() == 0 && self.board.lost() == 0;
        if quiet && self.tail_probe.is_none() && self.rtt.smoothed > 0 && self.agreed.sack {
            let mut wait = self.rtt.smoothed.saturating_mul(2);
            // The last segment alone may have its acknowledgement delayed.
            if self.board.outstanding() <= self.mss {
                wait = wait.saturating_add(PEER_DELAY_US);
            }
            let at = now.after(wait.max(PROBE_MIN_US));
            // A timeout that comes sooner makes the probe needless.
            self.timers.probe = self.timers.rto.filter(|rto| *rto <= at).map_or(Some(at), |_| None);
        }
    }

    /// Bytes wait and nothing is under way whose acknowledgement would open the window: the peer is asked from time to time.
    fn arm_persist(&mut self, now: Time) {
        let held = self.timers.cork.is_some() || self.timers.pace.is_some();
        if self.board.is_empty() && self.may_send() && self.nxt < self.send_end() && !held {
            if self.timers.persist.is_none() {
                self.timers.persist = Some(now.after(self.rtt.rto()));
            }
        } else if !self.board.is_empty() {
            self.arm_rto(now);
        }
    }

    /// Gives the send buffer room for twice what is under way (`tcp_sndbuf_expand`).
    pub(crate) fn grow_send_buffer(&mut self) {
        if self.settings.send_buffer.is_none() {
            let wanted: usize = self.cc.window.saturating_mul(4).narrow();
            self.send_buffer = self.send_buffer.max(wanted.min(MOST_SEND_BUFFER));
        }
    }

    /// Bytes that the send buffer has room for.
    pub(crate) fn room(&self) -> usize {
        self.send_buffer.saturating_sub(self.send.cost())
    }

    /// The application took `n` bytes: the buffer grows with what it takes in a round trip (`tcp_rcv_space_adjust`).
    pub(crate) fn grow_receive_buffer(&mut self, n: usize, now: Time) {
        self.tuning.taken = self.tuning.taken.saturating_add(n.narrow());
        let rtt = if self.tuning.rtt > 0 { self.tuning.rtt } else { self.rtt.smoothed.max(MS) };
        // Once in a round trip, as the sender's window changes no faster.
        if now.since(self.tuning.began) < rtt {
            return;
        }
        let taken = self.tuning.taken;
        if taken > self.tuning.best {
            self.tuning.best = taken;
            if self.settings.receive_buffer.is_none() {
                // The window is half of the buffer, and must hold what comes in two round trips.
                let wanted = taken.saturating_mul(4).saturating_add(self.ack.peer_segment.saturating_mul(32));
                self.receive_buffer = self.receive_buffer.max(wanted.narrow::<usize>().min(MOST_RECEIVE_BUFFER));
            }
        }
        self.tuning.taken = 0;
        self.tuning.began = now;
    }
}
