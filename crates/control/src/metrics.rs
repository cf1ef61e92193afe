//! [`ContainerMetrics`]: what a container's sandbox counts of it.
//!
//! Counters count from the container's start and never go down; the rest is as it is at the moment.

use serde::{Deserialize, Serialize};

/// Figures of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerMetrics {
    /// System calls that have ended.
    pub calls: Vec<CallCount>,
    /// Page faults and other exceptions that the host left to the sentry.
    pub faults: u64,
    /// How often threads were kicked out of application code.
    pub kicks: u64,
    /// Forks that a limit refused, by its name.
    pub forks_refused: Vec<(String, u64)>,
    /// What calls have moved.
    pub moved: BytesMoved,
    /// User time in nanoseconds, ended processes included.
    pub user_ns: u64,
    /// System time in nanoseconds, ended processes included: what the sentry spent on them, of its own CPU time.
    pub system_ns: u64,
    /// Processes alive.
    pub processes: u64,
    /// Threads alive.
    pub threads: u64,
    /// Tasks as its limit counts them: with zombies that nobody has waited for.
    pub tasks: u64,
    /// Its limit of tasks, if it has one.
    pub tasks_max: Option<u64>,
    /// Open descriptors, those of shared tables once.
    pub descriptors: u64,
    /// Memory of its processes.
    pub memory: MemoryUse,
    /// Nanoseconds since it was made.
    pub uptime_ns: u64,
    /// The interfaces of its network namespace, if that is the sandbox's own.
    pub network: Vec<DeviceCounters>,
    /// Figures of its sandbox, if it is the first container.
    pub sandbox: Option<SandboxMetrics>,
}

/// How often a system call ended in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCount {
    /// The call's name.
    pub name: String,
    /// "ok", "again", "denied", "unsupported", "interrupted" or "error".
    pub class: String,
    /// How often.
    pub count: u64,
}

/// Bytes that system calls have moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BytesMoved {
    /// By read(2) and its like.
    pub read: u64,
    /// By write(2) and its like.
    pub written: u64,
    /// By recvfrom(2) and its like.
    pub received: u64,
    /// By sendto(2) and its like.
    pub sent: u64,
    /// By sendfile(2) and its like.
    pub copied: u64,
}

/// Bytes of memory by category. What processes share counts for each in part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Anonymous memory.
    pub anonymous: u64,
    /// Mapped files of the host.
    pub file: u64,
    /// Mapped files in memory: shared memory, tmpfs. Those of a sandbox are all in [`SandboxMetrics::shared`].
    pub shared: u64,
    /// Swapped out.
    pub swap: u64,
    /// Page tables.
    pub page_tables: u64,
}

/// Figures of a sandbox: what its kernel, the sentry, uses for all of its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxMetrics {
    /// Memory of the sentry; its anonymous memory is the heap, with small files of tmpfs.
    pub memory: MemoryUse,
    /// Bytes of files in memory, of all containers: tmpfs, shared memory, what it shares with guest threads.
    pub shared: u64,
    /// How guest threads were handed over, and how often.
    pub hand_offs: Vec<(String, u64)>,
    /// CPU time of its process in its own code, in nanoseconds; the system time of containers is part of it.
    pub user_ns: u64,
    /// CPU time of its process in the host's kernel, in nanoseconds.
    pub host_ns: u64,
    /// Nanoseconds since it was booted.
    pub uptime_ns: u64,
}

/// What an interface has carried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DeviceCounters {
    pub name: String,
    pub received_bytes: u64,
    pub received_packets: u64,
    pub received_dropped: u64,
    pub sent_bytes: u64,
    pub sent_packets: u64,
    pub sent_dropped: u64,
}
