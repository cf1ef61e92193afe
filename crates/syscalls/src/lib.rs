//! The system calls: one typed declaration each, and thin handlers by area.
//!
//! - [`mod@table`]: the declarations joined, dispatch, the strace log.
//! - [`arg`]: how raw registers become typed arguments.
//! - Areas: [`ids`] and its like, one module each.
//!
//! A handler decodes its structs, makes one call on an object of the kernel and encodes the answer. A new call is one line
//! in its area's table and one function.
#![forbid(unsafe_code)]
#![recursion_limit = "512"]

#[macro_use]
pub mod table;
pub mod arg;

pub mod caps;
pub mod exec;
pub mod fs;
pub mod futex;
pub mod ids;
pub mod ipc;
pub mod limits;
pub mod memory;
pub mod mqueue;
pub mod namespaces;
pub mod net;
pub mod prctl;
pub mod process;
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod system;
pub mod time;
pub mod timers;
pub mod trace;

pub use arg::{FromArg, PathArg};
pub use table::{Support, SyscallDecl, table};
