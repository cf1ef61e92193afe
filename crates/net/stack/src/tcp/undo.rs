//! Undoing: what there was before the window became smaller, given back where nothing had been lost after all.
//!
//! That shows in three ways: the peer tells that all which was sent again came twice (D-SACK, RFC 3708); it echoes a timestamp of
//! before it was sent again (Eifel, RFC 3522); bytes arrive after a timeout that were never sent again (F-RTO, RFC 5682).

use super::congestion::{Cause, Congestion, Doubt, Undo};
use super::connection::Connection;
use super::receive_queue::Block;
use super::scoreboard::Delivered;
use super::segment::Segment;
use crate::time::Time;

impl Connection {
    /// The window is about to become smaller.
    pub(crate) fn begin_undo(&mut self) {
        self.undo = Some(Undo { before: self.cc.clone(), since: self.una, resent: None, stamp: None });
    }

    /// `len` bytes are sent again.
    pub(crate) fn note_resent(&mut self, len: u64, now: Time) {
        let stamp = self.timestamp(now);
        if let Some(undo) = &mut self.undo {
            undo.resent = Some(undo.resent.unwrap_or(0).saturating_add(len));
            undo.stamp.get_or_insert(stamp);
        }
    }

    /// The peer has told of a duplicate.
    pub(crate) fn note_duplicate(&mut self, block: Block) {
        if let Some(undo) = &mut self.undo
            && block.1 > undo.since
            && let Some(resent) = &mut undo.resent
        {
            *resent = resent.saturating_sub(block.1.saturating_sub(block.0));
        }
    }

    /// Whether all that was sent again came twice.
    fn all_came_twice(&self) -> bool {
        self.undo.as_ref().is_some_and(|u| u.resent == Some(0))
    }

    /// Whether a segment answers what was sent before anything was sent again (`tcp_packet_delayed`).
    fn answers_the_first(&self, s: &Segment<'_>) -> bool {
        let stamp = self.undo.as_ref().and_then(|u| u.stamp);
        match (stamp, s.options.timestamp.filter(|_| self.agreed.timestamps)) {
            (Some(stamp), Some((_, echo))) => echo != 0 && echo.wrapping_sub(stamp).cast_signed() < 0,
            _ => false,
        }
    }

    /// Looks whether the present or last repair was a mistake. `advanced`: the segment has acknowledged something; `news`: or told
    /// of something that arrived, or came twice.
    pub(crate) fn examine_repair(&mut self, s: &Segment<'_>, advanced: bool, news: bool, delivered: &Delivered) {
        match self.congestion {
            // Those that come late may still be told of.
            Congestion::Open => {
                if self.all_came_twice() {
                    self.give_back();
                }
            }
            Congestion::Recovery { cause: Cause::Loss, until, .. } => {
                let delayed = advanced && self.answers_the_first(s);
                // As long as one is under way that was sent again, its answer may show the opposite.
                let sure = self.una >= until || !self.board.repairs_under_way();
                if self.all_came_twice() || (delayed && sure) {
                    self.board.nothing_is_lost();
                    self.give_back();
                }
            }
            Congestion::Recovery { .. } => {}
            Congestion::Loss { until, doubt } => self.examine_timeout(s, (until, doubt), advanced, news, delivered),
        }
    }

    fn examine_timeout(
        &mut self,
        s: &Segment<'_>,
        (until, doubt): (u64, Doubt),
        advanced: bool,
        news: bool,
        delivered: &Delivered,
    ) {
        // Without SACK a hole that was repaired is acknowledged together with what lay behind it.
        let original = delivered.original && (self.agreed.sack || !delivered.resent);
        let delayed = advanced && (self.answers_the_first(s) || self.all_came_twice());
        if delayed || (doubt != Doubt::None && original) {
            self.board.nothing_is_lost();
            self.give_back();
            return;
        }
        let next = match doubt {
            // Step 2: the head has arrived, and nothing tells whether by its second sending. New data asks.
            Doubt::Asking if advanced && self.una < until => {
                let edge = self.una.saturating_add(self.send_window);
                let more = self.nxt < self.send.end() && self.nxt < edge && self.nxt == until;
                if more { Doubt::Probing } else { Doubt::None }
            }
            // Step 3: a duplicate for it shows the loss.
            Doubt::Probing if news || !advanced => Doubt::None,
            other => other,
        };
        self.congestion = Congestion::Loss { until, doubt: next };
    }

    /// Gives back what there was.
    fn give_back(&mut self) {
        let Some(undo) = self.undo.take() else { return };
        let present = self.cc.window;
        self.cc = undo.before;
        // The window may have grown meanwhile (`tcp_reno_undo_cwnd`).
        self.cc.window = self.cc.window.max(present);
        self.congestion = Congestion::Open;
        self.duplicate_acks = 0;
        self.rtt.backoff = 0;
        self.timers.reorder = None;
    }
}
