//! ECN: congestion that the network tells of by marks in place of losses, RFC 3168.

use super::congestion::{Cause, Congestion};
use super::connection::Connection;
use super::segment::{Segment, SegmentOut};
use super::settings::EcnRule;

impl Connection {
    /// Whether a SYN that asks for ECN gets it.
    pub(crate) fn accepts_ecn(&self, syn: &Segment<'_>) -> bool {
        // A SYN that could be marked itself is not of this kind of ECN (`tcp_ecn_create_request`).
        self.rules.ecn != EcnRule::Never && syn.flags.ece && syn.flags.cwr && !syn.ecn.capable
    }

    /// What a segment with bytes says of marks to the receiver.
    pub(crate) fn note_marks(&mut self, s: &Segment<'_>) {
        if !self.agreed.ecn {
            return;
        }
        if s.flags.cwr {
            self.ecn.echo = false;
            self.ack.now = true;
        }
        if s.ecn.capable {
            self.ecn.seen = true;
        }
        if s.ecn.marked {
            // The sender slows down the sooner it knows.
            self.ack.now |= !self.ecn.echo;
            self.ack.quick = self.ack.quick.max(2);
            self.ecn.echo = true;
        }
    }

    /// The peer tells of marks: the window becomes smaller, once in a round trip.
    pub(crate) fn take_echo(&mut self, s: &Segment<'_>) {
        let told = self.agreed.ecn && s.flags.ece && !s.flags.syn;
        if !told || self.congestion != Congestion::Open || self.board.is_empty() {
            return;
        }
        self.undo = None;
        self.reduce_window(Cause::Marks);
        self.ecn.heard = true;
    }

    /// Sets what a segment says of marks whose bytes are sent for the first time: nobody would miss the marks of others (RFC 3168,
    /// section 6.1.5).
    pub(crate) fn put_ecn(&mut self, segment: &mut SegmentOut) {
        if self.agreed.ecn {
            segment.capable = true;
            segment.flags.cwr = std::mem::take(&mut self.ecn.heard);
        }
    }
}
