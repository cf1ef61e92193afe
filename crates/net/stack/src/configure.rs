//! Changes of links, addresses, routes and neighbours, by the rules of rtnetlink(7).
//!
//! Sources: `net/ipv4/devinet.c` and `fib_frontend.c`, `net/ipv6/addrconf.c`: what follows from a change (connected routes, addresses
//! of the loopback, what goes with a link that goes down) follows here, too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use moat_abi::Errno;

use crate::config::{AddressConfig, LinkConfig, LinkKind, RouteConfig, RouteKind};
use crate::device::DeviceFeatures;
use crate::route::{IFF_UP, RT_TABLE_MAIN, Routes, SCOPE_LINK, network_of};
use crate::stack::{LinkState, Stack};

/// Links, addresses of one link, and routes, at most.
const MOST_LINKS: usize = 1024;
const MOST_ADDRESSES: usize = 1024;
const MOST_ROUTES: usize = 8192;

/// `RT_SCOPE_HOST`, `RTPROT_KERNEL`.
const SCOPE_HOST: u8 = 254;
const PROTOCOL_KERNEL: u8 = 2;
/// `IP6_RT_PRIO_ADDRCONF`: the metric of IPv6's connected routes.
const METRIC_KERNEL: u32 = 256;

/// What becomes of a route that is there already (`NLM_F_EXCL`, `NLM_F_REPLACE`, `NLM_F_APPEND`, `NLM_F_CREATE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfPresent {
    /// EEXIST.
    Refuse,
    /// The new one takes its place; without one, it is an error if `create` is missing.
    Replace {
        /// Makes it if there is none.
        create: bool,
    },
    /// Both stand, the new one behind those of its destination and metric.
    Append,
    /// Both stand, the new one before them; of IPv6 behind them, as on Linux.
    Prepend,
    /// None is made: EEXIST for one that is there, ENOENT for others.
    Nothing,
}

/// Which routes RTM_DELROUTE means: what is `None` does not matter.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct RouteKey {
    pub destination: IpAddr,
    pub prefix_len: u8,
    pub table: u32,
    pub gateway: Option<IpAddr>,
    pub link: Option<u32>,
    pub metric: Option<u32>,
    pub kind: Option<RouteKind>,
}

impl RouteKey {
    fn fits(&self, r: &RouteConfig) -> bool {
        r.destination == self.destination
            && r.prefix_len == self.prefix_len
            && r.table == self.table
            && self.gateway.is_none_or(|g| r.gateway == Some(g))
            && self.link.is_none_or(|l| r.link == l)
            && self.metric.is_none_or(|m| r.metric == m)
            && self.kind.is_none_or(|k| r.kind == k)
    }
}

/// The address of a link that it makes itself of its MAC (RFC 4291, appendix A).
fn link_local_of(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

fn full_length(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

impl Routes {
    /// The route that comes with an address (`fib_add_ifaddr`, `addrconf_prefix_route`); none of the loopback and of single hosts.
    fn connected(&self, link: u32, a: &AddressConfig) -> Option<RouteConfig> {
        let kind = self.link(link)?.kind;
        if kind == LinkKind::Loopback || a.prefix_len >= full_length(a.ip) {
            return None;
        }
        Some(RouteConfig {
            destination: network_of(a.ip, a.prefix_len),
            prefix_len: a.prefix_len,
            gateway: None,
            link,
            preferred_source: a.ip.is_ipv4().then_some(a.ip),
            metric: if a.ip.is_ipv4() { 0 } else { METRIC_KERNEL },
            scope: if a.ip.is_ipv4() { SCOPE_LINK } else { 0 },
            protocol: PROTOCOL_KERNEL,
            table: RT_TABLE_MAIN,
            kind: RouteKind::Unicast,
            on_link: false,
            mtu: None,
        })
    }

    /// Adds the connected route of an address, unless another address of the network has brought it.
    fn add_connected(&mut self, link: u32, a: &AddressConfig) {
        let Some(route) = self.connected(link, a) else { return };
        let same = |r: &RouteConfig| {
            r.destination == route.destination
                && r.prefix_len == route.prefix_len
                && r.link == link
                && r.gateway.is_none()
        };
        if self.routes.len() < MOST_ROUTES && !self.routes.iter().any(same) {
            self.routes.push(route);
        }
    }

    /// Takes an address away, with the routes that stood on it.
    fn drop_address(&mut self, link: u32, gone: &AddressConfig) {
        let Some(config) = self.link_mut(link) else { return };
        config.addresses.retain(|a| a != gone);
        let left = config.addresses.clone();
        let network = network_of(gone.ip, gone.prefix_len);
        let heir = left.iter().find(|a| a.prefix_len == gone.prefix_len && network_of(a.ip, a.prefix_len) == network);
        self.routes.retain(|r| {
            let connected = r.protocol == PROTOCOL_KERNEL
                && r.link == link
                && r.gateway.is_none()
                && r.destination == network
                && r.prefix_len == gone.prefix_len;
            r.preferred_source != Some(gone.ip) && !connected
        });
        if let Some(heir) = heir {
            self.add_connected(link, heir);
        }
    }

    /// What goes when a link goes down: its routes and, as on Linux, its addresses of IPv6.
    fn take_down(&mut self, link: u32) {
        self.routes.retain(|r| r.link != link || r.kind != RouteKind::Unicast);
        if let Some(config) = self.link_mut(link) {
            config.addresses.retain(|a| a.ip.is_ipv4());
        }
    }

    /// Whether a gateway can be reached without another one, and by which link.
    fn link_of_gateway(&self, gateway: IpAddr, link: Option<u32>, on_link: bool) -> Result<u32, Errno> {
        if on_link {
            return link.ok_or(Errno::EINVAL);
        }
        let unreachable = if gateway.is_ipv4() { Errno::ENETUNREACH } else { Errno::EHOSTUNREACH };
        if self.is_local(gateway) {
            return Err(Errno::EINVAL);
        }
        // Not by `find`: a socket's device makes everything on-link, a route's does not.
        let near = self.best(gateway, link).filter(|r| r.gateway.is_none() && r.kind == RouteKind::Unicast);
        near.map(|r| r.link).ok_or(unreachable)
    }
}

impl Stack {
    /// Adds a link, which has the next number.
    ///
    /// # Errors
    /// EEXIST for a name that is taken; ENOBUFS for too many.
    pub fn add_link(&mut self, mut link: LinkConfig, features: Option<DeviceFeatures>) -> Result<u32, Errno> {
        let links = self.routes.links();
        if links.iter().any(|l| l.name == link.name) {
            return Err(Errno::EEXIST);
        }
        if links.len() >= MOST_LINKS {
            return Err(Errno::ENOBUFS);
        }
        let taken = links.iter().any(|l| l.index == link.index);
        if link.index == 0 || taken {
            let last = links.iter().map(|l| l.index).max().unwrap_or(0);
            link.index = last.max(self.last_link).checked_add(1).ok_or(Errno::ENOBUFS)?;
        }
        let index = link.index;
        self.last_link = self.last_link.max(index);
        let addresses = std::mem::take(&mut link.addresses);
        let up = link.flags & IFF_UP != 0;
        link.flags &= !IFF_UP;
        self.routes.links.push(link);
        self.links.insert(index, LinkState { features, ..LinkState::default() });
        if up {
            self.set_link_up(index)?;
        }
        for address in addresses {
            // A link that is taken over has its own link-local address already when it is up.
            let _ = self.add_address(index, address);
        }
        Ok(index)
    }

    /// Removes a link with all that is on it.
    ///
    /// # Errors
    /// ENODEV; EOPNOTSUPP for the loopback.
    pub fn remove_link(&mut self, index: u32) -> Result<(), Errno> {
        let link = self.routes.link(index).ok_or(Errno::ENODEV)?;
        if link.kind == LinkKind::Loopback {
            return Err(Errno::EOPNOTSUPP);
        }
        self.set_link_down(index)?;
        self.routes.links.retain(|l| l.index != index);
        self.routes.routes.retain(|r| r.link != index);
        self.links.remove(&index);
        Ok(())
    }

    /// Sets a link's attributes; not its number, its addresses and whether it is up.
    ///
    /// # Errors
    /// ENODEV; EEXIST for a name that another link has.
    pub fn change_link(&mut self, index: u32, f: impl FnOnce(&mut LinkConfig)) -> Result<(), Errno> {
        let mut new = self.routes.link(index).ok_or(Errno::ENODEV)?.clone();
        f(&mut new);
        if self.routes.links.iter().any(|l| l.index != index && l.name == new.name) {
            return Err(Errno::EEXIST);
        }
        if let Some(link) = self.routes.link_mut(index) {
            let (index, flags, addresses) = (link.index, link.flags, std::mem::take(&mut link.addresses));
            *link = LinkConfig { index, flags: (new.flags & !IFF_UP) | (flags & IFF_UP), addresses, ..new };
        }
        Ok(())
    }

    /// Brings a link up: connected routes come, and the addresses that it gives itself.
    ///
    /// # Errors
    /// ENODEV.
    pub fn set_link_up(&mut self, index: u32) -> Result<(), Errno> {
        let link = self.routes.link_mut(index).ok_or(Errno::ENODEV)?;
        if link.flags & IFF_UP != 0 {
            return Ok(());
        }
        link.flags |= IFF_UP;
        let host = |ip: IpAddr, prefix_len| AddressConfig { ip, prefix_len, broadcast: None, scope: SCOPE_HOST };
        let own = match link.kind {
            LinkKind::Loopback => {
                vec![host(Ipv4Addr::LOCALHOST.into(), 8), host(Ipv6Addr::LOCALHOST.into(), 128)]
            }
            LinkKind::Ethernet => {
                let ip = link_local_of(link.mac).into();
                vec![AddressConfig { ip, prefix_len: 64, broadcast: None, scope: SCOPE_LINK }]
            }
            LinkKind::EthernetNoArp => Vec::new(),
        };
        let there = link.addresses.clone();
        for a in &there {
            self.routes.add_connected(index, a);
        }
        for a in own {
            // The loopback gets 127.0.0.1 only if it has no address of IPv4 (`inetdev_event`).
            if !there.iter().any(|t| t.ip.is_ipv4() && a.ip.is_ipv4()) {
                let _ = self.add_address(index, a);
            }
        }
        Ok(())
    }

    /// Takes a link down.
    ///
    /// # Errors
    /// ENODEV.
    pub fn set_link_down(&mut self, index: u32) -> Result<(), Errno> {
        let link = self.routes.link_mut(index).ok_or(Errno::ENODEV)?;
        link.flags &= !IFF_UP;
        self.routes.take_down(index);
        self.neighbours.forget_link(index);
        if let Some(state) = self.links.get_mut(&index) {
            state.queue.clear();
        }
        Ok(())
    }

    /// Gives a link an address.
    ///
    /// # Errors
    /// ENODEV; EEXIST; EINVAL for one that is no host's; ENOBUFS for too many.
    pub fn add_address(&mut self, link: u32, address: AddressConfig) -> Result<(), Errno> {
        let config = self.routes.link_mut(link).ok_or(Errno::ENODEV)?;
        if address.prefix_len > full_length(address.ip) || address.ip.is_multicast() || address.ip.is_unspecified() {
            return Err(Errno::EINVAL);
        }
        let same =
            |a: &AddressConfig| a.ip == address.ip && (a.prefix_len == address.prefix_len || address.ip.is_ipv6());
        if config.addresses.iter().any(same) {
            return Err(Errno::EEXIST);
        }
        if config.addresses.len() >= MOST_ADDRESSES {
            return Err(Errno::ENOBUFS);
        }
        config.addresses.push(address.clone());
        let up = config.flags & IFF_UP != 0;
        if let (LinkKind::Ethernet, IpAddr::V6(v6)) = (config.kind, address.ip) {
            self.join_group(link, Routes::solicited_node(v6).into());
        }
        if up {
            self.routes.add_connected(link, &address);
        }
        Ok(())
    }

    /// Takes an address from a link. With the first of a network of IPv4 its secondary ones go (`promote_secondaries` is 0).
    ///
    /// # Errors
    /// ENODEV; EADDRNOTAVAIL.
    pub fn remove_address(&mut self, link: u32, ip: IpAddr, prefix_len: Option<u8>) -> Result<(), Errno> {
        let config = self.routes.link(link).ok_or(Errno::ENODEV)?;
        let fits = |a: &&AddressConfig| a.ip == ip && prefix_len.is_none_or(|p| p == a.prefix_len);
        let gone = config.addresses.iter().find(fits).cloned().ok_or(Errno::EADDRNOTAVAIL)?;
        let network = network_of(gone.ip, gone.prefix_len);
        let mut peers = config
            .addresses
            .iter()
            .filter(|a| a.prefix_len == gone.prefix_len && network_of(a.ip, a.prefix_len) == network);
        let primary = gone.ip.is_ipv4() && peers.next() == Some(&gone);
        let secondaries: Vec<AddressConfig> = if primary { peers.cloned().collect() } else { Vec::new() };
        for a in secondaries.iter().chain([&gone]) {
            self.routes.drop_address(link, a);
            if let IpAddr::V6(v6) = a.ip {
                self.leave_group(link, Routes::solicited_node(v6).into());
            }
        }
        Ok(())
    }

    /// Adds a route; its link follows from the gateway if it is 0.
    ///
    /// # Errors
    /// EEXIST, ENOENT by `present`; ENODEV, ENETDOWN of the link; ENETUNREACH, EHOSTUNREACH or EINVAL for a gateway that is not on a
    /// link; EINVAL for a destination with bits beyond its prefix; ENOBUFS for too many.
    pub fn add_route(&mut self, mut route: RouteConfig, present: IfPresent) -> Result<(), Errno> {
        if route.prefix_len > full_length(route.destination)
            || network_of(route.destination, route.prefix_len) != route.destination
        {
            return Err(Errno::EINVAL);
        }
        if route.kind == RouteKind::Unicast {
            if let Some(gateway) = route.gateway {
                let link = (route.link != 0).then_some(route.link);
                route.link = self.routes.link_of_gateway(gateway, link, route.on_link)?;
            }
            let link = self.routes.link(route.link).ok_or(Errno::ENODEV)?;
            if link.flags & IFF_UP == 0 {
                return Err(Errno::ENETDOWN);
            }
            if route.preferred_source.is_some_and(|ip| !self.routes.is_local(ip)) {
                return Err(Errno::EINVAL);
            }
        }
        let same = |r: &RouteConfig| {
            (r.destination, r.prefix_len, r.table, r.metric)
                == (route.destination, route.prefix_len, route.table, route.metric)
        };
        let routes = &mut self.routes.routes;
        let at = routes.iter().position(same);
        match (present, at) {
            (IfPresent::Refuse, Some(_)) => return Err(Errno::EEXIST),
            // Nothing changes.
            (IfPresent::Replace { .. }, Some(at)) if routes.get(at) == Some(&route) => return Ok(()),
            // Two that are alike in everything would be one.
            (_, Some(_)) if routes.contains(&route) => return Err(Errno::EEXIST),
            (IfPresent::Replace { .. }, Some(at)) => {
                if let Some(old) = routes.get_mut(at) {
                    *old = route;
                }
                return Ok(());
            }
            (IfPresent::Replace { create: false }, None) | (IfPresent::Nothing, _) => return Err(Errno::ENOENT),
            _ => {}
        }
        if routes.len() >= MOST_ROUTES {
            return Err(Errno::ENOBUFS);
        }
        // By their metrics; of those that are alike but for where they lead the first counts (`fib_table_insert`).
        let network = |r: &RouteConfig| {
            (r.destination, r.prefix_len, r.table) == (route.destination, route.prefix_len, route.table)
        };
        let least = match present {
            IfPresent::Prepend if route.destination.is_ipv4() => Some(route.metric),
            _ => route.metric.checked_add(1),
        };
        let next = routes.iter().position(|r| network(r) && least.is_some_and(|least| r.metric >= least));
        let last = || routes.iter().rposition(network).map_or(routes.len(), |last| last.saturating_add(1));
        let place = next.unwrap_or_else(last);
        routes.insert(place, route);
        Ok(())
    }

    /// Removes the first route that fits.
    ///
    /// # Errors
    /// ESRCH.
    pub fn remove_route(&mut self, key: &RouteKey) -> Result<(), Errno> {
        let at = self.routes.routes.iter().position(|r| key.fits(r)).ok_or(Errno::ESRCH)?;
        self.routes.routes.remove(at);
        Ok(())
    }

    /// Makes a neighbour known for good.
    ///
    /// # Errors
    /// ENODEV; EINVAL for an address that is no neighbour's; ENOBUFS for too many.
    pub fn add_neighbour(&mut self, link: u32, address: IpAddr, mac: [u8; 6]) -> Result<(), Errno> {
        let config = self.routes.link(link).ok_or(Errno::ENODEV)?;
        if config.kind == LinkKind::Loopback || address.is_multicast() || address.is_unspecified() {
            return Err(Errno::EINVAL);
        }
        if self.neighbours.is_full_for((link, address)) {
            return Err(Errno::ENOBUFS);
        }
        self.neighbours.add_permanent((link, address), mac);
        Ok(())
    }

    /// Forgets a neighbour.
    ///
    /// # Errors
    /// ENOENT.
    pub fn remove_neighbour(&mut self, link: u32, address: IpAddr) -> Result<(), Errno> {
        if self.neighbours.remove((link, address)) { Ok(()) } else { Err(Errno::ENOENT) }
    }
}

#[cfg(test)]
mod tests;
