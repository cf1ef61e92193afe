//! [`Blocks`]: memory that has places of its own in `pages`, so that it can be written again as often as it changes.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;

use super::write::{PagesWriter, put, written};
use super::{PAGE, Segment, Stored};
use crate::error::ImageError;
use crate::{PAGE_SIZE, length, pieces};

/// Bytes that get their place together. What of them is not written is zeros, and costs nothing.
const BLOCK: u64 = 64 * PAGE_SIZE;

/// Bytes read at a time for a checksum.
const PIECE: usize = 64 * PAGE;

#[derive(Clone, Copy)]
struct Block {
    offset: u64,
    /// Of the whole block, unless that has changed since.
    crc: Option<u32>,
}

/// Pages of one address space, by address.
#[derive(Default)]
pub struct Blocks {
    /// By the address of each, a multiple of [`BLOCK`].
    at: BTreeMap<u64, Block>,
}

fn block_of(address: u64) -> u64 {
    address.saturating_sub(address % BLOCK)
}

impl Blocks {
    /// Writes whole pages of the memory at `start`, in place of what was written of them before.
    ///
    /// # Errors
    /// Of writing.
    pub fn write(&mut self, pages: &mut PagesWriter, start: u64, bytes: &[u8]) -> Result<(), ImageError> {
        debug_assert!(start.is_multiple_of(PAGE_SIZE) && bytes.len().is_multiple_of(PAGE));
        let mut rest = bytes;
        let mut at = start;
        while !rest.is_empty() {
            let name = block_of(at);
            let inside = at.saturating_sub(name);
            let room = usize::try_from(BLOCK.saturating_sub(inside)).unwrap_or(PAGE);
            let (now, later) = rest.split_at(room.min(rest.len()));
            let known = self.at.get(&name).copied();
            let block = known.unwrap_or_else(|| Block { offset: pages.reserve(BLOCK), crc: None });
            put(pages.file(), now, block.offset.saturating_add(inside))?;
            if known.is_some() {
                // Where zeros are now there may have been something else.
                clear_zeros(pages.file(), now, block.offset.saturating_add(inside))?;
            }
            let crc = (length(now.len()) == BLOCK).then(|| crc32fast::hash(now));
            self.at.insert(name, Block { crc, ..block });
            at = at.saturating_add(length(now.len()));
            rest = later;
        }
        Ok(())
    }

    /// Forgets what was written of `start..end`: it is zeros.
    ///
    /// # Errors
    /// Of writing.
    pub fn clear(&mut self, pages: &PagesWriter, start: u64, end: u64) -> Result<(), ImageError> {
        for (name, block) in self.at.range_mut(block_of(start)..end) {
            let from = start.max(*name).saturating_sub(*name);
            let to = end.saturating_sub(*name).min(BLOCK);
            clear(pages.file(), block.offset.saturating_add(from), to.saturating_sub(from))?;
            block.crc = None;
        }
        Ok(())
    }

    /// The segments of the area `start..end`, in order.
    ///
    /// # Errors
    /// Of reading for their checksums.
    pub fn segments(&self, pages: &PagesWriter, start: u64, end: u64) -> Result<Vec<Segment>, ImageError> {
        let mut segments: Vec<(Segment, crc32fast::Hasher)> = Vec::new();
        for (name, block) in self.at.range(block_of(start)..end) {
            let from = start.max(*name);
            let len = end.min(name.saturating_add(BLOCK)).saturating_sub(from);
            let offset = block.offset.saturating_add(from.saturating_sub(*name));
            let crc = match block.crc.filter(|_| len == BLOCK) {
                Some(crc) => crc,
                None => checksum(pages.file(), offset, len)?,
            };
            let crc = crc32fast::Hasher::new_with_initial_len(crc, len);
            match segments.last_mut() {
                Some((last, sum))
                    if last.start.saturating_add(last.stored.len) == from
                        && last.stored.offset.saturating_add(last.stored.len) == offset =>
                {
                    last.stored.len = last.stored.len.saturating_add(len);
                    sum.combine(&crc);
                }
                _ => {
                    let stored = Stored { offset, len, crc32: 0, packed: None, base: 0 };
                    segments.push((Segment { start: from, stored }, crc));
                }
            }
        }
        let sum = |(segment, crc): (Segment, crc32fast::Hasher)| Segment {
            stored: Stored { crc32: crc.finalize(), ..segment.stored },
            ..segment
        };
        Ok(segments.into_iter().map(sum).collect())
    }
}

fn checksum(file: &File, offset: u64, len: u64) -> Result<u32, ImageError> {
    let mut crc = crc32fast::Hasher::new();
    let mut buffer = vec![0; PIECE];
    for (at, n) in pieces(0, len, PIECE) {
        let piece = buffer.get_mut(..n).unwrap_or_default();
        // What was reserved and not written may be beyond the end of the file, and is zeros too.
        piece.fill(0);
        let mut done = 0usize;
        while let Some(rest) = piece.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let from = offset.saturating_add(at).saturating_add(length(done));
            match file.read_at(rest, from).map_err(|e| ImageError::host("reading pages", e))? {
                0 => break,
                n => done = done.saturating_add(n),
            }
        }
        crc.update(piece);
    }
    Ok(crc.finalize())
}

fn clear_zeros(file: &File, bytes: &[u8], offset: u64) -> Result<(), ImageError> {
    let mut at = 0usize;
    for run in bytes.chunks(PAGE).collect::<Vec<_>>().chunk_by(|a, b| super::is_zero(a) == super::is_zero(b)) {
        let len = run.iter().map(|page| page.len()).sum::<usize>();
        if run.first().is_some_and(|page| super::is_zero(page)) {
            clear(file, offset.saturating_add(length(at)), length(len))?;
        }
        at = at.saturating_add(len);
    }
    Ok(())
}

/// Makes a hole, or writes zeros where the file system has none.
fn clear(file: &File, offset: u64, len: u64) -> Result<(), ImageError> {
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, hole, offset, len) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = [0; PAGE];
            let mut at = 0;
            while at < len {
                file.write_all_at(&zeros, offset.saturating_add(at)).map_err(written)?;
                at = at.saturating_add(PAGE_SIZE);
            }
            Ok(())
        }
        Err(e) => Err(written(e.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_last_is_there() {
        let file = File::from(rustix::fs::memfd_create("pages", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        let mut pages = PagesWriter::new(file.try_clone().unwrap(), [3; 16]).unwrap();
        let mut blocks = Blocks::default();
        // A naive copy of the memory from 0x10000 on, and every change made to both.
        let start = 0x10000;
        let mut memory = vec![0u8; 200 * PAGE];
        let mut change = |blocks: &mut Blocks, pages: &mut PagesWriter, page: usize, count: usize, byte: u8| {
            let range = page * PAGE..(page + count) * PAGE;
            memory[range.clone()].fill(byte);
            blocks.write(pages, start + length(range.start), &memory[range]).unwrap();
        };
        change(&mut blocks, &mut pages, 0, 200, 1);
        change(&mut blocks, &mut pages, 60, 5, 2);
        change(&mut blocks, &mut pages, 62, 1, 0);
        change(&mut blocks, &mut pages, 199, 1, 9);
        blocks.clear(&pages, start + 3 * PAGE_SIZE, start + 130 * PAGE_SIZE).unwrap();
        memory[3 * PAGE..130 * PAGE].fill(0);
        // Two areas, which begin and end within blocks; what lies between them is gone.
        let areas = [(start, start + 70 * PAGE_SIZE), (start + 100 * PAGE_SIZE, start + 200 * PAGE_SIZE)];
        let segments: Vec<_> =
            areas.iter().flat_map(|(from, to)| blocks.segments(&pages, *from, *to).unwrap()).collect();
        assert_eq!(segments.len(), 2, "each is one run of the file");
        pages.finish().unwrap();
        for (segment, (from, to)) in segments.iter().zip(areas) {
            assert_eq!((segment.start, segment.stored.len), (from, to - from));
            let mut bytes = vec![0; usize::try_from(segment.stored.len).unwrap()];
            file.read_exact_at(&mut bytes, segment.stored.offset).unwrap();
            let at = usize::try_from(from - start).unwrap();
            assert!(bytes == memory[at..at + bytes.len()]);
            assert_eq!(crc32fast::hash(&bytes), segment.stored.crc32);
        }
    }

    #[test]
    fn what_comes_later_has_its_place_behind() {
        let file = File::from(rustix::fs::memfd_create("pages", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        let mut pages = PagesWriter::new(file, [3; 16]).unwrap();
        let mut blocks = Blocks::default();
        blocks.write(&mut pages, 4 * BLOCK, &[1; PAGE]).unwrap();
        blocks.write(&mut pages, 2 * BLOCK, &[2; PAGE]).unwrap();
        let segments = blocks.segments(&pages, 0, 8 * BLOCK).unwrap();
        let places: Vec<_> = segments.iter().map(|s| (s.start, s.stored.offset, s.stored.len)).collect();
        assert_eq!(places, [(2 * BLOCK, PAGE_SIZE + BLOCK, BLOCK), (4 * BLOCK, PAGE_SIZE, BLOCK)]);
        assert_eq!(pages.finish().unwrap(), PAGE_SIZE + 2 * BLOCK);
    }
}
