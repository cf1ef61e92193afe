//! /proc/net/{ipv6_route,igmp,igmp6,dev_mcast}, proc_pid_net(5).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use moat_abi::netlink as nl;
use moat_abi::socket::{IFF_LOOPBACK, IFF_UP};
use moat_identity::NetNamespace;
use moat_identity::net::NetDevice;

use crate::stack::stack_of;

/// The name of a device by its number.
pub(super) fn name(devices: &[NetDevice], index: u32) -> &str {
    devices.iter().find(|d| d.index == index).map_or("*", |d| &d.name)
}

/// The routes of IPv6: destination, source, next hop, metric, references, use, flags, device; all in hexadecimal.
pub(crate) fn ipv6_route(net: &NetNamespace) -> Vec<u8> {
    const UP: u32 = 1;
    const GATEWAY: u32 = 2;
    const LOCAL: u32 = 0x8000_0000;
    let mut out = String::new();
    let devices = net.devices();
    for r in net.routes() {
        let IpAddr::V6(to) = r.destination else { continue };
        let hop = match r.gateway {
            Some(IpAddr::V6(v6)) => v6,
            _ => Ipv6Addr::UNSPECIFIED,
        };
        let gateway = if r.gateway.is_some() { GATEWAY } else { 0 };
        let local = if r.kind == nl::RTN_LOCAL { LOCAL } else { 0 };
        // Writing to a string can't fail.
        let _ = writeln!(
            out,
            "{:032x} {:02x} {:032x} 00 {:032x} {:08x} {:08x} {:08x} {:08x} {:>8}",
            to.to_bits(),
            r.prefix_len,
            0,
            hop.to_bits(),
            r.metric,
            1,
            0,
            UP | gateway | local,
            name(&devices, r.device)
        );
    }
    out.into_bytes()
}

/// The routes of IPv4 as the kernel's tree has them, here one of one level: an address, and below it the prefixes with scope and kind.
pub(crate) fn fib_trie(net: &NetNamespace) -> Vec<u8> {
    let mut leaves: BTreeMap<u32, Vec<(u8, u8, u8)>> = BTreeMap::new();
    for r in net.routes() {
        if let IpAddr::V4(to) = r.destination {
            leaves.entry(to.to_bits()).or_default().push((r.prefix_len, r.scope, r.kind));
        }
    }
    let scope = |s: u8| match s {
        nl::RT_SCOPE_UNIVERSE => "universe",
        nl::RT_SCOPE_LINK => "link",
        nl::RT_SCOPE_HOST => "host",
        _ => "site",
    };
    let kind = |k: u8| match k {
        nl::RTN_UNICAST => "UNICAST",
        nl::RTN_LOCAL => "LOCAL",
        nl::RTN_BROADCAST => "BROADCAST",
        _ => "UNREACHABLE",
    };
    // The numbers are of the shape of the tree: bits, full and empty children.
    let mut tree = format!("  +-- 0.0.0.0/0 {} 0 0\n", leaves.len());
    for (to, prefixes) in leaves {
        let _ = writeln!(tree, "     |-- {}", Ipv4Addr::from_bits(to));
        for (len, s, k) in prefixes {
            let _ = writeln!(tree, "        /{len} {} {}", scope(s), kind(k));
        }
    }
    // Without rules the tables are one (`fib_trie_unmerge`).
    format!("Main:\n{tree}Local:\n{tree}").into_bytes()
}

/// The groups that are joined on a device, with those that it is always a member of.
fn groups(net: &NetNamespace) -> Vec<(u32, String, IpAddr)> {
    let joined = stack_of(net).map(|s| s.change(|s| s.joined_groups())).unwrap_or_default();
    let mut out = Vec::new();
    for d in net.devices().iter().filter(|d| d.flags & IFF_UP != 0) {
        let always = [IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1))];
        out.extend(always.iter().map(|g| (d.index, d.name.clone(), *g)));
        let own = joined.iter().filter(|(link, group)| *link == d.index && !always.contains(group));
        out.extend(own.map(|(_, group)| (d.index, d.name.clone(), *group)));
    }
    out
}

pub(crate) fn igmp(net: &NetNamespace) -> Vec<u8> {
    let mut out = String::from("Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n");
    let all = groups(net);
    for d in net.devices() {
        let own: Vec<Ipv4Addr> = all
            .iter()
            .filter_map(|(index, _, group)| match group {
                IpAddr::V4(v4) if *index == d.index => Some(*v4),
                _ => None,
            })
            .collect();
        if own.is_empty() {
            continue;
        }
        let _ = writeln!(out, "{}\t{:<10}: {:>5}      V2", d.index, d.name, own.len());
        for group in own {
            let _ = writeln!(out, "\t\t\t\t{:08X} {:>5} 0:00000000\t\t0", u32::from_ne_bytes(group.octets()), 1);
        }
    }
    out.into_bytes()
}

pub(crate) fn igmp6(net: &NetNamespace) -> Vec<u8> {
    let mut out = String::new();
    for (index, device, group) in groups(net) {
        if let IpAddr::V6(v6) = group {
            let _ = writeln!(out, "{index:<4} {device:<15} {:032x} {:>5} 0000000C 0", v6.to_bits(), 1);
        }
    }
    out.into_bytes()
}

/// The groups as addresses on the links.
pub(crate) fn dev_mcast(net: &NetNamespace) -> Vec<u8> {
    let mut out = String::new();
    let loopbacks: Vec<u32> = net.devices().iter().filter(|d| d.flags & IFF_LOOPBACK != 0).map(|d| d.index).collect();
    for (index, device, group) in groups(net).into_iter().filter(|(index, ..)| !loopbacks.contains(index)) {
        let mac = moat_net_stack::group_mac(group).map(|b| format!("{b:02x}")).concat();
        let _ = writeln!(out, "{index:<4} {device:<15} 1     0     {mac}");
    }
    out.into_bytes()
}
