//! [`ReceiveQueue`]: bytes that have come in order, pieces that have come ahead of them, and what SACK says of those.

use std::collections::{BTreeMap, VecDeque};

use crate::num::Narrow;

/// Pieces ahead of a gap, at most; more are dropped, as if they were lost.
const MOST_PIECES: usize = 1024;
/// Blocks that one segment can tell of.
pub(crate) const MOST_BLOCKS: usize = 4;
/// A buffer that became larger is given back when it is empty.
const KEPT_CAPACITY: usize = 64 * 1024;

/// A range of positions: from, and behind the last.
pub(crate) type Block = (u64, u64);

/// What became of a segment's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// They continue what was there; the bytes that can be read now, with those that a gap had held back.
    InOrder { readable: usize, filled_gap: bool },
    /// They are ahead of a gap.
    Ahead,
    /// All of them had come before.
    Duplicate,
}

/// The receiving half of a stream.
#[derive(Default)]
pub(crate) struct ReceiveQueue {
    ready: VecDeque<u8>,
    /// Pieces ahead, by position; they neither overlap nor touch.
    ahead: BTreeMap<u64, Vec<u8>>,
    ahead_len: usize,
    /// Where the pieces are that changed last, the newest first.
    recent: VecDeque<u64>,
    /// A range that came twice, to be told once (RFC 2883).
    duplicate: Option<Block>,
}

impl ReceiveQueue {
    /// Bytes that can be read.
    pub(crate) fn readable(&self) -> usize {
        self.ready.len()
    }

    /// All bytes that are held.
    pub(crate) fn held(&self) -> usize {
        self.ready.len().saturating_add(self.ahead_len)
    }

    pub(crate) fn has_gap(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Takes bytes at `position`, where `next` is the first position that is missing. The caller has cut them to the window.
    pub(crate) fn insert(&mut self, position: u64, data: &[u8], next: u64) -> Arrival {
        let end = position.saturating_add(data.len().narrow());
        // Bytes that were read before: the sender has missed an acknowledgement.
        if end <= next {
            self.duplicate = Some((position, end));
            return Arrival::Duplicate;
        }
        if position > next {
            return self.insert_ahead(position, data);
        }
        if position < next {
            self.duplicate = Some((position, next));
        }
        // Only what is new of it.
        let skip: usize = next.saturating_sub(position).narrow();
        let fresh = data.get(skip..).unwrap_or_default();
        self.ready.extend(fresh);
        let had_gap = self.has_gap();
        let more = if had_gap { self.join(end) } else { 0 };
        Arrival::InOrder { readable: fresh.len().saturating_add(more), filled_gap: had_gap }
    }

    /// Moves what is ahead and now continues at `next`; gives how many bytes.
    fn join(&mut self, mut next: u64) -> usize {
        let mut moved = 0usize;
        while let Some(entry) = self.ahead.first_entry() {
            let start = *entry.key();
            if start > next {
                break;
            }
            let piece = entry.remove();
            self.recent.retain(|r| *r != start);
            self.ahead_len = self.ahead_len.saturating_sub(piece.len());
            let skip: usize = next.saturating_sub(start).narrow();
            let fresh = piece.get(skip..).unwrap_or_default();
            self.ready.extend(fresh);
            moved = moved.saturating_add(fresh.len());
            next = next.saturating_add(fresh.len().narrow());
        }
        moved
    }

    fn insert_ahead(&mut self, position: u64, data: &[u8]) -> Arrival {
        let end = position.saturating_add(data.len().narrow());
        if let Some((start, piece)) = self.ahead.range(..=position).next_back() {
            let piece_end = start.saturating_add(piece.len().narrow());
            if piece_end >= end {
                self.duplicate = Some((position, end));
                let start = *start;
                self.touch(start);
                return Arrival::Duplicate;
            }
        }
        let continues = self
            .ahead
            .range(..=position)
            .next_back()
            .filter(|(start, piece)| start.saturating_add(piece.len().narrow()) >= position)
            .map(|(start, _)| *start);
        // The peer can't fill the memory with tiny pieces.
        if continues.is_none() && self.ahead.len() >= MOST_PIECES {
            return Arrival::Duplicate;
        }
        let (start, mut piece) = match continues {
            Some(start) => {
                let mut piece = self.ahead.remove(&start).unwrap_or_default();
                self.ahead_len = self.ahead_len.saturating_sub(piece.len());
                // Only what the piece lacks.
                let have = start.saturating_add(piece.len().narrow());
                let skip: usize = have.saturating_sub(position).narrow();
                piece.extend_from_slice(data.get(skip..).unwrap_or_default());
                (start, piece)
            }
            None => (position, data.to_vec()),
        };
        // Later pieces that it reaches become part of it.
        while let Some((&next_start, _)) = self.ahead.range(start..).next() {
            let have = start.saturating_add(piece.len().narrow());
            if next_start > have {
                break;
            }
            let next = self.ahead.remove(&next_start).unwrap_or_default();
            self.recent.retain(|r| *r != next_start);
            self.ahead_len = self.ahead_len.saturating_sub(next.len());
            let skip: usize = have.saturating_sub(next_start).narrow();
            piece.extend_from_slice(next.get(skip..).unwrap_or_default());
        }
        self.ahead_len = self.ahead_len.saturating_add(piece.len());
        self.ahead.insert(start, piece);
        self.touch(start);
        Arrival::Ahead
    }

    fn touch(&mut self, start: u64) {
        self.recent.retain(|r| *r != start);
        self.recent.push_front(start);
        // No more of them fit a segment.
        self.recent.truncate(MOST_BLOCKS);
    }

    /// The blocks to tell of: a duplicate first, then those that changed last.
    pub(crate) fn blocks(&mut self, most: usize) -> Vec<Block> {
        let mut blocks: Vec<Block> = self.duplicate.take().into_iter().collect();
        for start in &self.recent {
            if let Some(piece) = self.ahead.get(start) {
                blocks.push((*start, start.saturating_add(piece.len().narrow())));
            }
        }
        blocks.truncate(most);
        blocks
    }

    /// What came twice is not told.
    pub(crate) fn forget_duplicate(&mut self) {
        self.duplicate = None;
    }

    pub(crate) fn has_duplicate(&self) -> bool {
        self.duplicate.is_some()
    }

    /// Copies bytes from the front, `skip` bytes into it.
    pub(crate) fn peek(&self, skip: usize, buf: &mut [u8]) -> usize {
        // The ring's two halves.
        let (a, b) = self.ready.as_slices();
        let mut copied = 0usize;
        let mut skip = skip;
        for part in [a, b] {
            let from = part.get(skip.min(part.len())..).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            let room = buf.get_mut(copied..).unwrap_or_default();
            let n = from.len().min(room.len());
            if let (Some(to), Some(from)) = (room.get_mut(..n), from.get(..n)) {
                to.copy_from_slice(from);
            }
            copied = copied.saturating_add(n);
        }
        copied
    }

    /// Throws bytes away from the front; gives how many.
    pub(crate) fn discard(&mut self, n: usize) -> usize {
        let n = n.min(self.ready.len());
        self.ready.drain(..n);
        if self.ready.is_empty() && self.ready.capacity() > KEPT_CAPACITY {
            self.ready = VecDeque::new();
        }
        n
    }

    pub(crate) fn clear(&mut self) {
        *self = ReceiveQueue::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_any_order_make_the_stream() {
        let stream: Vec<u8> = (0..200).collect();
        // Overlapping pieces in a fixed wild order.
        let mut pieces: Vec<(usize, usize)> = (0..60).map(|i| ((i * 37) % 190, 1 + (i * 13) % 11)).collect();
        pieces.extend((0..200).step_by(10).map(|at| (at, 10)));
        let mut q = ReceiveQueue::default();
        let mut next = 1u64;
        for (at, len) in pieces {
            let end = (at + len).min(200);
            if let Arrival::InOrder { readable, .. } = q.insert(at as u64 + 1, &stream[at..end], next) {
                next += readable as u64;
            }
        }
        let mut out = vec![0; 300];
        assert_eq!(q.peek(0, &mut out), 200);
        assert_eq!((&out[..200], next, q.held(), q.has_gap()), (&stream[..], 201, 200, false));
        assert_eq!(q.discard(150), 150);
        assert_eq!(q.peek(10, &mut out), 40);
        assert_eq!(out[..40], stream[160..]);
    }

    #[test]
    fn blocks_tell_the_newest_first_and_duplicates_once() {
        let mut q = ReceiveQueue::default();
        assert_eq!(q.insert(11, b"aa", 1), Arrival::Ahead);
        assert_eq!(q.insert(21, b"bb", 1), Arrival::Ahead);
        assert_eq!(q.insert(13, b"cc", 1), Arrival::Ahead);
        assert_eq!(q.blocks(4), [(11, 15), (21, 23)]);
        assert_eq!(q.insert(22, b"b", 1), Arrival::Duplicate);
        assert_eq!(q.blocks(4), [(22, 23), (21, 23), (11, 15)]);
        assert_eq!(q.blocks(4), [(21, 23), (11, 15)]);
    }
}
