//! [`Stamps`]: when the bytes that wait to be read have come (SO_TIMESTAMP, SO_TIMESTAMPNS).

use std::collections::VecDeque;

use moat_abi::socket::MsgFlags;
use moat_abi::time::Timespec;
use moat_vfs::clock;
use moat_vfs::socket::ControlMessage;

use super::{Inbox, TcpEnd};
use crate::ancillary;

/// Pieces that are told apart; later ones count as one, which came when its last byte did.
const MOST: usize = 64;

/// Bytes that came together, counted from the first one that waits.
struct Piece {
    start: usize,
    end: usize,
    at: Timespec,
}

#[derive(Default)]
pub(super) struct Stamps(VecDeque<Piece>);

impl Stamps {
    fn note(&mut self, start: usize, end: usize, at: Timespec) {
        if self.0.len() < MOST {
            self.0.push_back(Piece { start, end, at });
        } else if let Some(last) = self.0.back_mut() {
            (last.end, last.at) = (end, at);
        }
    }

    /// When the last of the first `n` bytes came, if anybody has noted it.
    fn at(&self, n: usize) -> Option<Timespec> {
        self.0.iter().find(|p| p.end >= n).filter(|p| p.start < n).map(|p| p.at)
    }

    /// The first `n` bytes are gone.
    fn advance(&mut self, n: usize) {
        self.0.retain_mut(|p| {
            (p.start, p.end) = (p.start.saturating_sub(n), p.end.saturating_sub(n));
            p.end > 0
        });
    }
}

impl Inbox {
    /// Notes that the bytes behind the first `before` ones have come, where the reader wants to know.
    pub(super) fn note(&mut self, reader: &TcpEnd, before: usize) {
        if reader.wants_stamps() {
            self.stamps.note(before, self.bytes.len(), clock::now());
        } else if !self.stamps.0.is_empty() {
            self.stamps = Stamps::default();
        }
    }
}

impl TcpEnd {
    pub(crate) fn wants_stamps(&self) -> bool {
        ancillary::wants_stamps(&self.core)
    }

    /// Of a connection of the stack so many bytes can be read: the last of them came at this moment.
    pub(crate) fn note_readable(&self, readable: usize) {
        let mut inbox = self.inbox.lock();
        let noted = inbox.stamps.0.back().map_or(0, |p| p.end);
        if readable > noted {
            inbox.stamps.note(noted, readable, clock::now());
        }
    }

    /// The message that tells when the last of `n` bytes came which were read, or only looked at.
    pub(crate) fn stamp_of(&self, n: usize, flags: MsgFlags) -> Option<ControlMessage> {
        if n == 0 || !self.wants_stamps() {
            return None;
        }
        let mut inbox = self.inbox.lock();
        let at = inbox.stamps.at(n);
        if !flags.contains(MsgFlags::PEEK) {
            inbox.stamps.advance(n);
        }
        // What came before anybody wanted to know has none.
        ancillary::stamp(&self.core, at?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_the_time_of_its_piece() {
        let time = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
        let mut s = Stamps::default();
        s.note(2, 5, time(1));
        s.note(5, 9, time(2));
        let seconds = |s: &Stamps, n| s.at(n).map(|t| t.tv_sec);
        assert_eq!(
            [1, 2, 3, 5, 6, 9, 10].map(|n| seconds(&s, n)),
            [None, None, Some(1), Some(1), Some(2), Some(2), None]
        );
        s.advance(6);
        assert_eq!((seconds(&s, 1), seconds(&s, 3), s.0.len()), (Some(2), Some(2), 1));
        for i in 0..100 {
            s.note(3 + i, 4 + i, time(10));
        }
        assert_eq!((s.0.len(), seconds(&s, 103)), (MOST, Some(10)));
        s.advance(103);
        assert_eq!(s.0.len(), 0);
    }
}
