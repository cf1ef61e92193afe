//! Files of the host: the bundle's root file system, bind mounts and donated stdio.
//!
//! - [`tree::HostTree`]: the operations on a directory tree of the host; [`direct::DirectTree`] does them in the
//!   sentry, relative to donated descriptors, [`gofer::GoferTree`] asks another process to.
//! - [`fs::HostFs`], [`inode::HostInode`]: the tree as a file system of the vfs.
//! - [`mod@file`]: open regular files and directories.
//! - [`stdio`]: descriptors that came from outside as they are: pipes, terminals, sockets.
//! - [`terminal`]: a terminal among them, with the guest's own job control.
//!
//! # Invariants
//! - No symbolic link of the host is ever followed, and no name but a single component is handed to the host.
//! - What the host says may change at any time (other processes share the tree): a file that is not the one looked up
//!   gives ESTALE, never another file's contents.
#![forbid(unsafe_code)]

pub mod direct;
pub mod file;
pub mod fs;
pub mod gofer;
pub mod inode;
pub mod stdio;
pub mod terminal;
pub mod tree;

pub use direct::DirectTree;
pub use fs::{HostFs, Trust};
pub use gofer::GoferTree;
