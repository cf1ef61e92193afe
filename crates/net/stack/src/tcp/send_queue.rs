//! [`SendQueue`]: bytes that the peer has not acknowledged, with what is not sent yet.
//!
//! A position counts bytes of the stream from the SYN, which is 0. Chunks are shared with frames under way, so that sending
//! copies nothing.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::num::Narrow;

/// What a chunk counts for beside its bytes.
const CHUNK_COST: usize = 64;
/// Writes of at least this size become chunks of their own.
const LARGE_WRITE: usize = 16 * 1024;
/// Chunks that one segment refers to.
const MOST_PARTS: usize = 64;
/// Room that small writes share.
const TAIL_ROOM: usize = 2048;

struct Chunk {
    start: u64,
    bytes: Bytes,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes.len().narrow())
    }
}

/// The bytes from the first unacknowledged one on.
pub(crate) struct SendQueue {
    chunks: VecDeque<Chunk>,
    /// Follows the chunks; not shared with frames yet.
    tail: BytesMut,
    /// Positions of the first byte and behind the last.
    start: u64,
    end: u64,
}

impl SendQueue {
    /// An empty queue whose first byte will have this position.
    pub(crate) fn new(start: u64) -> SendQueue {
        SendQueue { chunks: VecDeque::new(), tail: BytesMut::new(), start, end: start }
    }

    /// The position behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes that are held.
    pub(crate) fn len(&self) -> usize {
        self.end.saturating_sub(self.start).narrow()
    }

    /// What they count for in the send buffer.
    pub(crate) fn cost(&self) -> usize {
        self.len().saturating_add(self.chunks.len().saturating_mul(CHUNK_COST))
    }

    pub(crate) fn push(&mut self, data: &[u8]) {
        // The writer's bytes are copied once, here, and shared with frames from then on.
        if data.len() >= LARGE_WRITE {
            self.flush_tail();
            self.chunks.push_back(Chunk { start: self.end, bytes: Bytes::copy_from_slice(data) });
        } else {
            // Growing it would copy what is there.
            if self.tail.capacity().saturating_sub(self.tail.len()) < data.len() {
                self.flush_tail();
                self.tail = BytesMut::with_capacity(data.len().max(TAIL_ROOM));
            }
            self.tail.extend_from_slice(data);
        }
        self.end = self.end.saturating_add(data.len().narrow());
    }

    fn flush_tail(&mut self) {
        if !self.tail.is_empty() {
            let bytes = self.tail.split().freeze();
            let start = self.end.saturating_sub(bytes.len().narrow());
            self.chunks.push_back(Chunk { start, bytes });
        }
    }

    /// The bytes from `from` on, at most `len`.
    pub(crate) fn slice(&mut self, from: u64, len: usize) -> Vec<Bytes> {
        // Frames refer to chunks; the tail is still being written.
        self.flush_tail();
        let mut parts = Vec::new();
        let mut at = from.max(self.start);
        let mut left = len;
        let first = self.chunks.partition_point(|c| c.end() <= at);
        for chunk in self.chunks.range(first..) {
            if left == 0 {
                break;
            }
            let skip: usize = at.saturating_sub(chunk.start).narrow();
            let n = chunk.bytes.len().saturating_sub(skip).min(left);
            parts.push(chunk.bytes.slice(skip..skip.saturating_add(n)));
            at = at.saturating_add(n.narrow());
            left = left.saturating_sub(n);
        }
        if parts.len() > MOST_PARTS {
            // Of many small writes; the host takes no more than so many pieces at once.
            return vec![parts.concat().into()];
        }
        parts
    }

    /// Forgets the bytes before `position`.
    pub(crate) fn acknowledge(&mut self, position: u64) {
        let position = position.min(self.end);
        if position <= self.start {
            return;
        }
        // The tail's bytes may be acknowledged as well.
        self.flush_tail();
        self.start = position;
        while self.chunks.front().is_some_and(|c| c.end() <= position) {
            self.chunks.pop_front();
        }
        if self.chunks.is_empty() {
            // An idle connection holds no memory.
            self.tail = BytesMut::new();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
        self.tail = BytesMut::new();
        self.start = self.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(parts: &[Bytes]) -> Vec<u8> {
        parts.iter().flat_map(|p| p.to_vec()).collect()
    }

    #[test]
    fn slices_cross_chunks_and_acknowledged_bytes_go() {
        let mut q = SendQueue::new(1);
        let big: Vec<u8> = (0..20_000u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        q.push(b"abc");
        q.push(&big);
        q.push(b"xyz");
        let all = [b"abc".as_slice(), &big, b"xyz"].concat();
        assert_eq!(flat(&q.slice(1, all.len())), all);
        assert_eq!(flat(&q.slice(3, 10)), all[2..12]);
        q.acknowledge(3);
        assert_eq!(flat(&q.slice(0, 5)), all[2..7], "what is gone is left out");
        q.push(b"!");
        assert_eq!(flat(&q.slice(20_004, 99)), b"xyz!");
        q.acknowledge(u64::MAX);
        assert_eq!((q.len(), q.cost()), (0, 0));
    }
}
