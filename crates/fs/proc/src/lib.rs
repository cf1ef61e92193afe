//! proc(5): processes and the kernel as files.
//!
//! - [`fs::ProcFs`]: one mount, which shows the tasks of one pid namespace.
//! - [`root`]: the top directory; [`system`]: its files about the whole system; [`sysctl`]: /proc/sys; `sysvipc`: System V IPC.
//! - [`who`]: whose files are shown and who may look; `mount`: what all inodes of a mount share.
//! - [`process`]: the directory of a process or thread; [`status`], [`stat`], [`memory`], [`fds`], [`links`], [`mounts`], [`misc`]:
//!   its files.
//!
//! Contents are made when they are read ([`moat_vfs::generated`]); nothing here holds state. The modules are in layers: `mount`, `who`, the files,
//! the directory of a process, the top, the file system.
#![forbid(unsafe_code)]

pub mod fds;
pub mod fs;
mod idmaps;
pub mod links;
mod locks;
pub mod memory;
pub mod misc;
mod mount;
pub mod mounts;
pub mod net;
pub mod process;
pub mod root;
pub mod stat;
pub mod status;
pub mod sysctl;
pub mod system;
mod sysvipc;
pub mod who;

pub use fs::{ProcFs, register};
pub use process::process_of;
