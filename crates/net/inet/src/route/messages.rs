//! Messages of rtnetlink(7): how links, addresses, routes and neighbours are told.

use std::net::IpAddr;

use moat_abi::netlink as nl;
use moat_abi::netlink::{Ifaddrmsg, Ifinfomsg, NLM_F_MULTI, Ndmsg, Nlmsgerr, Nlmsghdr, Rtattr, Rtmsg};
use moat_abi::socket::{AF_INET, AF_INET6, IFF_LOOPBACK, IFF_RUNNING};
use moat_abi::{Errno, Result};
use moat_identity::NetNamespace;
use moat_identity::net::{InterfaceAddress, NetDevice, Route};
use moat_net_stack::Neighbour;
use moat_net_stack::route::Destination;
use zerocopy::{FromBytes, IntoBytes};

use crate::stack::stack_of;

/// A message under construction.
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    pub(super) fn new(kind: u16, flags: u16, request: &Nlmsghdr, port: u32) -> Message {
        let header = Nlmsghdr {
            nlmsg_len: 0,
            nlmsg_type: kind,
            nlmsg_flags: flags,
            nlmsg_seq: request.nlmsg_seq,
            nlmsg_pid: port,
        };
        Message { bytes: header.as_bytes().to_vec() }
    }

    pub(super) fn body(mut self, bytes: &[u8]) -> Message {
        self.bytes.extend_from_slice(bytes);
        // Attributes begin at multiples of 4 bytes.
        self.bytes.resize(nl::align(self.bytes.len()), 0);
        self
    }

    fn attr(self, kind: u16, value: &[u8]) -> Message {
        // The length has no padding; the place of the next attribute has.
        let len = u16::try_from(size_of::<Rtattr>() + value.len()).unwrap_or(u16::MAX);
        let head = Rtattr { rta_len: len, rta_type: kind };
        self.body(&[head.as_bytes(), value].concat())
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes
    }
}

/// A string with its zero byte.
fn text(s: &str) -> Vec<u8> {
    [s.as_bytes(), &[0]].concat()
}

pub(super) fn link(net: &NetNamespace, request: &Nlmsghdr, port: u32, flags: u16, device: &NetDevice) -> Vec<u8> {
    let counters = stack_of(net).map(|s| s.change(|s| s.counters(device.index))).unwrap_or_default();
    // As in `struct rtnl_link_stats64`.
    let all = [
        counters.received_packets,
        counters.sent_packets,
        counters.received_bytes,
        counters.sent_bytes,
        0,
        0,
        counters.received_dropped,
        counters.sent_dropped,
        counters.multicast,
    ];
    // 24 counters each; those that are not counted here are zero.
    let mut long = [0; 192];
    let mut short = [0; 96];
    for (to, n) in long.chunks_exact_mut(8).zip(all) {
        to.copy_from_slice(&n.to_ne_bytes());
    }
    for (to, n) in short.chunks_exact_mut(4).zip(all) {
        // The older struct has the low 32 bits.
        let [a, b, c, d, ..] = n.to_ne_bytes();
        to.copy_from_slice(&[a, b, c, d]);
    }
    let everybody = if device.flags & IFF_LOOPBACK != 0 { [0; 6] } else { [0xff; 6] };
    let info = Ifinfomsg {
        ifi_type: device.hardware_type,
        ifi_index: device.index.cast_signed(),
        ifi_flags: device.flags,
        ..Ifinfomsg::default()
    };
    // The loopback has no carrier whose state could be told.
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
        .attr(nl::IFLA_BROADCAST, &everybody)
        .attr(nl::IFLA_STATS64, &long)
        .attr(nl::IFLA_STATS, &short)
        .finish()
}

pub(super) fn family_of(ip: IpAddr) -> u16 {
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

pub(super) fn address(request: &Nlmsghdr, port: u32, device: &NetDevice, a: &InterfaceAddress) -> Vec<u8> {
    let info = Ifaddrmsg {
        ifa_family: family_byte(family_of(a.ip)),
        ifa_prefixlen: a.prefix_len,
        // IFA_F_PERMANENT.
        ifa_flags: 0x80,
        ifa_scope: a.scope,
        ifa_index: device.index,
    };
    let ip = octets(a.ip);
    let mut m =
        Message::new(nl::RTM_NEWADDR, NLM_F_MULTI, request, port).body(info.as_bytes()).attr(nl::IFA_ADDRESS, &ip);
    // IPv6 has no labels, and no local address apart from the peer's.
    if a.ip.is_ipv4() {
        m = m.attr(nl::IFA_LOCAL, &ip).attr(nl::IFA_LABEL, &text(&device.name));
    }
    // Valid for ever.
    let forever = [[0xff; 4], [0xff; 4], [0; 4], [0; 4]].concat();
    m.attr(nl::IFA_FLAGS, &nl::IFA_F_PERMANENT.to_ne_bytes()).attr(nl::IFA_CACHEINFO, &forever).finish()
}

pub(super) fn route(request: &Nlmsghdr, port: u32, r: &Route) -> Vec<u8> {
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
        .attr(nl::RTA_TABLE, &u32::from(r.table).to_ne_bytes());
    // A default route has no destination.
    if r.prefix_len > 0 {
        m = m.attr(nl::RTA_DST, &octets(r.destination));
    }
    if let Some(gateway) = r.gateway {
        m = m.attr(nl::RTA_GATEWAY, &octets(gateway));
    }
    if let Some(source) = r.source {
        m = m.attr(nl::RTA_PREFSRC, &octets(source));
    }
    if r.metric > 0 {
        m = m.attr(nl::RTA_PRIORITY, &r.metric.to_ne_bytes());
    }
    m.attr(nl::RTA_OIF, &r.device.to_ne_bytes()).finish()
}

/// The way to one destination, as `ip route get` asks for it.
///
/// # Errors
/// EINVAL for a request without a destination; ENETUNREACH and the errors of routes.
pub(super) fn route_get(net: &NetNamespace, request: &Nlmsghdr, body: &[u8], port: u32) -> Result<Vec<u8>> {
    let (info, mut rest) = Rtmsg::read_from_prefix(body).map_err(|_| Errno::EINVAL)?;
    let mut to = None;
    while let Ok((head, _)) = Rtattr::read_from_prefix(rest) {
        let len = usize::from(head.rta_len);
        let value = rest.get(size_of::<Rtattr>()..len).ok_or(Errno::EINVAL)?;
        if head.rta_type == nl::RTA_DST {
            to = match u16::from(info.rtm_family) {
                AF_INET => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
                AF_INET6 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
                _ => None,
            };
        }
        rest = rest.get(nl::align(len)..).unwrap_or_default();
    }
    let to = to.ok_or(Errno::EINVAL)?;
    let stack = stack_of(net).ok_or(Errno::ENETUNREACH)?;
    let path = stack.change(|s| s.path(to, None, None))?;
    let local = path.kind == Destination::Local;
    // A route of its own for this one address, as a route cache shows it.
    let answer = Rtmsg {
        rtm_family: family_byte(family_of(to)),
        rtm_dst_len: if to.is_ipv4() { 32 } else { 128 },
        rtm_table: if local { nl::RT_TABLE_LOCAL } else { nl::RT_TABLE_MAIN },
        rtm_type: if local { nl::RTN_LOCAL } else { nl::RTN_UNICAST },
        ..Rtmsg::default()
    };
    let mut m = Message::new(nl::RTM_NEWROUTE, 0, request, port)
        .body(answer.as_bytes())
        .attr(nl::RTA_TABLE, &u32::from(answer.rtm_table).to_ne_bytes())
        .attr(nl::RTA_DST, &octets(to));
    // A gateway is named only where the packet goes by one.
    if path.next_hop != to {
        m = m.attr(nl::RTA_GATEWAY, &octets(path.next_hop));
    }
    Ok(m.attr(nl::RTA_OIF, &path.link.to_ne_bytes()).attr(nl::RTA_PREFSRC, &octets(path.source)).finish())
}

pub(super) fn neighbour(request: &Nlmsghdr, port: u32, n: &Neighbour) -> Vec<u8> {
    let info = Ndmsg {
        ndm_family: family_byte(family_of(n.address)),
        ndm_ifindex: n.link.cast_signed(),
        ndm_state: n.state,
        ndm_type: nl::RTN_UNICAST,
        ..Ndmsg::default()
    };
    let mut m = Message::new(nl::RTM_NEWNEIGH, NLM_F_MULTI, request, port)
        .body(info.as_bytes())
        .attr(nl::NDA_DST, &octets(n.address));
    if let Some(mac) = n.mac {
        m = m.attr(nl::NDA_LLADDR, &mac);
    }
    m.finish()
}

pub(super) fn error(request: &Nlmsghdr, port: u32, errno: Option<Errno>) -> Vec<u8> {
    // The request's header comes back, so that a sender of several
    // knows which one it was; zero is an acknowledgement.
    let body = Nlmsgerr { error: -errno.map_or(0, Errno::raw), msg: *request };
    Message::new(nl::NLMSG_ERROR, nl::NLM_F_CAPPED, request, port).body(body.as_bytes()).finish()
}
