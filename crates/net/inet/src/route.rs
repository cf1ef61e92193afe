//! NETLINK_ROUTE, rtnetlink(7): dumps of the links, addresses and routes of a namespace.
//!
//! Enough for getaddrinfo(3), getifaddrs(3), `ip addr`, `ip route` and `ip neigh`. Changes are refused.

mod messages;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use moat_abi::netlink as nl;
use moat_abi::netlink::{Ifinfomsg, NETLINK_ROUTE, NLM_F_ACK, NLM_F_DUMP, NLM_F_MULTI, Nlmsghdr, Rtattr};
use moat_abi::socket::{
    AF_INET, AF_INET6, AF_NETLINK, AF_UNSPEC, MsgFlags, SOCK_DGRAM, SOCK_RAW, SOL_NETLINK, SockaddrNl,
};
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::NetNamespace;
use moat_identity::net::NetDevice;
use moat_sync::{LockClass, Mutex};
use moat_vfs::Caller;
use moat_vfs::socket::{
    AddressFamily, Ancillary, Incoming, Outgoing, SockAddr, Socket, SocketCore, SocketKind, SocketMaker,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::stack::stack_of;
use messages::{Message, address, error, family_of, link, neighbour, route, route_get};

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
    // The two types mean the same here (netlink(7)).
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
    // The number wins over a name.
    if info.ifi_index != 0 {
        return devices.iter().find(|d| d.index.cast_signed() == info.ifi_index);
    }
    // A length smaller than its header ends the search: `get` finds no such range.
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
            out.extend(devices.iter().map(|d| link(net, request, port, NLM_F_MULTI, d)));
            Ok(())
        }
        nl::RTM_GETLINK => named(&devices, body).map(|d| out.push(link(net, request, port, 0, d))).ok_or(Errno::ENODEV),
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
        nl::RTM_GETNEIGH if dump => {
            let neighbours = stack_of(net).map(|s| s.change(|s| s.neighbours())).unwrap_or_default();
            for wanted in families(family) {
                let of_family = neighbours.iter().filter(|n| family_of(n.address) == wanted);
                out.extend(of_family.map(|n| neighbour(request, port, n)));
            }
            Ok(())
        }
        // There are no rules to list.
        nl::RTM_GETRULE if dump => Ok(()),
        nl::RTM_GETROUTE => route_get(net, request, body, port).map(|m| out.push(m)),
        // Control messages (NLMSG_NOOP and such) are passed over.
        kind if kind < nl::NLMSG_MIN_TYPE => Ok(()),
        nl::RTM_GETADDR | nl::RTM_GETNEIGH | nl::RTM_GETRULE | nl::RTM_GETSTATS => Err(Errno::EOPNOTSUPP),
        // Changes of links, addresses and routes are the host's.
        _ => Err(Errno::EPERM),
    };
    match result {
        Err(e) => vec![error(request, port, Some(e))],
        // A dump ends with NLMSG_DONE, which also stands for the acknowledgement.
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
            // A port number is kept once given (`netlink_bind`).
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
        // Only the kernel, which has number 0, has anything to say here.
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
        // A send may carry several requests (netlink(7)).
        while let Ok((request, _)) = Nlmsghdr::read_from_prefix(rest) {
            let len = usize::try_from(request.nlmsg_len).unwrap_or(usize::MAX);
            let Some(body) = rest.get(HEADER..len) else { break };
            // Without the flag it is an answer, which the kernel does not await.
            if request.nlmsg_flags & nl::NLM_F_REQUEST != 0 {
                answers.extend(answer(&self.net, &request, body, port));
            }
            rest = rest.get(nl::align(len)..).unwrap_or_default();
            // A guest that never reads must not grow the queue without bound.
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
            // All flags are shown as off: none has an effect here.
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
