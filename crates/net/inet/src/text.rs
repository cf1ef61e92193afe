//! /proc/net/{tcp,tcp6,udp,udp6}, proc_pid_net(5).

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use moat_abi::socket::{AF_INET, AF_INET6};
use moat_identity::NetNamespace;
use moat_vfs::socket::Socket;

use crate::ports::PortTables;

/// One line's contents: addresses, state, bytes to read, owner, inode.
struct Line {
    local: SocketAddr,
    peer: SocketAddr,
    state: u8,
    waiting: usize,
    uid: u32,
    ino: u64,
}

/// An address as these files have it: words of 32 bits in the machine's order.
fn hex(family: u16, addr: SocketAddr) -> String {
    let words: Vec<u8> = match (family, addr.ip()) {
        (AF_INET, IpAddr::V4(ip)) => ip.octets().to_vec(),
        (AF_INET, IpAddr::V6(_)) => vec![0; 4],
        (_, IpAddr::V4(ip)) => ip.to_ipv6_mapped().octets().to_vec(),
        (_, IpAddr::V6(ip)) => ip.octets().to_vec(),
    };
    let mut out = String::new();
    for w in words.chunks_exact(4) {
        let _ = write!(out, "{:08X}", u32::from_ne_bytes([w[0], w[1], w[2], w[3]]));
    }
    let _ = write!(out, ":{:04X}", addr.port());
    out
}

fn table(family: u16, head: &str, tail: &str, mut lines: Vec<Line>) -> Vec<u8> {
    lines.sort_by_key(|l| l.ino);
    let mut out = format!("{head}\n");
    for (n, l) in lines.iter().enumerate() {
        let _ = writeln!(
            out,
            "{n:4}: {} {} {:02X} {:08X}:{:08X} 00:00000000 00000000 {:5} {:8} {} 2 0000000000000000 {tail}",
            hex(family, l.local),
            hex(family, l.peer),
            l.state,
            0,
            l.waiting,
            l.uid,
            0,
            l.ino
        );
    }
    out.into_bytes()
}

const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
const UDP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops";
const UDP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops";

fn tcp_table(net: &NetNamespace, family: u16, head: &str) -> Vec<u8> {
    let sockets = PortTables::of(net).tcp.lock().sockets();
    let lines = sockets.iter().filter(|s| s.family() == family).map(|s| {
        let (local, peer, waiting, uid) = s.show();
        Line { local, peer, state: s.tcp_state(), waiting, uid, ino: s.core().ino() }
    });
    table(family, head, "100 0 0 10 0", lines.collect())
}

fn udp_table(net: &NetNamespace, family: u16, head: &str) -> Vec<u8> {
    let sockets = PortTables::of(net).udp.lock().sockets();
    let lines = sockets.iter().filter(|s| s.family() == family).map(|s| {
        let (local, peer, waiting, uid) = s.show();
        // TCP's numbers: established with a peer, else closed.
        let state = if peer.port() == 0 { 7 } else { 1 };
        Line { local, peer, state, waiting, uid, ino: s.core().ino() }
    });
    table(family, head, "0", lines.collect())
}

pub(crate) fn tcp(net: &NetNamespace) -> Vec<u8> {
    tcp_table(net, AF_INET, TCP)
}

pub(crate) fn tcp6(net: &NetNamespace) -> Vec<u8> {
    tcp_table(net, AF_INET6, TCP6)
}

pub(crate) fn udp(net: &NetNamespace) -> Vec<u8> {
    udp_table(net, AF_INET, UDP)
}

pub(crate) fn udp6(net: &NetNamespace) -> Vec<u8> {
    udp_table(net, AF_INET6, UDP6)
}
