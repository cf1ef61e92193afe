//! The internet families inside the sandbox: TCP and UDP over the loopback device, without packets.
//!
//! - [`tcp`]: streams; [`udp`]: datagrams.
//! - [`address`]: addresses of both families; [`ports`]: who has which port.
//! - [`options`]: the options of levels IP, IPV6, TCP and UDP.
//! - [`device`]: ioctls about `lo`.
//! - [`route`]: rtnetlink(7), just enough for who lists links, addresses and routes.
//! - [`text`]: the files of /proc/net.
//!
//! A connection is two byte queues in memory; a datagram goes straight into its receiver's queue. Nothing else than the
//! loopback addresses is reachable (ENETUNREACH): a stack with packets registers in place of this crate.
//!
//! # Invariants
//! - Data lies in the receiver's endpoint. Sockets know each other by endpoints, which own no socket.
//! - Lock order: a socket's state, an inbox, the port tables.
#![forbid(unsafe_code)]

pub mod address;
pub mod device;
pub mod options;
pub mod ports;
pub mod route;
pub mod tcp;
pub mod text;
pub mod udp;

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::socket::{
    AF_INET, AF_INET6, AF_NETLINK, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP, SOCK_DGRAM,
    SOCK_RAW, SOCK_STREAM,
};
use moat_abi::{Errno, Result};
use moat_vfs::Registry;
use moat_vfs::socket::{AddressFamily, Socket, SocketKind, SocketMaker};

/// Registers AF_INET, AF_INET6 and AF_NETLINK.
pub fn register(registry: &mut Registry) {
    registry.address_family(AF_INET, Arc::new(Inet));
    registry.address_family(AF_INET6, Arc::new(Inet));
    registry.address_family(AF_NETLINK, Arc::new(route::Netlink));
    registry.device_ioctl(device::ioctl);
    registry.net_text("tcp", text::tcp);
    registry.net_text("tcp6", text::tcp6);
    registry.net_text("udp", text::udp);
    registry.net_text("udp6", text::udp6);
}

/// AF_INET and AF_INET6. What their sockets share is in the network namespace.
struct Inet;

impl AddressFamily for Inet {
    fn new_socket(&self, maker: &SocketMaker<'_>, kind: SocketKind) -> Result<Arc<dyn Socket>> {
        new_socket(maker, kind)
    }
}

/// socket(2) (`inet_create`, `inet6_create`).
///
/// # Errors
/// EPROTONOSUPPORT, ESOCKTNOSUPPORT; EPERM for raw sockets without privilege, EACCES for those of ping.
fn new_socket(maker: &SocketMaker<'_>, kind: SocketKind) -> Result<Arc<dyn Socket>> {
    match (kind.socket_type, kind.protocol) {
        (SOCK_STREAM, IPPROTO_IP | IPPROTO_TCP) => Ok(tcp::TcpSocket::new(maker, kind.family)),
        (SOCK_DGRAM, IPPROTO_IP | IPPROTO_UDP) => Ok(udp::UdpSocket::new(maker, kind.family)),
        // As `net.ipv4.ping_group_range` has it by default: for no group.
        (SOCK_DGRAM, IPPROTO_ICMP | IPPROTO_ICMPV6) => Err(Errno::EACCES),
        (SOCK_STREAM | SOCK_DGRAM, _) => Err(Errno::EPROTONOSUPPORT),
        (SOCK_RAW, 0) => Err(Errno::EPROTONOSUPPORT),
        (SOCK_RAW, _) if !maker.caller.creds().has_cap(Cap::NET_RAW) => Err(Errno::EPERM),
        (SOCK_RAW, _) => Err(Errno::EPROTONOSUPPORT),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}
