//! Control messages that go with a datagram that was received: IP_PKTINFO and its like, as the receiver has asked for them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use moat_abi::socket as abi;
use moat_abi::socket::{AF_INET, AF_INET6, In6Pktinfo, InPktinfo, SOL_IP, SOL_IPV6, SOL_SOCKET, SOL_UDP};
use moat_abi::time::Timespec;
use moat_vfs::socket::{ControlMessage, CoreFlags, SocketCore};
use zerocopy::IntoBytes;

use crate::address;
use crate::device::LO_INDEX;
use crate::options::InetOptions;

/// What a datagram's header said, and where it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    /// The destination.
    pub(crate) to: IpAddr,
    /// The device that it came over.
    pub(crate) device: u32,
    /// Hops that were left.
    pub(crate) ttl: u8,
    /// Type of service or traffic class.
    pub(crate) tos: u8,
    /// Bytes of each datagram that came together with others in one (UDP_GRO); 0 for one alone.
    pub(crate) segment: u16,
    /// When it came, by CLOCK_REALTIME.
    pub(crate) at: Timespec,
    /// How many the socket had lost by then, if it asked for that (SO_RXQ_OVFL).
    pub(crate) lost: u32,
}

/// Whether a socket has asked for stamps of time with what it reads.
pub(crate) fn wants_stamps(core: &SocketCore) -> bool {
    core.has(CoreFlags::TIMESTAMP) || core.has(CoreFlags::TIMESTAMPNS)
}

/// The stamps of time that a socket has asked for (SO_TIMESTAMP, SO_TIMESTAMPNS).
pub(crate) fn stamp(core: &SocketCore, at: Timespec) -> Option<ControlMessage> {
    let (kind, data) = match () {
        () if core.has(CoreFlags::TIMESTAMPNS) => (abi::SCM_TIMESTAMPNS, at.as_bytes().to_vec()),
        () if core.has(CoreFlags::TIMESTAMP) => {
            (abi::SCM_TIMESTAMP, [at.tv_sec.to_ne_bytes(), (at.tv_nsec / 1000).to_ne_bytes()].concat())
        }
        () => return None,
    };
    Some(ControlMessage { level: SOL_SOCKET, kind, data })
}

/// The control messages that a socket of `family` has asked for; `port`: its own.
pub(crate) fn describe(
    core: &SocketCore,
    options: &InetOptions,
    (family, port): (u16, u16),
    a: &Arrived,
) -> Vec<ControlMessage> {
    let on = |level, name| options.number(level, name) != 0;
    let mut out: Vec<ControlMessage> = stamp(core, a.at).into_iter().collect();
    let mut add = |level, kind, data: &[u8]| out.push(ControlMessage { level, kind, data: data.to_vec() });
    if a.lost > 0 {
        add(SOL_SOCKET, abi::SO_RXQ_OVFL, &a.lost.to_ne_bytes());
    }
    if a.segment > 0 {
        add(SOL_UDP, abi::UDP_GRO, &i32::from(a.segment).to_ne_bytes());
    }
    match a.to {
        IpAddr::V4(ip) => {
            if on(SOL_IP, abi::IP_PKTINFO) {
                let device = a.device.cast_signed();
                // What came to many over the loopback is answered from its own address (`fib_compute_spec_dst`).
                let many = ip.is_multicast() || ip.is_broadcast();
                let own = if many && a.device == LO_INDEX { Ipv4Addr::LOCALHOST } else { ip };
                let info = InPktinfo { ipi_ifindex: device, ipi_spec_dst: own.octets(), ipi_addr: ip.octets() };
                add(SOL_IP, abi::IP_PKTINFO, info.as_bytes());
            }
            if on(SOL_IP, abi::IP_RECVTTL) {
                add(SOL_IP, abi::IP_TTL, &i32::from(a.ttl).to_ne_bytes());
            }
            if on(SOL_IP, abi::IP_RECVTOS) {
                add(SOL_IP, abi::IP_TOS, &[a.tos]);
            }
            if on(SOL_IP, abi::IP_ORIGDSTADDR) {
                let to = address::format(AF_INET, SocketAddr::new(a.to, port));
                add(SOL_IP, abi::IP_ORIGDSTADDR, to.as_bytes());
            }
        }
        IpAddr::V6(_) if family != AF_INET6 => {}
        IpAddr::V6(_) => {
            if on(SOL_IPV6, abi::IPV6_RECVHOPLIMIT) {
                add(SOL_IPV6, abi::IPV6_HOPLIMIT, &i32::from(a.ttl).to_ne_bytes());
            }
            if on(SOL_IPV6, abi::IPV6_RECVTCLASS) {
                add(SOL_IPV6, abi::IPV6_TCLASS, &i32::from(a.tos).to_ne_bytes());
            }
            if on(SOL_IPV6, abi::IPV6_RECVORIGDSTADDR) {
                let to = address::format(AF_INET6, SocketAddr::new(a.to, port));
                add(SOL_IPV6, abi::IPV6_RECVORIGDSTADDR, to.as_bytes());
            }
        }
    }
    // IPv4 packets too: a dual-stack socket sees their addresses mapped.
    if family == AF_INET6 && on(SOL_IPV6, abi::IPV6_RECVPKTINFO) {
        let ip = match a.to {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let info = In6Pktinfo { ipi6_addr: ip.octets(), ipi6_ifindex: a.device.cast_signed() };
        add(SOL_IPV6, abi::IPV6_PKTINFO, info.as_bytes());
    }
    out
}
