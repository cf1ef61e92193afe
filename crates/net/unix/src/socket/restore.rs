//! The UNIX sockets of an image in a new kernel.
//!
//! Endpoints come first, then the sockets that own them, connections, names and queues. What the calls could never have made is an
//! error: an endpoint of two sockets, a connection that leads elsewhere than back, a socket in two queues.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::socket::{SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM, UNIX_PATH_MAX};
use moat_image::state::{SocketRef, UnixBoundState, UnixEndpointState, UnixSocketState};
use moat_image::{ImageError, Ref, refs::find};
use moat_vfs::OpenFile;
use moat_vfs::socket::{RestoreSockets, RestoredSockets, Socket};

use super::{Phase, UnixSocket};
use crate::backlog::Backlog;
use crate::endpoint::persist::Around;
use crate::endpoint::{Endpoint, SHUT_READ, SHUT_WRITE};
use crate::family::UnixFamily;
use crate::name::{Flavor, Name};
use crate::names;

/// The sockets of an image, by their numbers.
struct Restored<'a> {
    request: RestoreSockets<'a>,
    family: Arc<UnixFamily>,
    endpoints: Vec<Arc<Endpoint>>,
    /// The number of the socket that each endpoint is of.
    owners: Vec<Option<usize>>,
    sockets: Vec<Arc<UnixSocket>>,
    /// Those that an open file or a listener's queue has.
    taken: Vec<bool>,
    /// Names of those that are bound, which accepted sockets share.
    bound: HashMap<Vec<u8>, Arc<Name>>,
}

fn wrong(what: impl Into<String>) -> ImageError {
    ImageError::state(what)
}

impl UnixFamily {
    /// The sockets of an image, with empty queues.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn restore<'a>(
        self: &Arc<Self>,
        request: &RestoreSockets<'a>,
    ) -> Result<Box<dyn RestoredSockets + 'a>, ImageError> {
        let mut endpoints = Vec::new();
        let mut inos = HashSet::new();
        for saved in request.state.unix_endpoints.iter() {
            if !inos.insert(saved.core.ino) {
                return Err(wrong(format!("two UNIX sockets with the inode number {}", saved.core.ino)));
            }
            endpoints.push(Endpoint::restored(request.core(&saved.core)?, saved));
        }
        let mut restored = Restored {
            request: *request,
            family: self.clone(),
            owners: vec![None; endpoints.len()],
            endpoints,
            sockets: Vec::new(),
            taken: vec![false; request.state.unix_sockets.len()],
            bound: HashMap::new(),
        };
        restored.make()?;
        restored.connect()?;
        restored.bind()?;
        restored.listen()?;
        Ok(Box::new(restored))
    }
}

fn flavor_of(socket_type: u32) -> Result<Flavor, ImageError> {
    match socket_type {
        SOCK_STREAM => Ok(Flavor::Stream),
        SOCK_DGRAM => Ok(Flavor::Datagram),
        SOCK_SEQPACKET => Ok(Flavor::SeqPacket),
        _ => Err(wrong(format!("a UNIX socket of type {socket_type}"))),
    }
}

impl<'a> Restored<'a> {
    fn all(&self) -> impl Iterator<Item = (usize, &'a UnixSocketState, &Arc<UnixSocket>)> {
        let saved = self.request.state.unix_sockets.iter();
        saved.zip(&self.sockets).enumerate().map(|(at, (saved, socket))| (at, saved, socket))
    }

    /// The socket that the endpoint of this name is of.
    fn owner(&self, name: Ref<UnixEndpointState>) -> Result<Option<&Arc<UnixSocket>>, ImageError> {
        Ok(find(&self.owners, name)?.and_then(|at| self.sockets.get(at)))
    }

    fn make(&mut self) -> Result<(), ImageError> {
        for (at, saved) in self.request.state.unix_sockets.iter().enumerate() {
            let endpoint = find(&self.endpoints, saved.endpoint)?.clone();
            let owner = usize::try_from(saved.endpoint.index()).ok().and_then(|at| self.owners.get_mut(at));
            match owner {
                Some(owner @ None) => *owner = Some(at),
                _ => return Err(wrong("two UNIX sockets with one end")),
            }
            let maker = self.request.creds(&saved.maker)?;
            let flavor = flavor_of(saved.socket_type)?;
            let net = self.request.net;
            self.sockets.push(UnixSocket::make(&self.family, net, flavor, maker, endpoint, Phase::Fresh));
        }
        // Before anything is connected to them.
        for (endpoint, owner) in self.endpoints.iter().zip(&self.owners) {
            if owner.is_none() {
                endpoint.end_restored();
            }
        }
        Ok(())
    }

    fn connect(&self) -> Result<(), ImageError> {
        for (_, saved, socket) in self.all() {
            let peer_creds = saved.peer_creds.as_ref().map(|creds| self.request.creds(creds)).transpose()?;
            let peer = saved.peer.map(|peer| find(&self.endpoints, peer).cloned()).transpose()?;
            if let (Some(name), false) = (saved.peer, socket.flavor == Flavor::Datagram) {
                match self.owner(name)? {
                    // Accounts of what is under way hold by this.
                    Some(other) => {
                        let at = |s: &&UnixSocketState| s.endpoint == name;
                        let back = self.request.state.unix_sockets.iter().find(at).and_then(|s| s.peer);
                        if back != Some(saved.endpoint) || other.flavor != socket.flavor {
                            return Err(wrong("a UNIX connection that is not one of two sockets"));
                        }
                    }
                    None => socket.endpoint.close_halves(SHUT_READ | SHUT_WRITE),
                }
            }
            let mut state = socket.state.lock();
            state.peer_creds = peer_creds;
            match peer {
                None => {}
                Some(peer) if socket.flavor == Flavor::Datagram => state.datagram_peer = Some(peer),
                Some(peer) => {
                    let _ = socket.peer.set(peer);
                    state.phase = Phase::Connected;
                }
            }
        }
        Ok(())
    }

    /// First the names by which sockets are found, then those that are only shown.
    fn bind(&mut self) -> Result<(), ImageError> {
        // Accepted sockets come to share what is bound.
        let mut bound = HashMap::new();
        for (_, saved, socket) in self.all() {
            let Some(how) = &saved.bound else { continue };
            let text = self.request.state.unix_endpoints.get(saved.endpoint)?.name.as_ref();
            let text = text.ok_or_else(|| wrong("a bound UNIX socket without a name"))?;
            let name = self.bind_one(socket, text, how)?;
            *socket.endpoint.name.lock() = Some(name.clone());
            bound.insert(text.to_vec(), name);
        }
        self.bound = bound;
        for (saved, endpoint) in self.request.state.unix_endpoints.iter().zip(&self.endpoints) {
            if endpoint.name().is_none() {
                let name = saved.name.as_ref().map(|text| self.shown(text)).transpose()?;
                *endpoint.name.lock() = name;
            }
        }
        Ok(())
    }

    fn bind_one(&self, socket: &Arc<UnixSocket>, text: &[u8], how: &UnixBoundState) -> Result<Arc<Name>, ImageError> {
        let taken = |_| wrong(format!("two UNIX sockets at {:?}", String::from_utf8_lossy(text)));
        check(text)?;
        match how {
            UnixBoundState::Abstract if text.first() == Some(&0) => names::bind_abstract(socket, text).map_err(taken),
            UnixBoundState::File(path) if text.first() != Some(&0) => {
                let path = (self.request.path)(path)?;
                if path.inode().file_type() != FileType::Socket {
                    return Err(ImageError::Unfit(format!("{path:?} is no socket any more")));
                }
                names::bind_found(socket, text, path).map_err(taken)
            }
            UnixBoundState::Abstract | UnixBoundState::File(_) => {
                Err(wrong("a UNIX socket with a name of another kind"))
            }
        }
    }

    /// A name that its holder is not found by.
    fn shown(&self, text: &[u8]) -> Result<Arc<Name>, ImageError> {
        check(text)?;
        Ok(self.bound.get(text).cloned().unwrap_or_else(|| Arc::new(Name::Shown { text: text.to_vec() })))
    }

    fn listen(&mut self) -> Result<(), ImageError> {
        for (at, saved) in self.request.state.unix_sockets.iter().enumerate() {
            let Some(backlog) = &saved.backlog else { continue };
            if saved.peer.is_some() || saved.socket_type == SOCK_DGRAM {
                return Err(wrong("a UNIX socket that can't listen"));
            }
            let mut ready = std::collections::VecDeque::new();
            for name in &backlog.ready {
                // One that has no peer might listen itself, and a circle of queues would never be dropped.
                if self.request.state.unix_sockets.get(*name)?.peer.is_none() {
                    return Err(wrong("a connection without a peer in a queue"));
                }
                ready.push_back(self.take_once(name.index())?);
            }
            let limit = usize::try_from(backlog.limit).unwrap_or(usize::MAX);
            let creds = self.request.creds(&backlog.creds)?;
            let queue = Backlog { ready, limit, creds, waiting: Vec::new() };
            if let Some(socket) = self.sockets.get(at) {
                socket.state.lock().phase = Phase::Listening(queue);
            }
        }
        Ok(())
    }

    fn take_once(&mut self, index: u32) -> Result<Arc<UnixSocket>, ImageError> {
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        match (self.taken.get_mut(at), self.sockets.get(at)) {
            (Some(taken @ false), Some(socket)) => {
                *taken = true;
                Ok(socket.clone())
            }
            (Some(_), _) => Err(wrong(format!("UNIX socket {index} is in two places"))),
            (None, _) => Err(ImageError::Dangling { what: "UNIX socket", index }),
        }
    }
}

fn check(text: &[u8]) -> Result<(), ImageError> {
    let fits = (1..=UNIX_PATH_MAX).contains(&text.len());
    if fits { Ok(()) } else { Err(wrong("the name of a UNIX socket")) }
}

impl RestoredSockets for Restored<'_> {
    fn take(&mut self, socket: SocketRef) -> Result<Arc<dyn Socket>, ImageError> {
        match socket {
            SocketRef::Unix(index) => Ok(self.take_once(index)?),
            SocketRef::Tcp(_)
            | SocketRef::Udp(_)
            | SocketRef::Netlink(_)
            | SocketRef::Raw(_)
            | SocketRef::Packet(_) => Err(wrong("another socket among UNIX sockets")),
        }
    }

    fn fill(&self, files: &[Arc<OpenFile>]) -> Result<(), ImageError> {
        // One that nothing has would never be closed.
        if self.taken.contains(&false) {
            return Err(wrong("a UNIX socket that nobody has open"));
        }
        let around = Around { request: &self.request, in_flight: &self.family.in_flight, files };
        let state = self.request.state;
        for ((saved, endpoint), owner) in state.unix_endpoints.iter().zip(&self.endpoints).zip(&self.owners) {
            let owner = owner.and_then(|at| self.sockets.get(at));
            let flavor = owner.map(|socket| socket.flavor);
            for piece in &saved.pieces {
                // Charged to the one that a read gives it back to.
                let peer = owner.filter(|_| flavor == Some(Flavor::Stream)).and_then(|socket| socket.peer.get());
                endpoint.put_piece_back(peer.ok_or_else(|| wrong("bytes in no stream"))?, piece, &around)?;
            }
            for packet in &saved.packets {
                if flavor.is_none_or(|flavor| flavor == Flavor::Stream) {
                    return Err(wrong("messages in a socket that takes none"));
                }
                let from = packet.from.as_ref().map(|text| self.shown(text)).transpose()?;
                endpoint.put_packet_back(find(&self.endpoints, packet.sender)?, from, packet, &around)?;
            }
        }
        // Whose destination is full is told when there is room: it has asked for that before.
        for socket in &self.sockets {
            socket.peer_takes_datagrams();
        }
        Ok(())
    }
}
