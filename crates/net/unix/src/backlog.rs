//! [`Backlog`]: the connections that a listening socket has not accepted yet.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use moat_sync::WaitQueue;
use moat_vfs::socket::SocketCreds;

use crate::socket::UnixSocket;

/// A listening socket's queue.
pub(crate) struct Backlog {
    pub(crate) ready: VecDeque<Arc<UnixSocket>>,
    pub(crate) limit: usize,
    /// Who listens, as connecting peers see it.
    pub(crate) creds: SocketCreds,
    /// Connecting sockets that found the queue full.
    pub(crate) waiting: Vec<Weak<WaitQueue>>,
}

impl Backlog {
    /// Who listens.
    pub(crate) fn creds(&self) -> &SocketCreds {
        &self.creds
    }

    /// Ends the queue; gives those to wake.
    pub(crate) fn end(mut self) -> Vec<Weak<WaitQueue>> {
        self.wake_connectors()
    }

    pub(crate) fn wake_connectors(&mut self) -> Vec<Weak<WaitQueue>> {
        std::mem::take(&mut self.waiting)
    }
}
