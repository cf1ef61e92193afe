//! [`Base`]: an earlier image, whose pages a new one need not have again.
//!
//! Pages are found by their contents, wherever they were: of a process, of shared memory or of a file. A checksum leads to a place, and the
//! bytes there decide.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;

use super::{PAGE, Pages, is_zero};
use crate::directory::Image;
use crate::error::ImageError;
use crate::header::{BaseState, MAX_BASES};
use crate::{Compression, PAGE_SIZE, pieces};

/// Bytes that are read at a time.
const PIECE: usize = 256 << 10;

/// A page of the base: the number of the file it is in, the base's own being the first, and its offset there.
pub(super) type Place = (u16, u64);

/// The pages of an earlier image, by their contents.
pub struct Base {
    pages: Pages,
    known: HashMap<u32, Place>,
    /// The file, the offset and the bytes of what was read last.
    window: (u16, u64, Vec<u8>),
    /// It and the images that it is based on itself.
    chain: Vec<BaseState>,
}

impl Base {
    /// Reads all pages of `image`.
    ///
    /// # Errors
    /// Pages that can't be mapped, or are too far away from the first image; of reading.
    pub fn new(image: Image) -> Result<Base, ImageError> {
        let header = image.header;
        if header.compression != Compression::None {
            return Err(ImageError::Unfit("the base is compressed, and its pages can't be shared".into()));
        }
        if header.bases.len() >= MAX_BASES {
            return Err(ImageError::Unfit(format!("the base is the last of {MAX_BASES} already: save a full image")));
        }
        let mut chain = vec![BaseState { id: header.id, pages_len: header.pages_len }];
        chain.extend(header.bases);
        let mut stored: Vec<_> = image.state.stored().collect();
        stored.sort_by_key(|stored| (stored.base, stored.offset));
        let mut base = Base { pages: image.pages, known: HashMap::new(), window: (0, 0, Vec::new()), chain };
        // Each page of a file once, however often the image names it.
        let mut seen = (0, 0);
        for stored in stored {
            base.pages.check(&stored)?;
            let end = stored.offset.saturating_add(stored.len);
            let start = if seen.0 == stored.base { stored.offset.max(seen.1) } else { stored.offset };
            base.learn(stored.base, start, end)?;
            seen = (stored.base, end.max(start));
        }
        Ok(base)
    }

    /// It and what it is based on, for the header of the new image.
    #[must_use]
    pub fn chain(&self) -> &[BaseState] {
        &self.chain
    }

    /// Notes the pages at `start..end` of a file. Holes are passed over: a file of nothing else may be as long as it likes.
    fn learn(&mut self, number: u16, start: u64, end: u64) -> Result<(), ImageError> {
        let failed = |e: rustix::io::Errno| ImageError::host("reading the base", e);
        let mut at = start;
        while at < end {
            let file = self.pages.file_of(number)?;
            let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
                Ok(data) => (data / PAGE_SIZE).saturating_mul(PAGE_SIZE),
                Err(rustix::io::Errno::NXIO) => break,
                Err(e) => return Err(failed(e)),
            };
            let hole = rustix::fs::seek(file, SeekFrom::Hole(data)).map_err(failed)?;
            let stop = hole.next_multiple_of(PAGE_SIZE).min(end);
            for (from, n) in pieces(data.max(at), stop, PIECE) {
                let mut piece = vec![0; n];
                let file = self.pages.file_of(number)?;
                file.read_exact_at(&mut piece, from).map_err(|e| ImageError::host("reading the base", e))?;
                for (page, offset) in piece.chunks(PAGE).zip((from..).step_by(PAGE)) {
                    if !is_zero(page) {
                        self.known.entry(crc32fast::hash(page)).or_insert((number, offset));
                    }
                }
            }
            at = stop.max(at.saturating_add(PAGE_SIZE));
        }
        Ok(())
    }

    /// Where the base has this page.
    pub(super) fn find(&mut self, page: &[u8]) -> Result<Option<Place>, ImageError> {
        let found = self.known.get(&crc32fast::hash(page)).copied();
        match found {
            Some(place) if self.has(place, page)? => Ok(Some(place)),
            _ => Ok(None),
        }
    }

    /// Whether the page is at this place.
    pub(super) fn has(&mut self, (number, offset): Place, page: &[u8]) -> Result<bool, ImageError> {
        let (window_number, start, bytes) = &self.window;
        let at =
            offset.checked_sub(*start).and_then(|at| usize::try_from(at).ok()).filter(|_| *window_number == number);
        let there = at.and_then(|at| bytes.get(at..at.checked_add(PAGE)?));
        if let Some(there) = there {
            return Ok(there == page);
        }
        let file = self.pages.file_of(number)?;
        let mut buffer = vec![0; PIECE];
        let n = file.read_at(&mut buffer, offset).map_err(|e| ImageError::host("reading the base", e))?;
        buffer.truncate(n);
        let same = buffer.get(..PAGE) == Some(page);
        self.window = (number, offset, buffer);
        Ok(same)
    }
}
