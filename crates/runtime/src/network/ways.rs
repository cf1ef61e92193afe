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
/// stayed, is let be: at worst the engine does not find it. `all`: the routes that there were, in their order.
pub(super) fn keep(netlink: &mut Netlink, routes: &[RouteConfig], all: &[RouteConfig]) {
    let (by_gateway, direct): (Vec<_>, Vec<_>) = routes.iter().partition(|route| route.gateway.is_some());
    for route in direct.into_iter().chain(by_gateway).filter(|route| is_way(route)) {
        // Beside others to the same network: each interface may have brought a default route. The first is the one that counts.
        let first = all.iter().find(|other| compete(other, route)) == Some(route);
        let place = if first { 0 } else { NLM_F_APPEND };
        let _ = netlink.change(RouteNetlinkMessage::NewRoute(message(route)), NLM_F_CREATE | place);
    }
}

/// Whether of two routes only the first one counts.
fn compete(a: &RouteConfig, b: &RouteConfig) -> bool {
    (a.destination, a.prefix_len, a.table, a.metric) == (b.destination, b.prefix_len, b.table, b.metric)
}

/// The routes that are to be added, each behind those that it competes with, and those that are to be removed before, so that `before`
/// becomes `now`. One that stayed, and stands behind a new one, is in both.
pub(super) fn changes<'a>(
    before: &'a [RouteConfig],
    now: &'a [RouteConfig],
) -> (Vec<&'a RouteConfig>, Vec<&'a RouteConfig>) {
    let mut added: Vec<&RouteConfig> = Vec::new();
    let mut removed: Vec<&RouteConfig> = before.iter().filter(|route| !now.contains(route)).collect();
    for route in now {
        let stayed = before.contains(route);
        if !stayed || added.iter().any(|new| compete(new, route)) {
            added.push(route);
            removed.extend(stayed.then_some(route));
        }
    }
    (added, removed)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn default_route(gateway: &str, metric: u32) -> RouteConfig {
        RouteConfig {
            destination: "0.0.0.0".parse().unwrap(),
            prefix_len: 0,
            gateway: Some(gateway.parse().unwrap()),
            link: 2,
            preferred_source: None,
            metric,
            scope: 0,
            protocol: 3,
            table: u32::from(libc::RT_TABLE_MAIN),
            kind: RouteKind::Unicast,
            on_link: false,
            mtu: None,
        }
    }

    #[test]
    fn what_stands_behind_a_new_route_is_put_behind_it() {
        let [a, b, c, other] =
            [("10.0.0.1", 0), ("10.0.0.2", 0), ("10.0.0.3", 0), ("10.0.0.4", 7)].map(|(g, m)| default_route(g, m));
        let all = |routes: &[&RouteConfig]| routes.iter().map(|r| (*r).clone()).collect::<Vec<_>>();
        let check =
            |before: &[&RouteConfig], now: &[&RouteConfig], added: &[&RouteConfig], removed: &[&RouteConfig]| {
                assert_eq!(changes(&all(before), &all(now)), (added.to_vec(), removed.to_vec()));
            };
        check(&[&a, &other], &[&a, &b, &other], &[&b], &[]);
        check(&[&a, &other], &[&b, &a, &other], &[&b, &a], &[&a]);
        check(&[&a, &b], &[&b], &[], &[&a]);
        check(&[&a, &b], &[&a, &c, &b], &[&c, &b], &[&b]);
    }
}
