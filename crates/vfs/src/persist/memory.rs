//! Contents of memory that files and shared mappings are made of.

use std::os::fd::AsFd;

use moat_image::pages::{Pages, PagesWriter};
use moat_image::state::Segment;
use moat_image::{ImageError, PAGE_SIZE, Refusal, length, pieces};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Bytes copied at a time.
const PIECE: usize = 1 << 20;

/// Writes what is in the first `len` bytes of a memfd, holes left out; the segments are by offset. Without `pages` nothing is done.
///
/// # Errors
/// Memory that the host does not let be read.
pub fn save_memory(fd: impl AsFd, len: u64, pages: Option<&mut PagesWriter>) -> Result<Vec<Segment>, Refusal> {
    let Some(pages) = pages else { return Ok(Vec::new()) };
    let failed = |what: &str| Refusal::new(format!("memory of {len} bytes ({what})"));
    let mut segments = Vec::new();
    let mut at = 0;
    while at < len {
        let start = match rustix::fs::seek(&fd, SeekFrom::Data(at)) {
            Ok(start) if start < len => (start / PAGE_SIZE).saturating_mul(PAGE_SIZE),
            // Nothing but a hole is left.
            Ok(_) | Err(Errno::NXIO) => break,
            Err(e) => return Err(failed(&e.to_string())),
        };
        let end = rustix::fs::seek(&fd, SeekFrom::Hole(start)).map_err(|e| failed(&e.to_string()))?.min(len);
        let end = end.max(start.saturating_add(1)).next_multiple_of(PAGE_SIZE);
        let mut segment = pages.segment(start);
        for (from, n) in pieces(start, end, PIECE) {
            let mut piece = vec![0; n];
            read_some(&fd, &mut piece, from).map_err(|e| failed(&e.to_string()))?;
            segment.write(&piece).map_err(|e| failed(&e.to_string()))?;
        }
        segments.extend(segment.finish().map_err(|e| failed(&e.to_string()))?);
        at = end;
    }
    Ok(segments)
}

/// Reads as much of `buf` as there is; the rest stays zero.
fn read_some(fd: impl AsFd, buf: &mut [u8], at: u64) -> Result<(), Errno> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(&fd, rest, at.saturating_add(length(done))) {
            Ok(0) => return Ok(()),
            Ok(n) => done = done.saturating_add(n),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Fills the memfd of `len` bytes with what [`save_memory`] has written.
///
/// # Errors
/// Pages that are not in the image or not in the memory; of the host.
pub fn restore_memory(fd: impl AsFd, len: u64, segments: &[Segment], pages: &Pages) -> Result<(), ImageError> {
    for segment in segments {
        let room = len.next_multiple_of(PAGE_SIZE);
        if segment.start.checked_add(segment.stored.len).is_none_or(|end| end > room) {
            return Err(ImageError::state(format!("pages at {:#x} of memory of {len} bytes", segment.start)));
        }
        pages.read(&segment.stored, |at, piece| {
            let at = segment.start.saturating_add(at);
            // The last page may reach beyond the end.
            let some = usize::try_from(len.saturating_sub(at)).unwrap_or(usize::MAX).min(piece.len());
            let mut rest = piece.get(..some).unwrap_or_default();
            let mut at = at;
            // Pages of zeros are holes there too.
            if rest.iter().all(|byte| *byte == 0) {
                return Ok(());
            }
            while !rest.is_empty() {
                let n = rustix::io::pwrite(&fd, rest, at).map_err(|e| ImageError::host("filling memory", e))?;
                rest = rest.get(n..).unwrap_or_default();
                at = at.saturating_add(length(n));
            }
            Ok(())
        })?;
    }
    Ok(())
}
