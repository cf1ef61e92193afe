//! The gofer: a tree of the host that another process serves.
//!
//! The sentry has no descriptor of a directory then, only a socket. [`client::GoferTree`] is its side: a
//! [`crate::tree::HostTree`] whose operations are messages ([`protocol`]) to the gofer process (crate `moat-gofer`),
//! which carries them out on a [`crate::DirectTree`] of its own and passes back open regular files ([`channel`]).
//!
//! # Invariants
//! - No directory descriptor ever crosses the socket, in either direction.
//! - A connection carries one request at a time: whoever takes it from the [`pool`] gives it back after the answer.

pub mod channel;
pub mod client;
mod pool;
pub mod protocol;

pub use client::GoferTree;
