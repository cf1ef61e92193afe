//! Shutting a helper process of moat in: what the sandbox and the gofer have in common.
//!
//! Both are re-executions of the program in namespaces of their own, with command lines that only `moat-runtime`
//! makes. Each of them then
//! 1. takes its donated descriptors ([`process`], [`donated`]),
//! 2. makes an empty file system its root ([`root`]),
//! 3. gives up ids and capabilities ([`privileges`]),
//! 4. puts itself under a filter of host calls ([`seccomp`]), from a table of its own.
//!
//! [`logging`] is where such a process, which has no stdio, speaks to whoever started it; [`startup`] is how it says what takes time.
//!
//! # Invariants
//! - One thread until the privileges are dropped: credentials and capabilities are per-thread on Linux.
#![forbid(unsafe_code)]

pub mod donated;
pub mod logging;
pub mod privileges;
pub mod process;
pub mod root;
pub mod seccomp;
pub mod startup;

pub use donated::DonatedFiles;
pub use process::StartFds;

/// Exit code of such a process if it could not do its work; its creator reads the reason elsewhere.
pub const EXIT_FAILURE: i32 = 70;
