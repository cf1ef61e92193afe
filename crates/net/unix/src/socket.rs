//! [`UnixSocket`]: the calls on a UNIX socket.

mod transfer;

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};

use moat_abi::cap::OVERFLOW_ID;
use moat_abi::socket::{
    AF_UNIX, MsgFlags, SIOCATMARK, SIOCINQ, SIOCOUTQ, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM,
};
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::{NetNamespace, Pid};
use moat_sync::{LockClass, Mutex};
use moat_vfs::Caller;
use moat_vfs::socket::{
    Incoming, Outgoing, Shutdown, SockAddr, Socket, SocketCore, SocketCreds, SocketKind, SocketMaker,
};

use crate::connect::{Backlog, wake};
use crate::endpoint::{Endpoint, SHUT_READ, SHUT_WRITE, Unread};
use crate::family::{Local, UnixFamily};
use crate::names::{self, Given};
use crate::rights::Rights;
use crate::text;

/// The type of a UNIX socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Flavor {
    Stream,
    Datagram,
    SeqPacket,
}

/// Where a socket is in its life.
pub(crate) enum Phase {
    Fresh,
    Listening(Backlog),
    Connecting,
    Connected,
    Released,
}

/// Whether somebody has got the socket: one in a listener's queue is reset when the listener goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accepted {
    Yes,
    NotYet,
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
        let core = SocketCore::new(maker.inodes);
        Ok(UnixSocket::make(self, maker.net, flavor_of(kind)?, real_creds(maker.caller), core, Phase::Fresh))
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
        core: SocketCore,
        phase: Phase,
    ) -> Arc<UnixSocket> {
        let socket = Arc::new_cyclic(|me| UnixSocket {
            me: me.clone(),
            flavor,
            family: family.clone(),
            net: net.clone(),
            local: Local::of(net),
            maker,
            endpoint: Endpoint::new(core),
            peer: OnceLock::new(),
            state: Mutex::new(LockClass::Socket, UnixState { phase, datagram_peer: None, peer_creds: None }),
            binding: Mutex::new(LockClass::FilePosition, ()),
        });
        text::enter(&socket);
        socket
    }

    /// The server end of a connection from `client`.
    pub(crate) fn accepted(listener: &UnixSocket, client: &UnixSocket, client_creds: SocketCreds) -> Arc<UnixSocket> {
        let socket = UnixSocket::make(
            &listener.family,
            &listener.net,
            listener.flavor,
            listener.maker.clone(),
            listener.endpoint.core.fresh(),
            Phase::Connected,
        );
        *socket.endpoint.name.lock() = listener.endpoint.name();
        let _ = socket.peer.set(client.endpoint.clone());
        socket.state.lock().peer_creds = Some(client_creds);
        socket
    }

    fn join_pair(&self, other: &UnixSocket, caller: &dyn Caller) {
        let mut state = self.state.lock();
        state.peer_creds = Some(effective_creds(caller));
        if self.flavor == Flavor::Datagram {
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
    fn any_peer(&self) -> Option<Arc<Endpoint>> {
        self.peer.get().cloned().or_else(|| self.datagram_peer())
    }

    /// Binds, unless there is a name already.
    pub(crate) fn bind_to(&self, caller: &dyn Caller, given: &Given<'_>) -> Result<()> {
        let me = self.me.upgrade().ok_or(Errno::EINVAL)?;
        let _one = self.binding.lock();
        if self.endpoint.name().is_some() {
            return if matches!(given, Given::Unnamed) { Ok(()) } else { Err(Errno::EINVAL) };
        }
        let name = names::bind(caller, &me, given)?;
        *self.endpoint.name.lock() = Some(name);
        Ok(())
    }

    /// Ends the socket.
    fn end(&self, accepted: Accepted) {
        let phase = std::mem::replace(&mut self.state.lock().phase, Phase::Released);
        if let Some(name) = self.endpoint.name() {
            names::unbind(&name, self, &self.me);
        }
        let peer = self.peer.get();
        let unread = self.endpoint.kill(peer);
        if let Some(peer) = peer {
            if unread == Unread::Some || accepted == Accepted::NotYet {
                peer.core.set_error(Errno::ECONNRESET);
            }
            peer.close_halves(SHUT_READ | SHUT_WRITE);
        }
        if let Phase::Listening(mut backlog) = phase {
            for socket in std::mem::take(&mut backlog.ready) {
                socket.end(Accepted::NotYet);
            }
            wake(&backlog.end());
        }
        let old = self.state.lock().datagram_peer.take();
        drop(old);
        text::leave(self);
    }

    pub(crate) fn for_each_rights(&self, show: &mut dyn FnMut(&Rights)) {
        self.endpoint.for_each_rights(show);
        let embryos: Vec<Arc<UnixSocket>> = match &self.state.lock().phase {
            Phase::Listening(b) => b.ready.iter().cloned().collect(),
            _ => Vec::new(),
        };
        for e in embryos {
            e.endpoint.for_each_rights(show);
        }
    }

    pub(crate) fn take_rights(&self) -> Vec<Rights> {
        let mut all = self.endpoint.take_rights();
        if let Phase::Listening(b) = &self.state.lock().phase {
            b.ready.iter().for_each(|e| all.extend(e.endpoint.take_rights()));
        }
        all
    }

    /// For /proc/net/unix: (connected, listening).
    pub(crate) fn phase_bits(&self) -> (bool, bool) {
        let s = self.state.lock();
        (matches!(s.phase, Phase::Connected), matches!(s.phase, Phase::Listening(_)))
    }
}

impl Socket for UnixSocket {
    fn kind(&self) -> SocketKind {
        let socket_type = match self.flavor {
            Flavor::Stream => SOCK_STREAM,
            Flavor::Datagram => SOCK_DGRAM,
            Flavor::SeqPacket => SOCK_SEQPACKET,
        };
        SocketKind { family: AF_UNIX, socket_type, protocol: 0 }
    }

    fn core(&self) -> &SocketCore {
        &self.endpoint.core
    }

    fn bind(&self, caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        let given = names::parse(addr)?;
        self.bind_to(caller, &given)
    }

    fn listen(&self, caller: &dyn Caller, backlog: usize) -> Result<()> {
        self.do_listen(caller, backlog)
    }

    fn connect(&self, caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        if self.flavor == Flavor::Datagram {
            self.connect_datagram(caller, addr)
        } else {
            self.connect_stream(caller, addr)
        }
    }

    fn accept(&self, caller: &dyn Caller) -> Result<Arc<dyn Socket>> {
        self.do_accept(caller)
    }

    fn local_address(&self) -> Result<SockAddr> {
        Ok(self.endpoint.name().map_or(SockAddr::unnamed(AF_UNIX), |n| n.to_sockaddr()))
    }

    fn peer_address(&self) -> Result<SockAddr> {
        let peer = self.any_peer().ok_or(Errno::ENOTCONN)?;
        Ok(peer.name().map_or(SockAddr::unnamed(AF_UNIX), |n| n.to_sockaddr()))
    }

    fn send(&self, caller: Option<&dyn Caller>, message: &mut Outgoing<'_>) -> Result<usize> {
        if message.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        if self.flavor == Flavor::Datagram {
            self.send_datagram(caller, message)
        } else {
            self.send_connected(caller, message)
        }
    }

    fn receive(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Incoming> {
        let mut m = if self.flavor == Flavor::Stream {
            self.receive_stream(buf, flags)
        } else {
            self.receive_packet(buf, flags)
        }?;
        if !self.pass_creds() {
            m.ancillary.creds = None;
        } else if m.ancillary.creds.is_none() && m.full_len > 0 {
            // Sent before anybody asked for credentials.
            m.ancillary.creds = Some(SocketCreds { process: None, uid: OVERFLOW_ID, gid: OVERFLOW_ID });
        }
        Ok(m)
    }

    fn is_stream(&self) -> bool {
        self.flavor == Flavor::Stream
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let (read, write) = (if how.reads() { SHUT_READ } else { 0 }, if how.writes() { SHUT_WRITE } else { 0 });
        self.endpoint.close_halves(read | write);
        // A connection ends for the other side as well.
        if let Some(peer) = self.peer.get() {
            peer.close_halves((if how.writes() { SHUT_READ } else { 0 }) | (if how.reads() { SHUT_WRITE } else { 0 }));
        }
        Ok(())
    }

    fn peer_creds(&self) -> Option<SocketCreds> {
        let state = self.state.lock();
        match &state.phase {
            Phase::Listening(b) => Some(b.creds().clone()),
            _ => state.peer_creds.clone(),
        }
    }

    fn is_listening(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Listening(_))
    }

    fn ioctl(&self, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        let value = match cmd {
            SIOCINQ if self.is_listening() => return Err(Errno::EINVAL),
            SIOCINQ => {
                let (all, first) = self.endpoint.waiting_bytes();
                if self.flavor == Flavor::Datagram { first } else { all }
            }
            SIOCOUTQ => self.endpoint.unreceived(),
            SIOCATMARK => 0,
            _ => return Err(Errno::ENOTTY),
        };
        caller.write_user(arg, &i32::try_from(value).unwrap_or(i32::MAX).to_ne_bytes())?;
        Ok(0)
    }

    fn poll(&self) -> PollEvents {
        let mut events = self.endpoint.core.error_events();
        let bits = self.endpoint.shutdown_bits();
        if bits == SHUT_READ | SHUT_WRITE {
            events |= PollEvents::HUP;
        }
        if bits & SHUT_READ != 0 {
            events |= PollEvents::RDHUP | PollEvents::READ_READY;
        }
        {
            let state = self.state.lock();
            match &state.phase {
                Phase::Listening(b) => {
                    if !b.ready.is_empty() {
                        events |= PollEvents::READ_READY;
                    }
                    return events;
                }
                Phase::Connected | Phase::Released => {}
                Phase::Fresh | Phase::Connecting if self.flavor != Flavor::Datagram => events |= PollEvents::HUP,
                Phase::Fresh | Phase::Connecting => {}
            }
        }
        if self.endpoint.has_data() {
            events |= PollEvents::READ_READY;
        }
        if self.endpoint.writable() && self.peer_takes_datagrams() {
            events |= PollEvents::WRITE_READY | PollEvents::WRBAND;
        }
        events
    }

    fn release(&self) {
        self.end(Accepted::Yes);
        self.family.in_flight.socket_released();
    }
}

impl UnixSocket {
    fn peer_takes_datagrams(&self) -> bool {
        if self.flavor != Flavor::Datagram {
            return true;
        }
        match self.datagram_peer() {
            Some(p) if p.only_from.load(Ordering::Acquire) != self.endpoint.id() => {
                p.takes_datagrams(self.endpoint.core.queue())
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests;
