//! Locks and leases of files, and who gets signals about a file.

use serde::{Deserialize, Serialize};

/// What an open file holds of its file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldState {
    /// The lock of flock(2), and who took it (a number of the outermost pid namespace).
    pub flock: Option<(LockKindState, i32)>,
    // Those that are a process's are in its descriptor table.
    /// OFD locks.
    pub records: Vec<RecordLockState>,
    /// The lease.
    pub lease: Option<LeaseState>,
}

/// Shared or exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum LockKindState {
    Read,
    Write,
}

/// A lock of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordLockState {
    /// The first byte.
    pub start: u64,
    /// The last one; the largest number is the end of the file.
    pub end: u64,
    /// Shared or exclusive.
    pub kind: LockKindState,
    /// Who took it: a number of the outermost pid namespace, or -1.
    pub pid: i32,
}

/// A lock that a process holds (F_SETLK).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLockState {
    /// A descriptor of the file.
    pub fd: i32,
    /// The lock.
    pub lock: RecordLockState,
}

/// A lease (F_SETLEASE).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseState {
    /// The descriptor that the signal names.
    pub fd: i32,
    /// What it is told of.
    pub kind: LockKindState,
    /// What it is becoming, if it is being broken.
    pub breaking: Option<BreakingState>,
}

/// A lease on its way to something weaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakingState {
    /// What it becomes; none if it is to be given up.
    pub to: Option<LockKindState>,
    // Not a time: the clock of a restore is another one.
    /// Nanoseconds until that is done for the holder; none for ever.
    pub left_ns: Option<u64>,
}

/// Who is sent signals about a file (F_SETOWN).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerState {
    /// Who it is.
    pub id: OwnerIdState,
    /// The user id of who set it.
    pub uid: u32,
    /// The effective one.
    pub euid: u32,
}

/// By number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum OwnerIdState {
    Thread(i32),
    Process(i32),
    Group(i32),
}
