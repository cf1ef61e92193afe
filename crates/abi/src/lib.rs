//! Linux's guest ABI on x86-64: error numbers, syscall numbers, flags and structs.
//!
//! Everything here is data with no behaviour of the sentry in it, so that every other crate can
//! depend on it. Names follow Linux's headers; values come from `include/uapi`.
#![forbid(unsafe_code)]

pub mod errno;
pub mod poll;

pub use errno::{Errno, Result};
pub use poll::PollEvents;
