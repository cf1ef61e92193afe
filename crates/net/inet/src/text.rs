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

/// How a file writes its lines: what is before a socket's number, the characters that a line is padded to, and what its end is.
struct Form {
    head: &'static str,
    number_width: usize,
    line_width: usize,
    tail: fn(&SocketInfo) -> String,
}

fn table(family: u16, form: &Form, sockets: &[SocketInfo]) -> Vec<u8> {
    let (width, number_width) = (form.line_width, form.number_width);
    let mut out = format!("{:<width$}\n", form.head);
    for (n, s) in sockets.iter().filter(|s| s.family == family).enumerate() {
        let line = format!(
            "{n:number_width$}: {} {} {:02X} {:08X}:{:08X} 00:00000000 00000000 {:5} {:8} {} 2 0000000000000000 {}",
            hex(family, s.local),
            hex(family, s.peer),
            s.state,
            // What a listener has here is no bytes.
            if s.state == TCP_LISTEN { 0 } else { s.send_queue },
            s.receive_queue,
            s.uid,
            0,
            s.ino,
            (form.tail)(s)
        );
        // Writing to a string can't fail.
        let _ = writeln!(out, "{line:<width$}");
    }
    out.into_bytes()
}

/// `tcp4_seq_show` pads its lines, `tcp6_seq_show` does not.
const TCP: Form = Form {
    head: "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
    number_width: 4,
    line_width: 149,
    tail: |_| "100 0 0 10 0".into(),
};
const TCP6: Form = Form {
    head: "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
    line_width: 0,
    ..TCP
};
/// `udp4_seq_show`, `raw_seq_show`, and `ip6_dgram_sock_seq_show` for both.
const UDP: Form = Form {
    head: "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops",
    number_width: 5,
    line_width: 127,
    tail: |socket| socket.lost.to_string(),
};
const RAW: Form = Form {
    head: "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops",
    number_width: 4,
    line_width: 0,
    ..UDP
};
const DATAGRAM6: Form = Form {
    head: "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops",
    number_width: 5,
    ..RAW
};

pub(crate) fn tcp(net: &NetNamespace) -> Vec<u8> {
    table(AF_INET, &TCP, &list(net, IPPROTO_TCP))
}

pub(crate) fn tcp6(net: &NetNamespace) -> Vec<u8> {
    table(AF_INET6, &TCP6, &list(net, IPPROTO_TCP))
}

pub(crate) fn udp(net: &NetNamespace) -> Vec<u8> {
    table(AF_INET, &UDP, &list(net, IPPROTO_UDP))
}

pub(crate) fn udp6(net: &NetNamespace) -> Vec<u8> {
    table(AF_INET6, &DATAGRAM6, &list(net, IPPROTO_UDP))
}

pub(crate) fn raw(net: &NetNamespace) -> Vec<u8> {
    table(AF_INET, &RAW, &list(net, IPPROTO_RAW))
}

pub(crate) fn raw6(net: &NetNamespace) -> Vec<u8> {
    table(AF_INET6, &DATAGRAM6, &list(net, IPPROTO_RAW))
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
