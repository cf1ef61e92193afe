//! The routes of a namespace whose addresses were taken off, which went with them: they are put back, so that its engine can go on with
//! what it knows.
//!
//! An engine changes the default route of a running container with the networks that it is connected to (`docker network disconnect`): it looks for
//! the way to the gateway, takes the old route off and puts the new one there. What it does shows in the namespace, and the watcher passes
//! it on. A way is none to the host's kernel itself, which has no address to send from, as long as it does not forward.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;

use moat_net_stack::config::{RouteConfig, RouteKind};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::Netlink;

/// Whether the kernel hands on packets that are for others; of all devices, also of those that come later.
const FORWARDING: [&str; 2] = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];

/// Has the host's kernel hand on nothing in the network namespace of the calling thread: else it would send what is for the sandbox
/// back by the way that it came. The guest's own setting is the sentry's.
///
/// # Errors
/// EACCES, EROFS where that is not to be changed.
pub(super) fn stop_forwarding() -> io::Result<()> {
    for file in FORWARDING {
        match fs::write(file, "0") {
            // A host without IPv6.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Puts routes back that went with addresses: those to networks first, over which the others lead. One that can't be, or that has
/// stayed, is let be: at worst the engine does not find it.
pub(super) fn keep(netlink: &mut Netlink, routes: &[RouteConfig]) {
    let (by_gateway, direct): (Vec<_>, Vec<_>) = routes.iter().partition(|route| route.gateway.is_some());
    for route in direct.into_iter().chain(by_gateway).filter(|route| is_way(route)) {
        // Beside others to the same network: each interface may have brought a default route.
        let _ = netlink.change(RouteNetlinkMessage::NewRoute(message(route)), NLM_F_CREATE | NLM_F_APPEND);
    }
}

/// Those that lead over a gateway.
pub(super) fn by_gateway(routes: &[RouteConfig]) -> Vec<RouteConfig> {
    routes.iter().filter(|route| is_way(route) && route.gateway.is_some()).cloned().collect()
}

fn is_way(route: &RouteConfig) -> bool {
    route.kind == RouteKind::Unicast && route.table == u32::from(libc::RT_TABLE_MAIN)
}

fn message(route: &RouteConfig) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = if route.destination.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    header.destination_prefix_length = route.prefix_len;
    header.table = libc::RT_TABLE_MAIN;
    header.protocol = RouteProtocol::from(route.protocol);
    header.scope = RouteScope::from(route.scope);
    header.kind = RouteType::Unicast;
    if route.on_link {
        header.flags |= RouteFlags::Onlink;
    }
    // No preferred source: it was an address.
    let attributes = &mut message.attributes;
    if route.prefix_len > 0 {
        attributes.push(RouteAttribute::Destination(address(route.destination)));
    }
    attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(address(gateway))));
    attributes.push(RouteAttribute::Oif(route.link));
    if route.metric > 0 {
        attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}

fn address(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}
