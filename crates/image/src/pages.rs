//! `pages`: guest memory, in whole pages at multiples of the page size.
//!
//! The first page is a header: magic, then the id of the image. Segments follow; a page of zeros is a hole and costs nothing.

use std::fs::File;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::error::ImageError;
use crate::{PAGE_SIZE, length, pieces};

/// The first bytes of `pages`.
pub const MAGIC: [u8; 8] = *b"moat\x01pgs";

/// Bytes of a page, as the length of slices.
const PAGE: usize = 4096;

/// A stretch of `pages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its first byte in the file.
    pub offset: u64,
    /// Bytes; whole pages.
    pub len: u64,
    /// CRC-32 of its bytes, zeros included.
    pub crc32: u32,
}

/// Pages at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The address, or the offset in shared memory.
    pub start: u64,
    /// The pages.
    pub stored: Stored,
}

/// Writes `pages`.
pub struct PagesWriter {
    file: File,
    end: u64,
}

/// A segment that is being written.
pub struct SegmentWriter<'a> {
    pages: &'a mut PagesWriter,
    start: u64,
    crc: crc32fast::Hasher,
}

impl PagesWriter {
    /// Begins the empty `file` of the image `id`.
    ///
    /// # Errors
    /// Of writing.
    pub fn new(file: File, id: [u8; 16]) -> Result<PagesWriter, ImageError> {
        let header = [&MAGIC[..], &id].concat();
        file.write_all_at(&header, 0).map_err(written)?;
        Ok(PagesWriter { file, end: PAGE_SIZE })
    }

    /// Begins a segment behind those that are there.
    pub fn segment(&mut self) -> SegmentWriter<'_> {
        SegmentWriter { start: self.end, pages: self, crc: crc32fast::Hasher::new() }
    }

    /// Ends the file; gives its length. Whoever puts the image in its place sees to it that it is on its medium.
    ///
    /// # Errors
    /// Of writing.
    pub fn finish(self) -> Result<u64, ImageError> {
        // The last pages may be a hole.
        self.file.set_len(self.end).map_err(written)?;
        Ok(self.end)
    }
}

fn written(error: std::io::Error) -> ImageError {
    ImageError::host("writing pages", error)
}

impl SegmentWriter<'_> {
    /// Adds whole pages.
    ///
    /// # Errors
    /// Of writing.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        debug_assert!(bytes.len().is_multiple_of(PAGE));
        self.crc.update(bytes);
        let mut at = 0usize;
        // One write for each run of pages that are not zero.
        for run in bytes.chunks(PAGE).collect::<Vec<_>>().chunk_by(|a, b| is_zero(a) == is_zero(b)) {
            let len = run.iter().map(|page| page.len()).sum::<usize>();
            if let Some(some) =
                bytes.get(at..at.saturating_add(len)).filter(|_| run.first().is_some_and(|page| !is_zero(page)))
            {
                self.pages.file.write_all_at(some, self.pages.end.saturating_add(length(at))).map_err(written)?;
            }
            at = at.saturating_add(len);
        }
        self.pages.end = self.pages.end.saturating_add(length(bytes.len()));
        Ok(())
    }

    /// Where the segment is.
    #[must_use]
    pub fn finish(self) -> Stored {
        Stored { offset: self.start, len: self.pages.end.saturating_sub(self.start), crc32: self.crc.finalize() }
    }
}

fn is_zero(page: &[u8]) -> bool {
    // Eight bytes at a time.
    let (words, rest) = page.as_chunks::<8>();
    words.iter().all(|word| u64::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// `pages`, to be read.
pub struct Pages {
    file: File,
    len: u64,
}

impl Pages {
    /// Looks whether `file` belongs to the image `id` and has `len` bytes, as its header says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(file: File, id: [u8; 16], len: u64) -> Result<Pages, ImageError> {
        let wrong = ImageError::pages;
        let metadata = file.metadata().map_err(|e| ImageError::host("looking at pages", e))?;
        if metadata.len() != len {
            return Err(wrong(format!("it has {} bytes, and the image says {len}", metadata.len())));
        }
        let mut header = [0; 24];
        file.read_exact_at(&mut header, 0).map_err(|_| wrong("it ends in its header".into()))?;
        if header[..8] != MAGIC {
            return Err(wrong("it is not the pages of a moat image".into()));
        }
        // Two files of one directory can still be of two images, if somebody copied one of them.
        if header[8..] != id {
            return Err(wrong("it belongs to another image".into()));
        }
        Ok(Pages { file, len })
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether `stored` is whole pages, all in the file.
    ///
    /// # Errors
    /// [`ImageError::Malformed`].
    pub fn check(&self, stored: &Stored) -> Result<(), ImageError> {
        let aligned = [stored.offset, stored.len].iter().all(|n| n.is_multiple_of(PAGE_SIZE));
        let end = stored.offset.checked_add(stored.len).filter(|end| *end <= self.len);
        // Pages are mapped from here, which needs whole ones; the first has the header.
        if aligned && stored.offset >= PAGE_SIZE && stored.len > 0 && end.is_some() {
            Ok(())
        } else {
            Err(ImageError::pages(format!("{} bytes at {} are no pages of it", stored.len, stored.offset)))
        }
    }

    /// Calls `take` with the bytes of a segment, a piece at a time, and where in the segment each begins.
    ///
    /// # Errors
    /// Of reading; those of `take`.
    pub fn read<E: From<ImageError>>(
        &self,
        stored: &Stored,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.check(stored)?;
        let mut buffer = vec![0; 256 << 10];
        for (at, n) in pieces(0, stored.len, buffer.len()) {
            let piece = &mut buffer[..n];
            self.file
                .read_exact_at(piece, stored.offset.saturating_add(at))
                .map_err(|e| ImageError::host("reading pages", e))?;
            take(at, piece)?;
        }
        Ok(())
    }

    /// Whether the bytes of a segment are those that were written.
    ///
    /// # Errors
    /// [`ImageError::Malformed`] if not.
    pub fn verify(&self, stored: &Stored) -> Result<(), ImageError> {
        let mut crc = crc32fast::Hasher::new();
        self.read(stored, |_, piece| {
            crc.update(piece);
            Ok::<(), ImageError>(())
        })?;
        if crc.finalize() == stored.crc32 {
            Ok(())
        } else {
            let what = format!("the checksum of {} bytes at {} is wrong", stored.len, stored.offset);
            Err(ImageError::pages(what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> File {
        File::from(rustix::fs::memfd_create("pages", rustix::fs::MemfdFlags::CLOEXEC).unwrap())
    }

    #[test]
    fn zeros_are_holes_and_all_comes_back() {
        let file = file();
        let mut pages = PagesWriter::new(file.try_clone().unwrap(), [3; 16]).unwrap();
        let mut bytes = vec![0; 64 * PAGE];
        bytes[5] = 1;
        bytes[63 * PAGE + 9] = 2;
        let mut segment = pages.segment();
        segment.write(&bytes[..32 * PAGE]).unwrap();
        segment.write(&bytes[32 * PAGE..]).unwrap();
        let stored = segment.finish();
        let len = pages.finish().unwrap();
        assert_eq!((stored.offset, stored.len, len), (PAGE_SIZE, 64 * PAGE_SIZE, 65 * PAGE_SIZE));
        // Three pages are not holes: the header and two more.
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_blocks, 3 * 8);
        let pages = Pages::open(file, [3; 16], len).unwrap();
        let mut back = Vec::new();
        pages
            .read(&stored, |at, piece| {
                assert_eq!(at, back.len() as u64);
                back.extend_from_slice(piece);
                Ok::<(), ImageError>(())
            })
            .unwrap();
        assert!(back == bytes);
        pages.verify(&stored).unwrap();
        pages.file().write_all_at(&[1], PAGE_SIZE * 20).unwrap();
        assert!(pages.verify(&stored).is_err());
    }

    #[test]
    fn what_is_not_in_the_file_is_refused() {
        let file = file();
        let len = PagesWriter::new(file.try_clone().unwrap(), [3; 16]).unwrap().finish().unwrap();
        assert!(Pages::open(file.try_clone().unwrap(), [4; 16], len).is_err());
        assert!(Pages::open(file.try_clone().unwrap(), [3; 16], len + 1).is_err());
        let pages = Pages::open(file, [3; 16], len).unwrap();
        for (offset, len) in [(0, 4096), (4096, 4096), (4096, 0), (1, 4096), (u64::MAX - 4095, 8192)] {
            assert!(pages.check(&Stored { offset, len, crc32: 0 }).is_err(), "{offset}, {len}");
        }
    }
}
