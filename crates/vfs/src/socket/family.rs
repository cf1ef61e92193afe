//! [`AddressFamily`]: what makes the sockets of an address family.

use std::sync::Arc;

use moat_abi::{Errno, Result};
use moat_identity::{Counter, NetNamespace};
use moat_image::ImageError;

use super::{RestoreSockets, RestoredSockets, Socket, SocketCore, SocketKind, SocketMemory};
use crate::caller::Caller;

/// For whom, and in what world, a socket is made.
#[derive(Clone, Copy)]
pub struct SocketMaker<'a> {
    /// Who makes it.
    pub caller: &'a dyn Caller,
    /// The network namespace that it will be in.
    pub net: &'a Arc<NetNamespace>,
    /// Where inode numbers of sockets come from.
    pub inodes: &'a Arc<Counter>,
    /// Where the bytes in its queues are counted.
    pub memory: &'a Arc<SocketMemory>,
}

impl SocketMaker<'_> {
    /// The state of a new socket.
    #[must_use]
    pub fn core(&self) -> SocketCore {
        SocketCore::new(self.inodes, self.memory)
    }
}

/// An address family of a kernel. It keeps what its sockets share.
pub trait AddressFamily: Send + Sync {
    /// socket(2); `protocol` of the kind is as the caller gave it.
    ///
    /// # Errors
    /// EPROTONOSUPPORT, ESOCKTNOSUPPORT, EPROTOTYPE, EPERM.
    fn new_socket(&self, maker: &SocketMaker<'_>, kind: SocketKind) -> Result<Arc<dyn Socket>>;

    /// socketpair(2).
    ///
    /// # Errors
    /// As [`AddressFamily::new_socket`]; EOPNOTSUPP for a family without pairs.
    fn new_pair(&self, maker: &SocketMaker<'_>, kind: SocketKind) -> Result<(Arc<dyn Socket>, Arc<dyn Socket>)> {
        // A socket is made first, so that a bad type has its own error.
        self.new_socket(maker, kind).and(Err(Errno::EOPNOTSUPP))
    }

    /// The sockets of this family in an image, with nothing in their queues yet.
    ///
    /// # Errors
    /// What is wrong with them; by default, that there can be none.
    fn restore<'a>(
        &self,
        _request: &RestoreSockets<'a>,
    ) -> std::result::Result<Box<dyn RestoredSockets + 'a>, ImageError> {
        Err(ImageError::state("sockets of a family that has none in images"))
    }
}
