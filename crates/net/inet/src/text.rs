//! /proc/net/{tcp,tcp6,udp,udp6,raw,raw6,dev,route,arp}, proc_pid_net(5); others in [`counters`] and [`configuration`].

pub(crate) mod configuration;
pub(crate) mod counters;

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use moat_abi::netlink as nl;
use moat_abi::socket::{AF_INET, AF_INET6, IPPROTO_RAW, IPPROTO_TCP, IPPROTO_UDP, TCP_LISTEN};
use moat_identity::NetNamespace;

use crate::inspect::SocketInfo;
use crate::listing::list;
use crate::stack::stack_of;
use configuration::name;

/// An address as these files have it: words of 32 bits in the machine's order.
fn hex(family: u16, addr: SocketAddr) -> String {
    let words: Vec<u8> = match (family, addr.ip()) {
        (AF_INET, IpAddr::V4(ip)) => ip.octets().to_vec(),
        (AF_INET, IpAddr::V6(_)) => vec![0; 4],
        (_, IpAddr::V4(ip)) => ip.to_ipv6_mapped().octets().to_vec(),
        (_, IpAddr::V6(ip)) => ip.octets().to_vec(),
    };
    let mut out = String::new();
    // Each word as a number of the machine, so the bytes of an address show reversed on this one.
    for w in words.chunks_exact(4) {
        let _ = write!(out, "{:08X}", u32::from_ne_bytes([w[0], w[1], w[2], w[3]]));
    }
    let _ = write!(out, ":{:04X}", addr.port());
    out
}

fn table(family: u16, head: &str, tail: &str, sockets: &[SocketInfo]) -> Vec<u8> {
    let mut out = format!("{head}\n");
    for (n, s) in sockets.iter().filter(|s| s.family == family).enumerate() {
        let _ = writeln!(
            out,
            "{n:4}: {} {} {:02X} {:08X}:{:08X} 00:00000000 00000000 {:5} {:8} {} 2 0000000000000000 {tail}",
            hex(family, s.local),
            hex(family, s.peer),
            s.state,
            // What a listener has here is no bytes.
            if s.state == TCP_LISTEN { 0 } else { s.send_queue },
            s.receive_queue,
            s.uid,
            0,
            s.ino
        );
    }
    out.into_bytes()
}

const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
const UDP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops";
const UDP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops";

pub(crate) fn tcp(net: &NetNamespace) -> Vec<u8> {
    table(AF_INET, TCP, "100 0 0 10 0", &list(net, IPPROTO_TCP))
}

pub(crate) fn tcp6(net: &NetNamespace) -> Vec<u8> {
    table(AF_INET6, TCP6, "100 0 0 10 0", &list(net, IPPROTO_TCP))
}

pub(crate) fn udp(net: &NetNamespace) -> Vec<u8> {
    table(AF_INET, UDP, "0", &list(net, IPPROTO_UDP))
}

pub(crate) fn udp6(net: &NetNamespace) -> Vec<u8> {
    table(AF_INET6, UDP6, "0", &list(net, IPPROTO_UDP))
}

pub(crate) fn raw(net: &NetNamespace) -> Vec<u8> {
    table(AF_INET, UDP, "0", &list(net, IPPROTO_RAW))
}

pub(crate) fn raw6(net: &NetNamespace) -> Vec<u8> {
    table(AF_INET6, UDP6, "0", &list(net, IPPROTO_RAW))
}

/// /proc/net/dev.
pub(crate) fn dev(net: &NetNamespace) -> Vec<u8> {
    let mut text = String::from(
        "Inter-|   Receive                                                |  Transmit\n \
face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n",
    );
    let stack = stack_of(net);
    for device in net.devices() {
        let c = stack.as_ref().map(|s| s.change(|s| s.counters(device.index))).unwrap_or_default();
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "{:>6}: {:7} {:7}    0 {:4}    0     0          0 {:9} {:8} {:7}    0 {:4}    0     0       0          0",
            device.name,
            c.received_bytes,
            c.received_packets,
            c.received_dropped,
            c.multicast,
            c.sent_bytes,
            c.sent_packets,
            c.sent_dropped
        );
    }
    text.into_bytes()
}

/// /proc/net/route: the main table of IPv4, addresses in the network's order as numbers of the machine's.
pub(crate) fn route(net: &NetNamespace) -> Vec<u8> {
    const UP: u32 = 1;
    const GATEWAY: u32 = 2;
    const HOST: u32 = 4;
    let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
    // Lines are padded to 127 characters (`fib_route_seq_show`).
    let mut text = format!("{head:<127}\n");
    let devices = net.devices();
    let number = |ip: Ipv4Addr| u32::from_ne_bytes(ip.octets());
    for r in net.routes() {
        // Only the main table: local and broadcast routes are not shown.
        let IpAddr::V4(to) = r.destination else { continue };
        if r.table != u32::from(nl::RT_TABLE_MAIN) {
            continue;
        }
        let gateway = match r.gateway {
            Some(IpAddr::V4(v4)) => v4,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        let mut flags = UP;
        if r.gateway.is_some() {
            flags |= GATEWAY;
        }
        if r.prefix_len == 32 {
            flags |= HOST;
        }
        let mask = Ipv4Addr::from_bits(u32::MAX.checked_shl(32u32.saturating_sub(r.prefix_len.into())).unwrap_or(0));
        let line = format!(
            "{}\t{:08X}\t{:08X}\t{flags:04X}\t0\t0\t{}\t{:08X}\t0\t0\t0",
            name(&devices, r.device),
            number(to),
            number(gateway),
            r.metric,
            number(mask)
        );
        let _ = writeln!(text, "{line:<127}");
    }
    text.into_bytes()
}

/// /proc/net/arp.
pub(crate) fn arp(net: &NetNamespace) -> Vec<u8> {
    const COMPLETE: u8 = 2;
    let mut text = String::from("IP address       HW type     Flags       HW address            Mask     Device\n");
    let devices = net.devices();
    for n in stack_of(net).map(|s| s.change(|s| s.neighbours())).unwrap_or_default() {
        let IpAddr::V4(ip) = n.address else { continue };
        let mac = n.mac.unwrap_or_default().map(|b| format!("{b:02x}")).join(":");
        let flags = if n.mac.is_some() { COMPLETE } else { 0 };
        let device = name(&devices, n.link);
        let _ = writeln!(text, "{:<16} 0x{:<10x}0x{flags:<10x}{mac}     *        {device}", ip.to_string(), 1);
    }
    text.into_bytes()
}
