//! Connections over the stack: what a socket does with one.
//!
//! # Invariants
//! - What follows from a change of the stack ([`NetStack::settle`]) may call this socket, so nothing here settles with the socket's
//!   state locked.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use moat_abi::socket as abi;
use moat_abi::socket::{MsgFlags, SIOCOUTQ, SOL_IP, SOL_IPV6, SOL_SOCKET, SOL_TCP, TCP_CLOSE};
use moat_abi::{Errno, PollEvents, Result};
use moat_net_stack::tcp::{Changes, Connection, ConnectionState, Follows, Taking};
use moat_net_stack::{Accepted, ConnectionId, ListenOn, ListenerId, Observer, Time};
use moat_sync::MutexGuard;
use moat_vfs::socket::{Ancillary, Incoming, Outgoing, Shutdown, Socket, SocketCore};
use zerocopy::IntoBytes;

use super::end::{SHUT_READ, TcpEnd};
use super::{Bound, Ending, Phase, TcpSocket, TcpState};
use crate::ports::BindingPlace;
use crate::stack::NetStack;

/// A connection of the stack, as its socket holds it.
pub(crate) struct Remote {
    pub(crate) id: ConnectionId,
    pub(crate) addr: SocketAddr,
    /// connect(2) has said that it stands.
    pub(crate) announced: bool,
}

/// Tells a socket what becomes of its connection.
struct Told(Weak<TcpSocket>);

impl Observer for Told {
    fn changed(&self, changes: Changes) {
        if let Some(socket) = self.0.upgrade() {
            socket.remote_changed(changes);
        }
    }
}

impl TcpSocket {
    /// The connection of the stack, if the socket has one.
    pub(super) fn remote(&self) -> Option<ConnectionId> {
        match &self.state.lock().phase {
            Phase::Remote(r) => Some(r.id),
            _ => None,
        }
    }

    fn stack(&self) -> Result<Arc<NetStack>> {
        self.net.stack().ok_or(Errno::ENETUNREACH)
    }

    /// Does something with the connection, and what follows from it.
    fn with_remote<R>(&self, id: ConnectionId, f: impl FnOnce(&mut Connection, Time) -> R) -> Option<R> {
        self.net.stack()?.with(|s| s.with_tcp(id, f))
    }

    /// Looks at the connection.
    fn look<R>(&self, id: ConnectionId, f: impl FnOnce(&mut Connection, Time) -> R) -> Option<R> {
        self.net.stack()?.change(|s| s.look_at_tcp(id, f))
    }

    fn observer(&self) -> Arc<dyn Observer> {
        Arc::new(Told(self.me.clone()))
    }

    /// Begins a connection; the socket is bound.
    pub(super) fn connect_remote(&self, mut state: MutexGuard<'_, TcpState>, to: SocketAddr) -> Result<()> {
        let stack = self.stack()?;
        let local = state.bound.map(|b| b.addr).ok_or(Errno::EINVAL)?;
        let settings = self.options.tcp_settings(&self.end.core);
        let options = self.options.tcp_options(to.ip());
        stack.refresh_rules();
        let begun = stack.change(|s| s.tcp_connect(local, to, options, settings, Some(self.observer())));
        let gone = match begun {
            Ok(id) => {
                state.phase = Phase::Remote(Remote { id, addr: to, announced: false });
                None
            }
            // A connection that did not begin leaves no port behind.
            Err(_) => state.bound.take_if(|b| !b.by_caller),
        };
        // Before the stack is settled: see the invariants.
        drop(state);
        if let Some(b) = gone {
            self.net.tcp.lock().unbind(self.id(), b.addr.port());
        }
        stack.settle();
        begun.and(Err(Errno::EINPROGRESS))
    }

    /// Makes an error of the connection the socket's. In one step, under the stack's lock: who finds it gone from the connection finds
    /// it at the socket.
    fn collect_error(&self, id: ConnectionId) {
        self.look(id, |c, _| {
            if let Some(errno) = c.take_error() {
                self.end.core.set_error(errno);
            }
        });
    }

    /// What has become of the connection. Called while the stack is settled.
    fn remote_changed(&self, changes: Changes) {
        if let Some(id) = self.remote()
            && changes.state
        {
            self.collect_error(id);
        }
        let mut events = PollEvents::empty();
        if changes.read {
            self.note_arrival();
            events |= PollEvents::READ_READY | PollEvents::RDHUP;
        }
        if changes.write {
            events |= PollEvents::WRITE_READY;
        }
        // Everybody looks again: an end or an error concerns readers and writers alike.
        if changes.state {
            events = PollEvents::all();
        }
        self.end.core.queue().wake(events);
    }

    /// Notes when bytes have come, for who wants to know.
    fn note_arrival(&self) {
        if self.end.wants_stamps()
            && let Some(id) = self.remote()
            && let Some(readable) = self.look(id, |c, _| c.readiness().readable)
        {
            self.end.note_readable(readable);
        }
    }

    /// Gives up a connection that failed: the socket is as good as new.
    fn forget_remote(&self, id: ConnectionId) {
        let gone = {
            let mut state = self.state.lock();
            // Another thread may have been first, and the socket have another connection.
            if !matches!(&state.phase, Phase::Remote(r) if r.id == id) {
                return;
            }
            state.phase = Phase::Closed;
            state.bound.take_if(|b| !b.by_caller)
        };
        if let Some(b) = gone {
            self.net.tcp.lock().unbind(self.id(), b.addr.port());
        }
        if let Ok(stack) = self.stack() {
            stack.with(|s| s.tcp_release(id));
        }
    }

    /// connect(2) on a socket that has a connection: one that failed gives way.
    pub(super) fn check_remote(&self, id: ConnectionId) -> Result<()> {
        match self.look(id, |c, _| c.state()) {
            Some(ConnectionState::SynSent | ConnectionState::SynReceived) => Err(Errno::EALREADY),
            None | Some(ConnectionState::Closed) => {
                let announced = matches!(&self.state.lock().phase, Phase::Remote(r) if r.announced);
                self.collect_error(id);
                self.forget_remote(id);
                // An attempt's error is told by this call; that of a connection which had stood was told before.
                if announced { Ok(()) } else { self.end.core.take_error() }
            }
            Some(_) => Ok(()),
        }
    }

    pub(super) fn finish_remote(&self, id: ConnectionId) -> Result<()> {
        match self.look(id, |c, _| c.state()) {
            Some(ConnectionState::SynSent | ConnectionState::SynReceived) => Err(Errno::EAGAIN),
            None | Some(ConnectionState::Closed) => {
                self.collect_error(id);
                self.forget_remote(id);
                self.end.core.take_error().and(Err(Errno::ECONNABORTED))
            }
            Some(_) => {
                if let Phase::Remote(r) = &mut self.state.lock().phase {
                    r.announced = true;
                }
                Ok(())
            }
        }
    }

    pub(super) fn remote_stands(&self, id: ConnectionId) -> bool {
        let state = self.look(id, |c, _| c.state());
        !matches!(state, None | Some(ConnectionState::SynSent | ConnectionState::Closed))
    }

    pub(super) fn remote_state(&self, id: ConnectionId) -> u8 {
        self.look(id, |c, now| c.info(now).tcpi_state).unwrap_or(TCP_CLOSE)
    }

    pub(super) fn send_remote(&self, id: ConnectionId, message: &mut Outgoing<'_>) -> Result<usize> {
        if message.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        if self.end.core.has_error() {
            return Err(self.send_error());
        }
        // MSG_MORE: a segment that is not full waits for what comes next.
        let follows = if message.flags.contains(MsgFlags::MORE) { Follows::More } else { Follows::Nothing };
        let sent = self.with_remote(id, |c, _| c.write(message.data, follows)).unwrap_or(Err(Errno::EPIPE));
        match sent {
            // The reason, if the network told one, comes before the broken pipe.
            Err(Errno::EPIPE) => {
                self.collect_error(id);
                Err(self.send_error())
            }
            Ok(n) => {
                message.ancillary = Ancillary::default();
                Ok(n)
            }
            Err(e) => Err(e),
        }
    }

    pub(super) fn receive_remote(&self, id: ConnectionId, buf: &mut [u8], flags: MsgFlags) -> Result<Incoming> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            return Err(Errno::EAGAIN);
        }
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EINVAL);
        }
        let peek = flags.contains(MsgFlags::PEEK);
        // Counted, not copied.
        let throw_away = flags.contains(MsgFlags::TRUNC);
        let got = self.with_remote(id, |c, now| {
            let n = match () {
                () if throw_away && peek => buf.len().min(c.readiness().readable),
                () if throw_away => c.skip(buf.len(), now),
                () if peek => c.read(buf, Taking::Peek, now),
                () => c.read(buf, Taking::Remove, now),
            };
            (n, c.read_ended(), c.state())
        });
        // The connection is gone from the stack, which is an end.
        let Some((n, ended, state)) = got else { return Ok(Incoming::default()) };
        if n > 0 {
            return Ok(Incoming { len: if throw_away { 0 } else { n }, full_len: n, ..Incoming::default() });
        }
        // The error comes after the last bytes.
        if state == ConnectionState::Closed {
            self.collect_error(id);
        }
        self.end.core.take_error()?;
        if ended || self.end.shutdown_bits() & SHUT_READ != 0 {
            return Ok(Incoming::default());
        }
        Err(Errno::EAGAIN)
    }

    pub(super) fn shutdown_remote(&self, id: ConnectionId, how: Shutdown) -> Result<()> {
        match self.look(id, |c, _| c.state()) {
            // To Linux a socket in TIME_WAIT is closed: a smaller object waits in its place.
            None | Some(ConnectionState::Closed | ConnectionState::TimeWait) => return Err(Errno::ENOTCONN),
            // Whichever way is closed, the attempt ends (`inet_shutdown`).
            Some(ConnectionState::SynSent) => {
                self.disconnect();
                return Ok(());
            }
            Some(ConnectionState::SynReceived) => {
                if how.writes() {
                    self.disconnect();
                }
                return Ok(());
            }
            Some(_) => {}
        }
        if how.reads() {
            self.end.add_shutdown(SHUT_READ);
        }
        if how.writes() {
            self.with_remote(id, |c, _| c.finish());
        }
        Ok(())
    }

    pub(super) fn poll_remote(&self, id: ConnectionId) -> PollEvents {
        let mut events = self.end.core.error_events();
        // Gone: every call returns at once, so all is ready.
        let Some(r) = self.look(id, |c, _| c.readiness()) else {
            return events | PollEvents::HUP | PollEvents::READ_READY | PollEvents::WRITE_READY | PollEvents::RDHUP;
        };
        // Neither readable nor writable until connect(2) is done.
        if matches!(r.state, ConnectionState::SynSent | ConnectionState::SynReceived) {
            return events;
        }
        let read_ended = r.read_ended || self.end.shutdown_bits() & SHUT_READ != 0;
        if read_ended {
            events |= PollEvents::READ_READY | PollEvents::RDHUP;
        }
        if r.readable >= self.end.core.rcvlowat() {
            events |= PollEvents::READ_READY;
        }
        if r.writable || r.write_ended {
            events |= PollEvents::WRITE_READY;
        }
        if r.state == ConnectionState::Closed || (read_ended && r.write_ended) {
            events |= PollEvents::HUP;
        }
        events
    }

    /// Bytes to read, or bytes that are not acknowledged.
    pub(super) fn remote_queue(&self, id: ConnectionId, cmd: u32) -> usize {
        self.look(id, |c, _| if cmd == SIOCOUTQ { c.unsent() } else { c.readiness().readable }).unwrap_or(0)
    }

    /// Options that only the connection knows.
    pub(super) fn remote_option(&self, id: ConnectionId, level: u32, name: u32) -> Option<Vec<u8>> {
        let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX).to_ne_bytes().to_vec();
        match (level, name) {
            (SOL_TCP, abi::TCP_INFO) => self.look(id, |c, now| c.info(now).as_bytes().to_vec()),
            (SOL_TCP, abi::TCP_MAXSEG) => self.look(id, |c, _| number(usize::from(c.max_segment()))),
            (SOL_SOCKET, abi::SO_SNDBUF) => self.look(id, |c, _| number(c.buffers().0)),
            (SOL_SOCKET, abi::SO_RCVBUF) => self.look(id, |c, _| number(c.buffers().1)),
            (SOL_IP, abi::IP_MTU) | (SOL_IPV6, abi::IPV6_MTU) => {
                let to = match &self.state.lock().phase {
                    Phase::Remote(r) => r.addr.ip(),
                    _ => return None,
                };
                let path = self.stack().ok()?.change(|s| s.path(to, self.options.device(), None)).ok()?;
                Some(path.mtu.to_ne_bytes().to_vec())
            }
            _ => None,
        }
    }

    /// An option has changed: the connection goes by it.
    pub(super) fn tell_remote(&self, id: ConnectionId, level: u32, name: u32) {
        let settings = self.options.tcp_settings(&self.end.core);
        let to = match &self.state.lock().phase {
            Phase::Remote(r) => r.addr.ip(),
            _ => return,
        };
        let options = self.options.tcp_options(to);
        // Not a setting that lasts: it sends an acknowledgement that is due (tcp(7)).
        let quick = (level, name) == (SOL_TCP, abi::TCP_QUICKACK) && self.options.number(level, name) != 0;
        let Ok(stack) = self.stack() else { return };
        stack.with(|s| {
            s.tcp_set_options(id, options);
            s.with_tcp(id, |c, now| {
                c.set(settings, now);
                if quick {
                    c.quick_ack();
                }
            })
        });
    }

    /// Ends the connection: in order by itself, or at once.
    pub(super) fn end_remote(&self, id: ConnectionId, how: Ending) {
        let at_once = how == Ending::Reset || self.end.core.linger() == Some(0);
        let Ok(stack) = self.stack() else { return };
        stack.with(|s| {
            if at_once {
                s.with_tcp(id, |c, _| c.abort());
            }
            s.tcp_release(id);
        });
    }

    /// Has the stack take connections for this socket.
    pub(super) fn listen_remote(&self, place: BindingPlace, port: u16, backlog: usize) -> Option<ListenerId> {
        // Own addresses are served in memory; the stack never sees a packet for them.
        if place.ip.is_loopback() {
            return None;
        }
        let on = ListenOn { port, address: place.ip, dual: place.dual, device: self.options.device() };
        let settings = self.options.tcp_settings(&self.end.core);
        let options = self.options.tcp_options(place.ip);
        Some(self.net.stack()?.change(|s| s.tcp_listen(on, backlog, options, settings, self.observer())))
    }

    pub(super) fn limit_remote(&self, listener: Option<ListenerId>, backlog: usize) {
        if let (Some(listener), Ok(stack)) = (listener, self.stack()) {
            stack.change(|s| s.tcp_set_backlog(listener, backlog));
        }
    }

    pub(super) fn stop_remote(&self, listener: Option<ListenerId>) {
        if let (Some(listener), Ok(stack)) = (listener, self.stack()) {
            stack.with(|s| s.tcp_stop_listening(listener));
        }
    }

    /// Whether connections of the stack wait to be accepted.
    pub(super) fn waits_at(&self, listener: Option<ListenerId>) -> bool {
        let Some(listener) = listener else { return false };
        self.stack().is_ok_and(|stack| stack.change(|s| s.tcp_waiting(listener)) > 0)
    }

    /// Takes a connection of the stack.
    pub(super) fn accept_remote(&self, listener: Option<ListenerId>) -> Result<Arc<dyn Socket>> {
        let listener = listener.ok_or(Errno::EAGAIN)?;
        let stack = self.stack()?;
        let Accepted { id, local, remote } = stack.change(|s| s.tcp_accept(listener)).ok_or(Errno::EAGAIN)?;
        let core: SocketCore = self.end.core.inherit();
        let bound = Bound { addr: local, by_caller: true };
        let socket = TcpSocket::make(
            self.family,
            self.net.clone(),
            TcpEnd::new(core),
            self.options.inherit(),
            self.uid,
            Phase::Remote(Remote { id, addr: remote, announced: true }),
            Some(bound),
        );
        let place = BindingPlace { ip: local.ip(), dual: false };
        // Entered so that bind(2) sees the port in use as long as the connection lasts.
        self.net.tcp.lock().insert(socket.id(), &socket.me, place, local.port(), self.sharing_by(self.uid));
        stack.change(|s| s.tcp_observe(id, socket.observer()));
        // What came before anybody observed the connection.
        socket.collect_error(id);
        socket.note_arrival();
        Ok(socket)
    }
}
