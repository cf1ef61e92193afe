//! Pseudo-terminals: the line discipline between a master and its slave.
//!
//! [`ldisc`] is a pure data structure; the devices that tasks open are built on it.
#![forbid(unsafe_code)]

mod fs;
pub mod ldisc;

pub use ldisc::{Effects, LineDiscipline, ReadRule};

/// Registers the file system type.
pub fn register() {
    moat_vfs::filesystem::register_filesystem("devpts", fs::construct);
}
