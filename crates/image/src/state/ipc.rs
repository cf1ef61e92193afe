//! System V IPC.

use serde::{Deserialize, Serialize};

use super::process::ProcessState;
use crate::pages::Segment;
use crate::refs::Ref;

/// The System V objects of an IPC namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemVState {
    /// Shared memory.
    pub shm: RegistryState<ShmState>,
    /// Semaphores.
    pub sem: RegistryState<SemSetState>,
    /// Message queues.
    pub msg: RegistryState<MsgQueueState>,
}

/// The objects of one kind, and which id comes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryState<T> {
    /// By growing index.
    pub objects: Vec<IpcObjectState<T>>,
    /// The lowest index that was never used.
    pub next_index: u32,
    /// The one that was given last.
    pub last_index: Option<u32>,
    /// The last sequence number.
    pub seq: u16,
}

impl<T> Default for RegistryState<T> {
    fn default() -> Self {
        RegistryState { objects: Vec::new(), next_index: 0, last_index: None, seq: 0 }
    }
}

/// One object: `struct kern_ipc_perm` and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of struct ipc_perm")]
pub struct IpcObjectState<T> {
    pub id: i32,
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
    pub seq: u16,
    /// What it is.
    pub object: T,
}

/// A segment of shared memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of struct shmid_ds")]
pub struct ShmState {
    pub size: u64,
    pub atime: i64,
    pub dtime: i64,
    pub ctime: i64,
    pub cpid: i32,
    pub lpid: i32,
    /// It was removed, and is there until its last mapping goes.
    pub removed: bool,
    /// What is in it, by offset.
    pub segments: Vec<Segment>,
}

/// A set of semaphores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SemSetState {
    /// Values, and the processes that changed them last.
    pub sems: Vec<(i32, i32)>,
    /// What the end of each process adds to each semaphore.
    pub undo: Vec<(Ref<ProcessState>, Vec<i16>)>,
    /// The time of the last operation.
    pub otime: i64,
    /// The time of the last change.
    pub ctime: i64,
}

/// A message queue of System V.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of struct msqid_ds")]
pub struct MsgQueueState {
    /// Types and bytes, the eldest first.
    pub messages: Vec<(i64, serde_bytes::ByteBuf)>,
    pub max_bytes: u64,
    pub stime: i64,
    pub rtime: i64,
    pub ctime: i64,
    pub lspid: i32,
    pub lrpid: i32,
}
