//! The header of `state`: what the image is, and where its sections are.
//!
//! ```text
//! 0   magic, 8 bytes
//! 8   schema, u32, little-endian like all numbers here
//! 12  bytes of the header's CBOR, u32
//! 16  CRC-32 of the CBOR, u32
//! 20  the CBOR: a `Header`
//! ```
//!
//! The sections follow at the offsets that it names.

use serde::{Deserialize, Serialize};

use crate::Compression;
use crate::clocks::ClockState;
use crate::error::ImageError;

/// The first bytes of `state`.
pub const MAGIC: [u8; 8] = *b"moat\x01img";

/// The layout of [`crate::state`]. An older one is read (fields that it lacks have defaults), a newer one is refused by name.
///
/// - 1: the first.
/// - 2: pages may be compressed, or in another image.
pub const SCHEMA: u32 = 2;

/// Bytes before the header's CBOR.
const FIXED: usize = 20;

/// Bytes of the largest header.
const MAX_HEADER: usize = 64 << 10;

/// Bytes of the largest section: more than any sandbox's kernel has.
const MAX_SECTION: u64 = 1 << 30;

/// What the image is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of moat that wrote it.
    pub version: String,
    /// Random: `pages` has it too, so that two images' files are not mixed.
    pub id: [u8; 16],
    /// When it was written, seconds since 1970.
    pub created_s: i64,
    /// Features of the processor that its programs may have found.
    pub cpu_features: Vec<String>,
    /// "systrap" or "ptrace".
    pub platform: String,
    /// Bytes of `pages`.
    pub pages_len: u64,
    /// The clocks when its programs stopped. Older images have them in the kernel's state only.
    #[serde(default)]
    pub clocks: Option<ClockState>,
    /// How pages are written.
    #[serde(default)]
    pub compression: Compression,
    /// Of how many address spaces pages were written while they ran.
    #[serde(default)]
    pub ahead: u32,
    /// The images that have the pages which it lacks, the nearest first.
    #[serde(default)]
    pub bases: Vec<BaseState>,
    /// Where what is.
    pub sections: Vec<Section>,
}

/// An image that another one is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseState {
    /// Its id.
    pub id: [u8; 16],
    /// Bytes of its `pages`.
    pub pages_len: u64,
}

/// The most images that one is based on: each is found through the one before it, and a host follows 40 links.
pub const MAX_BASES: usize = 32;

/// A stretch of `state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// "kernel".
    pub name: String,
    /// Bytes.
    pub len: u64,
    /// CRC-32 of its bytes.
    pub crc32: u32,
}

/// The section with [`crate::SandboxState`].
pub const KERNEL: &str = "kernel";

/// The bytes of `state`. The lengths and checksums of `header` are made here.
///
/// # Errors
/// What can't be encoded.
pub fn encode(mut header: Header, sections: &[(&str, Vec<u8>)]) -> Result<Vec<u8>, ImageError> {
    header.sections = sections
        .iter()
        .map(|(name, bytes)| Section {
            name: (*name).to_owned(),
            len: crate::length(bytes.len()),
            crc32: crc32fast::hash(bytes),
        })
        .collect();
    let mut cbor = Vec::new();
    ciborium::into_writer(&header, &mut cbor).map_err(|e| ImageError::state(format!("writing the header: {e}")))?;
    let len = u32::try_from(cbor.len()).ok().filter(|_| cbor.len() <= MAX_HEADER);
    let len = len.ok_or_else(|| ImageError::state("the header is too long"))?;
    let mut file = Vec::with_capacity(
        FIXED.saturating_add(cbor.len()).saturating_add(sections.iter().map(|(_, s)| s.len()).sum::<usize>()),
    );
    file.extend_from_slice(&MAGIC);
    file.extend_from_slice(&SCHEMA.to_le_bytes());
    file.extend_from_slice(&len.to_le_bytes());
    file.extend_from_slice(&crc32fast::hash(&cbor).to_le_bytes());
    file.extend_from_slice(&cbor);
    for (_, bytes) in sections {
        file.extend_from_slice(bytes);
    }
    Ok(file)
}

/// A section: its name and its bytes.
pub type Contents<'a> = (String, &'a [u8]);

/// Bytes of the longest header with what is before it.
pub(crate) const MAX_START: usize = FIXED + MAX_HEADER;

/// The header at the `start` of a file, and where it ends.
///
/// # Errors
/// What is wrong with it; a schema that is newer than [`SCHEMA`].
pub(crate) fn begin(start: &[u8]) -> Result<(Header, usize), ImageError> {
    let wrong = |what: &str| ImageError::state(what);
    if start.get(..MAGIC.len()) != Some(&MAGIC) {
        return Err(wrong("it is not the state of a moat image"));
    }
    let number = |at: usize| {
        let bytes = start.get(at..at.saturating_add(4)).and_then(|b| b.try_into().ok());
        bytes.map(u32::from_le_bytes).ok_or_else(|| wrong("it ends in the header"))
    };
    let schema = number(8)?;
    // Older ones can be read: what they lack has a default. A newer one may mean something else by the same field.
    if schema > SCHEMA {
        return Err(ImageError::Unfit(format!(
            "the image has schema {schema}, and this version of moat knows up to {SCHEMA}"
        )));
    }
    if schema == 0 {
        return Err(wrong("schema 0 does not exist"));
    }
    let len = usize::try_from(number(12)?).unwrap_or(usize::MAX);
    // Before anything of it is looked at: the number comes from whoever wrote the file.
    if len > MAX_HEADER {
        return Err(wrong("the header is too long"));
    }
    let end = FIXED.saturating_add(len);
    let cbor = start.get(FIXED..end).ok_or_else(|| wrong("it ends in the header"))?;
    if crc32fast::hash(cbor) != number(16)? {
        return Err(wrong("the checksum of the header is wrong"));
    }
    let header: Header = ciborium::from_reader(cbor).map_err(|e| wrong(&format!("the header: {e}")))?;
    if header.bases.len() > MAX_BASES {
        return Err(wrong("it is based on too many images"));
    }
    Ok((header, end))
}

/// The header of `file`, and the bytes of each of its sections.
///
/// # Errors
/// What is wrong with it; a schema that is newer than [`SCHEMA`].
pub fn decode(file: &[u8]) -> Result<(Header, Vec<Contents<'_>>), ImageError> {
    let wrong = |what: &str| ImageError::state(what);
    let (header, end) = begin(file)?;
    let mut sections = Vec::new();
    let mut at = end;
    for section in &header.sections {
        let len = usize::try_from(section.len.min(MAX_SECTION + 1)).unwrap_or(usize::MAX);
        let bytes = at.checked_add(len).and_then(|end| file.get(at..end));
        let bytes = bytes.ok_or_else(|| wrong(&format!("it ends in the section {:?}", section.name)))?;
        if crc32fast::hash(bytes) != section.crc32 {
            return Err(wrong(&format!("the checksum of the section {:?} is wrong", section.name)));
        }
        at = at.saturating_add(len);
        sections.push((section.name.clone(), bytes));
    }
    // Nothing that no checksum covers.
    if at != file.len() {
        return Err(wrong("there are bytes behind the last section"));
    }
    Ok((header, sections))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            version: "0.1.0".into(),
            id: [7; 16],
            created_s: 1,
            clocks: None,
            cpu_features: vec!["sse2".into()],
            platform: "systrap".into(),
            pages_len: 4096,
            compression: Compression::None,
            ahead: 0,
            bases: Vec::new(),
            sections: Vec::new(),
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let file = encode(header(), &[("kernel", vec![1, 2, 3]), ("more", Vec::new())]).unwrap();
        let (decoded, sections) = decode(&file).unwrap();
        assert_eq!(decoded.id, [7; 16]);
        assert_eq!(sections, [("kernel".to_owned(), &[1, 2, 3][..]), ("more".into(), &[])]);
    }

    #[test]
    fn a_newer_schema_is_refused_by_name() {
        let mut file = encode(header(), &[]).unwrap();
        file[8] = 99;
        assert!(decode(&file).unwrap_err().to_string().contains("schema 99"));
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let file = encode(header(), &[("kernel", b"the state".to_vec())]).unwrap();
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut wrong = file.clone();
                wrong[at] ^= 1 << bit;
                assert!(decode(&wrong).is_err(), "byte {at}, bit {bit}");
            }
            assert!(decode(&file[..at]).is_err(), "cut at {at}");
        }
    }
}
