//! Tasks, processes, signals, credentials, timers: the guest's kernel proper.
//!
//! - [`mod@kernel`]: [`Kernel`], one per sandbox.
//! - [`task`]: [`Task`], [`CurrentTask`] and a thread's life.
//! - [`process`]: thread groups, families, sessions, wait(2).
//! - [`signal`]: generation, stops, delivery.
//! - [`seccomp`]: the guest's own filters.
//! - [`mod@timer`]: interval and POSIX timers.
//! - [`ptrace`]: the guest's tracing.
//! - [`syscall`]: the table, as seen from here.
//! - [`futex`]: waiting on words of guest memory.
//! - [`nsfs`]: namespaces as files; [`quotas`]: how many there may be.
//! - [`metrics`]: what containers' tasks have done; [`monitor`]: security events.
//! - `mishap`: faults of the sentry that tests ask for.
//! - [`error`]: [`SyscallError`] and Linux's restart codes.
//! - [`strace`]: which calls are logged.
//! - [`spawn`]: how the sentry starts processes.
//!
//! # Layers
//! A module imports only those of lower layers; `cargo x check` counts what is not so (`xtask/ratchets/circles.txt`). From the
//! bottom, with what Linux has in the same place:
//!
//! 1. Values that know no object: [`error`], signal queues, actions ([`signal::actions`]), flags (`task::work`), usage, timers of a
//!    process (`timer::state`), filter programs ([`seccomp::filter`]), tables of futex waiters.
//! 2. The objects, which hold each other as `task_struct`, `signal_struct` and `pid` do and are the one circle: [`Kernel`],
//!    [`ThreadGroup`], [`Task`], the family and the table of pids, the container, and the signal and trace state of a group.
//! 3. [`CurrentTask`] with [`SyscallTable`], which runs on it; [`task::wait`] (`kernel/sched`).
//! 4. Sending ([`signal::send`], [`process::notify`]: a stop that is told is a signal that is sent), [`process::session`],
//!    `process::reap`, timers (`kernel/time`), futexes (`kernel/futex`).
//! 5. [`ptrace`] stops; above them group stops, delivery and frames ([`signal`]), filters of calls ([`seccomp`]).
//! 6. [`task::exec`], [`task::exit`], [`task::run`], [`task::clone`], [`process::wait`], ptrace requests, and [`spawn`] on top.
//!
//! # Invariants
//! - Lock order: family (`Tasks`), signals of one group, a task's state, the rest (see `moat_sync::LockClass`).
//! - A signal is sent with the family unlocked; nothing here waits but by [`CurrentTask::wait_for`].
#![forbid(unsafe_code)]

pub mod checkpoint;
mod core_dump;
pub mod error;
pub mod futex;
pub mod kernel;
pub mod metrics;
#[cfg(debug_assertions)]
mod mishap;
pub mod monitor;
pub mod nsfs;
pub mod process;
pub mod ptrace;
pub mod quotas;
pub mod seccomp;
pub mod signal;
pub mod spawn;
pub mod strace;
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
