//! [`Scoreboard`]: what is under way, what SACK says of it, and what RACK takes for lost (RFC 2018, 6675, 8985).
//!
//! Ranges are split only at borders of segments, so that a peer's SACK blocks can't make more of them than there are segments.

use std::collections::VecDeque;

use super::receive_queue::Block;
use crate::num::whole;
use crate::time::{MS, Time};

/// How many recoveries a peer's telling of duplicates counts for (RFC 8985, section 6.2, step 4).
const PATIENT_RECOVERIES: u32 = 16;

/// A range that was sent and is not acknowledged.
#[derive(Clone, Copy, Debug)]
struct Sent {
    start: u64,
    end: u64,
    /// When it was sent last.
    at: Time,
    retransmitted: bool,
    sacked: bool,
    lost: bool,
}

impl Sent {
    fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// What an acknowledgement has brought.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delivered {
    /// Bytes that had not been known to have arrived.
    pub(crate) bytes: u64,
    /// The round trip of what was sent last of them, if it was sent once.
    pub(crate) rtt: Option<u64>,
    /// Something arrived that was taken for lost and never sent again.
    pub(crate) original: bool,
    /// Something was acknowledged that was sent again.
    pub(crate) resent: bool,
}

/// When an acknowledgement comes, and what of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) now: Time,
    pub(crate) least_rtt: Option<u64>,
    /// When that was sent which it answers, by its echo of the clock.
    pub(crate) echoed: Option<Time>,
}

impl Answer {
    /// Whether it can be to what was sent again at `at`.
    fn fits(&self, at: Time) -> bool {
        // Clocks that are echoed tell no more than milliseconds.
        let early = self.echoed.is_some_and(|echoed| echoed.us() / MS < at.us() / MS);
        !early && self.least_rtt.is_none_or(|least| self.now.since(at) >= least)
    }
}

/// How long segments may be late (RFC 8985, section 6.2, step 4).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    /// The least round trip, and the smoothed one.
    pub(crate) least_rtt: u64,
    pub(crate) smoothed: u64,
    /// Losses are being repaired.
    pub(crate) repairing: bool,
    /// Three segments that have arrived are as good as time.
    pub(crate) by_number: bool,
}

/// The newest segment that is known to have arrived.
#[derive(Clone, Copy, Debug, Default)]
struct Rack {
    at: Time,
    end: u64,
    rtt: u64,
}

/// All ranges under way, in their order.
#[derive(Debug, Default)]
pub(crate) struct Scoreboard {
    sent: VecDeque<Sent>,
    outstanding: u64,
    sacked: u64,
    lost: u64,
    rack: Rack,
    /// The highest position that has arrived.
    highest: u64,
    /// Segments have been seen to overtake each other.
    reordering: bool,
    /// Quarters of the least round trip that a segment may be late.
    patience: u64,
    /// Recoveries until that is forgotten.
    recoveries: u32,
}

impl Scoreboard {
    /// Bytes under way.
    pub(crate) fn in_flight(&self) -> u64 {
        self.outstanding.saturating_sub(self.sacked).saturating_sub(self.lost)
    }

    /// Bytes not acknowledged.
    pub(crate) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    pub(crate) fn sacked(&self) -> u64 {
        self.sacked
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    pub(crate) fn reordering(&self) -> bool {
        self.reordering
    }

    pub(crate) fn push(&mut self, start: u64, end: u64, at: Time) {
        self.sent.push_back(Sent { start, end, at, retransmitted: false, sacked: false, lost: false });
        self.outstanding = self.outstanding.saturating_add(end.saturating_sub(start));
    }

    fn arrived(&mut self, range: Sent, answer: &Answer, delivered: &mut Delivered) {
        delivered.bytes = delivered.bytes.saturating_add(range.len());
        delivered.original |= range.lost && !range.retransmitted;
        delivered.resent |= range.retransmitted;
        let rtt = answer.now.since(range.at);
        if range.retransmitted {
            // It is the answer to the first sending (RFC 8985, section 6.2, step 2).
            if !answer.fits(range.at) {
                return;
            }
        } else {
            if range.end < self.highest {
                self.reordering = true;
            }
            delivered.rtt = Some(delivered.rtt.map_or(rtt, |r| r.min(rtt)));
        }
        self.highest = self.highest.max(range.end);
        // Newest by the time of sending, and by position within one moment (RFC 8985).
        if (range.at, range.end) >= (self.rack.at, self.rack.end) {
            self.rack = Rack { at: range.at, end: range.end, rtt };
        }
    }

    /// All before `position` has arrived.
    pub(crate) fn acknowledge(&mut self, position: u64, answer: &Answer) -> Delivered {
        let mut delivered = Delivered::default();
        while let Some(first) = self.sent.front().copied() {
            if first.start >= position {
                break;
            }
            let part = Sent { end: first.end.min(position), ..first };
            self.outstanding = self.outstanding.saturating_sub(part.len());
            // Its bytes were counted when they were sacked.
            if first.sacked {
                self.sacked = self.sacked.saturating_sub(part.len());
            } else {
                self.arrived(part, answer, &mut delivered);
            }
            if first.lost {
                self.lost = self.lost.saturating_sub(part.len());
            }
            // Acknowledged in part, as one that the device has cut may be.
            if part.end < first.end {
                if let Some(rest) = self.sent.front_mut() {
                    rest.start = part.end;
                }
                break;
            }
            self.sent.pop_front();
        }
        delivered
    }

    /// The peer holds these ranges.
    pub(crate) fn sack(&mut self, blocks: &[Block], mss: u64, answer: &Answer, delivered: &mut Delivered) {
        for &(from, to) in blocks {
            let mut i = self.sent.partition_point(|s| s.end <= from);
            while let Some(range) = self.sent.get(i).copied() {
                if range.start >= to {
                    break;
                }
                if !range.sacked
                    && let Some(at) = self.split(i, range, (from, to), mss)
                    && let Some(piece) = self.sent.get_mut(at)
                {
                    let copy = *piece;
                    piece.sacked = true;
                    // The network had it after all.
                    if copy.lost {
                        piece.lost = false;
                        self.lost = self.lost.saturating_sub(copy.len());
                    }
                    self.sacked = self.sacked.saturating_add(copy.len());
                    self.arrived(copy, answer, delivered);
                    i = at;
                }
                i = i.saturating_add(1);
            }
        }
    }

    /// Makes the part of `range`, at `i`, that lies in `block` a range of its own, in whole segments; gives its place.
    fn split(&mut self, i: usize, range: Sent, block: Block, mss: u64) -> Option<usize> {
        let whole = |distance: u64| whole(distance, mss);
        let into = block.0.saturating_sub(range.start);
        // A block's ends need not be segments'; only whole ones count.
        let up = whole(into.saturating_add(mss.saturating_sub(1)));
        let start = range.start.saturating_add(up);
        let end = if block.1 >= range.end {
            range.end
        } else {
            range.start.saturating_add(whole(block.1.saturating_sub(range.start)))
        };
        if start >= end {
            return None;
        }
        let mut at = i;
        if start > range.start {
            self.sent.insert(at, Sent { end: start, ..range });
            at = at.saturating_add(1);
        }
        if let Some(middle) = self.sent.get_mut(at) {
            middle.start = start;
            middle.end = end;
        }
        if end < range.end {
            self.sent.insert(at.saturating_add(1), Sent { start: end, ..range });
        }
        Some(at)
    }

    /// Whose range lies wholly below what has arrived and came again: segments are late rather than lost.
    // A bound: a peer may not make losses go unnoticed for ever.
    pub(crate) fn saw_duplicate(&mut self) {
        self.patience = self.patience.saturating_add(1).min(64);
        self.recoveries = PATIENT_RECOVERIES;
    }

    /// A recovery is over: without further duplicates patience lasts for some of them (`RACK.reo_wnd_persist`).
    pub(crate) fn recovered(&mut self) {
        self.recoveries = self.recoveries.saturating_sub(1);
        if self.recoveries == 0 {
            self.patience = 0;
        }
    }

    /// Marks what RACK takes for lost; gives how many bytes, and when more may be.
    pub(crate) fn find_losses(&mut self, now: Time, p: &Patience, mss: u64) -> (u64, Option<Time>) {
        // Three segments that have arrived are as good as three duplicate acknowledgements.
        let many = p.by_number && self.sacked >= mss.saturating_mul(3);
        let wait = if !self.reordering && (p.repairing || many) {
            0
        } else {
            (p.least_rtt / 4).saturating_mul(self.patience.max(1)).min(p.smoothed.max(1))
        };
        let mut newly = 0u64;
        let mut again: Option<Time> = None;
        for range in &mut self.sent {
            // Only what was sent before the newest that has arrived can be told to be late.
            if range.sacked || range.lost || (range.at, range.end) >= (self.rack.at, self.rack.end) {
                continue;
            }
            let deadline = range.at.after(self.rack.rtt.saturating_add(wait));
            if deadline <= now {
                range.lost = true;
                newly = newly.saturating_add(range.len());
            } else {
                again = Some(again.map_or(deadline, |t| t.min(deadline)));
            }
        }
        self.lost = self.lost.saturating_add(newly);
        (newly, again)
    }

    /// Marks what has three segments behind it that have arrived, and was not sent again (`tcp_mark_head_lost`).
    pub(crate) fn lose_below_sacked(&mut self, mss: u64) {
        let enough = mss.saturating_mul(3);
        let mut behind = self.sacked;
        for range in &mut self.sent {
            if range.sacked {
                behind = behind.saturating_sub(range.len());
            } else if behind >= enough && !range.lost && !range.retransmitted {
                range.lost = true;
                self.lost = self.lost.saturating_add(range.len());
            }
        }
    }

    /// Whether something is under way that was sent again.
    pub(crate) fn repairs_under_way(&self) -> bool {
        self.sent.iter().any(|s| s.retransmitted && !s.sacked && !s.lost)
    }

    /// What was taken for lost is under way after all.
    pub(crate) fn nothing_is_lost(&mut self) {
        self.sent.iter_mut().for_each(|s| s.lost = false);
        self.lost = 0;
    }

    /// Takes the first `mss` bytes for lost: what duplicate acknowledgements say where there is no SACK.
    pub(crate) fn first_is_lost(&mut self, mss: u64) {
        let Some(first) = self.sent.front().copied() else { return };
        if first.lost || first.sacked {
            return;
        }
        // One segment, and the rest stays under way.
        if first.len() > mss {
            let border = first.start.saturating_add(mss);
            if let Some(rest) = self.sent.front_mut() {
                rest.start = border;
            }
            self.sent.push_front(Sent { end: border, lost: true, ..first });
            self.lost = self.lost.saturating_add(mss);
        } else if let Some(first) = self.sent.front_mut() {
            first.lost = true;
            let len = first.len();
            self.lost = self.lost.saturating_add(len);
        }
    }

    /// The retransmission timer went off: the first range is lost, and all that was sent so long ago that it would have
    /// arrived by the newest round trip (RFC 8985, section 6.3).
    pub(crate) fn time_out(&mut self, now: Time) {
        let patience = self.rack.rtt;
        let first = self.sent.front().map(|s| s.start);
        self.lose(|s| Some(s.start) == first || s.lost || now.since(s.at) >= patience);
    }

    /// All that has not arrived is lost.
    pub(crate) fn all_is_lost(&mut self) {
        self.lose(|_| true);
    }

    fn lose(&mut self, lost: impl Fn(&Sent) -> bool) {
        // A peer that has the first bytes and does not acknowledge them has given them up (RFC 2018, section 8).
        let forget = self.sent.front().is_some_and(|s| s.sacked);
        self.lost = 0;
        self.sacked = 0;
        for range in &mut self.sent {
            range.sacked &= !forget;
            range.lost = !range.sacked && (forget || lost(range));
            if range.lost {
                self.lost = self.lost.saturating_add(range.len());
            } else if range.sacked {
                self.sacked = self.sacked.saturating_add(range.len());
            }
        }
    }

    /// The first range that is lost, at most `len` bytes of it, is sent again.
    pub(crate) fn retransmit(&mut self, len: u64, now: Time) -> Option<Block> {
        if self.lost == 0 {
            return None;
        }
        let i = self.sent.iter().position(|s| s.lost)?;
        let range = *self.sent.get(i)?;
        let end = range.end.min(range.start.saturating_add(len.max(1)));
        // Under way once more, with a new time.
        let again = Sent { end, at: now, retransmitted: true, lost: false, ..range };
        self.lost = self.lost.saturating_sub(again.len());
        if end < range.end {
            if let Some(rest) = self.sent.get_mut(i) {
                rest.start = end;
            }
            self.sent.insert(i, again);
        } else if let Some(range) = self.sent.get_mut(i) {
            *range = again;
        }
        Some((again.start, again.end))
    }

    /// The last `len` bytes under way are sent again, as a probe.
    pub(crate) fn probe(&mut self, len: u64, now: Time) -> Option<Block> {
        // What has arrived, or is lost, needs no probe.
        let last = self.sent.back().copied().filter(|s| !s.sacked && !s.lost)?;
        let start = last.end.saturating_sub(len).max(last.start);
        let again = Sent { start, at: now, retransmitted: true, ..last };
        if start > last.start {
            if let Some(rest) = self.sent.back_mut() {
                rest.end = start;
            }
            self.sent.push_back(again);
        } else if let Some(last) = self.sent.back_mut() {
            *last = again;
        }
        Some((start, last.end))
    }

    pub(crate) fn clear(&mut self) {
        *self = Scoreboard::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u64 = 100;

    fn at(ms: u64) -> Time {
        Time::from_us(ms * 1000)
    }

    fn answer(ms: u64) -> Answer {
        Answer { now: at(ms), ..Answer::default() }
    }

    #[test]
    fn a_gap_below_three_sacked_segments_is_lost_and_sent_again() {
        let mut s = Scoreboard::default();
        s.push(1, 1001, at(0));
        let mut d = Delivered::default();
        s.sack(&[(201, 501)], MSS, &answer(50), &mut d);
        assert_eq!((d.bytes, d.rtt, s.in_flight(), s.sacked()), (300, Some(50_000), 700, 300));
        // What follows was sent at the same time: only the part below the highest that arrived is lost.
        let patience = Patience { least_rtt: 50_000, smoothed: 50_000, by_number: true, ..Patience::default() };
        assert_eq!(s.find_losses(at(50), &patience, MSS).0, 200);
        assert_eq!(s.retransmit(MSS, at(51)), Some((1, 101)));
        assert_eq!(s.retransmit(1000, at(51)), Some((101, 201)));
        assert_eq!((s.retransmit(1000, at(51)), s.lost(), s.in_flight()), (None, 0, 700));
        let d = s.acknowledge(501, &Answer { least_rtt: Some(50_000), ..answer(101) });
        assert_eq!((d.bytes, d.rtt, s.outstanding(), s.sacked()), (200, None, 500, 0));
    }

    #[test]
    fn blocks_of_single_bytes_split_nothing() {
        let mut s = Scoreboard::default();
        s.push(1, 1001, at(0));
        let mut d = Delivered::default();
        for i in 0..900 {
            s.sack(&[(i + 2, i + 3)], MSS, &answer(1), &mut d);
        }
        assert_eq!((s.sent.len(), s.sacked()), (1, 0));
    }

    #[test]
    fn what_was_sent_just_before_a_timeout_is_not_lost() {
        let mut s = Scoreboard::default();
        s.push(1, 101, at(0));
        s.push(101, 201, at(0));
        s.push(201, 301, at(0));
        // The round trip is 50 ms.
        s.sack(&[(201, 301)], MSS, &answer(50), &mut Delivered::default());
        s.push(301, 401, at(240));
        s.time_out(at(250));
        assert_eq!((s.lost(), s.in_flight()), (200, 100));
        assert_eq!(s.retransmit(1000, at(250)), Some((1, 101)));
        s.time_out(at(260));
        assert_eq!(s.retransmit(1000, at(260)), Some((1, 101)), "the first in any case");
    }

    #[test]
    fn patience_is_forgotten_after_sixteen_recoveries() {
        let mut s = Scoreboard::default();
        s.saw_duplicate();
        s.saw_duplicate();
        (0..15).for_each(|_| s.recovered());
        assert_eq!(s.patience, 2);
        s.recovered();
        assert_eq!(s.patience, 0);
    }

    #[test]
    fn after_a_timeout_everything_but_what_arrived_is_lost() {
        let mut s = Scoreboard::default();
        s.push(1, 401, at(0));
        s.sack(&[(101, 201)], MSS, &answer(1), &mut Delivered::default());
        s.all_is_lost();
        assert_eq!((s.lost(), s.sacked()), (300, 100));
        s.acknowledge(101, &answer(2));
        s.all_is_lost();
        assert_eq!((s.lost(), s.sacked()), (300, 0), "the peer gave up what it had");
    }
}
