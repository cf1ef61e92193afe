//! POSIX message queues, mq_overview(7): the file system that shows them, and the queues.
//!
//! - [`queue`]: a queue.
//! - [`fs`]: an instance for each IPC namespace, which every mount in it shows.
//! - `persist`: queues in an image, and out of it.
//!
//! The system calls are in `moat_syscalls`.
//!
//! # Invariants
//! - A queue belongs to an IPC namespace, and is gone with it.
//! - A queue's bytes are charged to its maker (RLIMIT_MSGQUEUE) until it is gone.
#![forbid(unsafe_code)]

pub mod fs;
mod persist;
pub mod queue;

pub use fs::{MqueueFs, NamespaceQueues, Payer};
pub use persist::RestoredQueues;
pub use queue::{Attributes, Notification, Queue, QueueFile};

use std::sync::Weak;

use moat_abi::Errno;
use moat_kernel::Kernel;

/// Registers the file system type.
pub fn register(registry: &mut moat_vfs::Registry, kernel: &Weak<Kernel>) {
    let kernel = kernel.clone();
    registry.filesystem("mqueue", move |request| fs::construct(&*kernel.upgrade().ok_or(Errno::ENODEV)?, request));
}
