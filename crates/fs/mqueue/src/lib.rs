//! POSIX message queues, mq_overview(7): the file system that shows them, and the queues.
//!
//! - [`queue`]: a queue.
//! - [`fs`]: the one instance of mqueue, which every mount shows.
//!
//! The system calls are in `moat_syscalls`.
//!
//! # Invariants
//! - All queues belong to the one IPC namespace of the sandbox.
//! - A queue's bytes are charged to its maker (RLIMIT_MSGQUEUE) until it is gone.
#![forbid(unsafe_code)]

pub mod fs;
pub mod queue;

pub use fs::{MqueueFs, Payer};
pub use queue::{Attributes, Notification, Queue, QueueFile};

/// Registers the file system type.
pub fn register() {
    moat_vfs::filesystem::register_filesystem("mqueue", fs::construct);
}
