//! [`ByteQueue`]: the bytes of a stream between writer and reader.

use std::collections::VecDeque;

/// Memory that an empty queue keeps for the next bytes.
const KEEP: usize = 64 * 1024;

/// Bytes in the order of their writing.
#[derive(Default)]
pub struct ByteQueue {
    ring: VecDeque<u8>,
}

impl ByteQueue {
    /// Bytes held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Adds bytes at the end.
    pub fn push(&mut self, data: &[u8]) {
        self.ring.extend(data);
    }

    /// Copies bytes from `skip` on without taking them; gives how many.
    pub fn peek(&self, buf: &mut [u8], skip: usize) -> usize {
        let (a, b) = self.ring.as_slices();
        // The ring's two halves.
        let a_part = a.get(skip..).unwrap_or_default();
        let b_part = b.get(skip.saturating_sub(a.len())..).unwrap_or_default();
        let first = a_part.len().min(buf.len());
        let second = b_part.len().min(buf.len() - first);
        buf[..first].copy_from_slice(&a_part[..first]);
        buf[first..first + second].copy_from_slice(&b_part[..second]);
        first + second
    }

    /// Takes bytes from the front; gives how many.
    pub fn take(&mut self, buf: &mut [u8]) -> usize {
        let n = self.peek(buf, 0);
        self.discard(n);
        n
    }

    /// Drops `n` bytes from the front, or all if there are fewer.
    pub fn discard(&mut self, n: usize) {
        let n = n.min(self.ring.len());
        self.ring.drain(..n);
        // A burst's memory goes back; what a steady stream needs stays.
        if self.ring.is_empty() && self.ring.capacity() > KEEP {
            self.ring = VecDeque::new();
        }
    }

    /// Drops all bytes and their memory.
    pub fn clear(&mut self) {
        self.ring = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_around_the_ring_s_end() {
        let mut q = ByteQueue::default();
        let mut next_in = 0u8;
        let mut next_out = 0u8;
        for round in 0..500usize {
            let n = round * 7 % 23;
            let data: Vec<u8> = (0..n)
                .map(|_| {
                    next_in = next_in.wrapping_add(1);
                    next_in
                })
                .collect();
            q.push(&data);
            let mut buf = vec![0; round * 5 % 19];
            let mut seen = vec![0; buf.len()];
            let peeked = q.peek(&mut seen, 0);
            let n = q.take(&mut buf);
            assert_eq!((peeked, &seen[..n]), (n, &buf[..n]));
            for b in &buf[..n] {
                next_out = next_out.wrapping_add(1);
                assert_eq!(*b, next_out);
            }
        }
        let mut rest = [0; 3];
        assert_eq!(q.peek(&mut rest, q.len() - 1), 1);
        assert_eq!(rest[0], next_in);
        assert_eq!(q.peek(&mut rest, q.len() + 5), 0);
    }
}
