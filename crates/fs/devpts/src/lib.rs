//! Pseudo-terminals: devpts, the devices at both ends of a pty, and the line discipline between them.
//!
//! - [`ldisc`]: N_TTY as a pure data structure.
//! - `pty`: a pair, its openings and hang-ups, as a terminal of the kernel.
//! - `master`, `slave`: what tasks open.
//! - `ioctl`: their requests.
//! - `fs`: the file system with their nodes.
//! - `adopted`: terminals of the host among them.
//! - `persist`: ptys in an image, and out of it.
//! - `devices`: /dev/ptmx, /dev/tty, /dev/console.
//!
//! # Invariants
//! - A pty lives while one of its ends is open or a session has it; its name lives while the master is open.
//! - Signals are sent and queues are woken with the pty unlocked.
#![forbid(unsafe_code)]

mod adopted;
mod devices;
mod fs;
mod ioctl;
pub mod ldisc;
mod master;
mod node;
mod persist;
mod pty;
mod slave;

pub use fs::adopt;
pub use persist::RestoredPtys;

pub use ldisc::{Effects, LineDiscipline, ReadRule};

use std::sync::Weak;

use moat_kernel::Kernel;

/// Registers the file system type and the drivers.
pub fn register(registry: &mut moat_vfs::Registry, kernel: &Weak<Kernel>) {
    registry.filesystem("devpts", fs::construct);
    devices::register(registry, kernel.clone());
}
