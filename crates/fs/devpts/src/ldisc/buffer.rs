//! [`InputBuffer`]: the slave's input, 4096 bytes, with marks at the ends of lines.

use moat_abi::tty::VDISABLE;

/// Bytes in the ring (`N_TTY_BUF_SIZE`).
pub const SIZE: usize = 4096;

/// So far behind the last finished line a reader is taken to be at most.
const FURTHEST: i64 = 1 << 40;

/// A ring of input bytes.
///
/// Positions count up for ever; a byte's place is its position modulo [`SIZE`]. `tail <= head <= tail + SIZE`. In
/// canonical mode `tail <= canon_head <= head`: bytes before `canon_head` are finished lines, those after it the line
/// that is being edited. In other modes `canon_head` stays where it was and only says whether anything has come
/// since.
#[derive(Clone, Debug)]
pub struct InputBuffer {
    bytes: Box<[u8; SIZE]>,
    /// Places that end a line. The byte there is the delimiter, or NUL for an end of file, which is not read.
    ends: Box<[bool; SIZE]>,
    head: usize,
    canon_head: usize,
    tail: usize,
}

impl Default for InputBuffer {
    fn default() -> InputBuffer {
        InputBuffer::new()
    }
}

impl InputBuffer {
    /// An empty one.
    #[must_use]
    pub fn new() -> InputBuffer {
        InputBuffer { bytes: Box::new([0; SIZE]), ends: Box::new([false; SIZE]), head: 0, canon_head: 0, tail: 0 }
    }

    /// What it holds, the places of the ends of lines in that, and where finished lines end.
    pub(super) fn save(&self) -> (Vec<u8>, Vec<u32>, i64) {
        let held = self.tail..self.head;
        let ends = (0..).zip(held.clone()).filter(|(_, position)| self.ends[position % SIZE]).map(|(at, _)| at);
        let place = |position: usize| i64::try_from(position).unwrap_or(i64::MAX);
        let finished = place(self.canon_head).saturating_sub(place(self.tail)).max(-FURTHEST);
        (held.map(|position| self.byte(position)).collect(), ends.collect(), finished)
    }

    /// The same out of an image; none if that is none.
    pub(super) fn restore(input: &[u8], ends: &[u32], finished: i64) -> Option<InputBuffer> {
        let len = i64::try_from(input.len()).ok().filter(|_| input.len() <= SIZE)?;
        if finished > len || finished < -FURTHEST {
            return None;
        }
        let mut buffer = InputBuffer::new();
        // Finished lines may have ended before what is held: positions begin there.
        buffer.tail = usize::try_from(finished.saturating_neg().max(0)).ok()?;
        buffer.canon_head = usize::try_from(finished.max(0)).ok()?;
        buffer.head = buffer.tail;
        for byte in input {
            buffer.push(*byte);
        }
        for end in ends {
            let at = usize::try_from(*end).ok().filter(|at| *at < input.len())?;
            buffer.ends[buffer.tail.saturating_add(at) % SIZE] = true;
        }
        Some(buffer)
    }

    /// Bytes held, edited line and end-of-file marks included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head - self.tail
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Whether a finished line can be read (canonical mode).
    #[must_use]
    pub fn has_line(&self) -> bool {
        self.canon_head != self.tail
    }

    /// Bytes of the finished lines, without end-of-file marks.
    #[must_use]
    pub fn line_bytes(&self) -> usize {
        let marks = (self.tail..self.canon_head).filter(|p| self.ends[p % SIZE] && self.byte(*p) == VDISABLE).count();
        self.canon_head - self.tail - marks
    }

    /// Whether nothing has been typed since the last finished line.
    pub(super) fn line_is_empty(&self) -> bool {
        self.canon_head == self.head
    }

    /// Positions of the edited line. A line that fills the ring counts as empty: Linux can't edit it either.
    pub(super) fn line(&self) -> std::ops::Range<usize> {
        if self.head - self.canon_head >= SIZE { self.head..self.head } else { self.canon_head..self.head }
    }

    /// The byte at a position.
    pub(super) fn byte(&self, position: usize) -> u8 {
        self.bytes[position % SIZE]
    }

    /// Adds a byte; in a full ring it takes the place of the last one.
    pub(super) fn push(&mut self, c: u8) {
        if self.len() >= SIZE {
            self.overwrite_last();
        }
        self.bytes[self.head % SIZE] = c;
        self.head += 1;
    }

    /// Adds a byte that ends the line.
    pub(super) fn push_end(&mut self, c: u8) {
        self.push(c);
        self.ends[(self.head - 1) % SIZE] = true;
        self.canon_head = self.head;
    }

    /// Drops the edited line from `position` on.
    pub(super) fn truncate(&mut self, position: usize) {
        // Finished lines stay.
        self.head = position.clamp(self.canon_head, self.head);
    }

    /// Drops the whole edited line.
    pub(super) fn drop_line(&mut self) {
        self.head = self.canon_head;
    }

    /// Drops the last byte of an overlong line, to take another in its place.
    pub(super) fn overwrite_last(&mut self) {
        self.head = self.head.saturating_sub(1).max(self.tail);
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        (self.head, self.canon_head, self.tail) = (0, 0, 0);
        self.ends.fill(false);
    }

    /// Enters or leaves canonical mode. What is held becomes one finished line on entry.
    pub(super) fn change_mode(&mut self, canonical: bool) {
        self.ends.fill(false);
        self.canon_head = self.tail;
        if canonical && !self.is_empty() {
            self.ends[(self.head - 1) % SIZE] = true;
            self.canon_head = self.head;
        }
    }

    /// Takes bytes up to the end of the first line. An end-of-file mark is taken with the bytes before it.
    pub(super) fn read_line(&mut self, buf: &mut [u8]) -> usize {
        let mut n = 0;
        while self.tail < self.canon_head {
            let place = self.tail % SIZE;
            let c = self.bytes[place];
            let end = self.ends[place];
            // Before the look at the room: a mark just behind a full read goes with it.
            if end && c == VDISABLE {
                self.ends[place] = false;
                self.tail += 1;
                break;
            }
            // The rest of the line is for the next read.
            if n == buf.len() {
                break;
            }
            buf[n] = c;
            n += 1;
            self.tail += 1;
            if end {
                self.ends[place] = false;
                break;
            }
        }
        n
    }

    /// Takes bytes whatever they are. A lone `eof` character reads as an end of file (EXTPROC with ICANON).
    pub(super) fn read_raw(&mut self, buf: &mut [u8], eof: Option<u8>) -> usize {
        let n = buf.len().min(self.len());
        for slot in &mut buf[..n] {
            *slot = self.bytes[self.tail % SIZE];
            self.tail += 1;
        }
        if n == 1 && Some(buf[0]) == eof && self.is_empty() { 0 } else { n }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(b: &mut InputBuffer, len: usize) -> Vec<u8> {
        let mut buf = vec![0; len];
        let n = b.read_line(&mut buf);
        buf.truncate(n);
        buf
    }

    #[test]
    fn lines_come_one_by_one() {
        let mut b = InputBuffer::new();
        b"abc".iter().for_each(|c| b.push(*c));
        assert!(!b.has_line());
        b.push_end(b'\n');
        b.push(b'd');
        b.push_end(VDISABLE);
        assert_eq!(b.line_bytes(), 5);
        assert_eq!(line(&mut b, 2), b"ab");
        assert_eq!(line(&mut b, 10), b"c\n");
        assert_eq!(line(&mut b, 1), b"d");
        assert!(!b.has_line());
    }

    #[test]
    fn the_ring_wraps() {
        let mut b = InputBuffer::new();
        for round in 0..5u8 {
            (0..SIZE - 1).for_each(|_| b.push(round));
            b.push_end(b'\n');
            assert_eq!(b.len(), SIZE);
            assert_eq!(line(&mut b, 2 * SIZE).len(), SIZE);
        }
        assert!(b.is_empty());
    }

    #[test]
    fn what_was_typed_raw_becomes_a_line() {
        let mut b = InputBuffer::new();
        b.push(b'x');
        b.push(b'y');
        b.change_mode(true);
        assert_eq!(line(&mut b, 10), b"xy");
    }
}
