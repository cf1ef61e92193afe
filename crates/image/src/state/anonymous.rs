//! Files that are in no directory, and FIFOs.

use serde::{Deserialize, Serialize};

use super::mount::PathState;
use crate::refs::{Named, Ref};

/// A pipe, or what is behind a FIFO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeState {
    /// The node of a FIFO; none for a pipe without a name.
    pub fifo: Option<PathState>,
    /// The inode number of a pipe without a name.
    pub ino: u64,
    /// Permissions.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// Seconds and nanoseconds of the last access, modification and change.
    pub times: [(i64, i64); 3],
    /// F_GETPIPE_SZ.
    pub size: u64,
    /// What waits to be read.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
    /// Lengths of the packets at its end.
    pub packets: Vec<u64>,
    /// Readers and writers there ever were.
    pub ever: (u64, u64),
}

/// One opening of a pipe; the flags of the open file tell which ends it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeEndState {
    /// The pipe.
    pub pipe: Ref<PipeState>,
    /// Readers and writers there had ever been when it came to wait for one.
    pub seen: (Option<u64>, Option<u64>),
}

/// A timerfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerFdState {
    /// Its clock.
    pub clock: i32,
    /// The next expiration: on the clocks of the day the time, on others nanoseconds from the checkpoint on.
    pub next_ns: Option<u64>,
    /// Nanoseconds between expirations; 0 is once.
    pub interval_ns: u64,
    /// Expirations not read yet.
    pub ticks: u64,
}

/// A signalfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalFdState {
    /// The signals that it reads.
    pub mask: u64,
    /// The number of the process whose signals they are.
    pub process: i32,
    /// The number of the thread that made it, if that lives.
    pub thread: Option<i32>,
}

/// A pidfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidFdState {
    /// The number of the process or thread.
    pub pid: i32,
    /// It stands for one thread (`PIDFD_THREAD`).
    pub thread: bool,
}

impl Named for PipeState {
    const WHAT: &'static str = "pipe";
}
