//! Processes: thread groups, their family, process groups, sessions, pid namespaces, limits, wait(2).
//!
//! - [`group`]: [`group::ThreadGroup`], one process.
//! - [`container`]: the processes of one container.
//! - [`pid`]: numbers and their namespaces.
//! - [`family`]: parents, children, groups and sessions, under the one `Tasks` lock.
//! - [`session`]: job control.
//! - [`tty`]: requests to terminals.
//! - [`wait`]: wait4(2) and waitid(2).
//! - [`notify`]: SIGCHLD and wake-ups of waiting parents.
//! - [`limits`], [`sched`]: what a process may use.
//! - [`pidfd`]: processes as files.
//!
//! # Invariants
//! - A thread group has a node in the [`family::Family`] from its making until it is reaped.
//! - Signals are sent with the family unlocked.

pub mod container;
pub mod family;
pub mod group;
pub mod limits;
pub mod notify;
pub mod pid;
pub mod pidfd;
pub mod sched;
pub mod session;
pub mod tty;
pub mod wait;
