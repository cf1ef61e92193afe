//! The sandbox process: it isolates itself ([`boot`]), then runs the guest's kernel ([`kernel_main`]).
//!
//! - [`boot`]: from the re-executed binary to an empty, unprivileged process.
//! - [`kernel`]: platform, kernel, files and init put together.
//! - [`mod@registry`], [`container`]: the containers; [`mounts`]: their mount namespaces; [`process`]: what they run.
//! - [`checkpoint`], [`restore`]: the sandbox into an image, and a container's processes out of one.
//! - [`network`]: the links of the sandbox's network namespace.
//! - [`control`]: requests from outside; [`host_signals`]: signals from outside.

#![forbid(unsafe_code)]

mod arrivals;
mod assembly;
mod beginning;
pub mod boot;
mod checkpoint;
mod console;
mod container;
mod control;
mod followers;
mod host_signals;
mod kernel;
mod mounts;
mod network;
mod process;
mod profile;
mod registry;
mod restore;
mod unless;

pub use assembly::{add_devices, registry};
pub use boot::BootArgs;
pub use kernel::kernel_main;
