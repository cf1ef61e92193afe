//! [`UdpSocket`]: UDP, udp(7).
//!
//! A datagram to an own address goes straight into its receiver's queue, others over the stack; one that finds no room is lost, as
//! on a wire.

mod arrive;
mod persist;
mod segments;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use moat_abi::socket::{
    AF_INET6, AF_UNSPEC, IPPROTO_UDP, MsgFlags, SOCK_DGRAM, SOL_SOCKET, TCP_CLOSE, TCP_ESTABLISHED,
};
use moat_abi::{Errno, PollEvents, Result};
use moat_image::Refusal;
use moat_image::state::SocketRef;
use moat_net_stack::{SendError, SendOptions};
use moat_sync::{LockClass, Mutex};
use moat_vfs::Caller;
use moat_vfs::file::SaveFiles;
use moat_vfs::socket::{
    Ancillary, BufferSide, CoreFlags, Incoming, Outgoing, Shutdown, SockAddr, Socket, SocketCore, SocketKind,
    SocketMaker, family_of,
};

use crate::address::{self, Way};
use crate::ancillary::Arrived;
use crate::device::LO_INDEX;
use crate::errors::ErrorQueue;
use crate::inbox::{Datagram, Inbox};
use crate::inspect::{Inspect, SocketInfo};
use crate::options::{InetOptions, Protocol, Standing};
use crate::ports::{BindingPlace, Net, Sharing, check_privilege};
pub(crate) use arrive::{receive, receive_error};
use segments::Filter;

/// Bytes that a datagram can carry, by the length fields of the headers.
const MOST_V4: usize = 65_507;
const MOST_V6: usize = 65_527;

/// Bytes of a datagram's own header.
const UDP_HEADER: usize = 8;

/// Everybody on the loopback.
const LOOPBACK_BROADCAST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 255, 255, 255));

const SHUT_READ: u8 = 1;
const SHUT_WRITE: u8 = 2;

#[derive(Default)]
struct UdpState {
    local: Option<SocketAddr>,
    /// The address was given by bind(2): disconnecting keeps it.
    bound_address: Option<IpAddr>,
    bound_port: bool,
    peer: Option<SocketAddr>,
}

/// A UDP socket.
pub struct UdpSocket {
    me: Weak<UdpSocket>,
    family: u16,
    net: Net,
    core: SocketCore,
    options: InetOptions,
    uid: u32,
    shutdown: AtomicU8,
    state: Mutex<UdpState>,
    inbox: Inbox,
    errors: ErrorQueue,
    filter: Mutex<Filter>,
}

/// What a datagram counts for in a receive buffer.
fn cost(len: usize) -> usize {
    // The bookkeeping of a packet buffer (`skb->truesize`), so that a guest sees as many fit as on Linux.
    (len + 320).next_multiple_of(512) + 256
}

impl UdpSocket {
    /// A socket of AF_INET or AF_INET6.
    pub(crate) fn new(maker: &SocketMaker<'_>, family: u16) -> Arc<UdpSocket> {
        Arc::new_cyclic(|me| UdpSocket {
            me: me.clone(),
            family,
            net: Net::of(maker.net),
            core: maker.core(),
            options: InetOptions::new(family),
            uid: maker.caller.creds().euid,
            shutdown: AtomicU8::new(0),
            state: Mutex::new(LockClass::Socket, UdpState::default()),
            inbox: Inbox::new(cost, maker.memory.clone()),
            errors: ErrorQueue::new(),
            filter: Filter::new(),
        })
    }

    fn id(&self) -> u64 {
        self.core.ino()
    }

    fn place(&self, ip: IpAddr) -> BindingPlace {
        BindingPlace {
            ip,
            dual: self.family == AF_INET6 && ip.is_unspecified() && ip.is_ipv6() && !self.options.v6_only(),
        }
    }

    fn sharing(&self) -> Sharing {
        Sharing {
            reuse_address: self.core.has(CoreFlags::REUSEADDR),
            reuse_port: self.core.has(CoreFlags::REUSEPORT),
            uid: self.uid,
        }
    }

    /// Takes an automatic port if there is none.
    fn ensure_bound(&self, state: &mut UdpState) -> Result<SocketAddr> {
        if let Some(local) = state.local {
            return Ok(local);
        }
        let ip = address::any(self.family);
        let port = self
            .net
            .udp
            .lock()
            .bind(&self.net.namespace.settings, self.id(), &self.me, (self.place(ip), 0), self.sharing())
            .map_err(|_| Errno::EAGAIN)?;
        let local = SocketAddr::new(ip, port);
        state.local = Some(local);
        Ok(local)
    }

    fn check_destination(&self, to: SocketAddr, own: Option<IpAddr>, device: Option<u32>) -> Result<Way> {
        if to.port() == 0 {
            return Err(Errno::EINVAL);
        }
        // Of links with other networks the stack checks it, by its routes.
        let broadcast = to.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) || to.ip() == LOOPBACK_BROADCAST;
        if broadcast && !self.core.has(CoreFlags::BROADCAST) {
            return Err(Errno::EACCES);
        }
        if to.ip() == LOOPBACK_BROADCAST && self.net.namespace.is_loopback_up() && device.is_none_or(|d| d == LO_INDEX)
        {
            return Ok(Way { to: to.ip(), source: Ipv4Addr::LOCALHOST.into(), local: true });
        }
        self.net.way(to.ip(), self.options.v6_only(), device, own)
    }

    fn deliver(&self, to_port: u16, datagram: Datagram) {
        let Some(datagram) = self.filtered(to_port, datagram) else {
            self.core.count_lost();
            return;
        };
        if self.inbox.push(datagram, &self.core) {
            self.core.queue().wake(PollEvents::READ_READY);
        }
    }

    /// What was sent went nowhere: a connected socket gets the error, and one with an error queue all that ICMP said.
    fn unreachable(&self, connected: bool, error: &SendError) {
        let queued = self.options.wants_errors(error.header.destination);
        if queued {
            self.errors.push(error, error.payload.get(UDP_HEADER..).unwrap_or_default());
        }
        if connected || queued {
            self.core.set_error(error.errno);
            self.core.queue().wake_all();
        }
    }

    fn disconnect(&self, state: &mut UdpState) {
        state.peer = None;
        let Some(local) = &mut state.local else { return };
        let mut ports = self.net.udp.lock();
        if state.bound_port {
            local.set_ip(state.bound_address.unwrap_or(address::any(self.family)));
            // The binding covers again what bind(2) asked for.
            ports.connect(self.id(), local.port(), self.place(local.ip()), None);
        } else {
            ports.unbind(self.id(), local.port());
            state.local = None;
        }
    }
}

impl Inspect for UdpSocket {
    fn inspect(&self) -> SocketInfo {
        let none = SocketAddr::new(address::any(self.family), 0);
        let (local, peer) = {
            let s = self.state.lock();
            (s.local.unwrap_or(none), s.peer)
        };
        SocketInfo {
            family: self.family,
            state: if peer.is_some() { TCP_ESTABLISHED } else { TCP_CLOSE },
            local,
            peer: peer.unwrap_or(none),
            receive_queue: self.inbox.bytes(),
            send_queue: 0,
            uid: self.uid,
            ino: self.core.ino(),
            device: self.options.device().unwrap_or(0),
            lost: self.core.lost(),
            shutdown: self.shutdown.load(Ordering::Relaxed),
        }
    }

    fn buffers(&self) -> (usize, usize) {
        (self.core.buffer(BufferSide::Receive), self.core.buffer(BufferSide::Send))
    }
}

impl Socket for UdpSocket {
    fn kind(&self) -> SocketKind {
        SocketKind { family: self.family, socket_type: SOCK_DGRAM, protocol: IPPROTO_UDP }
    }

    fn core(&self) -> &SocketCore {
        &self.core
    }

    fn bind(&self, caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        let addr = address::parse_for_bind(self.family, addr)?;
        if self.options.v6_only() && addr.is_ipv4() {
            return Err(Errno::EINVAL);
        }
        if !self.options.may_bind_anything() {
            self.net.check_bindable(addr.ip())?;
        }
        check_privilege(caller, &self.net, addr.port())?;
        let mut state = self.state.lock();
        if state.local.is_some() {
            return Err(Errno::EINVAL);
        }
        let wanted = (self.place(addr.ip()), addr.port());
        let settings = &self.net.namespace.settings;
        let port = self.net.udp.lock().bind(settings, self.id(), &self.me, wanted, self.sharing())?;
        state.local = Some(SocketAddr::new(addr.ip(), port));
        // Kept apart from the port: disconnecting restores the address that was given, or none.
        state.bound_address = (!addr.ip().is_unspecified()).then_some(addr.ip());
        state.bound_port = true;
        Ok(())
    }

    fn connect(&self, _caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        if family_of(addr).ok_or(Errno::EINVAL)? == AF_UNSPEC {
            self.disconnect(&mut self.state.lock());
            return Ok(());
        }
        // The port comes first, and stays where the rest is refused (`inet_dgram_connect`).
        self.ensure_bound(&mut self.state.lock())?;
        let to = address::parse_for_datagram(self.family, addr)?;
        let (group_device, group_source) = self.options.group_way(to.ip());
        let device = self.options.device().or(group_device);
        let own = self.state.lock().bound_address.or(group_source);
        let way = match self.check_destination(to, own, device) {
            // Port 0 is only wrong to send to.
            Err(Errno::EINVAL) if to.port() == 0 => self.net.way(to.ip(), self.options.v6_only(), device, own)?,
            done => done?,
        };
        let source = way.source;
        let peer = SocketAddr::new(way.to, to.port());
        let mut state = self.state.lock();
        let mut local = self.ensure_bound(&mut state)?;
        // The source address may be another than that of the last peer.
        if local.ip().is_unspecified() || state.bound_address.is_none() {
            local.set_ip(source);
        }
        state.local = Some(local);
        state.peer = Some(peer);
        self.net.udp.lock().connect(self.id(), local.port(), BindingPlace { ip: local.ip(), dual: false }, Some(peer));
        Ok(())
    }

    fn local_address(&self) -> Result<SockAddr> {
        let none = SocketAddr::new(address::any(self.family), 0);
        Ok(address::format(self.family, self.state.lock().local.unwrap_or(none)))
    }

    fn peer_address(&self) -> Result<SockAddr> {
        // One without a port is none to be seen (`inet_getname`).
        let peer = self.state.lock().peer.filter(|p| p.port() != 0).ok_or(Errno::ENOTCONN)?;
        Ok(address::format(self.family, peer))
    }

    fn send(&self, _caller: Option<&dyn Caller>, message: &mut Outgoing<'_>) -> Result<usize> {
        if message.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let given = match message.to {
            // An IPv6 socket takes AF_UNSPEC as no address at all (`udpv6_sendmsg`).
            Some(addr) if family_of(addr) == Some(AF_UNSPEC) && self.family == AF_INET6 => None,
            Some(addr) => Some(address::parse_for_datagram(self.family, addr)?),
            None => None,
        };
        if self.shutdown.load(Ordering::Relaxed) & SHUT_WRITE != 0 {
            return Err(Errno::EPIPE);
        }
        self.core.take_error()?;
        let mut options = SendOptions { device: self.options.device(), ..SendOptions::default() };
        let mut chosen = None;
        for control in &message.ancillary.other {
            chosen = self.options.steer(control, &mut options)?.or(chosen);
        }
        let (from, way, to, connected) = {
            let mut state = self.state.lock();
            let to = given.or(state.peer).ok_or(Errno::EDESTADDRREQ)?;
            // The field for the length counts the headers of IPv4 but not those of IPv6.
            let most = if to.is_ipv4() { MOST_V4 } else { MOST_V6 };
            if message.data.len() > most {
                return Err(Errno::EMSGSIZE);
            }
            self.options.packet_options(to.ip(), &mut options);
            // An IPv6 address that connect(2) chose stands in no IPv4 datagram's way; one of IPv4 does, the other way round.
            let fits = |ip: &IpAddr| state.bound_address.is_some() || ip.is_ipv4() || to.is_ipv6();
            let local = state.local.map(|l| l.ip()).filter(|ip| !ip.is_unspecified() && fits(ip));
            let own = chosen.or(local).or(self.options.group_way(to.ip()).1);
            let way = self.check_destination(to, own, options.device)?;
            // A socket that only sends gets its port with the first datagram.
            let mut from = self.ensure_bound(&mut state)?;
            if let Some(chosen) = chosen {
                from.set_ip(chosen);
            }
            // An any address is filled in for this datagram alone.
            if from.ip().is_unspecified() || from.is_ipv4() != way.to.is_ipv4() {
                from.set_ip(way.source);
            }
            let to = SocketAddr::new(way.to, to.port());
            (from, way, to, state.peer == Some(to))
        };
        let segment = self.segment_size(message, to, way.local)?;
        let parts = segments::parts(message.data, segment);
        if way.local {
            // No router lies between: the receiver sees the starting value.
            let ttl = options.ttl.unwrap_or(64);
            let at = moat_vfs::clock::now();
            let arrived = Arrived { to: to.ip(), device: LO_INDEX, ttl, tos: options.tos, segment: 0, at, lost: 0 };
            self.send_local((from, to, connected), arrived, message.data, &parts);
        } else {
            options.broadcast = self.core.has(CoreFlags::BROADCAST);
            let stack = self.net.stack().ok_or(Errno::ENETUNREACH)?;
            stack.with(|s| parts.iter().try_for_each(|part| s.send_datagram(from, to, part, &options)))?;
        }
        message.ancillary = Ancillary::default();
        Ok(message.data.len())
    }

    fn receive(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Incoming> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            return self.errors.receive(&self.core, buf, self.family);
        }
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.core.take_error()?;
        let port = self.state.lock().local.map_or(0, |l| l.port());
        match self.inbox.receive(buf, flags, (&self.core, &self.options), (self.family, port)) {
            Some(message) => Ok(message),
            // Only with the queue empty: what came before can still be read. It ends a wait, and who doesn't wait sees nothing of it.
            None if !flags.contains(MsgFlags::DONTWAIT) && self.shutdown.load(Ordering::Relaxed) & SHUT_READ != 0 => {
                Ok(Incoming::default())
            }
            None => Err(Errno::EAGAIN),
        }
    }

    fn is_stream(&self) -> bool {
        false
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let bits = (if how.reads() { SHUT_READ } else { 0 }) | (if how.writes() { SHUT_WRITE } else { 0 });
        self.shutdown.fetch_or(bits, Ordering::AcqRel);
        self.core.queue().wake_all();
        // It has an effect even without a peer, but says so (`inet_shutdown`).
        if self.state.lock().peer.is_some() { Ok(()) } else { Err(Errno::ENOTCONN) }
    }

    fn get_option(&self, _caller: &dyn Caller, level: u32, name: u32, room: usize) -> Result<Vec<u8>> {
        let connected = self.state.lock().peer.is_some();
        self.options.get(Protocol::Udp, level, name, room, connected)
    }

    fn set_option(&self, caller: &dyn Caller, level: u32, name: u32, value: &[u8]) -> Result<()> {
        if level == SOL_SOCKET
            && let Some(done) = self.set_filter(caller, name, value)
        {
            return done;
        }
        let standing = if self.state.lock().local.is_some() { Standing::Bound } else { Standing::Free };
        self.options.set(Protocol::Udp, caller, &self.net.namespace, (level, name), value, standing)
    }

    fn ioctl(&self, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        self.inbox.ioctl(caller, cmd, arg)
    }

    fn poll(&self) -> PollEvents {
        let mut events = self.core.error_events() | PollEvents::WRITE_READY;
        if !self.errors.is_empty() {
            events |= PollEvents::ERR;
        }
        let bits = self.shutdown.load(Ordering::Relaxed);
        if bits == SHUT_READ | SHUT_WRITE {
            events |= PollEvents::HUP;
        }
        if bits & SHUT_READ != 0 {
            events |= PollEvents::RDHUP | PollEvents::READ_READY;
        }
        if !self.inbox.is_empty() {
            events |= PollEvents::READ_READY;
        }
        events
    }

    fn save(&self, saver: &mut dyn SaveFiles) -> std::result::Result<SocketRef, Refusal> {
        self.save_socket(saver)
    }

    fn release(&self) {
        self.options.leave_groups(&self.net.namespace);
        // Out of the state before the port goes: a send that comes later finds no address in use.
        let local = self.state.lock().local.take();
        if let Some(l) = local {
            self.net.udp.lock().unbind(self.id(), l.port());
        }
        self.inbox.close();
    }
}
