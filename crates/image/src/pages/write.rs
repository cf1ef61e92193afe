//! [`PagesWriter`]: pages into an image.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::base::{Base, Place};
use super::{MAGIC, PAGE, Segment, Stored, is_zero};
use crate::compression::CHUNK;
use crate::error::ImageError;
use crate::header::BaseState;
use crate::{Compression, PAGE_SIZE, length};

/// So many runs of pages in one segment may be left to the base however short they are: most segments are small.
const FREE_RUNS: u32 = 8;

/// Pages that later ones have to have: each is a mapping of its own when it is restored.
const MIN_RUN: usize = 16;

/// After so many runs in one segment they have to be twice as long: the host bounds the mappings of a process.
const MANY_RUNS: u32 = 4096;

/// Writes `pages`.
pub struct PagesWriter {
    file: File,
    end: u64,
    compression: Compression,
    base: Option<Box<Base>>,
}

/// A segment that is being written.
pub struct SegmentWriter<'a> {
    pages: &'a mut PagesWriter,
    done: Vec<Segment>,
    /// Where in memory the bytes go that come next.
    next: u64,
    own: Option<Own>,
    run: Option<Run>,
    runs: u32,
}

/// Pages of the image's own that are being written.
struct Own {
    start: u64,
    offset: u64,
    len: u64,
    crc: crc32fast::Hasher,
    /// What is yet to be compressed.
    chunk: Vec<u8>,
}

/// Pages that the base has, too.
struct Run {
    start: u64,
    place: Place,
    len: u64,
    crc: crc32fast::Hasher,
    /// Their bytes, until there are enough of them.
    held: Vec<u8>,
}

pub(super) fn written(error: std::io::Error) -> ImageError {
    ImageError::host("writing pages", error)
}

/// Writes `bytes` to `offset`, but for pages of zeros.
pub(super) fn put(file: &File, bytes: &[u8], offset: u64) -> Result<(), ImageError> {
    let mut at = 0usize;
    // One write for each run of pages that are not zero.
    for run in bytes.chunks(PAGE).collect::<Vec<_>>().chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let len = run.iter().map(|page| page.len()).sum::<usize>();
        if let Some(some) =
            bytes.get(at..at.saturating_add(len)).filter(|_| run.first().is_some_and(|page| !is_zero(page)))
        {
            file.write_all_at(some, offset.saturating_add(length(at))).map_err(written)?;
        }
        at = at.saturating_add(len);
    }
    Ok(())
}

impl PagesWriter {
    /// Begins the empty `file` of the image `id`.
    ///
    /// # Errors
    /// Of writing.
    pub fn new(file: File, id: [u8; 16]) -> Result<PagesWriter, ImageError> {
        let header = [&MAGIC[..], &id].concat();
        file.write_all_at(&header, 0).map_err(written)?;
        Ok(PagesWriter { file, end: PAGE_SIZE, compression: Compression::None, base: None })
    }

    /// Compresses what is written from here on.
    #[must_use]
    pub fn compressed(self, compression: Compression) -> PagesWriter {
        PagesWriter { compression, ..self }
    }

    /// Leaves to `base` what it has.
    #[must_use]
    pub fn based_on(self, base: Option<Base>) -> PagesWriter {
        PagesWriter { base: base.map(Box::new), ..self }
    }

    /// How they are written.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The images that pages may be left to, for the header.
    #[must_use]
    pub fn chain(&self) -> Vec<BaseState> {
        self.base.as_ref().map(|base| base.chain().to_vec()).unwrap_or_default()
    }

    /// Begins pages of the memory at `start`.
    pub fn segment(&mut self, start: u64) -> SegmentWriter<'_> {
        SegmentWriter { pages: self, done: Vec::new(), next: start, own: None, run: None, runs: 0 }
    }

    /// Whether each page has a place that is known before it is written.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.compression == Compression::None && self.base.is_none()
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Takes the next `len` bytes of the file.
    pub(super) fn reserve(&mut self, len: u64) -> u64 {
        let offset = self.end;
        self.end = self.end.saturating_add(len);
        offset
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

impl SegmentWriter<'_> {
    /// Adds whole pages.
    ///
    /// # Errors
    /// Of writing; of reading the base.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        debug_assert!(bytes.len().is_multiple_of(PAGE));
        if self.pages.base.is_none() {
            return self.write_own(bytes);
        }
        bytes.chunks(PAGE).try_for_each(|page| self.write_page(page))
    }

    /// One page, which the base may have.
    fn write_page(&mut self, page: &[u8]) -> Result<(), ImageError> {
        let Some(base) = &mut self.pages.base else { return self.write_own(page) };
        if let Some(run) = &mut self.run {
            let (number, offset) = run.place;
            if base.has((number, offset.saturating_add(run.len)), page)? {
                return self.extend_run(page);
            }
            self.end_run()?;
        }
        let Some(base) = &mut self.pages.base else { return Ok(()) };
        // Zeros cost nothing here either.
        let place = if is_zero(page) { None } else { base.find(page)? };
        let Some(place) = place else { return self.write_own(page) };
        let crc = crc32fast::Hasher::new();
        self.run = Some(Run { start: self.next, place, len: 0, crc, held: Vec::new() });
        self.extend_run(page)
    }

    fn extend_run(&mut self, page: &[u8]) -> Result<(), ImageError> {
        let least = if self.runs < FREE_RUNS { 1 } else { MIN_RUN << (self.runs / MANY_RUNS).min(20) };
        let Some(run) = &mut self.run else { return Ok(()) };
        let was_held = length(run.held.len()) == run.len;
        run.len = run.len.saturating_add(length(page.len()));
        run.crc.update(page);
        self.next = self.next.saturating_add(length(page.len()));
        if was_held {
            run.held.extend_from_slice(page);
            if run.held.len() >= least.saturating_mul(PAGE) {
                run.held = Vec::new();
                // What came before it is complete.
                self.end_own()?;
            }
        }
        Ok(())
    }

    fn end_run(&mut self) -> Result<(), ImageError> {
        let Some(run) = self.run.take() else { return Ok(()) };
        if !run.held.is_empty() {
            // Too few: they are written like the rest.
            self.next = run.start;
            return self.write_own(&run.held);
        }
        let (number, offset) = run.place;
        self.runs = self.runs.saturating_add(1);
        // The base itself is the first of the new image's.
        let base = number.saturating_add(1);
        let stored = Stored { offset, len: run.len, crc32: run.crc.finalize(), packed: None, base };
        self.done.push(Segment { start: run.start, stored });
        Ok(())
    }

    fn write_own(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        let offset = self.pages.end;
        let begin = || Own { start: self.next, offset, len: 0, crc: crc32fast::Hasher::new(), chunk: Vec::new() };
        let own = self.own.get_or_insert_with(begin);
        self.next = self.next.saturating_add(length(bytes.len()));
        if self.pages.compression != Compression::None {
            own.chunk.extend_from_slice(bytes);
            return self.pack(CHUNK);
        }
        own.crc.update(bytes);
        own.len = own.len.saturating_add(length(bytes.len()));
        put(&self.pages.file, bytes, offset)?;
        self.pages.end = offset.saturating_add(length(bytes.len()));
        Ok(())
    }

    /// Writes what is to be compressed, while there are `least` bytes of it.
    fn pack(&mut self, least: usize) -> Result<(), ImageError> {
        let Some(own) = &mut self.own else { return Ok(()) };
        while own.chunk.len() >= least && !own.chunk.is_empty() {
            let rest = own.chunk.split_off(own.chunk.len().min(CHUNK));
            let chunk = std::mem::replace(&mut own.chunk, rest);
            let packed = self.pages.compression.pack(&chunk)?;
            let offset = self.pages.end;
            self.pages.file.write_all_at(&packed, offset).map_err(written)?;
            self.pages.end = offset.saturating_add(length(packed.len()));
            let (len, crc32) = (length(chunk.len()), crc32fast::hash(&chunk));
            let stored = Stored { offset, len, crc32, packed: Some(length(packed.len())), base: 0 };
            self.done.push(Segment { start: own.start, stored });
            own.start = own.start.saturating_add(len);
        }
        Ok(())
    }

    fn end_own(&mut self) -> Result<(), ImageError> {
        self.pack(1)?;
        if let Some(own) = self.own.take().filter(|own| own.len > 0) {
            let stored = Stored { offset: own.offset, len: own.len, crc32: own.crc.finalize(), packed: None, base: 0 };
            self.done.push(Segment { start: own.start, stored });
        }
        Ok(())
    }

    /// Where the pages are, in the order of the memory.
    ///
    /// # Errors
    /// Of writing.
    pub fn finish(mut self) -> Result<Vec<Segment>, ImageError> {
        self.end_run()?;
        self.end_own()?;
        Ok(self.done)
    }
}
