//! The TCP sockets of an image in a new kernel.
//!
//! Ends come first, then the sockets that own them, connections and queues. A connection to the outside has been reset: its other side
//! knows nothing of the new sandbox.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use moat_abi::Errno;
use moat_identity::NetNamespace;
use moat_image::state::{TcpEndState, TcpPhaseState, TcpSocketState};
use moat_image::{ImageError, Ref, refs::find};
use moat_vfs::socket::RestoreSockets;

use super::connect::Backlog;
use super::end::{SHUT_READ, SHUT_WRITE, TcpEnd};
use super::{Bound, Connection, Phase, TcpSocket};
use crate::options::InetOptions;
use crate::ports::{Net, PortTables};

fn wrong(what: impl Into<String>) -> ImageError {
    ImageError::state(what)
}

/// The TCP sockets of an image, by their numbers.
pub(crate) struct Restored<'a> {
    request: RestoreSockets<'a>,
    ends: Vec<Arc<TcpEnd>>,
    /// The number of the socket that each end is of.
    owners: Vec<Option<usize>>,
    sockets: Vec<Arc<TcpSocket>>,
    /// Those that an open file or a listener's queue has.
    taken: Vec<bool>,
}

impl<'a> Restored<'a> {
    /// All of them, with their connections; what waits in queues comes by [`Restored::fill`].
    ///
    /// # Errors
    /// What is wrong with one.
    pub(crate) fn make(request: &RestoreSockets<'a>) -> Result<Restored<'a>, ImageError> {
        let state = request.state;
        let mut inos = HashSet::new();
        let mut ends = Vec::new();
        for saved in state.tcp_ends.iter() {
            // By it they are in the table of ports.
            if !inos.insert(saved.core.ino) {
                return Err(wrong(format!("two TCP sockets with the inode number {}", saved.core.ino)));
            }
            ends.push(TcpEnd::restored(request.core(&saved.core)?, saved));
        }
        let mut restored = Restored {
            request: *request,
            owners: vec![None; ends.len()],
            ends,
            sockets: Vec::new(),
            taken: vec![false; state.tcp_sockets.len()],
        };
        for (at, saved) in state.tcp_sockets.iter().enumerate() {
            restored.socket(at, saved)?;
        }
        for (end, owner) in restored.ends.iter().zip(&restored.owners) {
            if owner.is_none() {
                end.end_restored();
            }
        }
        for (at, saved) in state.tcp_sockets.iter().enumerate() {
            restored.connect(at, saved)?;
        }
        Ok(restored)
    }

    fn socket(&mut self, at: usize, saved: &TcpSocketState) -> Result<(), ImageError> {
        let end = find(&self.ends, saved.end)?.clone();
        match usize::try_from(saved.end.index()).ok().and_then(|at| self.owners.get_mut(at)) {
            Some(owner @ None) => *owner = Some(at),
            _ => return Err(wrong("two TCP sockets with one end")),
        }
        let net = Net::of(self.request.net);
        let options = InetOptions::restore(self.request.net, saved.family, &saved.options)?;
        // What is in the table of ports is found there again when the socket is closed.
        if saved.binding.is_some_and(|b| saved.bound.map(|(addr, _)| addr.port()) != Some(b.port)) {
            return Err(wrong("a TCP socket with another port than it is bound to"));
        }
        let bound = saved.bound.map(|(addr, by_caller)| Bound { addr, by_caller });
        // That its address is one is not asked: the links come later, and where it is gone nothing comes to it.
        let socket = TcpSocket::make(saved.family, net, end, options, saved.uid, Phase::Closed, bound);
        if let Some(binding) = &saved.binding {
            socket.net.tcp.lock().restore(socket.id(), &socket.me, binding);
        }
        self.sockets.push(socket);
        Ok(())
    }

    fn connect(&mut self, at: usize, saved: &TcpSocketState) -> Result<(), ImageError> {
        let Some(socket) = self.sockets.get(at).cloned() else { return Ok(()) };
        match &saved.phase {
            TcpPhaseState::Closed => {}
            TcpPhaseState::Outside { stands } => {
                // As `take_reset`; what had come and was not read went with the connection.
                socket.end.core.set_error(Errno::ECONNRESET);
                // One that was being made can be tried again: who waits in connect(2) does so.
                if *stands {
                    socket.end.add_shutdown(SHUT_READ | SHUT_WRITE);
                }
            }
            TcpPhaseState::Connecting { to } => socket.state.lock().phase = Phase::Connecting { to: *to },
            TcpPhaseState::Connected { peer, addr, announced } => {
                self.check_connection(saved, *peer)?;
                let peer = find(&self.ends, *peer)?.clone();
                let connection = Connection { peer, addr: *addr, announced: *announced };
                socket.state.lock().phase = Phase::Connected(connection);
            }
            TcpPhaseState::Listening { limit, ready } => {
                let mut queue = VecDeque::new();
                for index in ready {
                    let of = usize::try_from(*index).ok().and_then(|at| self.request.state.tcp_sockets.iter().nth(at));
                    // One that listens itself could be in its own queue, and would never be dropped.
                    if !of.is_some_and(|of| matches!(of.phase, TcpPhaseState::Connected { .. })) {
                        return Err(wrong("a socket in a queue that is no connection"));
                    }
                    queue.push_back(self.take(*index)?);
                }
                socket.listen_again(usize::try_from(*limit).unwrap_or(usize::MAX), queue)?;
            }
        }
        Ok(())
    }

    /// A connection has two sockets, or one that has called itself, or its other one is closed.
    fn check_connection(&self, saved: &TcpSocketState, peer: Ref<TcpEndState>) -> Result<(), ImageError> {
        let other = find(&self.owners, peer)?.and_then(|at| self.request.state.tcp_sockets.iter().nth(at));
        match other.map(|other| &other.phase) {
            None => Ok(()),
            Some(TcpPhaseState::Connected { peer: back, .. }) if *back == saved.end => Ok(()),
            // After a reset the other one may have another connection by now.
            Some(_) if self.request.state.tcp_ends.get(saved.end)?.reset => Ok(()),
            Some(_) => Err(wrong("a TCP connection that is not one of two sockets")),
        }
    }

    /// The socket of this number, for the one that has it.
    ///
    /// # Errors
    /// One that is not there, or has been given before.
    pub(crate) fn take(&mut self, index: u32) -> Result<Arc<TcpSocket>, ImageError> {
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        match (self.taken.get_mut(at), self.sockets.get(at)) {
            (Some(taken @ false), Some(socket)) => {
                *taken = true;
                Ok(socket.clone())
            }
            (Some(_), _) => Err(wrong(format!("TCP socket {index} is in two places"))),
            (None, _) => Err(ImageError::Dangling { what: "TCP socket", index }),
        }
    }

    /// Puts into queues what was there, once all sockets are somebody's.
    ///
    /// # Errors
    /// Bytes that nobody sent; a socket that nobody has.
    pub(crate) fn fill(&self) -> Result<(), ImageError> {
        // It would keep its port for ever.
        if self.taken.contains(&false) {
            return Err(wrong("a TCP socket that nobody has open"));
        }
        for ((saved, end), owner) in self.request.state.tcp_ends.iter().zip(&self.ends).zip(&self.owners) {
            let empty = saved.bytes.is_empty() && saved.urgent.is_none() && saved.starved.is_none();
            if empty {
                continue;
            }
            let owner = owner.and_then(|at| self.sockets.get(at));
            // Of a connection to the outside nothing is left.
            let Some(peer) = owner.and_then(|socket| socket.peer()) else {
                return Err(wrong("bytes in no TCP connection"));
            };
            end.put_back(&peer, saved);
        }
        // Those that wait for room in a queue stand in line again.
        for socket in &self.sockets {
            socket.wait_again();
        }
        Ok(())
    }
}

/// Has the stack that a namespace has got take connections for the sockets that listen already.
pub(crate) fn listen_on_links(namespace: &NetNamespace) {
    let sockets = PortTables::of(namespace).tcp.lock().sockets();
    for socket in sockets {
        let mut state = socket.state.lock();
        let Some(bound) = state.bound else { continue };
        if let Phase::Listening(backlog) = &mut state.phase {
            backlog.remote = socket.listen_remote(socket.place(bound.addr), bound.addr.port(), backlog.limit);
        }
    }
}

impl TcpSocket {
    fn listen_again(&self, limit: usize, ready: VecDeque<Arc<TcpSocket>>) -> Result<(), ImageError> {
        let mut state = self.state.lock();
        let bound = state.bound.ok_or_else(|| wrong("a listening TCP socket without a port"))?;
        let port = bound.addr.port();
        if !self.net.tcp.lock().listen_again(self.id(), port) {
            return Err(wrong("a listening TCP socket without a port"));
        }
        let remote = self.listen_remote(self.place(bound.addr), port, limit);
        state.phase = Phase::Listening(Backlog::restored(limit, ready, remote));
        Ok(())
    }

    /// Looks for its listener once more.
    fn wait_again(self: &Arc<Self>) {
        let to = match &self.state.lock().phase {
            Phase::Connecting { to } => *to,
            _ => return,
        };
        // Looked up first: joining locks the table, too.
        let listener = self.net.tcp.lock().listener(to);
        match listener {
            Some(listener) => {
                self.join_backlog(&listener);
            }
            None => self.refuse(),
        }
    }
}
