//! UNIX sockets: unix(7).
//!
//! - [`socket`]: [`UnixSocket`], the calls.
//! - [`endpoint`]: [`endpoint::Endpoint`], what its peers know of it: the queue of incoming data, shutdown, send
//!   accounting.
//! - [`family`]: [`UnixFamily`], what the sockets of a kernel, and those of a network namespace, share.
//! - [`connect`]: listening, connecting, accepting.
//! - `name`: names and addresses; [`names`]: who has which, in files and abstract ones; `backlog`: what a listener has not accepted.
//! - `host`: sockets of the host that work for one of a guest's.
//! - [`rights`]: descriptors in flight and the collection of those that nobody can receive any more.
//! - [`text`]: the text of /proc/net/unix.
//!
//! # Invariants
//! - Data lies in the receiver's endpoint; its bytes are charged to the sender's until they are taken or dropped.
//! - Sockets refer to each other by endpoints only, which own no socket: releasing a socket empties its endpoint, so
//!   that nothing is kept alive but by descriptors, in tables or in flight.
//! - Lock order: a socket's state, an endpoint's inbox, small tables. Files in flight are dropped under none of them.
#![forbid(unsafe_code)]

mod backlog;
pub mod connect;
pub mod endpoint;
pub mod family;
mod host;
pub mod inspect;
mod name;
pub mod names;
pub mod rights;
pub mod socket;
pub mod text;
mod waiting;

pub use family::UnixFamily;
pub use socket::UnixSocket;

use std::sync::Arc;

use moat_abi::Result;
use moat_abi::socket::AF_UNIX;
use moat_image::ImageError;
use moat_vfs::Registry;
use moat_vfs::socket::{AddressFamily, RestoreSockets, RestoredSockets, Socket, SocketKind, SocketMaker};

/// Registers the family.
pub fn register(registry: &mut Registry) {
    registry.address_family(AF_UNIX, Arc::new(Registered(Arc::default())));
    registry.net_text("unix", text::unix);
}

/// The family, as system calls find it.
struct Registered(Arc<UnixFamily>);

impl AddressFamily for Registered {
    fn new_socket(&self, maker: &SocketMaker<'_>, kind: SocketKind) -> Result<Arc<dyn Socket>> {
        Ok(self.0.new_socket(maker, kind)?)
    }

    fn new_pair(&self, maker: &SocketMaker<'_>, kind: SocketKind) -> Result<(Arc<dyn Socket>, Arc<dyn Socket>)> {
        let (a, b) = self.0.new_pair(maker, kind)?;
        Ok((a, b))
    }

    fn restore<'a>(
        &self,
        request: &RestoreSockets<'a>,
    ) -> std::result::Result<Box<dyn RestoredSockets + 'a>, ImageError> {
        self.0.restore(request)
    }
}
