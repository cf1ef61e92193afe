//! [`TcpSocket`]: TCP, tcp(7). A connection to an own address is two byte queues in memory; others are the stack's.
//!
//! - [`end`]: the byte queues.
//! - [`connect`]: making connections.
//! - [`info`]: what TCP_INFO shows; [`inspect`]: what others are shown.
//! - [`remote`]: connections over the stack.
//! - `persist`, `restore`: into an image, and out of it.

pub(crate) mod connect;
pub(crate) mod end;
mod info;
mod inspect;
mod persist;
mod remote;
pub(crate) mod restore;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use moat_abi::socket::{
    IPPROTO_TCP, MsgFlags, SIOCATMARK, SIOCINQ, SIOCOUTQ, SOCK_STREAM, SOL_SOCKET, SOL_TCP, TCP_CLOSE, TCP_CLOSE_WAIT,
    TCP_CORK, TCP_ESTABLISHED, TCP_FIN_WAIT2, TCP_INFO, TCP_LISTEN, TCP_NODELAY, TCP_SYN_SENT, TCP_TIME_WAIT,
};
use moat_abi::{Errno, PollEvents, Result};
use moat_image::Refusal;
use moat_image::state::SocketRef;
use moat_sync::{LockClass, Mutex};
use moat_vfs::Caller;
use moat_vfs::file::SaveFiles;
use moat_vfs::socket::{
    Ancillary, CoreFlags, Incoming, Outgoing, Shutdown, SockAddr, Socket, SocketCore, SocketKind, SocketMaker,
};

use crate::address;
use crate::options::{InetOptions, Protocol, Standing};
use crate::ports::{Net, Sharing};
use connect::Backlog;
use end::{Pushed, SHUT_READ, SHUT_WRITE, TcpEnd};
use remote::Remote;

/// A connection, as one of its sockets holds it.
pub(crate) struct Connection {
    peer: Arc<TcpEnd>,
    addr: SocketAddr,
    /// connect(2) has said that it stands.
    announced: bool,
}

/// Where a socket is in its life.
pub(crate) enum Phase {
    Closed,
    Listening(Backlog),
    Connecting {
        to: SocketAddr,
    },
    Connected(Connection),
    /// A connection of the stack, at any point of its life.
    Remote(Remote),
    Released,
}

/// The own address.
#[derive(Clone, Copy)]
pub(crate) struct Bound {
    addr: SocketAddr,
    /// By bind(2): stays when a connection ends.
    by_caller: bool,
}

pub(crate) struct TcpState {
    phase: Phase,
    bound: Option<Bound>,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// After all that was sent.
    InOrder,
    /// At once.
    Reset,
}

/// A TCP socket.
pub struct TcpSocket {
    me: Weak<TcpSocket>,
    family: u16,
    net: Net,
    end: Arc<TcpEnd>,
    options: InetOptions,
    /// Who made it, for SO_REUSEPORT.
    uid: u32,
    state: Mutex<TcpState>,
}

impl TcpSocket {
    /// A socket of AF_INET or AF_INET6.
    pub(crate) fn new(maker: &SocketMaker<'_>, family: u16) -> Arc<TcpSocket> {
        let end = TcpEnd::new(TcpEnd::tuned(maker.core()));
        TcpSocket::make(
            family,
            Net::of(maker.net),
            end,
            InetOptions::of_tcp(family, &maker.net.settings.tcp),
            maker.caller.creds().euid,
            Phase::Closed,
            None,
        )
    }

    fn make(
        family: u16,
        net: Net,
        end: Arc<TcpEnd>,
        options: InetOptions,
        uid: u32,
        phase: Phase,
        bound: Option<Bound>,
    ) -> Arc<TcpSocket> {
        Arc::new_cyclic(|me| TcpSocket {
            me: me.clone(),
            family,
            net,
            end,
            options,
            uid,
            state: Mutex::new(LockClass::Socket, TcpState { phase, bound }),
        })
    }

    fn id(&self) -> u64 {
        self.end.core.ino()
    }

    fn sharing(&self, caller: &dyn Caller) -> Sharing {
        self.sharing_by(caller.creds().euid)
    }

    fn sharing_by(&self, uid: u32) -> Sharing {
        let core = &self.end.core;
        Sharing { reuse_address: core.has(CoreFlags::REUSEADDR), reuse_port: core.has(CoreFlags::REUSEPORT), uid }
    }

    /// The other end, if there is a connection.
    fn peer(&self) -> Option<Arc<TcpEnd>> {
        match &self.state.lock().phase {
            Phase::Connected(c) => Some(c.peer.clone()),
            _ => None,
        }
    }

    fn end_phase(&self, phase: Phase, how: Ending) {
        match phase {
            Phase::Listening(backlog) => self.end_backlog(backlog),
            Phase::Connected(c) => {
                // Before the peer is told, so that nothing more comes into a queue that nobody reads.
                let unread = self.end.close();
                if self.end.is_reset() {
                    return;
                }
                // Unread data, or a linger time of zero, is an abort and no orderly end (RFC 2525, 2.17).
                if how == Ending::Reset || unread || self.end.core.linger() == Some(0) {
                    c.peer.take_reset();
                } else {
                    c.peer.add_shutdown(SHUT_READ);
                }
            }
            Phase::Remote(r) => self.end_remote(r.id, how),
            Phase::Closed | Phase::Connecting { .. } | Phase::Released => {}
        }
    }

    pub(crate) fn end_with(&self, how: Ending) {
        let (phase, bound) = {
            // The state is free before the peer is told: the two sockets' states are never locked together.
            let mut state = self.state.lock();
            (std::mem::replace(&mut state.phase, Phase::Released), state.bound)
        };
        self.end_phase(phase, how);
        if let Some(b) = bound {
            self.net.tcp.lock().unbind(self.id(), b.addr.port());
        }
    }

    /// Why a send that can't go on fails: the pending error first, then EPIPE (`sk_stream_error`).
    fn send_error(&self) -> Errno {
        self.end.core.take_error().err().unwrap_or(Errno::EPIPE)
    }

    /// The state as `tcpi_state` and /proc/net/tcp show it.
    pub(crate) fn tcp_state(&self) -> u8 {
        if let Some(id) = self.remote() {
            return self.remote_state(id);
        }
        match &self.state.lock().phase {
            Phase::Closed | Phase::Released | Phase::Remote(_) => TCP_CLOSE,
            Phase::Listening(_) => TCP_LISTEN,
            Phase::Connecting { .. } => TCP_SYN_SENT,
            Phase::Connected(_) if self.end.is_reset() => TCP_CLOSE,
            Phase::Connected(_) => match self.end.shutdown_bits() {
                0 => TCP_ESTABLISHED,
                SHUT_READ => TCP_CLOSE_WAIT,
                SHUT_WRITE => TCP_FIN_WAIT2,
                // Ended both ways. In memory no packet can be late, so there is no time to wait.
                _ => TCP_TIME_WAIT,
            },
        }
    }

    fn standing(&self) -> Standing {
        let state = self.state.lock();
        match (&state.phase, state.bound) {
            (Phase::Closed, None) => Standing::Free,
            (Phase::Closed, Some(_)) => Standing::Bound,
            _ => Standing::Busy,
        }
    }

    fn poll_connected(&self, peer: &TcpEnd) -> PollEvents {
        let mut events = PollEvents::empty();
        let bits = self.end.shutdown_bits();
        if self.end.is_over() {
            events |= PollEvents::HUP;
        }
        if bits & SHUT_READ != 0 {
            events |= PollEvents::READ_READY | PollEvents::RDHUP;
        }
        if self.end.available() >= self.end.core.rcvlowat() {
            events |= PollEvents::READ_READY;
        }
        if self.end.has_urgent() {
            events |= PollEvents::PRI;
        }
        // A write that would fail at once does not wait either.
        if bits & SHUT_WRITE != 0 || peer.has_room(&self.end) {
            events |= PollEvents::WRITE_READY;
        }
        events
    }
}

impl Socket for TcpSocket {
    fn kind(&self) -> SocketKind {
        SocketKind { family: self.family, socket_type: SOCK_STREAM, protocol: IPPROTO_TCP }
    }

    fn core(&self) -> &SocketCore {
        &self.end.core
    }

    fn bind(&self, caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        self.do_bind(caller, addr)
    }

    fn listen(&self, caller: &dyn Caller, backlog: usize) -> Result<()> {
        self.do_listen(caller, backlog)
    }

    fn connect(&self, caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        self.do_connect(caller, addr)
    }

    fn finish_connect(&self) -> Result<()> {
        if let Some(id) = self.remote() {
            return self.finish_remote(id);
        }
        let mut state = self.state.lock();
        match &mut state.phase {
            Phase::Connecting { .. } => Err(Errno::EAGAIN),
            Phase::Connected(c) => {
                c.announced = true;
                Ok(())
            }
            Phase::Closed => {
                drop(state);
                Err(self.tell_failure())
            }
            // Without an error it was closed by another thread.
            _ => self.end.core.take_error().and(Err(Errno::ECONNABORTED)),
        }
    }

    fn accept(&self, _caller: &dyn Caller) -> Result<Arc<dyn Socket>> {
        self.do_accept()
    }

    fn local_address(&self) -> Result<SockAddr> {
        let none = SocketAddr::new(address::any(self.family), 0);
        Ok(address::format(self.family, self.state.lock().bound.map_or(none, |b| b.addr)))
    }

    fn peer_address(&self) -> Result<SockAddr> {
        match &self.state.lock().phase {
            Phase::Connected(c) if !self.end.is_reset() => Ok(address::format(self.family, c.addr)),
            Phase::Remote(r) if self.remote_stands(r.id) => Ok(address::format(self.family, r.addr)),
            _ => Err(Errno::ENOTCONN),
        }
    }

    fn accepted_from(&self) -> Result<SockAddr> {
        // It is told of a connection that was reset before it was accepted as well (`inet_getname`).
        match &self.state.lock().phase {
            Phase::Connected(c) => return Ok(address::format(self.family, c.addr)),
            Phase::Remote(r) => return Ok(address::format(self.family, r.addr)),
            _ => {}
        }
        self.peer_address()
    }

    fn send(&self, _caller: Option<&dyn Caller>, message: &mut Outgoing<'_>) -> Result<usize> {
        if let Some(id) = self.remote() {
            return self.send_remote(id, message);
        }
        let peer = match &self.state.lock().phase {
            Phase::Connected(c) => c.peer.clone(),
            Phase::Connecting { .. } => return Err(Errno::EAGAIN),
            _ => return Err(self.send_error()),
        };
        if self.end.shutdown_bits() & SHUT_WRITE != 0 || self.end.core.has_error() {
            return Err(self.send_error());
        }
        message.ancillary = Ancillary::default();
        let how = match () {
            () if message.flags.contains(MsgFlags::OOB) => Pushed::Urgent,
            () if self.options.corked() || message.flags.contains(MsgFlags::MORE) => Pushed::Corked,
            () => Pushed::Plain,
        };
        match peer.push(&self.end, message.data, how) {
            Err(Errno::ECONNRESET) => {
                // As over a wire: the bytes are sent, and a reset comes back.
                self.end.take_reset();
                Ok(message.data.len())
            }
            done => done,
        }
    }

    fn receive(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Incoming> {
        if let Some(id) = self.remote() {
            let message = self.receive_remote(id, buf, flags)?;
            return Ok(self.with_rest(message, flags, || self.remote_queue(id, SIOCINQ)));
        }
        let peer = match &self.state.lock().phase {
            Phase::Connected(c) => Some(c.peer.clone()),
            Phase::Connecting { .. } => return Err(Errno::EAGAIN),
            _ => None,
        };
        if flags.contains(MsgFlags::ERRQUEUE) {
            return Err(Errno::EAGAIN);
        }
        if flags.contains(MsgFlags::OOB) {
            let byte = self.end.take_urgent(flags).ok_or(Errno::EINVAL)?;
            let Some(first) = buf.first_mut() else { return Err(Errno::EINVAL) };
            *first = byte;
            return Ok(Incoming { flags: MsgFlags::OOB, complete: true, ..Incoming::bytes(1) });
        }
        // Before the queue is looked at: the peer pushes its last bytes
        // before it ends, so an end seen here comes after them all.
        let bits = self.end.shutdown_bits();
        if let Some(n) = self.end.take(peer.as_deref(), buf, flags) {
            // Bytes that MSG_TRUNC throws away are counted, not copied.
            let len = if flags.contains(MsgFlags::TRUNC) { 0 } else { n };
            let message = Incoming { len, full_len: n, ..Incoming::default() };
            return Ok(self.with_rest(message, flags, || self.end.available()));
        }
        // Bytes that came before the error have been read by then.
        self.end.core.take_error()?;
        if bits & SHUT_READ != 0 {
            return Ok(Incoming::default());
        }
        Err(if peer.is_some() { Errno::EAGAIN } else { Errno::ENOTCONN })
    }

    fn is_stream(&self) -> bool {
        true
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        if let Some(id) = self.remote() {
            return self.shutdown_remote(id, how);
        }
        let peer = {
            let state = self.state.lock();
            match &state.phase {
                // Both streams have ended: it is in TIME_WAIT, or closed.
                Phase::Connected(c) if self.end.shutdown_bits() & c.peer.shutdown_bits() & SHUT_WRITE != 0 => {
                    return Err(Errno::ENOTCONN);
                }
                Phase::Connected(c) if !self.end.is_reset() => c.peer.clone(),
                Phase::Listening(_) if !how.reads() => return Ok(()),
                Phase::Listening(_) | Phase::Connecting { .. } => {
                    drop(state);
                    self.disconnect();
                    return Ok(());
                }
                _ => return Err(Errno::ENOTCONN),
            }
        };
        self.end.add_shutdown((if how.reads() { SHUT_READ } else { 0 }) | (if how.writes() { SHUT_WRITE } else { 0 }));
        if how.writes() {
            peer.add_shutdown(SHUT_READ);
        }
        Ok(())
    }

    fn get_option(&self, _caller: &dyn Caller, level: u32, name: u32, room: usize) -> Result<Vec<u8>> {
        if let Some(id) = self.remote()
            && let Some(value) = self.remote_option(id, level, name)
        {
            return Ok(value);
        }
        if level == SOL_TCP && name == TCP_INFO {
            return Ok(self.info());
        }
        let connected = self.peer().is_some();
        self.options.get(Protocol::Tcp, level, name, room, connected)
    }

    fn set_option(&self, caller: &dyn Caller, level: u32, name: u32, value: &[u8]) -> Result<()> {
        // A setting that the socket's own level takes is first refused here with ENOPROTOOPT.
        let set = self.options.set(Protocol::Tcp, caller, &self.net.namespace, (level, name), value, self.standing());
        if set.is_ok()
            && level == SOL_TCP
            && matches!(name, TCP_CORK | TCP_NODELAY)
            && (name == TCP_NODELAY || !self.options.corked())
            && let Some(peer) = self.peer()
        {
            peer.uncork(None);
        }
        let Some(id) = self.remote() else { return set };
        // The stack has to know what the others keep.
        let set = if level == SOL_SOCKET && set == Err(Errno::ENOPROTOOPT) {
            self.end.core.set_option(caller, name, value)
        } else {
            set
        };
        if set.is_ok() {
            self.tell_remote(id, level, name);
        }
        set
    }

    fn is_listening(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Listening(_))
    }

    fn ioctl(&self, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        let value = match cmd {
            SIOCINQ | SIOCOUTQ | SIOCATMARK if self.is_listening() => return Err(Errno::EINVAL),
            SIOCINQ | SIOCOUTQ if let Some(id) = self.remote() => self.remote_queue(id, cmd),
            SIOCINQ => self.end.available(),
            // What is sent is with the receiver at once.
            SIOCOUTQ => 0,
            SIOCATMARK => usize::from(self.end.has_urgent() && self.end.available() == 0),
            _ => return Err(Errno::ENOTTY),
        };
        caller.write_user(arg, &i32::try_from(value).unwrap_or(i32::MAX).to_ne_bytes())?;
        Ok(0)
    }

    fn poll(&self) -> PollEvents {
        let errors = self.end.core.error_events();
        if let Some(id) = self.remote() {
            return self.poll_remote(id);
        }
        let peer = {
            let state = self.state.lock();
            match &state.phase {
                Phase::Listening(b) => {
                    let ready = !b.ready.is_empty() || b.has_due() || self.waits_at(b.remote);
                    return errors | if ready { PollEvents::READ_READY } else { PollEvents::empty() };
                }
                Phase::Connecting { .. } => return errors,
                Phase::Closed | Phase::Released | Phase::Remote(_) => {
                    let mut events = PollEvents::HUP | PollEvents::WRITE_READY | errors;
                    // A failed attempt, or a connection that ended, makes read(2) return at once.
                    if !errors.is_empty() || self.end.shutdown_bits() & SHUT_READ != 0 {
                        events |= PollEvents::READ_READY | PollEvents::RDHUP;
                    }
                    return events;
                }
                Phase::Connected(c) => c.peer.clone(),
            }
        };
        errors | self.poll_connected(&peer)
    }

    fn save(&self, saver: &mut dyn SaveFiles) -> std::result::Result<SocketRef, Refusal> {
        self.save_socket(saver)
    }

    fn release(&self) {
        self.end_with(Ending::InOrder);
    }
}
