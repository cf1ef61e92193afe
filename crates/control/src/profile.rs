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
    /// More of a file of a guest; before the modules that it is.
    File {
        /// A number of its own.
        number: u64,
        /// What follows on what was there before.
        bytes: ByteBuf,
    },
    /// Where a thread was.
    Stack(StackSample),
    /// Samples of allocations that are still in use, by [`StackSample::id`].
    InUse(Vec<u64>),
    /// How often and how long something happened at a place.
    Site(Site),
    /// A thread of the sandbox process.
    Thread {
        /// Its id.
        thread: i32,
        /// Its name.
        name: String,
    },
    /// Events of a trace that one thread wrote, in their order.
    Events {
        /// The thread.
        thread: i32,
        /// The events.
        events: Vec<Event>,
    },
    /// System calls that were made.
    Calls(Vec<CallTime>),
    /// What all tasks have used.
    Totals(Totals),
    /// A link that frames were seen on; before them.
    Link {
        /// Its number.
        link: u32,
        /// Its name.
        name: String,
    },
    /// A frame of a link.
    Packet(Packet),
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
    /// Of a guest's: the number of its [`Record::File`], and the offset there of its first address, which says the bias.
    pub file: Option<(u64, u64)>,
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

/// What an [`Event`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// A system call.
    Call,
    /// Application code, up to the moment when the sentry was told of its stop; with the nanoseconds of the ways there and back in `values`,
    /// if they are known, and how the sentry was told in `label`.
    Guest,
    /// A sleep.
    Wait,
    /// A page fault or other exception that the sentry handled.
    Fault,
    /// A signal that was taken; it has no length.
    Signal,
    /// A worker was busy with a task.
    Poll,
    /// A thread waited for a lock.
    Lock,
    /// A task has this name: `label`, with the process's number in `number` and the thread's in `result`.
    Name,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// The task's process, by a number that is its own; 0 if it concerns none.
    pub process: u64,
    /// The task, by a number that is its own.
    pub task: u64,
    /// When it began, on the host's monotonic clock.
    pub start_ns: u64,
    /// How long it took.
    pub duration_ns: u64,
    /// The system call, signal or exception.
    pub number: u64,
    /// Arguments of the call; the address of the fault.
    pub values: [u64; 6],
    /// The call's result as its register has it; of a wait, the task that ended it, or 0.
    pub result: u64,
    /// What was waited for, or a name.
    pub label: String,
}

/// What one system call took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallTime {
    /// Its number.
    pub number: u64,
    /// How often it was made.
    pub calls: u64,
    /// How often it failed.
    pub errors: u64,
    /// How long it took in all, waits included.
    pub time_ns: u64,
}

/// What all tasks have used, and the sandbox process for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// CPU time of guest threads.
    pub guest_ns: u64,
    /// Time that tasks were in application code, as the sentry sees it: with the ways there and back.
    pub guest_wall_ns: u64,
    /// Time that tasks slept.
    pub wait_ns: u64,
    /// CPU time of the sandbox process in its own code.
    pub sentry_ns: u64,
    /// CPU time of the sandbox process in the host's kernel.
    pub host_ns: u64,
    /// Most bytes that a guest process had resident at a time.
    pub max_resident_bytes: u64,
    /// Processes that were made.
    pub processes: u64,
    /// How often threads of the sandbox process gave their CPU up.
    pub voluntary_switches: u64,
    /// How often one was taken off it.
    pub involuntary_switches: u64,
}

/// A frame of a link. It may be larger than the link's MTU and lack its checksum, where the device makes these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// The link's number.
    pub link: u32,
    /// When it was seen, in nanoseconds since 1970.
    pub time_ns: u64,
    /// It was being sent.
    pub outgoing: bool,
    /// The frame, from its Ethernet header.
    pub bytes: ByteBuf,
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
        let record = postcard::to_stdvec(self).map_err(|e| invalid(e.to_string()))?;
        // The reader refuses what is longer, and would not find the next one.
        let length = u32::try_from(record.len()).ok().filter(|_| record.len() <= MAX_RECORD_BYTES);
        let length = length.ok_or_else(|| invalid(format!("a record of {} bytes", record.len())))?;
        Ok([&length.to_le_bytes()[..], &record].concat())
    }

    /// Reads the next one; `None` at the end.
    ///
    /// # Errors
    /// InvalidData for nonsense, UnexpectedEof where one is cut off.
    pub fn read(mut from: impl Read) -> io::Result<Option<Record>> {
        let mut length = [0; 4];
        // The end is between two records only.
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
