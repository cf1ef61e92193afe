//! The sandbox process: it isolates itself ([`boot`]), then runs the guest's kernel ([`kernel_main`]).
//!
//! - [`boot`]: from the re-executed binary to an empty, unprivileged process.
//! - [`kernel`]: platform, kernel, files and init put together.
//! - [`mounts`]: the guest's mount namespace. [`control`]: requests from outside.

#![forbid(unsafe_code)]

pub mod boot;
mod console;
mod control;
mod kernel;
mod mounts;

pub use boot::BootArgs;
pub use kernel::kernel_main;
