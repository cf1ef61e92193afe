//! [`Connections`]: the TCP connections and listeners of a stack, and the way of segments to and from them.
//!
//! # Invariants
//! - A listener has at most its backlog of connections that stand, and a bounded number of those that do not yet.
//! - Each connection has at most one timer entry that counts; it is never later than the connection's deadline.

mod waiting;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use moat_abi::Errno;

use crate::counters::count;
use crate::num::Narrow;
use crate::packet::{IPV4, IPV6};
use crate::route::{Destination, Path, is_link_local};
use crate::stack::{Notice, Observer, Stack};
use crate::tcp::{Connection, ConnectionState, Parameters, Settings};
use crate::time::Time;

/// Segments that one connection hands down before others have their turn.
const BURST: usize = 8;
/// Connections of one namespace at most, with those in TIME_WAIT.
const MOST_CONNECTIONS: usize = 262_144;
/// Payload of the largest segment that is handed down: with its headers it fits the length field of IPv4.
const LARGEST_PAYLOAD: u32 = 65_160;

/// Names a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

/// Names a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(u64);

/// Which packets a connection's are.
type Tuple = (SocketAddr, SocketAddr);

/// How segments of a connection are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpOptions {
    /// The only link that may be used.
    pub device: Option<u32>,
    /// Hops; 64 without.
    pub ttl: Option<u8>,
    /// Type of service or traffic class.
    pub tos: u8,
}

impl TcpOptions {
    /// For a peer whose SYN came over `link`: a link-local one is on that link.
    pub(crate) fn on_link_of(self, remote: SocketAddr, link: u32) -> TcpOptions {
        let device = if is_link_local(remote.ip()) && remote.is_ipv6() { Some(link) } else { self.device };
        TcpOptions { device, ..self }
    }
}

pub(crate) struct Slot {
    pub(crate) connection: Connection,
    local: SocketAddr,
    pub(crate) remote: SocketAddr,
    options: TcpOptions,
    observer: Option<Arc<dyn Observer>>,
    /// The listener that it is for, until it is accepted.
    pub(crate) listener: Option<ListenerId>,
    /// Nobody holds it any more.
    pub(crate) released: bool,
    timer: Option<Time>,
}

/// What a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOn {
    /// The port.
    pub port: u16,
    /// The address, or the any address of its family.
    pub address: IpAddr,
    /// It takes connections of IPv4 too, though its address is the any address of IPv6.
    pub dual: bool,
    /// The only link that it takes connections from.
    pub device: Option<u32>,
}

pub(crate) struct Listener {
    on: ListenOn,
    pub(crate) backlog: usize,
    pub(crate) settings: Settings,
    pub(crate) options: TcpOptions,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) ready: VecDeque<ConnectionId>,
    pub(crate) embryos: usize,
    /// When a SYN was answered by a cookie last.
    pub(crate) overflowed: Option<Time>,
}

/// A connection that was accepted.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// Its name.
    pub id: ConnectionId,
    /// The own address.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

/// A connection as /proc/net/tcp shows it.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// The own address.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// The state.
    pub state: ConnectionState,
    /// Whether a socket holds it, which then is the one to show it.
    pub held: bool,
}

/// All connections and listeners.
#[derive(Default)]
pub(crate) struct Connections {
    /// Segments that connections which are gone sent again.
    pub(crate) retransmitted: u64,
    pub(crate) slots: HashMap<ConnectionId, Slot>,
    waiting: HashMap<ConnectionId, waiting::Waiting>,
    pub(crate) by_tuple: HashMap<Tuple, ConnectionId>,
    pub(crate) listeners: HashMap<ListenerId, Listener>,
    timers: BinaryHeap<Reverse<(Time, ConnectionId)>>,
    /// Those that have more to send than their link had room for.
    blocked: Vec<ConnectionId>,
    next: u64,
}

impl Connections {
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    fn fresh(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    /// The listener for a segment: one for just that address before one for any; `turn` chooses among equals (SO_REUSEPORT).
    pub(crate) fn listener_for(&self, local: SocketAddr, link: u32, turn: u32) -> Option<ListenerId> {
        let fits = |l: &Listener| {
            let on = &l.on;
            let family = on.address.is_ipv4() == local.is_ipv4() || (on.dual && local.is_ipv4());
            on.port == local.port()
                && on.device.is_none_or(|d| d == link)
                && (on.address == local.ip() || (on.address.is_unspecified() && family))
        };
        // As Linux scores listeners: the exact address first, then the
        // bound link, then the one family (`compute_score`).
        let closeness = |l: &Listener| (l.on.address == local.ip(), l.on.device.is_some(), !l.on.dual);
        let best = self.listeners.values().filter(|l| fits(l)).map(closeness).max()?;
        let mut equals: Vec<ListenerId> =
            self.listeners.iter().filter(|(_, l)| fits(l) && closeness(l) == best).map(|(id, _)| *id).collect();
        // The map has no order; sorted, the same turn finds the same listener.
        equals.sort_unstable();
        // The turn is a hash of the addresses, so that all segments of one client meet one listener.
        let turn = usize::try_from(turn).unwrap_or(0).checked_rem(equals.len()).unwrap_or(0);
        equals.get(turn).copied()
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) {
        let slot = self.slots.remove(&id);
        let Some(tuple) = slot.as_ref().map(|s| (s.local, s.remote)).or_else(|| self.forget(id)) else { return };
        // The tuple may have been given to a younger connection since.
        if self.by_tuple.get(&tuple) == Some(&id) {
            self.by_tuple.remove(&tuple);
        }
        self.tidy();
        let Some(slot) = slot else { return };
        self.retransmitted = self.retransmitted.wrapping_add(slot.connection.retransmitted().into());
        // Either queue of the listener may have it.
        if let Some(listener) = slot.listener.and_then(|l| self.listeners.get_mut(&l)) {
            match listener.ready.iter().position(|r| *r == id) {
                Some(at) => {
                    listener.ready.remove(at);
                }
                None => listener.embryos = listener.embryos.saturating_sub(1),
            }
        }
    }
}

impl Stack {
    /// Begins a connection.
    ///
    /// # Errors
    /// EADDRNOTAVAIL if there is one between these addresses; ENOBUFS; those of [`Stack::path`].
    pub fn tcp_connect(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        options: TcpOptions,
        settings: Settings,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<ConnectionId, Errno> {
        let path = self.path(remote.ip(), options.device, Some(local.ip()))?;
        // Own addresses are served by the sockets in memory, and groups have no connections.
        if path.kind != Destination::Unicast {
            return Err(Errno::ENETUNREACH);
        }
        if let Some(&old) = self.tcp.by_tuple.get(&(local, remote)) {
            // One that only waits for stray segments gives way (`tcp_twsk_unique`).
            if !self.tcp.only_waits(old) {
                return Err(Errno::EADDRNOTAVAIL);
            }
            self.tcp.remove(old);
        }
        let parameters = self.parameters(local, remote, &path, settings)?;
        count(&mut self.counted.tcp_active_opens);
        let connection = Connection::connect(parameters, self.now);
        let id = self.add(connection, local, remote, options, observer, None);
        self.flush_tcp(id);
        // An answer may have come over the loopback already.
        self.drain_looped();
        Ok(id)
    }

    pub(crate) fn add(
        &mut self,
        connection: Connection,
        local: SocketAddr,
        remote: SocketAddr,
        options: TcpOptions,
        observer: Option<Arc<dyn Observer>>,
        listener: Option<ListenerId>,
    ) -> ConnectionId {
        let id = ConnectionId(self.tcp.fresh());
        let slot = Slot { connection, local, remote, options, observer, listener, released: false, timer: None };
        self.tcp.slots.insert(id, slot);
        self.tcp.by_tuple.insert((local, remote), id);
        id
    }

    pub(crate) fn parameters(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        path: &Path,
        settings: Settings,
    ) -> Result<Parameters, Errno> {
        // TIME_WAIT counts too: else a peer that opens and closes could fill the memory.
        if self.tcp.count() >= MOST_CONNECTIONS {
            return Err(Errno::ENOBUFS);
        }
        let path_mss = path_mss(path.mtu, remote.is_ipv4());
        // A device that cuts segments takes up to this much at once.
        let segments = self.links.get(&path.link).and_then(|l| l.features).map_or(0, |f| f.tcp_segments);
        // A clock of 4 us and a secret of the addresses (RFC 6528).
        let clock: u32 = ((self.now.us() >> 2) & 0xffff_ffff).narrow();
        Ok(Parameters {
            iss: self.secret(("iss", local, remote)).wrapping_add(clock),
            timestamp_offset: self.secret(("timestamps", local.ip(), remote.ip())),
            path_mss,
            largest_segment: segments.min(LARGEST_PAYLOAD),
            settings,
            rules: self.rules,
        })
    }

    /// Begins to take connections.
    pub fn tcp_listen(
        &mut self,
        on: ListenOn,
        backlog: usize,
        options: TcpOptions,
        settings: Settings,
        observer: Arc<dyn Observer>,
    ) -> ListenerId {
        let id = ListenerId(self.tcp.fresh());
        let ready = VecDeque::new();
        let listener = Listener { on, backlog, settings, options, observer, ready, embryos: 0, overflowed: None };
        self.tcp.listeners.insert(id, listener);
        id
    }

    /// Changes a listener's backlog.
    pub fn tcp_set_backlog(&mut self, id: ListenerId, backlog: usize) {
        if let Some(listener) = self.tcp.listeners.get_mut(&id) {
            listener.backlog = backlog;
        }
    }

    /// Connections that wait to be accepted.
    #[must_use]
    pub fn tcp_waiting(&self, id: ListenerId) -> usize {
        self.tcp.listeners.get(&id).map_or(0, |l| l.ready.len())
    }

    /// Takes a connection that stands.
    pub fn tcp_accept(&mut self, id: ListenerId) -> Option<Accepted> {
        let ready = self.tcp.listeners.get_mut(&id)?.ready.pop_front()?;
        // A connection that was reset while it waited is given out as well; its reader finds the error.
        let slot = self.tcp.slots.get_mut(&ready)?;
        slot.listener = None;
        Some(Accepted { id: ready, local: slot.local, remote: slot.remote })
    }

    /// Says who is to be told of a connection's changes.
    pub fn tcp_observe(&mut self, id: ConnectionId, observer: Arc<dyn Observer>) {
        if let Some(slot) = self.tcp.slots.get_mut(&id) {
            slot.observer = Some(observer);
        }
    }

    /// Ends a listener: what nobody has accepted is reset.
    pub fn tcp_stop_listening(&mut self, id: ListenerId) {
        self.tcp.listeners.remove(&id);
        // Those that do not stand yet are in no queue, so all slots are looked at.
        let orphans: Vec<ConnectionId> =
            self.tcp.slots.iter().filter(|(_, s)| s.listener == Some(id)).map(|(id, _)| *id).collect();
        for orphan in orphans {
            if let Some(slot) = self.tcp.slots.get_mut(&orphan) {
                // They have a peer, which learns that nobody will serve it.
                slot.connection.abort();
                slot.released = true;
            }
            self.flush_tcp(orphan);
        }
        self.drain_looped();
    }

    /// Does something with a connection, and sends what follows from it. `None` if there is no such connection.
    pub fn with_tcp<R>(&mut self, id: ConnectionId, f: impl FnOnce(&mut Connection, Time) -> R) -> Option<R> {
        let now = self.now;
        let slot = self.tcp.slots.get_mut(&id)?;
        let result = f(&mut slot.connection, now);
        self.flush_tcp(id);
        self.drain_looped();
        Some(result)
    }

    /// Looks at a connection, of which nothing follows.
    pub fn look_at_tcp<R>(&mut self, id: ConnectionId, f: impl FnOnce(&mut Connection, Time) -> R) -> Option<R> {
        let now = self.now;
        self.tcp.slots.get_mut(&id).map(|slot| f(&mut slot.connection, now))
    }

    /// Changes how a connection's packets are sent.
    pub fn tcp_set_options(&mut self, id: ConnectionId, options: TcpOptions) {
        if let Some(slot) = self.tcp.slots.get_mut(&id) {
            slot.options = options;
        }
    }

    /// The socket is gone: the connection ends by itself.
    pub fn tcp_release(&mut self, id: ConnectionId) {
        if let Some(slot) = self.tcp.slots.get_mut(&id) {
            slot.released = true;
            // The socket is on its way out and must not be called again.
            slot.observer = None;
        }
        self.with_tcp(id, Connection::release);
    }

    /// All connections.
    #[must_use]
    pub fn tcp_list(&self) -> Vec<Listed> {
        let listed = |s: &Slot| Listed {
            local: s.local,
            remote: s.remote,
            state: s.connection.state(),
            held: !s.released && s.listener.is_none(),
        };
        self.tcp.slots.values().map(listed).chain(self.tcp.list_waiting()).collect()
    }

    /// Sends what a connection has to send, tells its observer, and sets its timer.
    pub(crate) fn flush_tcp(&mut self, id: ConnectionId) {
        let now = self.now;
        let mut out = Vec::new();
        let mut more = true;
        while more {
            let Some(slot) = self.tcp.slots.get_mut(&id) else { return };
            // Copied, so that the slot is free while the route is looked up.
            let (local, remote, options) = (slot.local, slot.remote, slot.options);
            more = slot.connection.output(now, BURST, &mut out);
            if out.is_empty() {
                break;
            }
            match self.path(remote.ip(), options.device, Some(local.ip())) {
                Ok(path) => {
                    for segment in out.drain(..) {
                        self.send_segment(&path, local, remote, &options, segment);
                    }
                    // Other connections of the link have their turn, and memory does not fill with frames.
                    if more && !self.has_room(path.link) {
                        self.tcp.blocked.push(id);
                        break;
                    }
                }
                // As a packet that is lost.
                Err(_) => out.clear(),
            }
        }
        self.settle_tcp(id);
    }

    fn settle_tcp(&mut self, id: ConnectionId) {
        let Some(slot) = self.tcp.slots.get_mut(&id) else { return };
        let changes = slot.connection.take_changes();
        if changes.any()
            && let Some(observer) = &slot.observer
        {
            self.notices.push(Notice { observer: observer.clone(), changes });
        }
        // Nobody would take an error away.
        let abandoned = slot.released || slot.listener.is_some();
        if slot.connection.state() == ConnectionState::Closed && abandoned {
            // One that waits to be accepted and was reset is accepted all the same, and tells of it.
            let waits = slot.listener.and_then(|l| self.tcp.listeners.get(&l)).is_some_and(|l| l.ready.contains(&id));
            if !waits || slot.released {
                self.tcp.remove(id);
            }
            return;
        }
        let Some(at) = slot.connection.deadline() else { return };
        // A timer that is set too early only looks again; one too late would be missed.
        if slot.timer.is_none_or(|t| at < t) {
            slot.timer = Some(at);
            self.tcp.timers.push(Reverse((at, id)));
        }
        self.tcp.lay_down(id);
    }

    pub(crate) fn poll_tcp(&mut self) {
        let now = self.now;
        while let Some(&Reverse((at, id))) = self.tcp.timers.peek() {
            if at > now {
                break;
            }
            self.tcp.timers.pop();
            let Some(slot) = self.tcp.slots.get_mut(&id) else {
                self.tcp.waited(id, at, now);
                continue;
            };
            // The entry was replaced by an earlier one: a heap gives up nothing from its middle.
            if slot.timer != Some(at) {
                continue;
            }
            slot.timer = None;
            // The deadline has moved on since the timer was set.
            if slot.connection.deadline().is_some_and(|d| d <= now) {
                slot.connection.on_timer(now);
                self.flush_tcp(id);
            } else {
                self.settle_tcp(id);
            }
        }
        self.resume_tcp();
    }

    /// Links have room again: goes on where it lacked.
    pub fn resume_tcp(&mut self) {
        for id in std::mem::take(&mut self.tcp.blocked) {
            self.flush_tcp(id);
        }
    }

    /// Whether connections wait for room in a link's queue.
    #[must_use]
    pub fn tcp_blocked(&self) -> bool {
        !self.tcp.blocked.is_empty()
    }
}

/// Payload of the largest segment with a header without options.
pub(crate) fn path_mss(mtu: u32, v4: bool) -> u16 {
    let headers = if v4 { IPV4 } else { IPV6 }.saturating_add(20);
    // The largest payload that IPv4's length field has room for, with both headers.
    mtu.saturating_sub(headers.narrow()).min(65_495).narrow()
}
