//! Network mode `host`: guest sockets of AF_INET and AF_INET6 are sockets of the network namespace that the sandbox
//! process lives in.
//!
//! - [`socket`]: [`socket::HostSocket`], one host socket; also for NETLINK_ROUTE, where [`netlink`] lets only questions pass.
//! - [`options`]: the options that reach the host, by level, name and size.
//! - [`control`]: control messages to and from the host.
//! - [`ports`]: which ports take a capability of the guest's.
//! - [`device`]: ioctls about network devices.
//! - [`text`]: the files of /proc/net, which are the host's own.
//!
//! Registered in place of `moat-net-inet` when the mode is `host`. AF_UNIX stays the sentry's own.
//!
//! # Invariants
//! - Host sockets never block. What they lack is told by their wait queue, which the executor's reactor wakes.
//! - What may be made, set and asked is listed here, and the seccomp filter of the sandbox process is built from the same lists.
//! - The host judges with the sandbox's own credentials: a guest can do no more than the sandbox may.
#![forbid(unsafe_code)]

pub mod control;
pub mod device;
pub mod netlink;
pub mod options;
pub mod ports;
pub mod socket;
pub mod text;

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::netlink::NETLINK_ROUTE;
use moat_abi::socket::{
    AF_INET, AF_INET6, AF_NETLINK, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP, SOCK_DGRAM,
    SOCK_RAW, SOCK_STREAM,
};
use moat_abi::{Errno, Result};
use moat_vfs::Registry;
use moat_vfs::socket::{AddressFamily, Socket, SocketKind, SocketMaker};

use crate::socket::HostSocket;

/// Every kind of host socket that is ever made: family, type and protocol as they are given to the host.
pub const KINDS: &[SocketKind] = &[
    kind(AF_INET, SOCK_STREAM, IPPROTO_TCP),
    kind(AF_INET, SOCK_DGRAM, IPPROTO_UDP),
    kind(AF_INET, SOCK_DGRAM, IPPROTO_ICMP),
    kind(AF_INET, SOCK_RAW, IPPROTO_ICMP),
    kind(AF_INET6, SOCK_STREAM, IPPROTO_TCP),
    kind(AF_INET6, SOCK_DGRAM, IPPROTO_UDP),
    kind(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6),
    kind(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6),
    kind(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE),
    kind(AF_NETLINK, SOCK_DGRAM, NETLINK_ROUTE),
];

const fn kind(family: u16, socket_type: u32, protocol: u32) -> SocketKind {
    SocketKind { family, socket_type, protocol }
}

/// Registers AF_INET, AF_INET6 and AF_NETLINK, and what goes with them.
pub fn register(registry: &mut Registry) {
    registry.address_family(AF_INET, Arc::new(HostInet));
    registry.address_family(AF_INET6, Arc::new(HostInet));
    registry.address_family(AF_NETLINK, Arc::new(HostNetlink));
    registry.device_ioctl(device::ioctl);
    text::register(registry);
}

/// AF_INET and AF_INET6.
struct HostInet;

impl AddressFamily for HostInet {
    fn new_socket(&self, maker: &SocketMaker<'_>, kind: SocketKind) -> Result<Arc<dyn Socket>> {
        new_inet(maker, kind)
    }
}

/// AF_NETLINK.
struct HostNetlink;

impl AddressFamily for HostNetlink {
    fn new_socket(&self, maker: &SocketMaker<'_>, kind: SocketKind) -> Result<Arc<dyn Socket>> {
        new_netlink(maker, kind)
    }
}

/// socket(2) (`inet_create`, `inet6_create`).
///
/// # Errors
/// EPROTONOSUPPORT, ESOCKTNOSUPPORT; EPERM for raw sockets and EACCES for those of ping without CAP_NET_RAW; the host's.
fn new_inet(maker: &SocketMaker<'_>, asked: SocketKind) -> Result<Arc<dyn Socket>> {
    let protocol = match (asked.socket_type, asked.protocol) {
        (SOCK_STREAM, IPPROTO_IP) => IPPROTO_TCP,
        (SOCK_DGRAM, IPPROTO_IP) => IPPROTO_UDP,
        (SOCK_STREAM | SOCK_DGRAM | SOCK_RAW, p) => p,
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    let wanted = SocketKind { protocol, ..asked };
    let icmp = matches!(protocol, IPPROTO_ICMP | IPPROTO_ICMPV6);
    if (wanted.socket_type == SOCK_RAW && protocol != 0 || icmp) && !maker.caller.creds().has_root_cap(Cap::NET_RAW) {
        return Err(if wanted.socket_type == SOCK_RAW { Errno::EPERM } else { Errno::EACCES });
    }
    if !KINDS.contains(&wanted) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    Ok(HostSocket::new(maker, wanted)?)
}

/// socket(2) (`netlink_create`).
///
/// # Errors
/// ESOCKTNOSUPPORT; EPROTONOSUPPORT for other protocols than NETLINK_ROUTE; the host's.
fn new_netlink(maker: &SocketMaker<'_>, asked: SocketKind) -> Result<Arc<dyn Socket>> {
    if asked.socket_type != SOCK_RAW && asked.socket_type != SOCK_DGRAM {
        return Err(Errno::ESOCKTNOSUPPORT);
    }
    if !KINDS.contains(&asked) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    Ok(HostSocket::new(maker, asked)?)
}
