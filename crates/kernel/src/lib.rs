//! Tasks, processes, signals, credentials, timers: the guest's kernel proper.
//!
//! - [`mod@kernel`]: [`Kernel`], one per sandbox.
//! - [`task`]: [`Task`], [`CurrentTask`] and a thread's life.
//! - [`process`]: thread groups, families, sessions, wait(2).
//! - [`signal`]: generation, stops, delivery.
//! - [`seccomp`]: the guest's own filters.
//! - [`timer`]: timers.
//! - [`ptrace`]: the guest's tracing.
//! - [`syscall`]: the table, as seen from here.
//! - [`futex`]: waiting on words of guest memory.
//! - [`error`]: [`SyscallError`] and Linux's restart codes.
//! - [`spawn`]: how the sentry starts processes.
//!
//! # Invariants
//! - Lock order: family (`Tasks`), signals of one group, a task's state, the rest (see `moat_sync::LockClass`).
//! - A signal is sent with the family unlocked; nothing here waits but by [`CurrentTask::wait_for`].
#![forbid(unsafe_code)]

pub mod error;
pub mod futex;
pub mod kernel;
pub mod process;
pub mod ptrace;
pub mod seccomp;
pub mod signal;
pub mod spawn;
pub mod syscall;
pub mod task;
pub mod timer;

pub use error::{Restart, SyscallError, SyscallResult};
pub use kernel::Kernel;
pub use moat_identity::Resource;
pub use process::group::ThreadGroup;
pub use syscall::{Dispatch, SyscallTable};
pub use task::wait::{Deadline, Wait, WaitError};
pub use task::{CurrentTask, Task, TaskId};
