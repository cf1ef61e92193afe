//! Every host system call that moat makes and that needs `unsafe`, typed.
//!
//! Calls that rustix has already are used through rustix; `?` turns its errors into [`moat_abi::Errno`].

#[cfg(feature = "host-calls")]
pub mod any_call;
pub mod caps;
pub mod clock;
pub mod command;
pub mod cpu;
pub mod cpu_features;
pub mod cycles;
pub mod descriptors;
pub mod fanotify;
pub mod features;
pub mod files;
pub mod inherited;
pub mod memory;
pub mod mounts;
pub mod net;
pub mod objects;
pub mod packet;
pub mod process;
pub mod procfs;
pub mod ptrace;
pub mod random;
mod result;
pub mod sampling;
pub mod seccomp;
pub mod signals;
pub mod sigsys;
pub mod socket;
pub mod spawn;
pub mod tty;
pub mod usage;
pub mod userfault;
pub mod wait;

pub use result::last_errno;
