//! The image of a sandbox: what a checkpoint writes and a restore reads, as plain data.
//!
//! An image is a directory with two files. `state` has a header ([`header`]) and the kernel's state as CBOR ([`state`]): a
//! self-describing encoding, so that a field can be added with `#[serde(default)]`. `pages` has guest memory ([`pages`]), whole
//! pages at multiples of the page size, so that it can be mapped, or compressed ones; an image that is based on others lacks what they have. The directory ([`directory`]) is written beside its place and
//! renamed: it is complete or not there.
//!
//! Nothing here knows the kernel. Its crates turn their objects into these structs and back.
//!
//! # Invariants
//! - State names objects by [`refs::Ref`], which is resolved through its table each time; no index is used unchecked.
//! - An image is hostile: lengths are compared with the file before memory is taken for them, and what does not fit is an
//!   [`ImageError`] that says what.
//! - No live handle is in an image: descriptors, host paths and host ids are arguments of the restore.

#![forbid(unsafe_code)]

mod blob;
mod clocks;
mod compression;
pub mod directory;
pub mod error;
pub mod header;
pub mod pages;
pub mod refs;
pub mod state;

pub use clocks::ClockState;
pub use compression::Compression;
pub use error::{ImageError, Refusal};
pub use refs::{Interner, Met, Ref, Table};
pub use state::SandboxState;

/// CRC-32 of `bytes`, as checksums in images are.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// A number of bytes, as files have it.
#[must_use]
pub fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Cuts `start..end` into pieces of at most `most` bytes: where each begins, and how many bytes it has.
pub fn pieces(start: u64, end: u64, most: usize) -> impl Iterator<Item = (u64, usize)> {
    let mut at = start;
    std::iter::from_fn(move || {
        let piece = (at, usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(most));
        at = at.saturating_add(length(piece.1));
        (piece.1 > 0).then_some(piece)
    })
}

/// Bytes in a page.
pub const PAGE_SIZE: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_from_its_start() {
        assert_eq!(pieces(5, 12, 3).collect::<Vec<_>>(), [(5, 3), (8, 3), (11, 1)]);
        assert_eq!(pieces(5, 8, 3).collect::<Vec<_>>(), [(5, 3)]);
        assert_eq!(pieces(5, 5, 3).count() + pieces(6, 5, 3).count(), 0);
    }
}
