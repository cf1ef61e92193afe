//! Character devices that every container has: null, zero, full, random, urandom; and the tree of /dev.
//!
//! A driver is registered by its number ([`moat_vfs::Registry`]); the nodes are ordinary nodes of a tmpfs ([`tree`]).
#![forbid(unsafe_code)]

pub mod memory;
pub mod tree;

pub use memory::register;
