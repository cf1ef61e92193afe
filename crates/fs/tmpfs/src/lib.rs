//! tmpfs: files in memory; also what memfds are made of.
//!
//! - [`superblock`]: [`TmpFs`] and its options; [`shared`]: its limits and what is used of them.
//! - [`inode`]: [`TmpInode`], attributes and the `Inode` trait.
//! - [`dir`]: entries in the order of their making, so that positions of readdir stay good.
//! - [`data`]: contents: a vector while small and unmapped, a host memfd else, since the sentry's descriptors are
//!   few; [`medium`]: files of the host in place of memfds.
//! - [`mod@file`]: the `File` trait.
//! - [`memfd`].
//! - `persist`: into an image, and out of it.
//!
//! # Invariants
//! - Lock order: a directory's entries, attributes, contents; two directories in the order of their inode numbers.
//! - Every inode and page is counted in its file system's usage until it is dropped.
#![forbid(unsafe_code)]

mod attr;
mod data;
pub mod dir;
pub mod file;
pub mod inode;
pub mod mapping;
pub mod medium;
pub mod memfd;
mod pages;
mod persist;
pub mod shared;
pub mod superblock;

pub use inode::TmpInode;
pub use medium::Medium;
pub use memfd::new_memfd;
pub use superblock::{TmpFs, TmpOptions};

/// Registers the file system type, also under its old name.
pub fn register(registry: &mut moat_vfs::Registry) {
    registry.filesystem("tmpfs", superblock::construct);
    registry.filesystem("ramfs", superblock::construct);
}
