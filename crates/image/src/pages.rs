//! `pages`: guest memory, in whole pages at multiples of the page size.
//!
//! The first page is a header: magic, then the id of the image. Segments follow; a page of zeros is a hole and costs nothing. Compressed
//! segments follow each other without gaps, and are read instead of mapped.
//!
//! An image that is based on others has only what they lack: a segment may be in the `pages` of any of them.

mod base;
mod blocks;
mod write;

use std::fs::File;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::compression::CHUNK;
use crate::error::ImageError;
use crate::header::Header;
use crate::{Compression, PAGE_SIZE, length, pieces};

pub use base::Base;
pub use blocks::Blocks;
pub use write::{PagesWriter, SegmentWriter};

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
    /// Bytes that it takes in the file, if it is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<u64>,
    /// Which file it is in: 0 is the image's own, others are those of its bases, the nearest first.
    #[serde(default, skip_serializing_if = "is_own")]
    pub base: u16,
}

fn is_own(base: &u16) -> bool {
    *base == 0
}

/// Pages at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The address, or the offset in shared memory.
    pub start: u64,
    /// The pages.
    pub stored: Stored,
}

fn is_zero(page: &[u8]) -> bool {
    // Eight bytes at a time.
    let (words, rest) = page.as_chunks::<8>();
    words.iter().all(|word| u64::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// `pages`, to be read.
pub struct Pages {
    /// The image's own, then those of its bases, the nearest first; each with its length.
    files: Vec<(File, u64)>,
    compression: Compression,
}

/// Looks whether `file` belongs to the image `id` and has `len` bytes.
fn check_file(file: &File, id: [u8; 16], len: u64) -> Result<(), ImageError> {
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
    Ok(())
}

impl Pages {
    /// Looks whether `file` belongs to the image `header`, and `bases` to those that it is based on.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn open(file: File, header: &Header, bases: Vec<File>) -> Result<Pages, ImageError> {
        check_file(&file, header.id, header.pages_len)?;
        if bases.len() != header.bases.len() {
            let (has, wants) = (bases.len(), header.bases.len());
            return Err(ImageError::Unfit(format!("{has} images that it is based on are there, of {wants}")));
        }
        let mut files = vec![(file, header.pages_len)];
        for (number, (file, base)) in (1..).zip(bases.into_iter().zip(&header.bases)) {
            let unfit = |e| ImageError::Unfit(format!("image {number} that it is based on: {e}"));
            check_file(&file, base.id, base.pages_len).map_err(unfit)?;
            files.push((file, base.pages_len));
        }
        Ok(Pages { files, compression: header.compression })
    }

    /// The files that segments are in, by [`Stored::base`].
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.files.iter().map(|(file, _)| file)
    }

    fn file_of(&self, base: u16) -> Result<&File, ImageError> {
        self.files.get(usize::from(base)).map(|(file, _)| file).ok_or_else(|| no_base(base))
    }

    /// Whether `stored` is whole pages, all in their file.
    ///
    /// # Errors
    /// [`ImageError::Malformed`].
    pub fn check(&self, stored: &Stored) -> Result<(), ImageError> {
        let (_, file_len) = self.files.get(usize::from(stored.base)).ok_or_else(|| no_base(stored.base))?;
        let taken = stored.packed.unwrap_or(stored.len);
        let end = stored.offset.checked_add(taken).filter(|end| end <= file_len);
        // The first page has the header.
        let inside =
            stored.offset >= PAGE_SIZE && stored.len > 0 && stored.len.is_multiple_of(PAGE_SIZE) && end.is_some();
        let form = match stored.packed {
            // Pages are mapped from here, which needs whole ones.
            None => stored.offset.is_multiple_of(PAGE_SIZE),
            // What memory is taken for before anything is known of them; a base has none.
            Some(packed) => {
                stored.len <= length(CHUNK) && packed <= Compression::most_packed(stored.len) && stored.base == 0
            }
        };
        if inside && form {
            Ok(())
        } else {
            Err(ImageError::pages(format!("{} bytes at {} are no pages of it", stored.len, stored.offset)))
        }
    }

    /// Calls `take` with the bytes of a segment, a piece at a time, and where in the segment each begins.
    ///
    /// # Errors
    /// Of reading; bytes that are not what was compressed; those of `take`.
    pub fn read<E: From<ImageError>>(
        &self,
        stored: &Stored,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.check(stored)?;
        let file = self.file_of(stored.base)?;
        let failed = |e| ImageError::host("reading pages", e);
        if let Some(packed) = stored.packed {
            let size = |n| usize::try_from(n).unwrap_or_default();
            let (mut bytes, mut buffer) = (vec![0; size(packed)], vec![0; size(stored.len)]);
            file.read_exact_at(&mut bytes, stored.offset).map_err(failed)?;
            self.compression.unpack(&bytes, &mut buffer)?;
            return take(0, &buffer);
        }
        let mut buffer = vec![0; 256 << 10];
        for (at, n) in pieces(0, stored.len, buffer.len()) {
            let piece = &mut buffer[..n];
            file.read_exact_at(piece, stored.offset.saturating_add(at)).map_err(failed)?;
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

fn no_base(base: u16) -> ImageError {
    ImageError::state(format!("pages in image {base} of those that it is based on"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> File {
        File::from(rustix::fs::memfd_create("pages", rustix::fs::MemfdFlags::CLOEXEC).unwrap())
    }

    fn header(id: [u8; 16], pages_len: u64) -> Header {
        Header {
            version: String::new(),
            id,
            created_s: 0,
            clocks: None,
            cpu_features: Vec::new(),
            platform: String::new(),
            pages_len,
            compression: Compression::None,
            ahead: 0,
            bases: Vec::new(),
            sections: Vec::new(),
        }
    }

    #[test]
    fn zeros_are_holes_and_all_comes_back() {
        let file = file();
        let mut pages = PagesWriter::new(file.try_clone().unwrap(), [3; 16]).unwrap();
        let mut bytes = vec![0; 64 * PAGE];
        bytes[5] = 1;
        bytes[63 * PAGE + 9] = 2;
        let mut segment = pages.segment(0x10000);
        segment.write(&bytes[..32 * PAGE]).unwrap();
        segment.write(&bytes[32 * PAGE..]).unwrap();
        let [Segment { start: 0x10000, stored }] = segment.finish().unwrap()[..] else { panic!("several") };
        let len = pages.finish().unwrap();
        assert_eq!((stored.offset, stored.len, len), (PAGE_SIZE, 64 * PAGE_SIZE, 65 * PAGE_SIZE));
        // Three pages are not holes: the header and two more.
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_blocks, 3 * 8);
        let pages = Pages::open(file.try_clone().unwrap(), &header([3; 16], len), Vec::new()).unwrap();
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
        file.write_all_at(&[1], PAGE_SIZE * 20).unwrap();
        assert!(pages.verify(&stored).is_err());
    }

    #[test]
    fn what_is_not_in_the_file_is_refused() {
        let file = file();
        let len = PagesWriter::new(file.try_clone().unwrap(), [3; 16]).unwrap().finish().unwrap();
        let open = |id, len| Pages::open(file.try_clone().unwrap(), &header(id, len), Vec::new());
        assert!(open([4; 16], len).is_err() && open([3; 16], len + 1).is_err());
        let pages = open([3; 16], len).unwrap();
        for (offset, len) in [(0, 4096), (4096, 4096), (4096, 0), (1, 4096), (u64::MAX - 4095, 8192)] {
            let stored = Stored { offset, len, crc32: 0, packed: None, base: 0 };
            assert!(pages.check(&stored).is_err(), "{offset}, {len}");
            assert!(pages.check(&Stored { base: 1, ..stored }).is_err());
        }
    }
}
