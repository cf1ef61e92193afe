//! [`Compression`]: how pages are written. What is compressed is read, not mapped.

use serde::{Deserialize, Serialize};

use crate::error::ImageError;

/// How pages are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As they are: guests map them.
    #[default]
    None,
    /// LZ4 blocks: fast.
    Lz4,
    /// Zstandard: smaller.
    Zstd,
}

/// Bytes that are compressed at a time, at most: what a reader takes memory for.
pub(crate) const CHUNK: usize = 1 << 20;

/// Zstandard's own default.
const ZSTD_LEVEL: i32 = 3;

impl Compression {
    /// The most bytes that `len` bytes become: what can't be made smaller grows a little.
    #[must_use]
    pub(crate) fn most_packed(len: u64) -> u64 {
        len.saturating_add(len / 8).saturating_add(1024)
    }

    /// Makes `bytes` smaller.
    ///
    /// # Errors
    /// Of the compressor.
    pub(crate) fn pack(self, bytes: &[u8]) -> Result<Vec<u8>, ImageError> {
        match self {
            Compression::None => Ok(bytes.to_vec()),
            Compression::Lz4 => Ok(lz4_flex::block::compress(bytes)),
            Compression::Zstd => {
                zstd::bulk::compress(bytes, ZSTD_LEVEL).map_err(|e| ImageError::host("compressing pages", e))
            }
        }
    }

    /// The bytes that `packed` was made of, which fill `buffer`.
    ///
    /// # Errors
    /// [`ImageError::Malformed`]: they are others, or of another number.
    pub(crate) fn unpack(self, packed: &[u8], buffer: &mut [u8]) -> Result<(), ImageError> {
        let wrong = |what: String| ImageError::pages(format!("compressed pages: {what}"));
        // Neither writes more than there is room for, whatever the lengths in it say.
        let len = match self {
            Compression::None => return Err(wrong("the image has none".into())),
            Compression::Lz4 => lz4_flex::block::decompress_into(packed, buffer).map_err(|e| wrong(e.to_string()))?,
            Compression::Zstd => zstd::bulk::decompress_to_buffer(packed, buffer).map_err(|e| wrong(e.to_string()))?,
        };
        if len == buffer.len() { Ok(()) } else { Err(wrong(format!("{len} bytes, not {}", buffer.len()))) }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back_and_nothing_else_does() {
        let bytes: Vec<u8> = (0..40_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for compression in [Compression::Lz4, Compression::Zstd] {
            let packed = compression.pack(&bytes).unwrap();
            assert!(packed.len() < bytes.len());
            let mut back = vec![0; bytes.len()];
            compression.unpack(&packed, &mut back).unwrap();
            assert!(back == bytes);
            // Too little room, too much of it, half of the bytes, none.
            for (packed, room) in
                [(&packed[..], 10), (&packed, bytes.len() + 1), (&packed[..packed.len() / 2], bytes.len())]
            {
                assert!(compression.unpack(packed, &mut vec![0; room]).is_err(), "{compression:?} {room}");
            }
            assert!(compression.unpack(&[], &mut [0; 1]).is_err());
            // What can't be made smaller stays within the bound.
            let mut at = 1u32;
            let noise: Vec<u8> = std::iter::repeat_with(|| {
                at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                at.to_be_bytes()[0]
            })
            .take(CHUNK)
            .collect();
            assert!(crate::length(compression.pack(&noise).unwrap().len()) <= Compression::most_packed(1 << 20));
        }
    }
}
