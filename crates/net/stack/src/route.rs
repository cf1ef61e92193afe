//! [`Routes`]: where packets go, and which address they come from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use moat_abi::Errno;

use crate::config::{LinkConfig, LinkKind, NetworkConfig, RouteConfig, RouteKind};
use crate::num::Narrow;

/// `RT_SCOPE_LINK`.
pub(crate) const SCOPE_LINK: u8 = 253;
/// `RT_TABLE_MAIN`, `RT_TABLE_DEFAULT`.
pub(crate) const RT_TABLE_MAIN: u32 = 254;
pub(crate) const RT_TABLE_DEFAULT: u32 = 253;
/// `IFF_UP`.
pub(crate) const IFF_UP: u32 = 1;

/// Where a destination leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The link's number; packets to own addresses go over the loopback.
    pub link: u32,
    /// The neighbour that is next: the gateway or the destination.
    pub next_hop: IpAddr,
    /// The address that packets are sent from, unless the socket says otherwise.
    pub source: IpAddr,
    /// Bytes of the largest packet.
    pub mtu: u32,
    /// What kind of destination it is.
    pub kind: Destination,
}

/// What a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// An own address.
    Local,
    /// One host.
    Unicast,
    /// A group.
    Multicast,
    /// All hosts of a link.
    Broadcast,
}

/// The addresses and routes of a namespace.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    pub(crate) links: Vec<LinkConfig>,
    pub(crate) routes: Vec<RouteConfig>,
}

/// Whether an address lies in a network.
#[must_use]
pub fn in_network(ip: IpAddr, network: IpAddr, prefix_len: u8) -> bool {
    match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32u32.saturating_sub(u32::from(prefix_len));
            a.to_bits().checked_shr(shift).unwrap_or(0) == b.to_bits().checked_shr(shift).unwrap_or(0)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128u32.saturating_sub(u32::from(prefix_len));
            a.to_bits().checked_shr(shift).unwrap_or(0) == b.to_bits().checked_shr(shift).unwrap_or(0)
        }
        _ => false,
    }
}

/// The network that an address lies in.
#[must_use]
pub fn network_of(ip: IpAddr, prefix_len: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let hosts = u32::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & !hosts).into()
        }
        IpAddr::V6(v6) => {
            let hosts = u128::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & !hosts).into()
        }
    }
}

/// Whether a table takes part in the search for a way; there are no rules that lead to others.
#[must_use]
pub(crate) fn is_searched(table: u32) -> bool {
    table == RT_TABLE_MAIN || table == RT_TABLE_DEFAULT
}

/// Whether an address lies in the network of a loopback's address, all of which is local (`fib_add_ifaddr`).
pub(crate) fn is_in_loopback(link: &LinkConfig, ip: IpAddr) -> bool {
    link.kind == LinkKind::Loopback && ip.is_ipv4() && link.addresses.iter().any(|a| in_network(ip, a.ip, a.prefix_len))
}

/// The directed broadcast address of an IPv4 network (`fib_add_ifaddr`).
#[must_use]
pub fn broadcast_of(ip: IpAddr, prefix_len: u8) -> Option<Ipv4Addr> {
    let IpAddr::V4(ip) = ip else { return None };
    let hosts = u32::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
    // A network of two addresses (RFC 3021), or of one, has no broadcast.
    (prefix_len < 31).then(|| Ipv4Addr::from_bits(ip.to_bits() | hosts))
}

/// Whether an address reaches no further than its link.
#[must_use]
pub fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Bits that two addresses have in common at their beginnings.
fn common_bits(a: Ipv6Addr, b: Ipv6Addr) -> u32 {
    (a.to_bits() ^ b.to_bits()).leading_zeros()
}

impl Routes {
    pub(crate) fn new(config: &NetworkConfig) -> Routes {
        Routes { links: config.links.clone(), routes: config.routes.clone() }
    }

    /// The links with their addresses.
    #[must_use]
    pub fn links(&self) -> &[LinkConfig] {
        &self.links
    }

    /// The routes of every table but `local`.
    #[must_use]
    pub fn routes(&self) -> &[RouteConfig] {
        &self.routes
    }

    pub(crate) fn link(&self, index: u32) -> Option<&LinkConfig> {
        self.links.iter().find(|l| l.index == index)
    }

    pub(crate) fn link_mut(&mut self, index: u32) -> Option<&mut LinkConfig> {
        self.links.iter_mut().find(|l| l.index == index)
    }

    /// The links that are up: the addresses of others are nobody's, and nothing leads over them.
    fn up(&self) -> impl Iterator<Item = &LinkConfig> {
        self.links.iter().filter(|l| l.flags & IFF_UP != 0)
    }

    pub(crate) fn loopback(&self) -> u32 {
        self.links.iter().find(|l| l.kind == LinkKind::Loopback).map_or(1, |l| l.index)
    }

    /// The link that has an address.
    #[must_use]
    pub fn owner(&self, ip: IpAddr) -> Option<u32> {
        self.up().find(|l| l.addresses.iter().any(|a| a.ip == ip)).map(|l| l.index)
    }

    /// Whether packets to an address stay in the namespace: its own, and all of the loopback's networks.
    #[must_use]
    pub fn is_local(&self, ip: IpAddr) -> bool {
        self.owner(ip).is_some() || (self.up().any(|l| is_in_loopback(l, ip)) && !self.is_broadcast(ip))
    }

    /// Whether it stands for all hosts of a link.
    #[must_use]
    pub fn is_broadcast(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(v4) = ip else { return false };
        v4.is_broadcast()
            || self
                .up()
                .flat_map(|l| &l.addresses)
                // An address that is a host's is no broadcast, whatever its network says.
                .any(|a| a.broadcast == Some(v4) || (a.ip != ip && broadcast_of(a.ip, a.prefix_len) == Some(v4)))
    }

    /// Finds the way to a destination. `device`: the only link that may be used, if a socket is bound to one. `source`: the address that
    /// the socket has.
    ///
    /// # Errors
    /// ENETUNREACH; EHOSTUNREACH, EACCES and EINVAL by routes that say so; EADDRNOTAVAIL if there is no address to send from.
    pub fn find(&self, to: IpAddr, device: Option<u32>, source: Option<IpAddr>) -> Result<Path, Errno> {
        if self.is_local(to) {
            let link = self.loopback();
            let mtu = self.link(link).map_or(65536, |l| l.mtu);
            // Packets to an own address come from that address, those to 127.x.y.z from 127.0.0.1.
            let source = source.unwrap_or(match to {
                IpAddr::V4(v4) if v4.is_loopback() => Ipv4Addr::LOCALHOST.into(),
                to => to,
            });
            return Ok(Path { link, next_hop: to, source, mtu, kind: Destination::Local });
        }
        let everybody = to == IpAddr::V4(Ipv4Addr::BROADCAST);
        let group = to.is_multicast();
        let kind = match () {
            () if group => Destination::Multicast,
            () if self.is_broadcast(to) => Destination::Broadcast,
            () => Destination::Unicast,
        };
        // The address that a sender has names the link as well (`ip_route_output_key_hash_rcu`).
        let named = || source.filter(|_| (group || everybody) && to.is_ipv4()).and_then(|s| self.owner(s));
        let device = device.or_else(named);
        // These don't leave the link, so that naming it is enough.
        if let Some(index) = device.filter(|_| everybody || group || is_link_local(to)) {
            return self.on_link(index, to, source, kind, None);
        }
        let Some(route) = self.best(to, device) else {
            if let Some(index) = device {
                // A socket that is bound to a link takes everything to be on it (`ip_route_output_key_hash_rcu`).
                return self.on_link(index, to, source, kind, None);
            }
            // Without a route, groups and broadcasts go out of the first link that can have them.
            if let Some(link) = self.up().find(|l| {
                (group || everybody)
                    && l.kind != LinkKind::Loopback
                    && l.addresses.iter().any(|a| a.ip.is_ipv4() == to.is_ipv4())
            }) {
                return self.on_link(link.index, to, source, kind, None);
            }
            return Err(Errno::ENETUNREACH);
        };
        match route.kind {
            RouteKind::Unicast => {}
            RouteKind::Blackhole => return Err(Errno::EINVAL),
            RouteKind::Unreachable => return Err(Errno::EHOSTUNREACH),
            RouteKind::Prohibit => return Err(Errno::EACCES),
        }
        // Groups and broadcasts are on the link itself, whatever the gateway.
        let next = if kind == Destination::Unicast { route.gateway.unwrap_or(to) } else { to };
        let mut path = self.on_link(route.link, to, source.or(route.preferred_source), kind, Some(next))?;
        // A route may only narrow what the link takes.
        path.mtu = route.mtu.unwrap_or(path.mtu).min(path.mtu);
        Ok(path)
    }

    /// The route that fits best: the longest prefix, then the lowest metric.
    pub(crate) fn best(&self, to: IpAddr, device: Option<u32>) -> Option<&RouteConfig> {
        self.routes
            .iter()
            .filter(|r| is_searched(r.table) && in_network(to, r.destination, r.prefix_len))
            .filter(|r| device.is_none_or(|d| d == r.link))
            .filter(|r| r.kind != RouteKind::Unicast || self.up().any(|l| l.index == r.link))
            .min_by_key(|r| (u8::MAX.saturating_sub(r.prefix_len), r.metric))
    }

    fn on_link(
        &self,
        index: u32,
        to: IpAddr,
        source: Option<IpAddr>,
        kind: Destination,
        next_hop: Option<IpAddr>,
    ) -> Result<Path, Errno> {
        let link = self.link(index).ok_or(Errno::ENODEV)?;
        if link.flags & IFF_UP == 0 {
            return Err(Errno::ENETDOWN);
        }
        let next_hop = next_hop.unwrap_or(to);
        let source = match source {
            Some(source) => source,
            None => self.choose_source(link, to, next_hop).ok_or(Errno::EADDRNOTAVAIL)?,
        };
        Ok(Path { link: index, next_hop, source, mtu: link.mtu, kind })
    }

    /// The address of a link that suits a destination best (`inet_select_addr`, RFC 6724).
    fn choose_source(&self, link: &LinkConfig, to: IpAddr, next_hop: IpAddr) -> Option<IpAddr> {
        match to {
            IpAddr::V4(_) => {
                let own = |l: &LinkConfig| -> Option<IpAddr> {
                    let mut all = l.addresses.iter().filter(|a| a.ip.is_ipv4() && a.scope <= SCOPE_LINK);
                    // An address in the next hop's network is one that it can answer to.
                    let near = all.clone().find(|a| in_network(next_hop, a.ip, a.prefix_len));
                    near.or_else(|| all.next()).map(|a| a.ip)
                };
                // A link without addresses borrows another's.
                let other = || self.up().filter(|l| l.kind != LinkKind::Loopback).find_map(own);
                // The loopback's address is nobody's beyond it: a group is sent to without one.
                let none = (link.kind == LinkKind::Loopback).then_some(Ipv4Addr::UNSPECIFIED.into());
                own(link).or_else(other).or(none)
            }
            IpAddr::V6(to6) => {
                // Link-local destinations want a source of the same scope.
                let wanted = is_link_local(to)
                    || (to6.is_multicast() && matches!(to6.octets().get(1).map(|b| b & 15), Some(1 | 2)));
                // Scope first, then the longest common prefix (RFC 6724, rules 2 and 8).
                let score = |ip: Ipv6Addr| (ip.is_unicast_link_local() == wanted, common_bits(ip, to6));
                let best = |l: &LinkConfig| {
                    let all = l.addresses.iter().filter_map(|a| match a.ip {
                        IpAddr::V6(v6) => Some(v6),
                        IpAddr::V4(_) => None,
                    });
                    all.max_by_key(|ip| score(*ip))
                };
                let here = best(link);
                let elsewhere =
                    || self.up().filter(|l| l.kind != LinkKind::Loopback).filter_map(best).max_by_key(|ip| score(*ip));
                here.filter(|ip| wanted || !ip.is_unicast_link_local()).or_else(elsewhere).or(here).map(IpAddr::from)
            }
        }
    }

    /// The group of IPv6 in which an address is asked for (RFC 4291, section 2.7.1).
    pub(crate) fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
        let low: u16 = (ip.to_bits() & 0xffff).narrow();
        let [.., byte, _, _] = ip.octets();
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(byte), low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_longest_prefix_wins_and_the_source_follows() {
        let routes = Routes::new(&testing::config(1));
        let find = |to: &str| routes.find(to.parse().unwrap(), None, None);
        let near = find("10.1.0.9").unwrap();
        assert_eq!(
            (near.link, near.next_hop, near.source),
            (2, "10.1.0.9".parse().unwrap(), "10.1.0.1".parse().unwrap())
        );
        let far = find("192.0.2.7").unwrap();
        assert_eq!((far.next_hop, far.kind), ("10.1.0.254".parse().unwrap(), Destination::Unicast));
        assert_eq!(find("10.1.0.1").unwrap().kind, Destination::Local);
        assert_eq!(find("127.9.9.9").unwrap().source, "127.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(find("10.1.255.255").unwrap().kind, Destination::Broadcast);
        assert_eq!(find("fd00::77").unwrap().source, "fd00::1".parse::<IpAddr>().unwrap());
        assert_eq!(find("fe80::77").unwrap().source, "fe80::1".parse::<IpAddr>().unwrap());
        assert_eq!(find("2001:db8::1"), Err(Errno::ENETUNREACH));
        assert_eq!(Routes::solicited_node("fe80::12:3456:789a".parse().unwrap()).to_string(), "ff02::1:ff56:789a");
    }
}
