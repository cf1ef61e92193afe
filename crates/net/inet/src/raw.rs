//! [`RawSocket`]: raw sockets, raw(7), and those of ping without privilege, icmp(7).
//!
//! # Invariants
//! - A raw socket gets a copy of each packet of its protocol; what the stack does with the packet is not changed by that.

mod checksum;
mod persist;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};

use moat_abi::socket as abi;
use moat_abi::socket::{
    AF_INET, AF_INET6, AF_UNSPEC, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_RAW, MsgFlags, SOCK_DGRAM, SOL_ICMPV6, SOL_IP,
    SOL_RAW,
};
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::NetNamespace;
use moat_image::Refusal;
use moat_image::state::SocketRef;
use moat_net_stack::{IpHeader, SendError, SendOptions, internet_checksum};
use moat_sync::{LockClass, Mutex, WeakList};
use moat_vfs::Caller;
use moat_vfs::file::SaveFiles;
use moat_vfs::socket::{
    Ancillary, BufferSide, CoreFlags, Incoming, Outgoing, Shutdown, SockAddr, Socket, SocketCore, SocketKind,
    SocketMaker, family_of,
};

use crate::address;
use crate::ancillary::Arrived;
use crate::errors::ErrorQueue;
use crate::inbox::{Datagram, Inbox};
use crate::inspect::{Inspect, SocketInfo};
use crate::options::{InetOptions, Protocol, Standing};
use crate::ports::Net;

const ECHO: u8 = 8;
const ECHO_V6: u8 = 128;
const ECHO_REPLY: u8 = 0;
const ECHO_REPLY_V6: u8 = 129;
/// Bytes of the header of an echo.
const ECHO_HEADER: usize = 8;
/// Bytes of the largest payload.
const MOST: usize = 65_515;
const SHUT_READ: u8 = 1;
const SHUT_WRITE: u8 = 2;

#[derive(Default)]
struct RawState {
    local: Option<IpAddr>,
    peer: Option<SocketAddr>,
    /// The number that a ping socket's echoes have.
    number: u16,
    header_included: bool,
    /// Types of ICMP that are not wanted: a bit each.
    filter: [u32; 8],
    shutdown: u8,
}

/// A raw or ping socket.
pub struct RawSocket {
    me: Weak<RawSocket>,
    kind: SocketKind,
    net: Net,
    core: SocketCore,
    options: InetOptions,
    /// Who made it.
    uid: u32,
    state: Mutex<RawState>,
    inbox: Inbox,
    errors: ErrorQueue,
}

/// The raw and ping sockets of a namespace.
#[derive(Default)]
pub(crate) struct RawTable(WeakList<RawSocket>);

impl RawTable {
    pub(crate) fn sockets(namespace: &NetNamespace) -> Vec<Arc<RawSocket>> {
        namespace.extensions.get::<RawTable>().map(|table| table.0.alive()).unwrap_or_default()
    }
}

/// What a packet counts for in a receive buffer.
fn cost(len: usize) -> usize {
    len.saturating_add(768)
}

impl RawSocket {
    /// A raw socket, or one of ping.
    ///
    /// # Errors
    /// EPROTONOSUPPORT in a namespace without a stack; EAGAIN if all numbers of echoes are taken.
    pub(crate) fn new(maker: &SocketMaker<'_>, kind: SocketKind) -> Result<Arc<RawSocket>> {
        let net = Net::of(maker.net);
        let stack = net.stack().ok_or(Errno::EPROTONOSUPPORT)?;
        let state = RawState { header_included: kind.protocol == IPPROTO_RAW, ..RawState::default() };
        let socket = Arc::new_cyclic(|me| RawSocket {
            me: me.clone(),
            kind,
            core: maker.core(),
            options: InetOptions::new(kind.family),
            uid: maker.caller.creds().euid,
            state: Mutex::new(LockClass::Socket, state),
            inbox: Inbox::new(cost, maker.memory.clone()),
            errors: ErrorQueue::new(),
            net,
        });
        if socket.is_ping() {
            let number = socket.free_number().ok_or(Errno::EAGAIN)?;
            socket.state.lock().number = number;
        }
        maker.net.extensions.get_or_init(RawTable::default).0.add(socket.me.clone());
        // From here on the stack gives copies of packets of this protocol.
        if let Ok(protocol) = u8::try_from(kind.protocol) {
            stack.change(|s| s.want_raw(protocol));
        }
        Ok(socket)
    }

    pub(crate) fn is_ping(&self) -> bool {
        self.kind.socket_type == SOCK_DGRAM
    }

    fn v4(&self) -> bool {
        self.kind.family == AF_INET
    }

    /// A number that no other ping socket's echoes have.
    fn free_number(&self) -> Option<u16> {
        let taken: Vec<u16> = RawTable::sockets(&self.net.namespace)
            .iter()
            .filter(|s| s.is_ping() && s.kind.family == self.kind.family)
            .map(|s| s.state.lock().number)
            .collect();
        let from = u16::try_from(self.core.ino() & 0xffff).unwrap_or(0);
        // Zero is no number: it stands for "any" in bind(2).
        (0..=u16::MAX).map(|i| from.wrapping_add(i)).find(|n| *n != 0 && !taken.contains(n))
    }

    fn deliver(&self, packet: Datagram) {
        if self.inbox.push(packet, &self.core) {
            self.core.queue().wake(PollEvents::READ_READY);
        }
    }

    /// Whether a packet is for this socket.
    fn wants(&self, link: u32, header: &IpHeader, payload: &[u8]) -> bool {
        if u32::from(header.protocol) != self.kind.protocol
            || header.source.is_ipv4() != self.v4()
            || self.options.device().is_some_and(|d| d != link)
        {
            return false;
        }
        let state = self.state.lock();
        let kind = payload.first().copied().unwrap_or(0);
        // A ping socket only gets answers to its own echoes; without that it would see everybody's.
        if self.is_ping() {
            let reply = if self.v4() { ECHO_REPLY } else { ECHO_REPLY_V6 };
            let number = payload.get(4..6).map(<[u8]>::to_vec);
            return kind == reply && number.as_deref() == Some(&state.number.to_be_bytes());
        }
        let icmp = matches!(self.kind.protocol, IPPROTO_ICMP | IPPROTO_ICMPV6);
        // A bit per type, set for what is not wanted (ICMP_FILTER, raw(7)).
        let word = state.filter.get(usize::from(kind >> 5)).copied().unwrap_or(0);
        let filtered = icmp && word & 1u32.wrapping_shl(u32::from(kind & 31)) != 0;
        let from_peer = state.peer.is_none_or(|p| p.ip() == header.source);
        let wanted = !filtered && from_peer && state.local.is_none_or(|l| l == header.destination);
        wanted && self.checksum_fits(header, payload)
    }

    /// Checks an echo, gives it the socket's number, and a checksum.
    fn prepare_echo(&self, data: &[u8]) -> Result<Vec<u8>> {
        let mut echo = data.to_vec();
        let expected = if self.v4() { ECHO } else { ECHO_V6 };
        let [kind, code, ..] = *data else { return Err(Errno::EINVAL) };
        // Anything but an echo request would be a raw socket's privilege (`ping_supported`).
        if kind != expected || code != 0 || data.len() < ECHO_HEADER {
            return Err(Errno::EINVAL);
        }
        let number = self.state.lock().number.to_be_bytes();
        // Checksum and identifier are not the guest's to choose.
        echo.splice(2..6, [0, 0].into_iter().chain(number));
        // ICMPv6 sums over addresses too, which the stack fills in.
        if self.v4() {
            let sum = internet_checksum(&echo).to_be_bytes();
            echo.splice(2..4, sum);
        }
        Ok(echo)
    }

    /// Takes an error that is about a packet of its protocol, if it can be one of its own.
    fn take_error_of(&self, error: &SendError) {
        // Copied, so that the socket's state is not locked while its waiters are woken.
        let (peer, local, number, included) = {
            let state = self.state.lock();
            (state.peer, state.local, state.number, state.header_included)
        };
        let own = match () {
            // The payload is the head of the packet that was sent: the number tells whose echo it was.
            () if self.is_ping() => error.payload.get(4..6) == Some(&number.to_be_bytes()),
            () => {
                peer.is_none_or(|p| p.ip() == error.header.destination)
                    && local.is_none_or(|l| l == error.header.source)
            }
        };
        let queued = self.options.wants_errors(error.header.destination);
        if !own || !(queued || (peer.is_some() && error.fatal)) {
            return;
        }
        if queued && included {
            // With the header, which is the sender's as well.
            self.errors.push(error, &[error.headers.as_slice(), &error.payload].concat());
        } else if queued {
            self.errors.push(error, &error.payload);
        }
        self.core.set_error(error.errno);
        self.core.queue().wake_all();
    }

    fn filter_bytes(&self) -> Vec<u8> {
        let words = self.state.lock().filter;
        words.iter().flat_map(|w| w.to_ne_bytes()).collect()
    }
}

impl Inspect for RawSocket {
    fn inspect(&self) -> SocketInfo {
        let state = self.state.lock();
        // In place of a port: the protocol, or the number of a ping socket's echoes.
        let number = if self.is_ping() { state.number } else { u16::try_from(self.kind.protocol).unwrap_or(0) };
        let local = state.local.unwrap_or(address::any(self.kind.family));
        SocketInfo {
            family: self.kind.family,
            state: if state.peer.is_some() { abi::TCP_ESTABLISHED } else { abi::TCP_CLOSE },
            local: SocketAddr::new(local, number),
            peer: state.peer.unwrap_or(SocketAddr::new(address::any(self.kind.family), 0)),
            receive_queue: self.inbox.bytes(),
            send_queue: 0,
            uid: self.uid,
            ino: self.core.ino(),
            device: self.options.device().unwrap_or(0),
            lost: self.core.lost(),
            shutdown: state.shutdown,
        }
    }

    fn buffers(&self) -> (usize, usize) {
        (self.core.buffer(BufferSide::Receive), self.core.buffer(BufferSide::Send))
    }
}

/// Takes a packet that came to the namespace, from its IP header.
pub(crate) fn receive(namespace: &NetNamespace, link: u32, header: &IpHeader, packet: &[u8], payload_at: usize) {
    let payload = packet.get(payload_at..).unwrap_or_default();
    for socket in RawTable::sockets(namespace) {
        if socket.wants(link, header, payload) {
            // IPv4's headers are shown, IPv6's are not (RFC 3542).
            let whole = socket.v4() && !socket.is_ping();
            let at = moat_vfs::clock::now();
            let (ttl, tos) = (header.ttl, header.tos);
            let arrived = Arrived { to: header.destination, device: link, ttl, tos, segment: 0, at, lost: 0 };
            let data = if whole { packet } else { payload }.into();
            socket.deliver(Datagram { data, from: SocketAddr::new(header.source, 0), arrived });
        }
    }
}

/// Takes what ICMP says of a packet that was sent (`raw_icmp_error`, `rawv6_err`, `ping_err`).
pub(crate) fn receive_error(namespace: &NetNamespace, error: &SendError) {
    for socket in RawTable::sockets(namespace) {
        if socket.kind.protocol == u32::from(error.header.protocol) && socket.v4() == error.header.source.is_ipv4() {
            socket.take_error_of(error);
        }
    }
}

impl Socket for RawSocket {
    fn kind(&self) -> SocketKind {
        self.kind
    }

    fn core(&self) -> &SocketCore {
        &self.core
    }

    fn bind(&self, _caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        let addr = address::parse_for_bind(self.kind.family, addr)?;
        self.net.check_bindable(addr.ip())?;
        let mut state = self.state.lock();
        state.local = (!addr.ip().is_unspecified()).then_some(addr.ip());
        if self.is_ping() && addr.port() != 0 {
            state.number = addr.port();
        }
        Ok(())
    }

    fn connect(&self, _caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        if family_of(addr).ok_or(Errno::EINVAL)? == AF_UNSPEC {
            self.state.lock().peer = None;
            return Ok(());
        }
        let to = address::parse(self.kind.family, addr)?;
        let own = self.state.lock().local;
        let way = self.net.way(to.ip(), false, self.options.device(), own)?;
        let mut state = self.state.lock();
        state.peer = Some(SocketAddr::new(way.to, to.port()));
        // A connected socket has a source address from then on, as getsockname(2) shows.
        state.local = state.local.or(Some(way.source));
        Ok(())
    }

    fn local_address(&self) -> Result<SockAddr> {
        let state = self.state.lock();
        let ip = state.local.unwrap_or(address::any(self.kind.family));
        let port = if self.is_ping() { state.number } else { 0 };
        Ok(address::format(self.kind.family, SocketAddr::new(ip, port)))
    }

    fn peer_address(&self) -> Result<SockAddr> {
        let peer = self.state.lock().peer.ok_or(Errno::ENOTCONN)?;
        Ok(address::format(self.kind.family, peer))
    }

    fn send(&self, _caller: Option<&dyn Caller>, message: &mut Outgoing<'_>) -> Result<usize> {
        if message.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        // A pending error comes before anything that this call would find.
        self.core.take_error()?;
        let given = match message.to {
            Some(addr) => Some(address::parse_for_datagram(self.kind.family, addr)?),
            None => None,
        };
        // The field of an IPv6 address that is a port elsewhere says the protocol, if anything (`rawv6_sendmsg`).
        if !self.v4()
            && !self.is_ping()
            && given.is_some_and(|g| g.port() != 0 && u32::from(g.port()) != self.kind.protocol)
        {
            return Err(Errno::EINVAL);
        }
        let (to, own, included, shutdown) = {
            let state = self.state.lock();
            let to = given.or(state.peer).ok_or(Errno::EDESTADDRREQ)?;
            (to, state.local, state.header_included, state.shutdown)
        };
        if shutdown & SHUT_WRITE != 0 {
            return Err(Errno::EPIPE);
        }
        if message.data.len() > MOST {
            return Err(Errno::EMSGSIZE);
        }
        let stack = self.net.stack().ok_or(Errno::ENETUNREACH)?;
        let broadcast = self.core.has(CoreFlags::BROADCAST);
        let (device, checksum_at) = (self.options.device(), self.checksum_at());
        let mut options = SendOptions { device, broadcast, checksum_at, ..SendOptions::default() };
        let mut chosen = None;
        // The last one wins.
        for control in &message.ancillary.other {
            chosen = self.options.steer(control, &mut options)?.or(chosen);
        }
        // IP_HDRINCL: the guest gives addresses and options itself.
        if included && self.v4() {
            // The any address as a destination is this host.
            let to = if to.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { to.ip() };
            stack.with(|s| s.send_with_header(to, message.data, &options))?;
        } else {
            let payload = if self.is_ping() { self.prepare_echo(message.data)? } else { message.data.to_vec() };
            self.options.packet_options(to.ip(), &mut options);
            let way = self.net.way(to.ip(), false, options.device, chosen.or(own))?;
            let protocol = u8::try_from(self.kind.protocol).map_err(|_| Errno::EINVAL)?;
            stack.with(|s| s.send_raw(Some(way.source), way.to, protocol, payload, &options))?;
        }
        // All control messages have been used; what stays behind would be an error to the caller.
        message.ancillary = Ancillary::default();
        Ok(message.data.len())
    }

    fn receive(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Incoming> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            return self.errors.receive(&self.core, buf, self.kind.family);
        }
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.core.take_error()?;
        let ended = self.state.lock().shutdown & SHUT_READ != 0;
        match self.inbox.receive(buf, flags, (&self.core, &self.options), (self.kind.family, 0)) {
            Some(message) => Ok(message),
            None if ended => Ok(Incoming::default()),
            None => Err(Errno::EAGAIN),
        }
    }

    fn is_stream(&self) -> bool {
        false
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let mut state = self.state.lock();
        state.shutdown |= (if how.reads() { SHUT_READ } else { 0 }) | (if how.writes() { SHUT_WRITE } else { 0 });
        // Waking looks at the state again.
        let connected = state.peer.is_some();
        drop(state);
        self.core.queue().wake_all();
        // It has an effect even without a peer, but says so (`inet_shutdown`).
        if connected { Ok(()) } else { Err(Errno::ENOTCONN) }
    }

    fn get_option(&self, _caller: &dyn Caller, level: u32, name: u32, room: usize) -> Result<Vec<u8>> {
        match (level, name) {
            (SOL_IP, abi::IP_HDRINCL) if !self.is_ping() => {
                Ok(i32::from(self.state.lock().header_included).to_ne_bytes().to_vec())
            }
            (SOL_RAW, abi::ICMP_FILTER) if self.kind.protocol == IPPROTO_ICMP => {
                Ok(self.filter_bytes().get(..4).unwrap_or_default().to_vec())
            }
            (SOL_ICMPV6, abi::ICMP_FILTER) if self.kind.family == AF_INET6 => Ok(self.filter_bytes()),
            _ if self.is_checksum(level, name) => Ok(self.checksum_offset().to_ne_bytes().to_vec()),
            _ => {
                let connected = self.state.lock().peer.is_some();
                self.options.get(Protocol::Raw, level, name, room, connected)
            }
        }
    }

    fn set_option(&self, caller: &dyn Caller, level: u32, name: u32, value: &[u8]) -> Result<()> {
        match (level, name) {
            (SOL_IP, abi::IP_HDRINCL) if !self.is_ping() => {
                self.state.lock().header_included = value.first().ok_or(Errno::EINVAL)? != &0;
                Ok(())
            }
            (SOL_RAW, abi::ICMP_FILTER) if self.kind.protocol == IPPROTO_ICMP => {
                let word = value.first_chunk().map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)?;
                // ICMP has 32 types that can be filtered, ICMPv6 256.
                self.state.lock().filter = [word, 0, 0, 0, 0, 0, 0, 0];
                Ok(())
            }
            (SOL_ICMPV6, abi::ICMP_FILTER) if self.kind.family == AF_INET6 => {
                let mut filter = [0; 8];
                for (word, bytes) in filter.iter_mut().zip(value.chunks_exact(4)) {
                    *word = bytes.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b));
                }
                self.state.lock().filter = filter;
                Ok(())
            }
            _ if self.is_checksum(level, name) => self.set_checksum(level, value),
            _ => self.options.set(Protocol::Raw, caller, &self.net.namespace, (level, name), value, Standing::Free),
        }
    }

    fn ioctl(&self, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        self.inbox.ioctl(caller, cmd, arg)
    }

    fn poll(&self) -> PollEvents {
        let mut events = self.core.error_events() | PollEvents::WRITE_READY;
        if !self.errors.is_empty() {
            events |= PollEvents::ERR;
        }
        let bits = self.state.lock().shutdown;
        if bits & SHUT_READ != 0 {
            events |= PollEvents::RDHUP | PollEvents::READ_READY;
        }
        if bits == SHUT_READ | SHUT_WRITE {
            events |= PollEvents::HUP;
        }
        if !self.inbox.is_empty() {
            events |= PollEvents::READ_READY;
        }
        events
    }

    fn save(&self, saver: &mut dyn SaveFiles) -> std::result::Result<SocketRef, Refusal> {
        saver.network(&self.net.namespace)?;
        self.save_socket(saver)
    }

    fn release(&self) {
        self.options.leave_groups(&self.net.namespace);
        if let (Some(stack), Ok(protocol)) = (self.net.stack(), u8::try_from(self.kind.protocol)) {
            // Copies of packets are no longer made when the last one goes.
            stack.change(|s| s.unwant_raw(protocol));
        }
        self.inbox.close();
    }
}
