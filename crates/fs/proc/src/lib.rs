//! proc(5): processes and the kernel as files.
//!
//! - [`fs::ProcFs`]: one mount, which shows the tasks of one pid namespace.
//! - [`root`]: the top directory; [`system`]: its files about the whole system; [`sysctl`]: /proc/sys; `sysvipc`: System V IPC.
//! - [`process`]: the directory of a process or thread; [`status`], [`stat`], [`memory`], [`fds`], [`links`], [`mounts`], [`misc`]:
//!   its files.
//!
//! Contents are made when they are read ([`moat_vfs::generated`]); nothing here holds state.
#![forbid(unsafe_code)]

pub mod fds;
pub mod fs;
pub mod links;
pub mod memory;
pub mod misc;
pub mod mounts;
pub mod net;
pub mod process;
pub mod root;
pub mod stat;
pub mod status;
pub mod sysctl;
pub mod system;
mod sysvipc;

pub use fs::{ProcFs, register};
