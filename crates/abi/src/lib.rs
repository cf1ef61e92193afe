//! Linux's guest ABI on x86-64: error numbers, syscall numbers, flags and structs.
//!
//! Everything here is data with no behaviour of the sentry in it, so that every other crate can
//! depend on it. Names follow Linux's headers; values come from `include/uapi`.
#![forbid(unsafe_code)]
#![cfg_attr(not(any(test, feature = "host")), no_std)]

#[macro_use]
mod macros;

pub mod aio;
pub mod cap;
pub mod clone;
pub mod elf;
pub mod errno;
pub mod fs;
pub mod futex;
pub mod ipc;
pub mod mman;
pub mod mount;
pub mod netlink;
pub mod nr;
pub mod poll;
pub mod prctl;
pub mod ptrace;
pub mod sigframe;
pub mod siginfo;
pub mod signal;
pub mod socket;
pub mod stat;
pub mod time;
pub mod tty;
pub mod x86;

pub use cap::{Cap, CapSet};
pub use errno::{Errno, Result};
pub use poll::PollEvents;
pub use siginfo::SigInfo;
pub use signal::{SigSet, Signal};
pub use stat::DeviceId;
