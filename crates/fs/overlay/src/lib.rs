//! A union of directory trees: changes go to the upper one, the lower ones stay as they are.
//!
//! The format is that of Linux's overlayfs (Documentation/filesystems/overlayfs.rst), so that an upper tree can be used by
//! either: a whiteout is a character device 0/0, a directory with the attribute `trusted.overlay.opaque` = `y` hides the
//! lower ones.
//!
//! - [`fs::OverlayFs`]: the mounted union.
//! - [`inode::OverlayInode`]: a name in it, with what each tree has for it.
//! - [`copy_up`]: moving a file to the upper tree before its first change.
//! - [`dir`]: merged listings.
//!
//! # Invariants
//! - Nothing below is ever changed.
//! - A file keeps its inode number when it is copied up.
//! - Once a file has an upper part it keeps it; the lower part is then only remembered for the number.
#![forbid(unsafe_code)]

pub mod copy_up;
pub mod dir;
mod file;
pub mod fs;
pub mod inode;

pub use fs::OverlayFs;
