//! [`UnixSocket`]: a UNIX socket, and how it is made. What is done with it is in `calls.rs` and `transfer.rs`.

mod calls;
mod persist;
mod restore;
mod transfer;

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};

use moat_abi::socket::{AF_UNIX, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM};
use moat_abi::{Errno, Result};
use moat_identity::{NetNamespace, Pid};
use moat_sync::{LockClass, Mutex};
use moat_vfs::Caller;
use moat_vfs::socket::{SockAddr, SocketCreds, SocketKind, SocketMaker};

use crate::backlog::Backlog;
use crate::endpoint::Endpoint;
use crate::family::{Local, UnixFamily};
use crate::host::{HostEnd, HostEnds};
use crate::name::Flavor;
use crate::rights::{Rights, RightsQueue};

/// Where a socket is in its life.
pub(crate) enum Phase {
    Fresh,
    Listening(Backlog),
    Connecting,
    Connected,
    Released,
}

pub(crate) struct UnixState {
    pub(crate) phase: Phase,
    /// The default destination of a datagram socket.
    pub(crate) datagram_peer: Option<Arc<Endpoint>>,
    pub(crate) peer_creds: Option<SocketCreds>,
}

/// A UNIX socket.
pub struct UnixSocket {
    me: Weak<UnixSocket>,
    flavor: Flavor,
    family: Arc<UnixFamily>,
    net: Arc<NetNamespace>,
    local: Arc<Local>,
    /// Who made it: the sender of data that comes by plain writes.
    maker: SocketCreds,
    pub(crate) endpoint: Arc<Endpoint>,
    /// Sockets of the host that work for it.
    pub(crate) host: HostEnds,
    /// The other end of a connection; set once.
    pub(crate) peer: OnceLock<Arc<Endpoint>>,
    pub(crate) state: Mutex<UnixState>,
    /// Serialises bind.
    binding: Mutex<()>,
}

fn process_of(caller: &dyn Caller) -> Option<Arc<Pid>> {
    caller.task().map(|t| t.process_pid().clone())
}

/// The caller as SO_PEERCRED tells it.
pub(crate) fn effective_creds(caller: &dyn Caller) -> SocketCreds {
    let c = caller.creds();
    SocketCreds { process: process_of(caller), uid: c.euid, gid: c.egid }
}

/// The caller as SCM_CREDENTIALS tells it.
fn real_creds(caller: &dyn Caller) -> SocketCreds {
    let c = caller.creds();
    SocketCreds { process: process_of(caller), uid: c.uid, gid: c.gid }
}

fn flavor_of(kind: SocketKind) -> Result<Flavor> {
    if kind.protocol != 0 && kind.protocol != u32::from(AF_UNIX) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    match kind.socket_type {
        SOCK_STREAM => Ok(Flavor::Stream),
        // BSD's raw is a datagram socket here.
        SOCK_DGRAM | SOCK_RAW => Ok(Flavor::Datagram),
        SOCK_SEQPACKET => Ok(Flavor::SeqPacket),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

impl UnixFamily {
    /// socket(2).
    ///
    /// # Errors
    /// EPROTONOSUPPORT, ESOCKTNOSUPPORT.
    pub fn new_socket(self: &Arc<Self>, maker: &SocketMaker<'_>, kind: SocketKind) -> Result<Arc<UnixSocket>> {
        let endpoint = Endpoint::new(maker.core());
        Ok(UnixSocket::make(self, maker.net, flavor_of(kind)?, real_creds(maker.caller), endpoint, Phase::Fresh))
    }

    /// socketpair(2).
    ///
    /// # Errors
    /// As [`UnixFamily::new_socket`].
    pub fn new_pair(
        self: &Arc<Self>,
        maker: &SocketMaker<'_>,
        kind: SocketKind,
    ) -> Result<(Arc<UnixSocket>, Arc<UnixSocket>)> {
        let (a, b) = (self.new_socket(maker, kind)?, self.new_socket(maker, kind)?);
        a.join_pair(&b, maker.caller);
        b.join_pair(&a, maker.caller);
        Ok((a, b))
    }
}

impl UnixSocket {
    fn make(
        family: &Arc<UnixFamily>,
        net: &Arc<NetNamespace>,
        flavor: Flavor,
        maker: SocketCreds,
        endpoint: Arc<Endpoint>,
        phase: Phase,
    ) -> Arc<UnixSocket> {
        let socket = Arc::new_cyclic(|me| UnixSocket {
            me: me.clone(),
            flavor,
            family: family.clone(),
            net: net.clone(),
            local: Local::of(net),
            maker,
            endpoint,
            host: HostEnds::default(),
            peer: OnceLock::new(),
            state: Mutex::new(LockClass::Socket, UnixState { phase, datagram_peer: None, peer_creds: None }),
            // Binding walks paths, so the class is an outer one.
            binding: Mutex::new(LockClass::FilePosition, ()),
        });
        socket.local.sockets.lock().insert(socket.endpoint.core.ino(), Arc::downgrade(&socket));
        socket
    }

    /// The server end of a connection from `client`.
    pub(crate) fn accepted(listener: &UnixSocket, client: &UnixSocket, client_creds: SocketCreds) -> Arc<UnixSocket> {
        let socket = UnixSocket::make(
            &listener.family,
            &listener.net,
            listener.flavor,
            listener.maker.clone(),
            Endpoint::new(listener.endpoint.core.fresh()),
            Phase::Connected,
        );
        *socket.endpoint.name.lock() = listener.endpoint.name();
        let _ = socket.peer.set(client.endpoint.clone());
        socket.state.lock().peer_creds = Some(client_creds);
        socket
    }

    /// A connection from a process of the host to `listener`.
    pub(crate) fn accepted_from_host(listener: &UnixSocket, end: (OwnedFd, SockAddr)) -> Result<Arc<UnixSocket>> {
        let core = listener.endpoint.core.fresh();
        let end = HostEnd::with_peer(end.0, core.queue(), end.1)?;
        let socket = UnixSocket::make(
            &listener.family,
            &listener.net,
            listener.flavor,
            listener.maker.clone(),
            Endpoint::new(core),
            Phase::Connected,
        );
        *socket.endpoint.name.lock() = listener.endpoint.name();
        let _ = socket.host.connected.set(end);
        Ok(socket)
    }

    fn join_pair(&self, other: &UnixSocket, caller: &dyn Caller) {
        let mut state = self.state.lock();
        state.peer_creds = Some(effective_creds(caller));
        if self.flavor == Flavor::Datagram {
            // Each takes messages of the other only.
            self.endpoint.only_from.store(other.endpoint.id(), Ordering::Release);
            state.datagram_peer = Some(other.endpoint.clone());
        } else {
            let _ = self.peer.set(other.endpoint.clone());
            state.phase = Phase::Connected;
        }
    }

    pub(crate) fn flavor(&self) -> Flavor {
        self.flavor
    }

    pub(crate) fn family(&self) -> &UnixFamily {
        &self.family
    }

    pub(crate) fn local(&self) -> &Local {
        &self.local
    }

    fn datagram_peer(&self) -> Option<Arc<Endpoint>> {
        self.state.lock().datagram_peer.clone()
    }

    /// The endpoint of the peer that it is connected to.
    pub(crate) fn any_peer(&self) -> Option<Arc<Endpoint>> {
        self.peer.get().cloned().or_else(|| self.datagram_peer())
    }

    pub(crate) fn maker_uid(&self) -> u32 {
        self.maker.uid
    }

    /// For /proc/net/unix: (connected, listening).
    pub(crate) fn phase_bits(&self) -> (bool, bool) {
        let s = self.state.lock();
        (matches!(s.phase, Phase::Connected), matches!(s.phase, Phase::Listening(_)))
    }
}

impl RightsQueue for UnixSocket {
    fn for_each_rights(&self, show: &mut dyn FnMut(&Rights)) {
        self.endpoint.for_each_rights(show);
        let embryos: Vec<Arc<UnixSocket>> = match &self.state.lock().phase {
            Phase::Listening(b) => b.ready.iter().cloned().collect(),
            _ => Vec::new(),
        };
        for e in embryos {
            e.endpoint.for_each_rights(show);
        }
    }

    fn take_rights(&self) -> Vec<Rights> {
        let mut all = self.endpoint.take_rights();
        if let Phase::Listening(b) = &self.state.lock().phase {
            b.ready.iter().for_each(|e| all.extend(e.endpoint.take_rights()));
        }
        all
    }
}

#[cfg(test)]
mod tests;
