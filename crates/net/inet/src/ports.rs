//! Who has which port: bind conflicts, automatic ports, the search for a receiver.
//!
//! Source: `inet_csk_bind_conflict`, `inet_rcv_saddr_equal`, `compute_score` of Linux's `net/ipv4`.

mod persist;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, RangeInclusive};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use moat_abi::cap::Cap;
use moat_abi::{Errno, Result};
use moat_identity::net::NetSettings;
use moat_identity::{NetNamespace, Setting};
use moat_sync::{LockClass, Mutex};
use moat_vfs::Caller;

use crate::stack::{NetStack, stack_of};
use crate::tcp::TcpSocket;
use crate::udp::UdpSocket;

/// The ports that bind(2) chooses from (`net.ipv4.ip_local_port_range`).
fn local_ports(settings: &NetSettings) -> RangeInclusive<u16> {
    let port = |s: &Setting| u16::try_from(s.get()).unwrap_or(u16::MAX);
    let first = port(&settings.first_local_port);
    first..=port(&settings.last_local_port).max(first)
}

/// The address part of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingPlace {
    /// The address; the any address takes all of its family.
    pub ip: IpAddr,
    /// `::` of a socket that takes IPv4 as well.
    pub dual: bool,
}

impl BindingPlace {
    fn covers(self, ip: IpAddr) -> bool {
        // The any address of one family covers none of the other, unless the socket is dual.
        self.dual || self.ip == ip || (self.ip.is_unspecified() && self.ip.is_ipv4() == ip.is_ipv4())
    }

    fn overlaps(self, other: BindingPlace) -> bool {
        self.dual || other.dual || self.covers(other.ip) || other.covers(self.ip)
    }
}

/// What decides whether two sockets may share a port.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Sharing {
    pub reuse_address: bool,
    pub reuse_port: bool,
    /// Only one user's sockets share by SO_REUSEPORT.
    pub uid: u32,
}

/// A socket's binding.
pub struct Binding<S> {
    place: BindingPlace,
    sharing: Sharing,
    /// A listening TCP socket shares its address with nobody but by SO_REUSEPORT.
    listening: bool,
    /// The only peer that a connected datagram socket takes messages of.
    peer: Option<SocketAddr>,
    socket: Weak<S>,
}

/// The ports of one protocol.
pub struct Ports<S> {
    by_port: HashMap<u16, BTreeMap<u64, Binding<S>>>,
    /// Listening sockets, so that they are found among many connections.
    listeners: HashMap<u16, Vec<u64>>,
    /// Where the search for a free port goes on.
    next: u16,
    /// Whose turn it is among listeners that share an address.
    turn: AtomicU32,
    /// Ports that were drawn, and what they are drawn with.
    draws: u64,
    secret: RandomState,
}

impl<S> Default for Ports<S> {
    fn default() -> Self {
        Ports {
            by_port: HashMap::new(),
            listeners: HashMap::new(),
            next: 0,
            turn: AtomicU32::new(0),
            draws: 0,
            secret: RandomState::new(),
        }
    }
}

impl<S> Ports<S> {
    /// Binds a socket, known by `id`; port 0 takes a free one of `settings`. Gives the port.
    ///
    /// # Errors
    /// EADDRINUSE.
    pub fn bind(
        &mut self,
        settings: &NetSettings,
        id: u64,
        socket: &Weak<S>,
        (place, port): (BindingPlace, u16),
        sharing: Sharing,
    ) -> Result<u16> {
        // Drawn and entered under one lock, so that two sockets never get one port.
        let port = if port == 0 { self.free_port(local_ports(settings)).ok_or(Errno::EADDRINUSE)? } else { port };
        if self.conflicts(id, place, port, sharing, false) {
            return Err(Errno::EADDRINUSE);
        }
        self.insert(id, socket, place, port, sharing);
        Ok(port)
    }

    /// Enters a binding that can't conflict: that of an accepted connection.
    pub fn insert(&mut self, id: u64, socket: &Weak<S>, place: BindingPlace, port: u16, sharing: Sharing) {
        let binding = Binding { place, sharing, listening: false, peer: None, socket: socket.clone() };
        self.by_port.entry(port).or_default().insert(id, binding);
    }

    /// A port that nobody has; which one can't be guessed (RFC 6056).
    fn free_port(&mut self, among: RangeInclusive<u16>) -> Option<u16> {
        let (first, last) = among.clone().into_inner();
        let count = u64::from(last.saturating_sub(first)).saturating_add(1);
        self.draws = self.draws.wrapping_add(1);
        let drawn = self.secret.hash_one(self.draws);
        let offset = u16::try_from(drawn.checked_rem(count).unwrap_or(0)).unwrap_or(0);
        self.next = first.saturating_add(offset);
        // Each port of the range once, from a random start.
        for _ in among {
            let port = self.next.clamp(first, last);
            self.next = if port >= last { first } else { port + 1 };
            if !self.by_port.contains_key(&port) {
                return Some(port);
            }
        }
        None
    }

    fn conflicts(&self, id: u64, place: BindingPlace, port: u16, new: Sharing, listening: bool) -> bool {
        let Some(bindings) = self.by_port.get(&port) else { return false };
        bindings.iter().filter(|(i, b)| **i != id && b.place.overlaps(place)).any(|(_, b)| {
            let old = b.sharing;
            let by_address = old.reuse_address && new.reuse_address && !b.listening && !listening;
            let by_port = old.reuse_port && new.reuse_port && old.uid == new.uid;
            // A connection that was accepted does not stand in the way of its listener's successor.
            let by_succession = old.reuse_address && new.reuse_address && !b.listening && listening;
            !(by_address || by_port || by_succession)
        })
    }

    /// Marks a bound socket as listening.
    ///
    /// # Errors
    /// EADDRINUSE if another one listens there.
    pub fn listen(&mut self, id: u64, port: u16, sharing: Sharing) -> Result<()> {
        let Some(binding) = self.by_port.get_mut(&port).and_then(|b| b.get_mut(&id)) else { return Err(Errno::EINVAL) };
        // The options may have changed since bind(2), and count at listen(2).
        binding.sharing = sharing;
        let place = binding.place;
        if self.conflicts(id, place, port, sharing, true) {
            return Err(Errno::EADDRINUSE);
        }
        if let Some(b) = self.by_port.get_mut(&port).and_then(|b| b.get_mut(&id)) {
            b.listening = true;
        }
        let listeners = self.listeners.entry(port).or_default();
        // listen(2) may be called again, for another backlog.
        if !listeners.contains(&id) {
            listeners.push(id);
        }
        Ok(())
    }

    /// Takes back [`Ports::listen`].
    pub fn stop_listening(&mut self, id: u64, port: u16) {
        if let Some(b) = self.by_port.get_mut(&port).and_then(|b| b.get_mut(&id)) {
            b.listening = false;
        }
        if let Some(l) = self.listeners.get_mut(&port) {
            l.retain(|i| *i != id);
            if l.is_empty() {
                self.listeners.remove(&port);
            }
        }
    }

    /// Narrows a binding to a local address and a peer, or widens it again.
    pub fn connect(&mut self, id: u64, port: u16, place: BindingPlace, peer: Option<SocketAddr>) {
        if let Some(b) = self.by_port.get_mut(&port).and_then(|b| b.get_mut(&id)) {
            b.place = place;
            b.peer = peer;
        }
    }

    /// Gives up a binding.
    pub fn unbind(&mut self, id: u64, port: u16) {
        self.stop_listening(id, port);
        if let Some(bindings) = self.by_port.get_mut(&port) {
            bindings.remove(&id);
            if bindings.is_empty() {
                self.by_port.remove(&port);
            }
        }
    }

    /// The listening socket for an address: one bound to it before one bound to any; by turns among equals.
    #[must_use]
    pub fn listener(&self, to: SocketAddr) -> Option<Arc<S>> {
        let ids = self.listeners.get(&to.port())?;
        // The binding says where the socket listens, the list only which sockets do.
        let bindings = self.by_port.get(&to.port())?;
        let fitting = || ids.iter().filter_map(|id| bindings.get(id)).filter(|b| b.place.covers(to.ip()));
        let best = fitting().map(|b| score(b, to.ip())).max()?;
        let equals: Vec<_> = fitting().filter(|b| score(b, to.ip()) == best).collect();
        // SO_REUSEPORT spreads connections over those that fit alike.
        let turn = if equals.len() > 1 { self.turn.fetch_add(1, Ordering::Relaxed) as usize } else { 0 };
        equals.get(turn % equals.len().max(1))?.socket.upgrade()
    }

    /// The datagram socket that takes a message `from` one address `to` another: the closest fit, the newest among equals.
    #[must_use]
    pub fn receiver(&self, from: SocketAddr, to: SocketAddr) -> Option<Arc<S>> {
        // The map is in order of ids, which grow: of equals the last one is the newest.
        let bindings = self.by_port.get(&to.port())?;
        let fitting = || bindings.values().filter(|b| b.place.covers(to.ip()) && b.peer.is_none_or(|p| p == from));
        // A socket that is connected to the sender comes before any that is not (`compute_score`).
        let key = |b: &&Binding<S>| (b.peer.is_some(), score(b, to.ip()));
        let newest = fitting().max_by_key(key)?;
        if !newest.sharing.reuse_port || newest.peer.is_some() {
            return newest.socket.upgrade();
        }
        // SO_REUSEPORT spreads messages over those that fit alike, by their sender (`reuseport_select_sock`).
        let best = key(&newest);
        let equals: Vec<_> = fitting().filter(|b| b.sharing.reuse_port && key(b) == best).collect();
        let count = u64::try_from(equals.len()).unwrap_or(u64::MAX);
        let turn = self.secret.hash_one((from, to)).checked_rem(count).unwrap_or(0);
        equals.get(usize::try_from(turn).unwrap_or(0))?.socket.upgrade()
    }

    /// All sockets that take messages to a group or to everybody.
    #[must_use]
    pub fn receivers(&self, from: SocketAddr, to: SocketAddr) -> Vec<Arc<S>> {
        let Some(bindings) = self.by_port.get(&to.port()) else { return Vec::new() };
        let fitting = bindings.values().filter(|b| b.place.covers(to.ip()) && b.peer.is_none_or(|p| p == from));
        fitting.filter_map(|b| b.socket.upgrade()).collect()
    }

    /// All sockets, for /proc/net.
    #[must_use]
    pub fn sockets(&self) -> Vec<Arc<S>> {
        self.by_port.values().flat_map(BTreeMap::values).filter_map(|b| b.socket.upgrade()).collect()
    }
}

/// How closely a binding fits an address that it covers.
fn score<S>(b: &Binding<S>, ip: IpAddr) -> u8 {
    match b.place {
        p if p.ip == ip => 2,
        p if p.ip.is_ipv4() == ip.is_ipv4() && !p.dual => 1,
        _ => 0,
    }
}

/// The port tables of a network namespace, which keeps them among its extensions.
pub struct PortTables {
    /// TCP's ports.
    pub tcp: Mutex<Ports<TcpSocket>>,
    /// UDP's ports.
    pub udp: Mutex<Ports<UdpSocket>>,
}

impl Default for PortTables {
    fn default() -> PortTables {
        PortTables {
            tcp: Mutex::new(LockClass::Table, Ports::default()),
            udp: Mutex::new(LockClass::Table, Ports::default()),
        }
    }
}

/// A network namespace, with its port tables at hand.
#[derive(Clone)]
pub struct Net {
    /// The namespace.
    pub namespace: Arc<NetNamespace>,
    tables: Arc<PortTables>,
}

impl Net {
    /// The internet side of `namespace`.
    #[must_use]
    pub fn of(namespace: &Arc<NetNamespace>) -> Net {
        Net { namespace: namespace.clone(), tables: PortTables::of(namespace) }
    }

    /// The namespace's stack, if it has one.
    #[must_use]
    pub fn stack(&self) -> Option<Arc<NetStack>> {
        stack_of(&self.namespace)
    }
}

impl PortTables {
    /// Those of `namespace`.
    #[must_use]
    pub fn of(namespace: &NetNamespace) -> Arc<PortTables> {
        namespace.extensions.get_or_init(PortTables::default)
    }
}

impl Deref for Net {
    type Target = PortTables;
    fn deref(&self) -> &PortTables {
        &self.tables
    }
}

/// EACCES if the caller may not have a port.
///
/// # Errors
/// EACCES.
pub fn check_privilege(caller: &dyn Caller, net: &Net, port: u16) -> Result<()> {
    if port != 0
        && u64::from(port) < net.namespace.settings.first_unprivileged_port.get()
        && !caller.creds().has_cap_in(&net.namespace.user_ns, Cap::NET_BIND_SERVICE)
    {
        return Err(Errno::EACCES);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO: Sharing = Sharing { reuse_address: false, reuse_port: false, uid: 0 };
    const ADDRESS: Sharing = Sharing { reuse_address: true, ..NO };
    const PORT: Sharing = Sharing { reuse_port: true, ..NO };

    fn place(ip: &str, dual: bool) -> BindingPlace {
        BindingPlace { ip: ip.parse().unwrap(), dual }
    }

    fn bind(p: &mut Ports<u8>, id: u64, ip: &str, port: u16, sharing: Sharing) -> Result<u16> {
        p.bind(&NetSettings::default(), id, &Weak::new(), (place(ip, ip == "::"), port), sharing)
    }

    #[test]
    fn addresses_that_overlap_conflict() {
        let mut p = Ports::default();
        assert_eq!(bind(&mut p, 1, "127.0.0.1", 5000, NO), Ok(5000));
        assert_eq!(bind(&mut p, 2, "127.0.0.2", 5000, NO), Ok(5000));
        assert_eq!(bind(&mut p, 3, "0.0.0.0", 5000, NO), Err(Errno::EADDRINUSE));
        assert_eq!(bind(&mut p, 3, "::1", 5000, NO), Ok(5000));
        assert_eq!(bind(&mut p, 4, "::", 5000, NO), Err(Errno::EADDRINUSE));
        p.unbind(1, 5000);
        assert_eq!(bind(&mut p, 4, "127.0.0.1", 5000, NO), Ok(5000));
    }

    #[test]
    fn reuse_needs_both_and_no_listener() {
        let mut p = Ports::default();
        assert_eq!(bind(&mut p, 1, "0.0.0.0", 80, ADDRESS), Ok(80));
        assert_eq!(bind(&mut p, 2, "0.0.0.0", 80, NO), Err(Errno::EADDRINUSE));
        assert_eq!(bind(&mut p, 2, "0.0.0.0", 80, ADDRESS), Ok(80));
        assert_eq!(p.listen(1, 80, ADDRESS), Ok(()));
        assert_eq!(p.listen(2, 80, ADDRESS), Err(Errno::EADDRINUSE));
        assert_eq!(bind(&mut p, 3, "0.0.0.0", 80, ADDRESS), Err(Errno::EADDRINUSE));
        assert_eq!(bind(&mut p, 4, "0.0.0.0", 81, PORT), Ok(81));
        assert_eq!((p.listen(4, 81, PORT), bind(&mut p, 5, "0.0.0.0", 81, PORT)), (Ok(()), Ok(81)));
        assert_eq!(p.listen(5, 81, PORT), Ok(()));
        assert_eq!(bind(&mut p, 6, "0.0.0.0", 81, Sharing { uid: 1, ..PORT }), Err(Errno::EADDRINUSE));
    }

    #[test]
    fn the_closest_listener_is_found() {
        let mut p: Ports<&str> = Ports::default();
        let (any, exact) = (Arc::new("any"), Arc::new("exact"));
        p.bind(&NetSettings::default(), 1, &Arc::downgrade(&any), (place("::", true), 80), ADDRESS).unwrap();
        p.listen(1, 80, ADDRESS).unwrap();
        let to = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 80);
        assert_eq!(p.listener(to("127.0.0.1")).as_deref(), Some(&"any"));
        p.bind(&NetSettings::default(), 2, &Arc::downgrade(&exact), (place("::1", false), 80), ADDRESS).unwrap_err();
        p.stop_listening(1, 80);
        assert!(p.listener(to("127.0.0.1")).is_none());
        p.bind(&NetSettings::default(), 2, &Arc::downgrade(&exact), (place("::1", false), 80), ADDRESS).unwrap();
        p.listen(2, 80, ADDRESS).unwrap();
        assert_eq!(p.listener(to("::1")).as_deref(), Some(&"exact"));
    }

    #[test]
    fn automatic_ports_run_out() {
        let mut p = Ports::default();
        let (first, last) = local_ports(&NetSettings::default()).into_inner();
        let bound: Vec<u16> =
            (0..u64::from(last - first) + 1).map(|id| bind(&mut p, id, "127.0.0.1", 0, NO).unwrap()).collect();
        assert_ne!(bound[..8], (first..first + 8).collect::<Vec<_>>()[..]);
        assert_eq!(bind(&mut p, 1 << 40, "127.0.0.1", 0, NO), Err(Errno::EADDRINUSE));
        p.unbind(7, bound[7]);
        assert_eq!(bind(&mut p, 1 << 40, "127.0.0.1", 0, NO), Ok(bound[7]));
    }
}
