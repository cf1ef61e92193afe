//! Making connections: bind, listen, connect, accept, disconnect.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use moat_abi::socket::{AF_INET6, AF_UNSPEC};
use moat_abi::{Errno, PollEvents, Result};
use moat_net_stack::ListenerId;
use moat_vfs::Caller;
use moat_vfs::socket::{Socket, family_of};

use super::end::{SHUT_READ, SHUT_WRITE, TcpEnd};
use super::{Bound, Connection, Phase, TcpSocket};
use crate::ports::{BindingPlace, check_privilege};
use crate::{address, options};

/// A listening socket's queues.
pub(crate) struct Backlog {
    pub(crate) ready: VecDeque<Arc<TcpSocket>>,
    pub(crate) limit: usize,
    /// Those that have sent nothing yet, with the time up to which that is awaited (TCP_DEFER_ACCEPT).
    deferred: Vec<(Instant, Arc<TcpSocket>)>,
    /// Sockets whose connection waits for room in the queue.
    waiting: VecDeque<Weak<TcpSocket>>,
    /// Where the stack's connections come from.
    pub(crate) remote: Option<ListenerId>,
}

impl Backlog {
    /// One with nobody waiting for room: new, or out of an image.
    pub(super) fn restored(limit: usize, ready: VecDeque<Arc<TcpSocket>>, remote: Option<ListenerId>) -> Backlog {
        Backlog { ready, limit, deferred: Vec::new(), waiting: VecDeque::new(), remote }
    }

    /// All connections, also those that accept(2) does not give yet.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<TcpSocket>> {
        self.ready.iter().chain(self.deferred.iter().map(|(_, socket)| socket))
    }

    /// Whether accept(2) may have one that was deferred.
    pub(super) fn has_due(&self) -> bool {
        let now = Instant::now();
        self.deferred.iter().any(|d| is_due(d, now))
    }

    /// Puts those that have sent something, or have had their time, with the others.
    fn take_due(&mut self) {
        let now = Instant::now();
        self.ready.extend(self.deferred.extract_if(.., |d| is_due(d, now)).map(|(_, socket)| socket));
    }
}

fn is_due((until, socket): &(Instant, Arc<TcpSocket>), now: Instant) -> bool {
    *until <= now || socket.end.available() != 0 || socket.end.shutdown_bits() != 0
}

impl TcpSocket {
    pub(super) fn place(&self, addr: SocketAddr) -> BindingPlace {
        BindingPlace {
            ip: addr.ip(),
            dual: self.family == AF_INET6 && addr.ip().is_unspecified() && addr.is_ipv6() && !self.options.v6_only(),
        }
    }

    pub(crate) fn do_bind(&self, caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        let addr = address::parse_for_bind(self.family, addr)?;
        if self.options.v6_only() && addr.is_ipv4() {
            return Err(Errno::EINVAL);
        }
        if !self.options.may_bind_anything() {
            self.net.check_bindable(addr.ip())?;
        }
        // A port needs no privilege if it is chosen by the kernel.
        check_privilege(caller, &self.net, addr.port())?;
        // From the check to the entry, so that two threads cannot bind one socket twice.
        let mut state = self.state.lock();
        if state.bound.is_some() || !matches!(state.phase, Phase::Closed) {
            return Err(Errno::EINVAL);
        }
        let wanted = (self.place(addr), addr.port());
        let settings = &self.net.namespace.settings;
        let port = self.net.tcp.lock().bind(settings, self.id(), &self.me, wanted, self.sharing(caller))?;
        state.bound = Some(Bound { addr: SocketAddr::new(addr.ip(), port), by_caller: true });
        Ok(())
    }

    pub(crate) fn do_listen(&self, caller: &dyn Caller, limit: usize) -> Result<()> {
        let limit = limit.min(usize::try_from(self.net.namespace.settings.max_backlog.get()).unwrap_or(usize::MAX));
        let mut state = self.state.lock();
        match &mut state.phase {
            Phase::Listening(b) => {
                b.limit = limit;
                self.limit_remote(b.remote, limit);
                return Ok(());
            }
            Phase::Closed => {}
            _ => return Err(Errno::EINVAL),
        }
        let mut ports = self.net.tcp.lock();
        let sharing = self.sharing(caller);
        // listen(2) without bind(2) takes a free port.
        let port = match state.bound {
            Some(b) => b.addr.port(),
            None => {
                let addr = SocketAddr::new(address::any(self.family), 0);
                let port =
                    ports.bind(&self.net.namespace.settings, self.id(), &self.me, (self.place(addr), 0), sharing)?;
                state.bound = Some(Bound { addr: SocketAddr::new(addr.ip(), port), by_caller: false });
                port
            }
        };
        ports.listen(self.id(), port, sharing)?;
        drop(ports);
        // The stack listens with the port already taken here: nobody else can have it.
        let remote = state.bound.and_then(|b| self.listen_remote(self.place(b.addr), port, limit));
        state.phase = Phase::Listening(Backlog::restored(limit, VecDeque::new(), remote));
        Ok(())
    }

    pub(crate) fn do_accept(&self) -> Result<Arc<dyn Socket>> {
        let (socket, mut next) = {
            let mut state = self.state.lock();
            let Phase::Listening(backlog) = &mut state.phase else { return Err(Errno::EINVAL) };
            backlog.take_due();
            let Some(socket) = backlog.ready.pop_front() else {
                let remote = backlog.remote;
                drop(state);
                return self.accept_remote(remote);
            };
            (socket, backlog.waiting.pop_front())
        };
        // The place in the queue goes to the first that still waits for one: those before may have given up.
        if let Some(me) = self.me.upgrade() {
            while let Some(client) = next
                && !client.upgrade().is_some_and(|client| client.join_backlog(&me))
            {
                next = self.next_waiting();
            }
        }
        Ok(socket)
    }

    fn next_waiting(&self) -> Option<Weak<TcpSocket>> {
        match &mut self.state.lock().phase {
            Phase::Listening(backlog) => backlog.waiting.pop_front(),
            _ => None,
        }
    }

    pub(crate) fn do_connect(&self, caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        // connect(2) to AF_UNSPEC dissolves the connection.
        if family_of(addr).ok_or(Errno::EINVAL)? == AF_UNSPEC {
            self.disconnect();
            return Ok(());
        }
        let to = address::parse(self.family, addr)?;
        if let Some(id) = self.remote() {
            // An attempt that failed in the background is told, and makes room for the next.
            self.check_remote(id)?;
        }
        let ip = {
            let mut state = self.state.lock();
            match &mut state.phase {
                Phase::Closed => {}
                // The first call after an attempt in the background says that it succeeded, the next one EISCONN.
                Phase::Remote(r) if !r.announced => {
                    r.announced = true;
                    return Ok(());
                }
                Phase::Connecting { .. } => return Err(Errno::EALREADY),
                Phase::Connected(c) if !c.announced => {
                    c.announced = true;
                    return Ok(());
                }
                Phase::Connected(_) | Phase::Remote(_) | Phase::Listening(_) | Phase::Released => {
                    return Err(Errno::EISCONN);
                }
            }
            // An attempt that failed in the background is told once; what a connection left behind is forgotten.
            if self.end.is_over() {
                return Err(self.tell_failure());
            }
            let _ = self.end.core.take_error();
            let own = state.bound.map(|b| b.addr.ip());
            let way = self.net.way(to.ip(), self.options.v6_only(), self.options.device(), own)?;
            self.bind_for_connect(caller, &mut state, way.source)?;
            if !way.local {
                return self.connect_remote(state, SocketAddr::new(way.to, to.port()));
            }
            way.to
        };
        let to = SocketAddr::new(ip, to.port());
        // Without this socket's state locked: the listener's comes
        // next, and two sockets could be each other's listeners.
        let listener = self.net.tcp.lock().listener(to);
        let Some(listener) = listener else {
            if self.meets_itself(to) {
                return Err(Errno::EINPROGRESS);
            }
            // A refusal travels like a packet: the call itself is in progress, and the error is found by who waits.
            self.refuse();
            return Err(Errno::EINPROGRESS);
        };
        self.state.lock().phase = Phase::Connecting { to };
        let me = self.me.upgrade().ok_or(Errno::EINVAL)?;
        me.join_backlog(&listener);
        Err(Errno::EINPROGRESS)
    }

    /// Makes a connection of the socket with itself, where its own address is the one that it calls: both sides open at once (RFC 9293,
    /// section 3.5).
    fn meets_itself(&self, to: SocketAddr) -> bool {
        {
            let mut state = self.state.lock();
            if !matches!(state.phase, Phase::Closed) || state.bound.is_none_or(|b| b.addr != to) {
                return false;
            }
            self.end.show_tuned_buffer();
            state.phase = Phase::Connected(Connection { peer: self.end.clone(), addr: to, announced: false });
        }
        self.end.core.queue().wake_all();
        true
    }

    /// Tells why an attempt failed, after which another may be made.
    pub(super) fn tell_failure(&self) -> Errno {
        let error = self.end.core.take_error().err().unwrap_or(Errno::ECONNABORTED);
        self.end.reopen();
        error
    }

    /// Takes an automatic port, or keeps the one that was bound; an any address becomes the source address.
    fn bind_for_connect(
        &self,
        caller: &dyn Caller,
        state: &mut super::TcpState,
        source: std::net::IpAddr,
    ) -> Result<()> {
        let mut ports = self.net.tcp.lock();
        let sharing = self.sharing(caller);
        match &mut state.bound {
            Some(b) => {
                if b.addr.ip().is_unspecified() {
                    b.addr.set_ip(source);
                }
                // From here on only what goes to the address in use meets this binding.
                ports.connect(self.id(), b.addr.port(), BindingPlace { ip: b.addr.ip(), dual: false }, None);
            }
            None => {
                let place = BindingPlace { ip: source, dual: false };
                let port = ports
                    .bind(&self.net.namespace.settings, self.id(), &self.me, (place, 0), sharing)
                    // No port left is another errno here than in bind(2).
                    .map_err(|_| Errno::EADDRNOTAVAIL)?;
                state.bound = Some(Bound { addr: SocketAddr::new(source, port), by_caller: false });
            }
        }
        Ok(())
    }

    /// Nobody listens there: the attempt ends with ECONNREFUSED.
    pub(super) fn refuse(&self) {
        let gone = {
            let mut state = self.state.lock();
            state.phase = Phase::Closed;
            state.bound.take_if(|b| !b.by_caller)
        };
        if let Some(b) = gone {
            self.net.tcp.lock().unbind(self.id(), b.addr.port());
        }
        self.end.core.set_error(Errno::ECONNREFUSED);
        // Until connect(2) is called again there is an end of the stream to be read (`tcp_reset`).
        self.end.add_shutdown(SHUT_READ | SHUT_WRITE);
    }

    /// Joins the listener's queue if there is room, else waits for it; false if it has no need of a place any more.
    pub(super) fn join_backlog(self: &Arc<Self>, listener: &Arc<TcpSocket>) -> bool {
        let port = listener.state.lock().bound.map(|b| b.addr.port());
        let (to, local) = {
            let state = self.state.lock();
            let (Phase::Connecting { to }, Some(b)) = (&state.phase, state.bound) else { return false };
            // It may have gone on to try another listener.
            if port != Some(to.port()) {
                return false;
            }
            (*to, b.addr)
        };
        // The listener's lock alone. The client's own state is looked at again below.
        let server = {
            let mut state = listener.state.lock();
            let Phase::Listening(backlog) = &mut state.phase else {
                drop(state);
                self.refuse();
                return false;
            };
            backlog.take_due();
            if backlog.all().count() > backlog.limit {
                // Weak: a client that is closed leaves by itself.
                backlog.waiting.push_back(Arc::downgrade(self));
                return true;
            }
            // Connected from the start, so that accept(2) never meets a half of a connection.
            let server =
                TcpSocket::accepted(listener, Connection { peer: self.end.clone(), addr: local, announced: true }, to);
            match listener.options.defer_accept() {
                Some(time) => backlog.deferred.push((listener.await_first(&server, time), server.clone())),
                None => backlog.ready.push_back(server.clone()),
            }
            server
        };
        let given_up = {
            // Another thread may have given up the attempt in the meantime.
            let mut state = self.state.lock();
            let connecting = matches!(state.phase, Phase::Connecting { .. });
            if connecting {
                self.end.show_tuned_buffer();
                state.phase = Phase::Connected(Connection { peer: server.end.clone(), addr: to, announced: false });
            }
            !connecting
        };
        if given_up {
            server.end.take_reset();
        }
        // With both sides in place.
        self.end.core.queue().wake_all();
        listener.end.core.queue().wake(PollEvents::READ_READY);
        true
    }

    /// Has the first bytes of a connection awaited, for some time; gives its end.
    fn await_first(&self, server: &TcpSocket, time: Duration) -> Instant {
        server.end.defer(&self.end);
        let now = Instant::now();
        let until = now.checked_add(time).unwrap_or(now);
        let listener = Arc::downgrade(&self.end);
        moat_sync::spawn(async move {
            moat_sync::timer::sleep_until(until).await;
            if let Some(listener) = listener.upgrade() {
                listener.core.queue().wake(PollEvents::READ_READY);
            }
        });
        until
    }

    /// The server's side of a connection to `local` from the peer of `connection`.
    fn accepted(listener: &TcpSocket, connection: Connection, local: SocketAddr) -> Arc<TcpSocket> {
        let end = TcpEnd::new(listener.end.core.inherit());
        end.show_tuned_buffer();
        let bound = Bound { addr: local, by_caller: true };
        // By value: options that change later at the listener are not those of its connections.
        let options: options::InetOptions = listener.options.inherit();
        let socket = TcpSocket::make(
            listener.family,
            listener.net.clone(),
            end,
            options,
            listener.uid,
            Phase::Connected(connection),
            Some(bound),
        );
        let place = BindingPlace { ip: local.ip(), dual: false };
        listener.net.tcp.lock().insert(socket.id(), &socket.me, place, local.port(), listener.sharing_by(listener.uid));
        socket
    }

    /// Ends what there is and makes the socket as good as new (`tcp_disconnect`).
    pub(crate) fn disconnect(&self) {
        let (phase, gone) = {
            let mut state = self.state.lock();
            let phase = std::mem::replace(&mut state.phase, Phase::Closed);
            (phase, state.bound.take_if(|b| !b.by_caller))
        };
        if let Some(b) = gone {
            // A port that was chosen by the kernel goes; one of bind(2) stays.
            self.net.tcp.lock().unbind(self.id(), b.addr.port());
        }
        let connected = matches!(phase, Phase::Connected(_) | Phase::Connecting { .. }) && !self.end.is_reset();
        // Reset, whatever is unread.
        self.end_phase(phase, super::Ending::Reset);
        self.end.reopen();
        if connected {
            self.end.core.set_error(Errno::ECONNRESET);
        }
        self.end.core.queue().wake_all();
    }

    /// Resets the connections that nobody has accepted, and refuses those that wait.
    pub(crate) fn end_backlog(&self, backlog: Backlog) {
        let port = self.state.lock().bound.map(|b| b.addr.port());
        // First, so that nobody joins the queue that is taken down.
        if let Some(port) = port {
            self.net.tcp.lock().stop_listening(self.id(), port);
        }
        self.stop_remote(backlog.remote);
        // Nobody can have them: their clients learn it by a reset.
        for socket in backlog.all() {
            socket.end_with(super::Ending::Reset);
        }
        for client in backlog.waiting.iter().filter_map(Weak::upgrade) {
            client.refuse();
        }
    }
}
