//! UNIX sockets: unix(7).
//!
//! - [`socket`]: [`UnixSocket`], the calls.
//! - [`endpoint`]: [`endpoint::Endpoint`], what its peers know of it: the queue of incoming data, shutdown, send
//!   accounting.
//! - [`family`]: [`UnixFamily`], what the sockets of a kernel, and those of a network namespace, share.
//! - [`connect`]: listening, connecting, accepting.
//! - [`names`]: names in files, abstract names.
//! - [`rights`]: descriptors in flight and the collection of those that nobody can receive any more.
//! - [`text`]: the text of /proc/net/unix.
//!
//! # Invariants
//! - Data lies in the receiver's endpoint; its bytes are charged to the sender's until they are taken or dropped.
//! - Sockets refer to each other by endpoints only, which own no socket: releasing a socket empties its endpoint, so
//!   that nothing is kept alive but by descriptors, in tables or in flight.
//! - Lock order: a socket's state, an endpoint's inbox, small tables. Files in flight are dropped under none of them.
#![forbid(unsafe_code)]

pub mod connect;
pub mod endpoint;
pub mod family;
pub mod names;
pub mod rights;
pub mod socket;
pub mod text;

pub use family::UnixFamily;
pub use socket::UnixSocket;

use moat_abi::socket::AF_UNIX;
use moat_vfs::socket::registry::{Family, register_family, register_net_text};

/// Registers the family.
pub fn register() {
    register_family(AF_UNIX, Family { new_socket: socket::new_socket, new_pair: Some(socket::new_pair) });
    register_net_text("unix", text::unix);
}
