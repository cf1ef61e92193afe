//! NETLINK_ROUTE, rtnetlink(7): dumps of the links, addresses and routes of a namespace.
//!
//! Enough for getaddrinfo(3), getifaddrs(3) and `ip addr`. Changes are refused.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use moat_abi::netlink as nl;
use moat_abi::netlink::{
    Ifaddrmsg, Ifinfomsg, NETLINK_ROUTE, NLM_F_ACK, NLM_F_DUMP, NLM_F_MULTI, Nlmsgerr, Nlmsghdr, Rtattr, Rtmsg,
};
use moat_abi::socket::{
    AF_INET, AF_INET6, AF_NETLINK, AF_UNSPEC, IFF_LOOPBACK, IFF_RUNNING, MsgFlags, SOCK_DGRAM, SOCK_RAW, SOL_NETLINK,
    SockaddrNl,
};
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::NetNamespace;
use moat_identity::net::{InterfaceAddress, NetDevice, Route};
use moat_sync::{LockClass, Mutex};
use moat_vfs::Caller;
use moat_vfs::socket::{
    AddressFamily, Ancillary, Incoming, Outgoing, SockAddr, Socket, SocketCore, SocketKind, SocketMaker,
};
use zerocopy::{FromBytes, IntoBytes};

const HEADER: usize = size_of::<Nlmsghdr>();
/// Answers that wait; more requests are refused (ENOBUFS).
const MOST_ANSWERS: usize = 64;

struct RouteSocketState {
    port: u32,
    groups: u32,
    answers: VecDeque<Vec<u8>>,
}

/// A socket of AF_NETLINK, NETLINK_ROUTE.
pub struct RouteSocket {
    core: SocketCore,
    net: Arc<NetNamespace>,
    socket_type: u32,
    state: Mutex<RouteSocketState>,
}

/// Gives the port numbers that are no process's, in a network namespace.
struct NetlinkPorts(AtomicU32);

impl Default for NetlinkPorts {
    fn default() -> NetlinkPorts {
        NetlinkPorts(AtomicU32::new(0xf000_0000))
    }
}

/// AF_NETLINK.
pub(crate) struct Netlink;

impl AddressFamily for Netlink {
    fn new_socket(&self, maker: &SocketMaker<'_>, kind: SocketKind) -> Result<Arc<dyn Socket>> {
        new_socket(maker, kind)
    }
}

/// socket(2).
///
/// # Errors
/// ESOCKTNOSUPPORT; EPROTONOSUPPORT for other protocols than NETLINK_ROUTE.
fn new_socket(maker: &SocketMaker<'_>, kind: SocketKind) -> Result<Arc<dyn Socket>> {
    if kind.socket_type != SOCK_RAW && kind.socket_type != SOCK_DGRAM {
        return Err(Errno::ESOCKTNOSUPPORT);
    }
    if kind.protocol != NETLINK_ROUTE {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let state = RouteSocketState { port: 0, groups: 0, answers: VecDeque::new() };
    Ok(Arc::new(RouteSocket {
        core: SocketCore::new(maker.inodes),
        net: maker.net.clone(),
        socket_type: kind.socket_type,
        state: Mutex::new(LockClass::Socket, state),
    }))
}

/// A message under construction.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16, request: &Nlmsghdr, port: u32) -> Message {
        let header = Nlmsghdr {
            nlmsg_len: 0,
            nlmsg_type: kind,
            nlmsg_flags: flags,
            nlmsg_seq: request.nlmsg_seq,
            nlmsg_pid: port,
        };
        Message { bytes: header.as_bytes().to_vec() }
    }

    fn body(mut self, bytes: &[u8]) -> Message {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(nl::align(self.bytes.len()), 0);
        self
    }

    fn attr(self, kind: u16, value: &[u8]) -> Message {
        let len = u16::try_from(size_of::<Rtattr>() + value.len()).unwrap_or(u16::MAX);
        let head = Rtattr { rta_len: len, rta_type: kind };
        self.body(&[head.as_bytes(), value].concat())
    }

    fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes
    }
}

/// A string with its zero byte.
fn text(s: &str) -> Vec<u8> {
    [s.as_bytes(), &[0]].concat()
}

fn link(request: &Nlmsghdr, port: u32, flags: u16, device: &NetDevice) -> Vec<u8> {
    let info = Ifinfomsg {
        ifi_type: device.hardware_type,
        ifi_index: device.index.cast_signed(),
        ifi_flags: device.flags,
        ..Ifinfomsg::default()
    };
    let state = match device.flags & IFF_RUNNING {
        _ if device.flags & IFF_LOOPBACK != 0 => nl::IF_OPER_UNKNOWN,
        0 => nl::IF_OPER_DOWN,
        _ => nl::IF_OPER_UP,
    };
    Message::new(nl::RTM_NEWLINK, flags, request, port)
        .body(info.as_bytes())
        .attr(nl::IFLA_IFNAME, &text(&device.name))
        .attr(nl::IFLA_TXQLEN, &device.queue_len.to_ne_bytes())
        .attr(nl::IFLA_OPERSTATE, &[state])
        .attr(nl::IFLA_LINKMODE, &[0])
        .attr(nl::IFLA_MTU, &device.mtu.to_ne_bytes())
        .attr(nl::IFLA_GROUP, &0u32.to_ne_bytes())
        .attr(nl::IFLA_NUM_TX_QUEUES, &1u32.to_ne_bytes())
        .attr(nl::IFLA_NUM_RX_QUEUES, &1u32.to_ne_bytes())
        .attr(nl::IFLA_CARRIER, &[1])
        .attr(nl::IFLA_QDISC, b"noqueue\0")
        .attr(nl::IFLA_ADDRESS, &device.address)
        .attr(nl::IFLA_BROADCAST, &[0; 6])
        .attr(nl::IFLA_STATS64, &[0; 192])
        .attr(nl::IFLA_STATS, &[0; 96])
        .finish()
}

fn family_of(ip: IpAddr) -> u16 {
    if ip.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn family_byte(family: u16) -> u8 {
    u8::try_from(family).unwrap_or(0)
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn address(request: &Nlmsghdr, port: u32, device: &NetDevice, a: &InterfaceAddress) -> Vec<u8> {
    let info = Ifaddrmsg {
        ifa_family: family_byte(family_of(a.ip)),
        ifa_prefixlen: a.prefix_len,
        ifa_flags: 0x80,
        ifa_scope: a.scope,
        ifa_index: device.index,
    };
    let ip = octets(a.ip);
    let mut m =
        Message::new(nl::RTM_NEWADDR, NLM_F_MULTI, request, port).body(info.as_bytes()).attr(nl::IFA_ADDRESS, &ip);
    if a.ip.is_ipv4() {
        m = m.attr(nl::IFA_LOCAL, &ip).attr(nl::IFA_LABEL, &text(&device.name));
    }
    // Valid for ever.
    let forever = [[0xff; 4], [0xff; 4], [0; 4], [0; 4]].concat();
    m.attr(nl::IFA_FLAGS, &nl::IFA_F_PERMANENT.to_ne_bytes()).attr(nl::IFA_CACHEINFO, &forever).finish()
}

fn route(request: &Nlmsghdr, port: u32, r: &Route) -> Vec<u8> {
    let info = Rtmsg {
        rtm_family: family_byte(family_of(r.destination)),
        rtm_dst_len: r.prefix_len,
        rtm_table: r.table,
        rtm_protocol: r.protocol,
        rtm_scope: r.scope,
        rtm_type: r.kind,
        ..Rtmsg::default()
    };
    let mut m = Message::new(nl::RTM_NEWROUTE, NLM_F_MULTI, request, port)
        .body(info.as_bytes())
        .attr(nl::RTA_TABLE, &u32::from(r.table).to_ne_bytes())
        .attr(nl::RTA_DST, &octets(r.destination));
    if let Some(source) = r.source {
        m = m.attr(nl::RTA_PREFSRC, &octets(source));
    }
    m.attr(nl::RTA_OIF, &r.device.to_ne_bytes()).finish()
}

fn error(request: &Nlmsghdr, port: u32, errno: Option<Errno>) -> Vec<u8> {
    let body = Nlmsgerr { error: -errno.map_or(0, Errno::raw), msg: *request };
    Message::new(nl::NLMSG_ERROR, nl::NLM_F_CAPPED, request, port).body(body.as_bytes()).finish()
}

/// The families that a dump for `family` shows.
fn families(family: u8) -> Vec<u16> {
    match u16::from(family) {
        AF_UNSPEC => vec![AF_INET, AF_INET6],
        f @ (AF_INET | AF_INET6) => vec![f],
        _ => Vec::new(),
    }
}

/// The device that a request for one link means.
fn named<'a>(devices: &'a [NetDevice], body: &[u8]) -> Option<&'a NetDevice> {
    let (info, mut rest) = Ifinfomsg::read_from_prefix(body).ok()?;
    if info.ifi_index != 0 {
        return devices.iter().find(|d| d.index.cast_signed() == info.ifi_index);
    }
    while let Ok((head, _)) = Rtattr::read_from_prefix(rest) {
        let len = usize::from(head.rta_len);
        let value = rest.get(size_of::<Rtattr>()..len)?;
        if head.rta_type == nl::IFLA_IFNAME {
            let name = value.split(|b| *b == 0).next()?;
            return devices.iter().find(|d| d.name.as_bytes() == name);
        }
        rest = rest.get(nl::align(len)..).unwrap_or_default();
    }
    None
}

/// The answers to one request.
fn answer(net: &NetNamespace, request: &Nlmsghdr, body: &[u8], port: u32) -> Vec<Vec<u8>> {
    let devices = net.devices();
    let dump = request.nlmsg_flags & NLM_F_DUMP == NLM_F_DUMP;
    let family = body.first().copied().unwrap_or(0);
    let mut out = Vec::new();
    let result = match request.nlmsg_type {
        nl::RTM_GETLINK if dump => {
            out.extend(devices.iter().map(|d| link(request, port, NLM_F_MULTI, d)));
            Ok(())
        }
        nl::RTM_GETLINK => named(&devices, body).map(|d| out.push(link(request, port, 0, d))).ok_or(Errno::ENODEV),
        nl::RTM_GETADDR if dump => {
            for wanted in families(family) {
                for d in &devices {
                    let of_family = d.addresses.iter().filter(|a| family_of(a.ip) == wanted);
                    out.extend(of_family.map(|a| address(request, port, d, a)));
                }
            }
            Ok(())
        }
        nl::RTM_GETROUTE if dump => {
            let routes = net.routes();
            for wanted in families(family) {
                let of_family = routes.iter().filter(|r| family_of(r.destination) == wanted);
                out.extend(of_family.map(|r| route(request, port, r)));
            }
            Ok(())
        }
        // There are no neighbours and no rules to list.
        nl::RTM_GETNEIGH | nl::RTM_GETRULE if dump => Ok(()),
        nl::RTM_GETROUTE => Err(Errno::ENETUNREACH),
        kind if kind < nl::NLMSG_MIN_TYPE => Ok(()),
        nl::RTM_GETADDR | nl::RTM_GETNEIGH | nl::RTM_GETRULE | nl::RTM_GETSTATS => Err(Errno::EOPNOTSUPP),
        _ => Err(Errno::EPERM),
    };
    match result {
        Err(e) => vec![error(request, port, Some(e))],
        Ok(()) if dump => {
            out.push(Message::new(nl::NLMSG_DONE, NLM_F_MULTI, request, port).body(&0i32.to_ne_bytes()).finish());
            out
        }
        Ok(()) => {
            if request.nlmsg_flags & NLM_F_ACK != 0 {
                out.push(error(request, port, None));
            }
            out
        }
    }
}

impl RouteSocket {
    /// A port number of its own if it has none yet (`netlink_autobind`).
    fn port(&self, caller: Option<&dyn Caller>) -> u32 {
        let mut s = self.state.lock();
        if s.port == 0 {
            // The first socket of a process has its number; others any.
            let own = caller.and_then(|c| c.task()).map_or(0, |t| t.process_pid().number()).cast_unsigned();
            let other = || self.net.extensions.get_or_init(NetlinkPorts::default).0.fetch_add(1, Ordering::Relaxed);
            s.port = if own == 0 { other() } else { own };
        }
        s.port
    }
}

impl Socket for RouteSocket {
    fn kind(&self) -> SocketKind {
        SocketKind { family: AF_NETLINK, socket_type: self.socket_type, protocol: NETLINK_ROUTE }
    }

    fn core(&self) -> &SocketCore {
        &self.core
    }

    fn bind(&self, caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        let (a, _) = SockaddrNl::read_from_prefix(addr).map_err(|_| Errno::EINVAL)?;
        if a.nl_family != AF_NETLINK {
            return Err(Errno::EINVAL);
        }
        {
            let mut s = self.state.lock();
            if s.port != 0 && a.nl_pid != 0 && s.port != a.nl_pid {
                return Err(Errno::EINVAL);
            }
            if s.port == 0 {
                s.port = a.nl_pid;
            }
            // Nothing ever changes, so members of a group are sent nothing.
            s.groups = a.nl_groups;
        }
        self.port(Some(caller));
        Ok(())
    }

    fn connect(&self, caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        SockaddrNl::read_from_prefix(addr).map_err(|_| Errno::EINVAL)?;
        self.port(Some(caller));
        Ok(())
    }

    fn local_address(&self) -> Result<SockAddr> {
        let s = self.state.lock();
        Ok(SockAddr::new(
            SockaddrNl { nl_family: AF_NETLINK, nl_pid: s.port, nl_groups: s.groups, ..SockaddrNl::default() }
                .as_bytes(),
        ))
    }

    fn peer_address(&self) -> Result<SockAddr> {
        Ok(SockAddr::new(SockaddrNl { nl_family: AF_NETLINK, ..SockaddrNl::default() }.as_bytes()))
    }

    fn send(&self, caller: Option<&dyn Caller>, message: &mut Outgoing<'_>) -> Result<usize> {
        if let Some(to) = message.to {
            let (a, _) = SockaddrNl::read_from_prefix(to).map_err(|_| Errno::EINVAL)?;
            if a.nl_family != AF_NETLINK {
                return Err(Errno::EINVAL);
            }
            if a.nl_pid != 0 {
                return Err(Errno::ECONNREFUSED);
            }
        }
        let port = self.port(caller);
        let mut answers = Vec::new();
        let mut rest = message.data;
        while let Ok((request, _)) = Nlmsghdr::read_from_prefix(rest) {
            let len = usize::try_from(request.nlmsg_len).unwrap_or(usize::MAX);
            let Some(body) = rest.get(HEADER..len) else { break };
            if request.nlmsg_flags & nl::NLM_F_REQUEST != 0 {
                answers.extend(answer(&self.net, &request, body, port));
            }
            rest = rest.get(nl::align(len)..).unwrap_or_default();
            if answers.len() > MOST_ANSWERS {
                break;
            }
        }
        {
            let mut s = self.state.lock();
            if s.answers.len() > MOST_ANSWERS {
                return Err(Errno::ENOBUFS);
            }
            s.answers.extend(answers);
        }
        self.core.queue().wake(PollEvents::READ_READY);
        message.ancillary = Ancillary::default();
        Ok(message.data.len())
    }

    fn receive(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Incoming> {
        let mut s = self.state.lock();
        let front = s.answers.front().ok_or(Errno::EAGAIN)?;
        let len = front.len().min(buf.len());
        buf[..len].copy_from_slice(&front[..len]);
        let mut m = Incoming { len, full_len: front.len(), ..Incoming::default() };
        m.from = Some(SockAddr::new(SockaddrNl { nl_family: AF_NETLINK, ..SockaddrNl::default() }.as_bytes()));
        if len < m.full_len {
            m.flags |= MsgFlags::TRUNC;
        }
        if !flags.contains(MsgFlags::PEEK) {
            s.answers.pop_front();
        }
        Ok(m)
    }

    fn is_stream(&self) -> bool {
        false
    }

    fn get_option(&self, _caller: &dyn Caller, level: u32, name: u32, _room: usize) -> Result<Vec<u8>> {
        match (level, name) {
            (SOL_NETLINK, nl::NETLINK_PKTINFO..=nl::NETLINK_GET_STRICT_CHK) => Ok(0u32.to_ne_bytes().to_vec()),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn set_option(&self, _caller: &dyn Caller, level: u32, name: u32, value: &[u8]) -> Result<()> {
        match (level, name) {
            (SOL_NETLINK, _) if value.len() < 4 => Err(Errno::EINVAL),
            (SOL_NETLINK, nl::NETLINK_ADD_MEMBERSHIP..=nl::NETLINK_GET_STRICT_CHK) => Ok(()),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn poll(&self) -> PollEvents {
        let mut events = self.core.error_events() | PollEvents::WRITE_READY;
        if !self.state.lock().answers.is_empty() {
            events |= PollEvents::READ_READY;
        }
        events
    }
}
