//! The calls on a UNIX socket.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::cap::OVERFLOW_ID;
use moat_abi::socket::{AF_UNIX, MsgFlags, SIOCATMARK, SIOCINQ, SIOCOUTQ, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM};
use moat_abi::{Errno, PollEvents, Result};
use moat_image::Refusal;
use moat_image::state::SocketRef;
use moat_vfs::Caller;
use moat_vfs::file::SaveFiles;
use moat_vfs::socket::{Incoming, Outgoing, Shutdown, SockAddr, Socket, SocketCore, SocketCreds, SocketKind};

use super::{Phase, UnixSocket};
use crate::endpoint::{SHUT_READ, SHUT_WRITE, Unread};
use crate::host::HostEnd;
use crate::name::{self, Flavor, Given};
use crate::names;
use crate::waiting::wake;

/// Whether somebody has got the socket: one in a listener's queue is reset when the listener goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accepted {
    Yes,
    NotYet,
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
        let given = name::parse(addr)?;
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

    fn connects_untold(&self) -> bool {
        self.host.found_full.load(Ordering::Relaxed)
    }

    fn accept(&self, caller: &dyn Caller) -> Result<Arc<dyn Socket>> {
        self.do_accept(caller)
    }

    fn local_address(&self) -> Result<SockAddr> {
        Ok(self.endpoint.name().map_or(SockAddr::unnamed(AF_UNIX), |n| n.to_sockaddr()))
    }

    fn peer_address(&self) -> Result<SockAddr> {
        if let Some(host) = self.host.connected.get() {
            return Ok(*host.peer());
        }
        let peer = self.any_peer().ok_or(Errno::ENOTCONN)?;
        Ok(peer.name().map_or(SockAddr::unnamed(AF_UNIX), |n| n.to_sockaddr()))
    }

    fn send(&self, caller: Option<&dyn Caller>, message: &mut Outgoing<'_>) -> Result<usize> {
        if message.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        // A datagram with an address goes there, whomever the socket is connected to.
        if let Some(host) = self.host.connected.get()
            && (self.flavor != Flavor::Datagram || message.to.is_none())
        {
            return host.send(message);
        }
        if self.flavor == Flavor::Datagram {
            self.send_datagram(caller, message)
        } else {
            self.send_connected(caller, message)
        }
    }

    fn receive(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Incoming> {
        if let Some(host) = self.host.connected.get()
            && self.flavor != Flavor::Datagram
        {
            return host.receive(buf, flags, self.flavor != Flavor::Stream);
        }
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
        if let Some(host) = self.host.connected.get() {
            host.shutdown(how)?;
        }
        if let Some(named) = self.host.named.get() {
            named.shutdown(how)?;
        }
        let (read, write) = (if how.reads() { SHUT_READ } else { 0 }, if how.writes() { SHUT_WRITE } else { 0 });
        self.endpoint.close_halves(read | write);
        // A connection ends for the other side as well.
        if let Some(peer) = self.peer.get() {
            peer.close_halves((if how.writes() { SHUT_READ } else { 0 }) | (if how.reads() { SHUT_WRITE } else { 0 }));
        }
        Ok(())
    }

    fn peer_creds(&self) -> Option<SocketCreds> {
        if let Some(host) = self.host.connected.get() {
            return host.peer_creds();
        }
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
        if let Some(host) = self.host_with_bytes() {
            caller.write_user(arg, &host.queued(cmd)?.to_ne_bytes())?;
            return Ok(0);
        }
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
        if let Some(host) = self.host.connected.get() {
            let mut events = host.poll();
            // What came by its name before it was connected.
            if self.flavor == Flavor::Datagram && (self.endpoint.has_data() || self.host.is_named_readable()) {
                events |= PollEvents::READ_READY;
            }
            return events;
        }
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
                    if !b.ready.is_empty() || self.host.is_named_readable() {
                        events |= PollEvents::READ_READY;
                    }
                    return events;
                }
                Phase::Connected | Phase::Released => {}
                // Sockets for connections without one hang up (`unix_poll`).
                Phase::Fresh | Phase::Connecting if self.flavor != Flavor::Datagram => events |= PollEvents::HUP,
                Phase::Fresh | Phase::Connecting => {}
            }
        }
        if self.endpoint.has_data() || self.flavor == Flavor::Datagram && self.host.is_named_readable() {
            events |= PollEvents::READ_READY;
        }
        if self.endpoint.writable() && self.peer_takes_datagrams() {
            events |= PollEvents::WRITE_READY | PollEvents::WRBAND;
        }
        events
    }

    fn save(&self, saver: &mut dyn SaveFiles) -> std::result::Result<SocketRef, Refusal> {
        self.save_socket(saver)
    }

    fn release(&self) {
        self.end(Accepted::Yes);
        self.family.in_flight.socket_released();
    }
}

impl UnixSocket {
    /// Binds, unless there is a name already.
    pub(crate) fn bind_to(&self, caller: &dyn Caller, given: &Given<'_>) -> Result<()> {
        let me = self.me.upgrade().ok_or(Errno::EINVAL)?;
        let _one = self.binding.lock();
        if self.endpoint.name().is_some() {
            // An automatic name is not given twice (`unix_autobind`).
            return if matches!(given, Given::Unnamed) { Ok(()) } else { Err(Errno::EINVAL) };
        }
        let name = names::bind(caller, &me, given)?;
        *self.endpoint.name.lock() = Some(name);
        Ok(())
    }

    /// Ends the socket.
    fn end(&self, accepted: Accepted) {
        // First of all: nobody joins its queue from here on.
        let phase = std::mem::replace(&mut self.state.lock().phase, Phase::Released);
        if let Some(name) = self.endpoint.name() {
            names::unbind(&name, self, &self.me);
        }
        let peer = self.peer.get();
        let unread = self.endpoint.kill(peer);
        if let Some(peer) = peer {
            // Unread data, or a connection that nobody accepted, resets the peer (`unix_release_sock`).
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
        self.local.sockets.lock().remove(&self.endpoint.core.ino());
    }

    /// The socket of the host that says how many bytes there are, if one does.
    fn host_with_bytes(&self) -> Option<&HostEnd> {
        let named = || self.host.named.get().filter(|_| self.flavor == Flavor::Datagram && !self.endpoint.has_data());
        self.host.connected.get().or_else(named)
    }

    pub(super) fn peer_takes_datagrams(&self) -> bool {
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
