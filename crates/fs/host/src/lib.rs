//! Files of the host: the bundle's root file system, bind mounts and donated stdio.
//!
//! - [`tree::HostTree`]: the operations on a directory tree of the host; [`direct::DirectTree`] does them in the
//!   sentry, relative to donated descriptors, [`gofer::GoferTree`] asks another process to.
//! - [`fs::HostFs`], [`inode::HostInode`]: the tree as a file system of the vfs.
//! - [`mod@file`], [`dir`], [`ioctl`]: open regular files, open directories, and requests on either.
//! - [`fifo`]: FIFOs that are shared with the host; [`devices`]: the numbers of what the host has mounted in a tree.
//! - [`stdio`]: descriptors that came from outside as they are: pipes, terminals, sockets.
//! - [`severed`]: those of a container that is out of an image, where nobody gives them anew.
//! - [`terminal`]: a terminal among them, with the guest's own job control.
//!
//! # Invariants
//! - No symbolic link of the host is ever followed, and no name but a single component is handed to the host.
//! - What the host says may change at any time (other processes share the tree): an operation on a file reaches that file,
//!   whatever its names have become, or gives ESTALE; never another file.
//! - Descriptors are bounded: nodes that a name leads to again are given back ([`fs`]).
#![forbid(unsafe_code)]

mod devices;
pub mod dir;
pub mod direct;
mod fifo;
pub mod file;
pub mod fs;
pub mod gofer;
pub mod inode;
pub mod ioctl;
mod kept;
mod listing;
mod locks;
pub mod severed;
pub mod stdio;
pub mod terminal;
pub mod tree;
mod watched;

pub use direct::{DirectTree, Fifos, NodeMaker, Sockets, SpecialNodes};
pub use fs::{HostFs, Trust};
pub use gofer::GoferTree;
pub use watched::Watched;
