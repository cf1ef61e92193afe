//! Connections of stream and sequential-packet sockets: listen, connect, accept, and the peers of datagram sockets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::{Errno, PollEvents, Result};
use moat_vfs::Caller;
use moat_vfs::inode::Inode;
use moat_vfs::socket::{Socket, SocketCreds};

use crate::backlog::Backlog;
use crate::endpoint::{Endpoint, SHUT_READ};
use crate::host::HostEnd;
use crate::name::{Flavor, Given, parse};
use crate::names::{self, Found};
use crate::socket::{Phase, UnixSocket, effective_creds};
use crate::waiting::{note_waiting, wake};

impl UnixSocket {
    pub(crate) fn do_listen(&self, caller: &dyn Caller, limit: usize) -> Result<()> {
        if self.flavor() == Flavor::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        // Nobody could connect to a socket without a name.
        if self.endpoint.name().is_none() {
            return Err(Errno::EINVAL);
        }
        let creds = effective_creds(caller);
        if let Some(named) = self.host.named.get()
            && matches!(self.state.lock().phase, Phase::Fresh | Phase::Listening(_))
        {
            // First, as it can fail: who connects before the phase says so waits to be accepted.
            named.listen(limit)?;
        }
        let waiting = {
            let mut state = self.state.lock();
            match &mut state.phase {
                Phase::Fresh => {
                    state.phase =
                        Phase::Listening(Backlog { ready: VecDeque::new(), limit, creds, waiting: Vec::new() });
                    Vec::new()
                }
                Phase::Listening(b) => {
                    // A second listen(2) changes the length, and who listens.
                    b.limit = limit;
                    b.creds = creds;
                    // There may be more room.
                    b.wake_connectors()
                }
                Phase::Connecting | Phase::Connected | Phase::Released => return Err(Errno::EINVAL),
            }
        };
        wake(&waiting);
        Ok(())
    }

    pub(crate) fn do_accept(&self, caller: &dyn Caller) -> Result<Arc<dyn Socket>> {
        if self.flavor() == Flavor::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let (socket, waiting) = {
            let mut state = self.state.lock();
            let Phase::Listening(backlog) = &mut state.phase else { return Err(Errno::EINVAL) };
            let socket = backlog.ready.pop_front();
            let waiting = if socket.is_some() { backlog.wake_connectors() } else { Vec::new() };
            (socket, waiting)
        };
        wake(&waiting);
        let socket = match (socket, self.host.named.get()) {
            (Some(socket), _) => socket,
            (None, Some(named)) => UnixSocket::accepted_from_host(self, named.accept()?)?,
            // After shutdown(2) no connection will come.
            (None, None) if self.endpoint.shutdown_bits() & SHUT_READ != 0 => return Err(Errno::EINVAL),
            (None, None) => return Err(Errno::EAGAIN),
        };
        // Accepted sockets inherit the flag (`unix_sock_inherit_flags`).
        if self.pass_creds() {
            socket.endpoint.core.set_option(caller, moat_abi::socket::SO_PASSCRED, &1u32.to_ne_bytes())?;
        }
        Ok(socket)
    }

    pub(crate) fn connect_stream(&self, caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        parse(addr)?;
        self.bind_if_credentials_pass(caller)?;
        // Looked up before anything is locked: a path may lead through any file system.
        let found = names::find(caller, self, addr)?;
        {
            let mut state = self.state.lock();
            match state.phase {
                // Marked first: of two threads that connect, only one may join a queue.
                Phase::Fresh => state.phase = Phase::Connecting,
                Phase::Connected => return Err(Errno::EISCONN),
                Phase::Connecting | Phase::Listening(_) | Phase::Released => return Err(Errno::EINVAL),
            }
        }
        let joined = match found {
            Found::Socket(listener) => {
                self.host.found_full.store(false, Ordering::Relaxed);
                self.join(caller, &listener).map(Some)
            }
            Found::Node(node) => self.join_host(&node).map(|()| None),
        };
        let mut state = self.state.lock();
        match joined {
            Ok(None) => {
                state.phase = Phase::Connected;
                Ok(())
            }
            Ok(Some((server, creds))) => {
                // Before the phase says so: from then on the peer is looked up without a lock.
                let _ = self.peer.set(server);
                state.peer_creds = Some(creds);
                state.phase = Phase::Connected;
                Ok(())
            }
            Err(e) => {
                // A release meanwhile stands.
                if matches!(state.phase, Phase::Connecting) {
                    state.phase = Phase::Fresh;
                }
                Err(e)
            }
        }
    }

    /// Connects to a socket of the host.
    fn join_host(&self, node: &Arc<dyn Inode>) -> Result<()> {
        let fd = node.connect_socket(self.kind().socket_type);
        self.host.found_full.store(fd.as_ref().err() == Some(&Errno::EAGAIN), Ordering::Relaxed);
        let fd = fd?;
        let _ = self.host.connected.set(HostEnd::new(fd, self.endpoint.core.queue())?);
        Ok(())
    }

    /// Puts a new server end in the listener's queue; gives its endpoint and who listens.
    fn join(&self, caller: &dyn Caller, listener: &Arc<UnixSocket>) -> Result<(Arc<Endpoint>, SocketCreds)> {
        // Made before the listener is locked: it locks a state of its own, of the same class.
        let server = UnixSocket::accepted(listener, self, effective_creds(caller));
        let (endpoint, creds) = {
            let mut state = listener.state.lock();
            let Phase::Listening(backlog) = &mut state.phase else { return Err(Errno::ECONNREFUSED) };
            if listener.endpoint.shutdown_bits() & SHUT_READ != 0 {
                return Err(Errno::ECONNREFUSED);
            }
            // One more than the backlog, as on Linux (`unix_recvq_full`).
            if backlog.ready.len() > backlog.limit {
                note_waiting(&mut backlog.waiting, self.endpoint.core.queue());
                return Err(Errno::EAGAIN);
            }
            let endpoint = server.endpoint.clone();
            backlog.ready.push_back(server);
            (endpoint, backlog.creds.clone())
        };
        listener.endpoint.core.queue().wake(PollEvents::READ_READY);
        Ok((endpoint, creds))
    }

    /// Names the peer of a datagram socket, or takes the name away.
    pub(crate) fn connect_datagram(&self, caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        if moat_vfs::socket::family_of(addr) == Some(moat_abi::socket::AF_UNSPEC) {
            self.endpoint.only_from.store(0, Ordering::Release);
            // Dropped unlocked: with the last reference its messages go, and files in them.
            let old = self.state.lock().datagram_peer.take();
            drop(old);
            return Ok(());
        }
        parse(addr)?;
        self.bind_if_credentials_pass(caller)?;
        if self.host.connected.get().is_some() {
            return Err(Errno::EISCONN);
        }
        let other = match names::find(caller, self, addr)? {
            Found::Socket(other) => other,
            Found::Node(node) => {
                self.join_host(&node)?;
                // From here on it takes messages of that one alone; nobody in the sandbox has this number.
                self.endpoint.only_from.store(u64::MAX, Ordering::Release);
                return Ok(());
            }
        };
        self.check_may_send(&other.endpoint)?;
        self.endpoint.only_from.store(other.endpoint.id(), Ordering::Release);
        let old = self.state.lock().datagram_peer.replace(other.endpoint.clone());
        drop(old);
        Ok(())
    }

    /// A connected datagram socket takes messages of its peer only (`unix_may_send`).
    pub(crate) fn check_may_send(&self, to: &Endpoint) -> Result<()> {
        let only = to.only_from.load(Ordering::Acquire);
        if only == 0 || only == self.endpoint.id() { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// A socket that passes credentials gets a name by itself, so that its messages can be answered.
    pub(crate) fn bind_if_credentials_pass(&self, caller: &dyn Caller) -> Result<()> {
        if self.pass_creds() && self.endpoint.name().is_none() {
            return self.bind_to(caller, &Given::Unnamed);
        }
        Ok(())
    }
}
