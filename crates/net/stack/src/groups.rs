//! [`Groups`]: the multicast groups that are joined, and what routers and switches are told of them: IGMPv2 and MLDv1's messages
//! (RFC 2236, RFC 2710), which every querier understands.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

use crate::config::LinkKind;
use crate::packet::{HOP_BY_HOP, ICMPV6, IGMP, IpHeader, Packet, Whole, checksum_of, plain_checksum};
use crate::route::{Destination, Path, Routes};
use crate::stack::Stack;
use crate::time::{MS, SECOND, Time};

const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
const ALL_ROUTERS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Groups of one namespace at most.
const MOST_GROUPS: usize = 4096;
/// When a report is sent a second time, and the longest that a query's answer waits.
const REPEAT_US: u64 = 10 * SECOND;

const IGMP_REPORT: u8 = 0x16;
const IGMP_LEAVE: u8 = 0x17;
const IGMP_QUERY: u8 = 0x11;
const MLD_QUERY: u8 = 130;
const MLD_REPORT: u8 = 131;
const MLD_DONE: u8 = 132;

#[derive(Debug, Default)]
struct Membership {
    sockets: usize,
    report_at: Option<Time>,
}

/// The groups that are joined on each link.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    joined: HashMap<(u32, IpAddr), Membership>,
    next: Option<Time>,
}

/// What the sockets of a namespace have asked its stack for.
pub struct Wanted {
    raw: HashMap<u8, usize>,
    groups: Vec<((u32, IpAddr), usize)>,
}

impl Groups {
    /// Whether packets to a group are taken from a link.
    pub(crate) fn contains(&self, link: u32, group: IpAddr) -> bool {
        // Every host is in these two without joining (RFC 1112, RFC 4291).
        group == IpAddr::V4(ALL_HOSTS) || group == IpAddr::V6(ALL_NODES) || self.joined.contains_key(&(link, group))
    }

    pub(crate) fn list(&self) -> Vec<(u32, IpAddr)> {
        let mut all: Vec<_> = self.joined.keys().copied().collect();
        all.sort();
        all
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.next
    }

    fn report_at(&mut self, key: (u32, IpAddr), at: Time) {
        if let Some(m) = self.joined.get_mut(&key) {
            // An answer that is due soon serves a later query as well (RFC 2236, section 3).
            m.report_at = Some(m.report_at.map_or(at, |old| old.min(at)));
            self.next = Some(self.next.map_or(at, |n| n.min(at)));
        }
    }
}

impl Stack {
    /// What sockets have asked for: packets of protocols, groups on links.
    #[must_use]
    pub fn sockets(&self) -> Wanted {
        let groups = self.groups.joined.iter().map(|(key, member)| (*key, member.sockets)).collect();
        Wanted { raw: self.raw.clone(), groups }
    }

    /// Takes over what sockets have asked another stack for, in whose place this one comes: of the links that are here too.
    pub fn take_over(&mut self, wanted: &Wanted) {
        self.raw.clone_from(&wanted.raw);
        for ((link, group), sockets) in &wanted.groups {
            if self.routes.links().iter().any(|l| l.index == *link && l.kind == LinkKind::Loopback) {
                for _ in 0..*sockets {
                    self.join_group(*link, *group);
                }
            }
        }
    }

    /// Joins the groups in which the own addresses of IPv6 are asked for.
    pub(crate) fn join_own_groups(&mut self) {
        let own: Vec<(u32, Ipv6Addr)> = self
            .routes
            .links()
            .iter()
            .filter(|l| l.kind == LinkKind::Ethernet)
            .flat_map(|l| l.addresses.iter().map(|a| (l.index, a.ip)))
            .filter_map(|(link, ip)| match ip {
                IpAddr::V6(v6) => Some((link, Routes::solicited_node(v6))),
                IpAddr::V4(_) => None,
            })
            .collect();
        for (link, group) in own {
            self.join_group(link, group.into());
        }
    }

    /// A socket joins a group on a link; gives whether there was room.
    pub fn join_group(&mut self, link: u32, group: IpAddr) -> bool {
        let key = (link, group);
        let full = self.groups.joined.len() >= MOST_GROUPS;
        let new = !self.groups.joined.contains_key(&key);
        // Memberships that exist go on; only new ones take memory.
        if new && full {
            return false;
        }
        let member = self.groups.joined.entry(key).or_default();
        member.sockets = member.sockets.saturating_add(1);
        if new {
            self.report(link, group, true);
            // Repeated once, since the first report may be lost (RFC 2236, section 3).
            let delay = self.random_below(REPEAT_US);
            self.groups.report_at(key, self.now.after(delay));
        }
        true
    }

    /// A socket leaves a group.
    pub fn leave_group(&mut self, link: u32, group: IpAddr) {
        let key = (link, group);
        let Some(member) = self.groups.joined.get_mut(&key) else { return };
        member.sockets = member.sockets.saturating_sub(1);
        // The last socket that leaves: only then is the router told.
        if member.sockets == 0 {
            self.groups.joined.remove(&key);
            self.report(link, group, false);
        }
    }

    fn random_below(&mut self, most: u64) -> u64 {
        self.random().checked_rem(most.max(1)).unwrap_or(0)
    }

    /// A router asks who is in a group, or in any.
    pub(crate) fn receive_query(&mut self, link: u32, group: IpAddr, longest_us: u64) {
        let keys: Vec<(u32, IpAddr)> = self
            .groups
            .joined
            .keys()
            .filter(|(l, g)| *l == link && (*g == group || (group.is_unspecified() && g.is_ipv4() == group.is_ipv4())))
            .copied()
            .collect();
        for key in keys {
            // Spread over the time that the router waits, so that not all members answer at once.
            let delay = self.random_below(longest_us.min(REPEAT_US));
            self.groups.report_at(key, self.now.after(delay));
        }
    }

    /// Takes a message of IGMP.
    pub(crate) fn receive_igmp(&mut self, link: u32, payload: &[u8]) {
        if !crate::packet::plain_checksum_holds(payload) {
            return;
        }
        if let [IGMP_QUERY, code, _, _, a, b, c, d, ..] = *payload {
            // In tenths of a second, of which at least ten are taken.
            let longest = u64::from(code.max(10)).saturating_mul(100 * MS);
            self.receive_query(link, Ipv4Addr::new(a, b, c, d).into(), longest);
        }
    }

    /// Takes a query of MLD, from its ICMPv6 header.
    pub(crate) fn receive_mld(&mut self, link: u32, message: &[u8]) {
        if message.first() != Some(&MLD_QUERY) {
            return;
        }
        let Some(group) = message.get(8..24).and_then(|b| <[u8; 16]>::try_from(b).ok()) else { return };
        let delay = message.get(4..6).and_then(|b| <[u8; 2]>::try_from(b).ok()).map_or(0, u16::from_be_bytes);
        // In milliseconds (RFC 2710, section 3.4).
        self.receive_query(link, Ipv6Addr::from(group).into(), u64::from(delay).saturating_mul(MS).max(MS));
    }

    pub(crate) fn poll_groups(&mut self) {
        let now = self.now;
        if self.groups.next.is_none_or(|next| next > now) {
            return;
        }
        let mut due = Vec::new();
        for (key, member) in &mut self.groups.joined {
            if member.report_at.take_if(|at| *at <= now).is_some() {
                due.push(*key);
            }
        }
        self.groups.next = self.groups.joined.values().filter_map(|m| m.report_at).min();
        for (link, group) in due {
            self.report(link, group, true);
        }
    }

    /// Says that a group is joined, or left.
    fn report(&mut self, link: u32, group: IpAddr, joined: bool) {
        let Some(config) = self.routes.link(link).filter(|l| l.kind != LinkKind::Loopback) else { return };
        let mtu = config.mtu;
        let (header, body, to) = match group {
            IpAddr::V4(g) => {
                // Membership of all hosts is never reported (RFC 2236, section 6).
                if g == ALL_HOSTS {
                    return;
                }
                // A leave goes to the routers alone, a report to the group itself.
                let to = IpAddr::V4(if joined { g } else { ALL_ROUTERS });
                let Ok(path) = self.routes.find(to, Some(link), None) else { return };
                let kind = if joined { IGMP_REPORT } else { IGMP_LEAVE };
                let mut body = vec![kind, 0, 0, 0];
                body.extend_from_slice(&g.octets());
                let sum = plain_checksum(&body);
                put(&mut body, 2, sum);
                // TTL 1: it concerns this link only (RFC 2236, section 2). TOS 0xc0 is internetwork control.
                (IpHeader { source: path.source, destination: to, protocol: IGMP, ttl: 1, tos: 0xc0 }, body, to)
            }
            IpAddr::V6(g) => {
                let to = IpAddr::V6(if joined { g } else { ALL_ROUTERS_V6 });
                let local =
                    config.addresses.iter().map(|a| a.ip).find(|ip| crate::route::is_link_local(*ip) && ip.is_ipv6());
                // MLD comes from a link-local address, or from none while there is none (RFC 3590).
                let source = local.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
                let mut body = vec![if joined { MLD_REPORT } else { MLD_DONE }, 0, 0, 0, 0, 0, 0, 0];
                body.extend_from_slice(&g.octets());
                let header = IpHeader { source, destination: to, protocol: ICMPV6, ttl: 1, tos: 0 };
                let sum = checksum_of(&header, &body);
                put(&mut body, 2, sum);
                // A router alert, without which switches do not look.
                let body = [&[ICMPV6, 0, 5, 2, 0, 0, 1, 0][..], &body].concat();
                (IpHeader { protocol: HOP_BY_HOP, ..header }, body, to)
            }
        };
        let path = Path { link, next_hop: to, source: header.source, mtu, kind: Destination::Multicast };
        let packet = Packet::build(&header, 0, vec![Bytes::from(body)], 0, Whole::Keep);
        self.dispatch(&path, packet);
    }
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at.saturating_add(2)) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}
