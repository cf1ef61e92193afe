//! Processes: thread groups, their family, process groups, sessions, wait(2).
//!
//! - [`group`]: [`group::ThreadGroup`], one process.
//! - [`allowance`]: what a container may use.
//! - `census`: questions about all processes.
//! - [`container`]: the processes of one container.
//! - [`family`]: parents, children, groups and sessions, under the one `Tasks` lock; which task a pid stands for.
//! - `io_signals`: SIGIO.
//! - `job_signals`: how sessions and terminals send signals.
//! - [`session`]: who is in which process group and session.
//! - [`wait`]: wait4(2) and waitid(2).
//! - `reap`: the end of a zombie.
//! - [`notify`]: SIGCHLD and wake-ups of waiting parents.
//! - [`sched`]: scheduling as the guest sets it.
//! - [`pidfd`]: processes as files.
//!
//! # Invariants
//! - A thread group has a node in the [`family::Family`] from its making until it is reaped.
//! - Signals are sent with the family unlocked.

pub mod allowance;
mod census;
pub mod container;
pub mod core_pattern;
pub(crate) mod family;
pub mod group;
mod io_signals;
mod job_signals;
pub mod notify;
pub mod pidfd;
pub(crate) mod reap;
pub mod sched;
pub mod session;
pub mod wait;
