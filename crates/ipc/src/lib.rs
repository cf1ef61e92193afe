//! System V IPC: shared memory, semaphores and message queues, one [`SystemV`] per IPC namespace.
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
#![forbid(unsafe_code)]

pub mod msg;
pub mod registry;
pub mod sem;
mod sem_set;
pub mod shm;
pub mod undo;

use std::sync::Arc;

use moat_identity::{IpcNamespace, Setting, UserNamespace};

/// The System V objects of an IPC namespace: its ids and keys are its own, ipc_namespaces(7).
pub struct SystemV {
    /// Shared memory.
    pub shm: shm::Segments,
    /// Semaphores.
    pub sem: sem::Semaphores,
    /// Message queues.
    pub msg: msg::Queues,
}

impl SystemV {
    /// Those of `namespace`.
    #[must_use]
    pub fn of(namespace: &IpcNamespace) -> Arc<SystemV> {
        namespace.extensions.get_or_init(|| SystemV::new(namespace.id, &namespace.user_ns))
    }

    /// Whether there is no object at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shm.is_empty() && self.sem.is_empty() && self.msg.is_empty()
    }

    /// A namespace without objects; `namespace` is its id.
    fn new(namespace: u64, user_ns: &Arc<UserNamespace>) -> SystemV {
        SystemV {
            shm: shm::Segments::new(namespace, user_ns.clone()),
            sem: sem::Semaphores::new(user_ns.clone()),
            msg: msg::Queues::new(user_ns.clone()),
        }
    }
}

/// The settings of POSIX message queues in an IPC namespace.
pub struct MqueueSettings {
    /// Most messages of a queue of an ordinary user (`fs.mqueue.msg_max`).
    pub messages: Setting,
    /// Most bytes of a message in one (`fs.mqueue.msgsize_max`).
    pub message_bytes: Setting,
}

impl Default for MqueueSettings {
    fn default() -> MqueueSettings {
        MqueueSettings { messages: Setting::new(10, 1, 65536), message_bytes: Setting::new(8192, 128, 16 << 20) }
    }
}

impl MqueueSettings {
    /// Those of `namespace`.
    #[must_use]
    pub fn of(namespace: &IpcNamespace) -> Arc<MqueueSettings> {
        namespace.extensions.get_or_init(MqueueSettings::default)
    }
}

/// CLOCK_REALTIME in whole seconds, as the `*_ctime` fields have it.
fn now() -> i64 {
    i64::try_from(moat_host::clock::realtime_ns() / 1_000_000_000).unwrap_or(i64::MAX)
}
