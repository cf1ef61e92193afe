//! What the network namespace of the calling thread has, as the stack in the sentry wants to know it.

use std::io;
use std::net::IpAddr;

use moat_net_stack::config::{
    AddressConfig, LinkConfig, LinkKind, NeighbourConfig, NetworkConfig, RouteConfig, RouteKind,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHopFlags, RouteProtocol, RouteType,
    RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::Netlink;

/// What was found: the description, and the addresses in the form in which the kernel takes them away again.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The devices that are up and carry Ethernet frames, with what belongs to them.
    pub(super) config: NetworkConfig,
    /// The numbers of all devices, up or not.
    pub(super) present: Vec<u32>,
    /// All addresses of these devices.
    pub(super) addresses: Vec<AddressMessage>,
    /// Devices that are up and of a kind that the stack can't serve, by name.
    pub(super) unserved: Vec<String>,
}

/// Reads devices, addresses, routes and permanent neighbours.
///
/// # Errors
/// Of rtnetlink(7).
pub(super) fn read(netlink: &mut Netlink) -> io::Result<Found> {
    // Links first: what follows belongs to one of them by its number.
    let mut found = Found::default();
    for message in netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
        if let RouteNetlinkMessage::NewLink(link) = message {
            found.add_link(&link);
        }
    }
    for message in netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
        if let RouteNetlinkMessage::NewAddress(address) = message {
            found.add_address(address);
        }
    }
    for message in netlink.dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()))? {
        if let RouteNetlinkMessage::NewRoute(route) = message {
            found.add_route(&route);
        }
    }
    for message in netlink.dump(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))? {
        if let RouteNetlinkMessage::NewNeighbour(neighbour) = message {
            found.add_neighbour(&neighbour);
        }
    }
    Ok(found)
}

impl Found {
    fn add_link(&mut self, message: &LinkMessage) {
        let flags = message.header.flags;
        self.present.push(message.header.index);
        // The stack has a loopback device of its own, and a device that is down carries nothing.
        if !flags.contains(LinkFlags::Up) || flags.contains(LinkFlags::Loopback) {
            return;
        }
        let mut link = LinkConfig {
            name: String::new(),
            index: message.header.index,
            kind: if flags.contains(LinkFlags::Noarp) { LinkKind::EthernetNoArp } else { LinkKind::Ethernet },
            mac: [0; 6],
            mtu: 1500,
            flags: flags.bits(),
            queue_len: 0,
            peer_index: None,
            driver: None,
            addresses: Vec::new(),
        };
        let mut mac = None;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(value) => link.name.clone_from(value),
                LinkAttribute::Mtu(value) => link.mtu = *value,
                LinkAttribute::Address(value) => mac = value.as_slice().try_into().ok(),
                LinkAttribute::TxQueueLen(value) => link.queue_len = *value,
                LinkAttribute::Link(value) => link.peer_index = Some(*value),
                LinkAttribute::LinkInfo(infos) => {
                    link.driver = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        // Frames of anything but Ethernet the stack can't make: said by name, where it matters.
        match (message.header.link_layer_type, mac) {
            (LinkLayerType::Ether, Some(mac)) => self.config.links.push(LinkConfig { mac, ..link }),
            _ => self.unserved.push(link.name),
        }
    }

    fn add_address(&mut self, message: AddressMessage) {
        let Some(link) = self.config.links.iter_mut().find(|link| link.index == message.header.index) else { return };
        let (mut local, mut address, mut broadcast) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                // IPv4 only; IFA_ADDRESS is then that of the peer, if there is one.
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Broadcast(ip) => broadcast = Some(*ip),
                _ => {}
            }
        }
        if let Some(ip) = local.or(address) {
            let (prefix_len, scope) = (message.header.prefix_len, u8::from(message.header.scope));
            link.addresses.push(AddressConfig { ip, prefix_len, broadcast, scope });
            self.addresses.push(message);
        }
    }

    /// The local table follows from the addresses. Routes through other devices lead nowhere from here.
    fn add_route(&mut self, message: &RouteMessage) {
        let header = &message.header;
        let kind = match header.kind {
            RouteType::Unicast => RouteKind::Unicast,
            RouteType::BlackHole => RouteKind::Blackhole,
            RouteType::Unreachable => RouteKind::Unreachable,
            RouteType::Prohibit => RouteKind::Prohibit,
            _ => return,
        };
        let mut route = RouteConfig {
            destination: unspecified(header.address_family),
            prefix_len: header.destination_prefix_length,
            gateway: None,
            link: 0,
            preferred_source: None,
            metric: 0,
            scope: u8::from(header.scope),
            protocol: u8::from(header.protocol),
            // Eight bits; an attribute below has the whole number.
            table: u32::from(header.table),
            kind,
            on_link: header.flags.contains(RouteFlags::Onlink),
            mtu: None,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(to) => route.destination = ip(to).unwrap_or(route.destination),
                RouteAttribute::PrefSource(from) => route.preferred_source = ip(from),
                RouteAttribute::Priority(metric) => route.metric = *metric,
                RouteAttribute::Table(number) => route.table = *number,
                RouteAttribute::Metrics(metrics) => {
                    route.mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(bytes) => Some(*bytes),
                        _ => None,
                    });
                }
                // Of several ways the first is taken.
                RouteAttribute::MultiPath(hops) => {
                    if let Some(hop) = hops.first() {
                        route.link = hop.interface_index;
                        route.on_link = hop.flags.contains(RouteNextHopFlags::Onlink);
                        hop.attributes.iter().for_each(|attribute| next_hop(&mut route, attribute));
                    }
                }
                other => next_hop(&mut route, other),
            }
        }
        let served = self.config.links.iter().any(|link| link.index == route.link);
        // The kernel's own refusals are those of IPv6 on the loopback device.
        let refuses = kind != RouteKind::Unicast && header.protocol != RouteProtocol::Kernel;
        if route.table != u32::from(libc::RT_TABLE_LOCAL) && (served || refuses) {
            self.config.routes.push(route);
        }
    }

    fn add_neighbour(&mut self, message: &NeighbourMessage) {
        let served = self.config.links.iter().any(|link| link.index == message.header.ifindex);
        // All others are found by ARP or neighbour discovery when they are needed.
        if !served || !matches!(message.header.state, NeighbourState::Permanent | NeighbourState::Noarp) {
            return;
        }
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
            _ => None,
        });
        let mac = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        });
        if let (Some(address), Some(mac)) = (address, mac) {
            self.config.neighbours.push(NeighbourConfig { link: message.header.ifindex, address, mac });
        }
    }
}

/// Where a route, or one of several ways of it, leads next.
fn next_hop(route: &mut RouteConfig, attribute: &RouteAttribute) {
    match attribute {
        RouteAttribute::Gateway(to) => route.gateway = ip(to),
        RouteAttribute::Via(RouteVia::Inet(to)) => route.gateway = Some(IpAddr::V4(*to)),
        RouteAttribute::Via(RouteVia::Inet6(to)) => route.gateway = Some(IpAddr::V6(*to)),
        RouteAttribute::Oif(index) => route.link = *index,
        _ => {}
    }
}

fn unspecified(family: AddressFamily) -> IpAddr {
    match family {
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => IpAddr::from([0; 4]),
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}
