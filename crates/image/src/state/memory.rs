//! Address spaces.

use serde::{Deserialize, Serialize};

use super::file::{FileIdentityState, UnnamedFileState};
use super::mount::PathState;
pub use crate::pages::Segment;
use crate::refs::{Named, Ref};

/// An address space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryState {
    /// The areas in address order, without those of the vDSO.
    pub areas: Vec<AreaState>,
    /// Pages of private areas that differ from what the area shows, in address order.
    pub segments: Vec<Segment>,
    /// Limits in bytes: address space, data, stack, locked memory.
    pub limits: [u64; 4],
    /// Mappings are placed below this.
    pub mmap_base: u64,
    /// The start of the heap.
    pub brk_start: u64,
    /// Its end.
    pub brk: u64,
    /// The program's parts: code, data, arguments, environment; first and last address of each.
    pub parts: [(u64, u64); 4],
    /// The stack pointer at its start.
    pub start_stack: u64,
    /// The auxiliary vector.
    #[serde(with = "crate::blob")]
    pub auxv: Vec<u8>,
    /// mlockall(MCL_FUTURE): flags of new areas.
    pub lock_future: u32,
    /// The largest size so far.
    pub peak_mapped: u64,
    /// `MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED`.
    pub private_barrier: bool,
    /// Asynchronous I/O.
    #[serde(default)]
    pub aio: AioState,
}

/// What io_setup(2) has made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AioState {
    /// Contexts so far, of which each has a number.
    pub made: u64,
    /// Those that are there, with no request under way.
    pub contexts: Vec<AioContextState>,
}

/// A context; its ring is shared memory of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AioContextState {
    /// Where its ring is.
    pub ring: u64,
    /// Bytes of the ring.
    pub len: u64,
    /// Events that the ring has room for.
    pub capacity: u32,
    /// Requests that it is counted for.
    pub requests: u64,
    /// Where in the ring the first event is that has not been taken.
    pub head: u32,
    /// Events that have not been taken: `data`, `obj`, `res`.
    pub events: Vec<(u64, u64, i64)>,
    /// Requests that wait for a file.
    #[serde(default)]
    pub polls: Vec<AioPollState>,
}

/// A request that waits for a file (`IOCB_CMD_POLL`). Files by their numbers, as descriptors may not have them any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AioPollState {
    /// The place of the open file among them.
    pub file: u32,
    /// What it waits for, as poll(2) has it.
    pub events: i16,
    /// `aio_data`.
    pub data: u64,
    /// The address of the request.
    pub object: u64,
    /// The place of the counter that it raises.
    pub counter: Option<u32>,
}

/// One mapped area.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AreaState {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// PROT_*.
    pub prot: u32,
    /// What mprotect(2) may set.
    pub max_prot: u32,
    /// `VmaFlags` of moat-mm.
    pub flags: u32,
    /// What it shows, and the offset of its first byte there; zeros if there is nothing.
    pub shows: Option<(Ref<MappableState>, u64)>,
}

/// What mappings show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappableState {
    /// What it is.
    pub kind: MappableKind,
}

/// The kinds of what mappings show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MappableKind {
    /// A file that is opened again.
    File {
        /// Its name.
        path: PathState,
        /// It was opened for writing too.
        writable: bool,
        /// What was there.
        found: FileIdentityState,
    },
    /// A file without a name.
    Unnamed {
        /// Which one.
        file: Ref<UnnamedFileState>,
        /// It was opened for writing too.
        writable: bool,
    },
    /// MAP_SHARED | MAP_ANONYMOUS memory.
    SharedAnonymous {
        /// Bytes.
        len: u64,
        /// What is in it, by offset.
        segments: Vec<Segment>,
    },
    /// A segment of System V shared memory: its place among them.
    Segment(u32),
}

impl Named for MemoryState {
    const WHAT: &'static str = "address space";
}

impl Named for MappableState {
    const WHAT: &'static str = "mapped file";
}
