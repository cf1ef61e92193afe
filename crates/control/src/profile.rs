//! What a sandbox writes to the descriptor of [`crate::Request::StartProfile`]: [`Record`]s, each a length of 32 bits and postcard.
//!
//! A sandbox says what it saw as it saw it: registers and stacks, names of waits and of locks. Who reads unwinds, names functions
//! and makes a file for viewers, so that the sandbox needs no files and no symbols. The reader believes nothing: lengths are bounded.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Most bytes of a record.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// Bytes between two samples of allocations, on average.
pub const HEAP_INTERVAL_BYTES: u32 = 512 << 10;

/// Something that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A program or library that is mapped; before the samples in it.
    Module(Module),
    /// Where a thread was.
    Stack(StackSample),
    /// Samples of allocations that are still in use, by [`StackSample::id`].
    InUse(Vec<u64>),
    /// How often and how long something happened at a place.
    Site(Site),
    /// What ends every profile.
    End {
        /// Samples or events that were lost for want of room.
        dropped: u64,
        /// How long it took, in nanoseconds.
        duration_ns: u64,
    },
}

/// Whose memory an address is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Space {
    /// The sandbox process's.
    Sentry,
    /// A guest process's, by a number that is its own.
    Guest(u64),
}

/// A mapped program or library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Where it is mapped.
    pub space: Space,
    /// Its path; empty for moat's own program.
    pub path: String,
    /// What is added to the addresses in its file.
    pub bias: u64,
    /// Its first address.
    pub start: u64,
    /// One past its last.
    pub end: u64,
    /// Its build id, if it has one and it is known.
    pub build_id: Vec<u8>,
}

/// A thread's registers and stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackSample {
    /// Whose.
    pub space: Space,
    /// The thread's name, or the guest command's.
    pub thread: String,
    /// What the sample stands for: nanoseconds of CPU time, or the bytes of an allocation.
    pub value: u64,
    /// Its number, where [`Record::InUse`] follows.
    pub id: u64,
    /// rip.
    pub ip: u64,
    /// rsp.
    pub sp: u64,
    /// rbp.
    pub bp: u64,
    /// Memory from `sp` on.
    pub stack: ByteBuf,
}

/// A place by names, outermost first, and what happened there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Names from the outside in.
    pub frames: Vec<Frame>,
    /// How often.
    pub count: u64,
    /// How long in all, in nanoseconds.
    pub time_ns: u64,
}

/// One name of a place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Frame {
    /// What people read.
    pub name: String,
    /// The source file, if it is a place in one.
    pub file: String,
    /// The line there.
    pub line: u32,
}

impl Frame {
    /// A name without a file.
    pub fn named(name: impl Into<String>) -> Frame {
        Frame { name: name.into(), file: String::new(), line: 0 }
    }
}

impl Record {
    /// As it is written.
    ///
    /// # Errors
    /// InvalidData if it is too long.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let bytes = postcard::to_extend(self, vec![0; 4]).map_err(|e| invalid(e.to_string()))?;
        let length = bytes.len().saturating_sub(4);
        if length > MAX_RECORD_BYTES {
            return Err(invalid(format!("a record of {length} bytes")));
        }
        let mut bytes = bytes;
        if let (Some(head), Ok(length)) = (bytes.get_mut(..4), u32::try_from(length)) {
            head.copy_from_slice(&length.to_le_bytes());
        }
        Ok(bytes)
    }

    /// Reads the next one; `None` at the end.
    ///
    /// # Errors
    /// InvalidData for nonsense, UnexpectedEof where one is cut off.
    pub fn read(mut from: impl Read) -> io::Result<Option<Record>> {
        let mut length = [0; 4];
        match from.read(&mut length)? {
            0 => return Ok(None),
            n => from.read_exact(length.get_mut(n..).unwrap_or_default())?,
        }
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_RECORD_BYTES {
            return Err(invalid(format!("a record of {length} bytes")));
        }
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes)?;
        postcard::from_bytes(&bytes).map(Some).map_err(|e| invalid(e.to_string()))
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back_and_nonsense_is_refused() {
        let site = Site { frames: vec![Frame::named("sh"), Frame::named("wait4")], count: 2, time_ns: 300 };
        let records = [Record::Site(site), Record::End { dropped: 1, duration_ns: 1 << 40 }];
        let bytes: Vec<u8> = records.iter().flat_map(|record| record.encode().unwrap()).collect();
        let mut from = bytes.as_slice();
        for record in &records {
            assert_eq!(Record::read(&mut from).unwrap().as_ref(), Some(record));
        }
        assert_eq!(Record::read(&mut from).unwrap(), None);
        let cut = bytes.get(..bytes.len() - 1).unwrap();
        let mut from = cut;
        Record::read(&mut from).unwrap();
        assert_eq!(Record::read(&mut from).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        for nonsense in [&[0xff; 8][..], &[1, 0, 0, 0, 99]] {
            assert_eq!(Record::read(nonsense).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        let long = Record::InUse(vec![u64::MAX; MAX_RECORD_BYTES]);
        assert_eq!(long.encode().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
