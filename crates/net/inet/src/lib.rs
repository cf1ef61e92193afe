//! The internet families inside the sandbox: between own addresses without packets, else over the namespace's stack.
//!
//! - [`tcp`]: streams; [`udp`]: datagrams; [`raw`]: raw sockets and ping, with [`ancillary`] data; both have an [`inbox`], and a queue of [`errors`]; [`filter`]: what a socket takes at all.
//! - [`address`]: addresses of both families; [`ports`]: who has which port; [`way`]: where an address leads.
//! - [`options`]: the options of levels IP, IPV6, TCP and UDP; [`groups`]: multicast.
//! - [`stack`]: [`moat_net_stack`] with its lock, its clock and its devices; `rules`: what the settings say to it.
//! - [`links`]: the links that a namespace begins with; [`configuration`]: its changes; [`device`]: the ioctls about them.
//! - `restore`: the sockets of an image; each kind has a `persist` that saves it.
//! - [`inspect`]: what is shown of a socket; [`listing`]: which are; [`text`]: the files of /proc/net.
//!
//! Between own addresses a connection is two byte queues in memory, and a datagram goes straight into its receiver's queue.
//! In a namespace without links nothing else is reachable (ENETUNREACH).
//!
//! # Invariants
//! - Data lies in the receiver's endpoint. Sockets know each other by endpoints, which own no socket.
//! - Lock order: a socket's state, an inbox, the port tables.
#![forbid(unsafe_code)]

pub mod address;
mod ancillary;
pub mod configuration;
pub mod device;
mod errors;
pub mod filter;
mod groups;
mod inbox;
pub mod inspect;
pub mod links;
pub mod listing;
pub mod options;
pub mod ports;
mod raw;
mod restore;
mod rules;
pub mod shape;
pub mod stack;
pub mod tcp;
pub mod text;
pub mod udp;
pub mod way;

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::socket::{
    AF_INET, AF_INET6, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP, SOCK_DGRAM, SOCK_RAW,
    SOCK_STREAM,
};
use moat_abi::{Errno, Result};
use moat_image::ImageError;
use moat_vfs::Registry;
use moat_vfs::socket::{AddressFamily, RestoreSockets, RestoredSockets, Socket, SocketKind, SocketMaker};

/// Registers AF_INET and AF_INET6.
pub fn register(registry: &mut Registry) {
    registry.address_family(AF_INET, Arc::new(Inet));
    registry.address_family(AF_INET6, Arc::new(Inet));
    registry.device_ioctl(device::ioctl);
    registry.net_text("tcp", text::tcp);
    registry.net_text("tcp6", text::tcp6);
    registry.net_text("udp", text::udp);
    registry.net_text("udp6", text::udp6);
    registry.net_text("raw", text::raw);
    registry.net_text("raw6", text::raw6);
    registry.net_text("dev", text::dev);
    registry.net_text("route", text::route);
    registry.net_text("arp", text::arp);
    registry.net_text("fib_trie", text::configuration::fib_trie);
    registry.net_text("ipv6_route", text::configuration::ipv6_route);
    registry.net_text("igmp", text::configuration::igmp);
    registry.net_text("igmp6", text::configuration::igmp6);
    registry.net_text("dev_mcast", text::configuration::dev_mcast);
    registry.net_text("snmp", text::counters::snmp);
    registry.net_text("netstat", text::counters::netstat);
    registry.net_text("sockstat", text::counters::sockstat);
    registry.net_text("sockstat6", text::counters::sockstat6);
    registry.net_text("protocols", text::counters::protocols);
}

/// AF_INET and AF_INET6. What their sockets share is in the network namespace.
struct Inet;

impl AddressFamily for Inet {
    fn new_socket(&self, maker: &SocketMaker<'_>, kind: SocketKind) -> Result<Arc<dyn Socket>> {
        new_socket(maker, kind)
    }

    fn restore<'a>(
        &self,
        request: &RestoreSockets<'a>,
    ) -> std::result::Result<Box<dyn RestoredSockets + 'a>, ImageError> {
        restore::restore(request)
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
        (SOCK_DGRAM, IPPROTO_ICMP) if kind.family == AF_INET => ping_socket(maker, kind),
        (SOCK_DGRAM, IPPROTO_ICMPV6) if kind.family == AF_INET6 => ping_socket(maker, kind),
        (SOCK_STREAM | SOCK_DGRAM, _) => Err(Errno::EPROTONOSUPPORT),
        // Protocol 0 names none to listen for.
        (SOCK_RAW, 0) => Err(Errno::EPROTONOSUPPORT),
        // Before the range of protocols is looked at, as Linux does.
        (SOCK_RAW, _) if !maker.caller.creds().has_cap_in(&maker.net.user_ns, Cap::NET_RAW) => Err(Errno::EPERM),
        (SOCK_RAW, 1..=255) => Ok(raw::RawSocket::new(maker, kind)?),
        (SOCK_RAW, _) => Err(Errno::EINVAL),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// A socket of ping, for members of the groups that may have one (`ping_init_sock`).
///
/// # Errors
/// EACCES for all others; those of [`raw::RawSocket::new`].
fn ping_socket(maker: &SocketMaker<'_>, kind: SocketKind) -> Result<Arc<dyn Socket>> {
    let settings = &maker.net.settings;
    let groups = settings.first_ping_group.get()..=settings.last_ping_group.get();
    let creds = maker.caller.creds();
    let member =
        std::iter::once(creds.egid).chain(creds.groups.iter().copied()).any(|g| groups.contains(&u64::from(g)));
    if !member {
        return Err(Errno::EACCES);
    }
    Ok(raw::RawSocket::new(maker, kind)?)
}
