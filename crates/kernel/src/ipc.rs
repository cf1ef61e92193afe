//! System V IPC: shared memory, semaphores and message queues, one set of each per [`IpcNamespace`].
//!
//! - [`registry`]: ids, keys, owners and permissions, which all three kinds share.
//! - [`shm`]: segments of shared memory.
//! - [`sem`]: sets of semaphores; `sem_set`: one set and its waiters; [`undo`]: what a process's end takes back.
//! - [`msg`]: message queues.
//!
//! Source: sysvipc(7), `ipc/util.c`, `ipc/shm.c`, `ipc/sem.c`, `ipc/msg.c`.
//!
//! # Invariants
//! - One lock per kind and namespace guards its registry and all objects in it; nothing waits, copies guest memory or closes
//!   a descriptor under it.
//! - Nothing here sleeps: semop(2) leaves a waiter behind, the other calls give EAGAIN and have a wait queue.
//! - Process ids are kept as numbers of the pid namespace of the caller.

pub mod msg;
pub mod registry;
pub mod sem;
mod sem_set;
pub mod shm;
pub mod undo;

use std::any::Any;
use std::sync::{Arc, OnceLock};

use crate::settings::Setting;

/// An IPC namespace: its ids and keys are its own, ipc_namespaces(7).
pub struct IpcNamespace {
    /// The inode number of `/proc/PID/ns/ipc`.
    pub id: u64,
    /// Shared memory.
    pub shm: shm::Segments,
    /// Semaphores.
    pub sem: sem::Semaphores,
    /// Message queues.
    pub msg: msg::Queues,
    /// Most messages of a POSIX message queue of an ordinary user (`fs.mqueue.msg_max`).
    pub mqueue_messages: Setting,
    /// Most bytes of a message in one (`fs.mqueue.msgsize_max`).
    pub mqueue_message_bytes: Setting,
    /// The POSIX message queues, as their file system keeps them.
    pub mqueue: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl IpcNamespace {
    /// A namespace without objects.
    #[must_use]
    pub fn new(id: u64) -> Arc<IpcNamespace> {
        Arc::new(IpcNamespace {
            id,
            shm: shm::Segments::default(),
            sem: sem::Semaphores::default(),
            msg: msg::Queues::default(),
            mqueue_messages: Setting::new(10, 1, 65536),
            mqueue_message_bytes: Setting::new(8192, 128, 16 << 20),
            mqueue: OnceLock::new(),
        })
    }
}

/// CLOCK_REALTIME in whole seconds, as the `*_ctime` fields have it.
fn now() -> i64 {
    i64::try_from(crate::clock::realtime_ns() / 1_000_000_000).unwrap_or(i64::MAX)
}
