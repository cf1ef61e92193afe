//! ICMP both ways: echoes are answered, errors go to whose packets they are about, and are sent where a packet leads nowhere
//! (RFC 792, 1122, 1191, 4443, 8201).

use std::net::IpAddr;

use bytes::Bytes;
use moat_abi::Errno;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv6Packet, Icmpv6Repr};

use crate::counters::count;
use crate::num::Narrow;
use crate::packet::{
    ICMP, ICMPV6, IPV4, IPV6, IpHeader, IpPacket, Packet, TCP, UDP, Whole, checksum_holds, checksum_of, plain_checksum,
    plain_checksum_holds,
};
use crate::resolve::NDISC_HOPS;
use crate::stack::{Datagram, Delivery, SendError, Stack};

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
const V6_UNREACHABLE: u8 = 1;
const V6_TOO_BIG: u8 = 2;
const V6_TIME_EXCEEDED: u8 = 3;
const V6_PARAMETER_PROBLEM: u8 = 4;
const V6_ECHO: u8 = 128;
const V6_ECHO_REPLY: u8 = 129;

const CODE_PROTOCOL: u8 = 2;
const CODE_PORT: u8 = 3;
const CODE_TOO_BIG: u8 = 4;
const V6_CODE_PORT: u8 = 4;
/// Bytes of an ICMP message before what it quotes.
const HEADER: usize = 8;
/// The most of an ICMPv4 error, and of an ICMPv6 error, with all headers.
const MOST_ERROR: usize = 576;
const MOST_ERROR_V6: usize = 1280;
/// Less than this no path is taken to be (`ip_rt_min_pmtu`, RFC 8200).
const LEAST_MTU: u32 = 552;
const LEAST_MTU_V6: u32 = 1280;

impl Stack {
    pub(crate) fn receive_icmp(&mut self, link: u32, packet: &IpPacket<'_>) {
        let message = packet.payload;
        let [kind, code, _, _, a, b, c, d, ..] = *message else { return };
        if !plain_checksum_holds(message) {
            return;
        }
        count(&mut self.counted.icmp_in_messages);
        match kind {
            ECHO => count(&mut self.counted.icmp_in_echos),
            ECHO_REPLY => count(&mut self.counted.icmp_in_echo_replies),
            UNREACHABLE => count(&mut self.counted.icmp_in_unreachables),
            _ => {}
        }
        match kind {
            // An answer to a group or a broadcast would make many hosts send at once (RFC 1122, section 3.2.2.6).
            ECHO if !packet.header.destination.is_multicast()
                && !self.routes.is_broadcast(packet.header.destination) =>
            {
                self.answer_echo(link, packet, ECHO_REPLY);
            }
            UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM => {
                // The MTU is in the last two bytes, other details in the first.
                let info = if (kind, code) == (UNREACHABLE, CODE_TOO_BIG) {
                    u32::from(u16::from_be_bytes([c, d]))
                } else {
                    u32::from(u16::from_be_bytes([a, b]))
                };
                let quote = message.get(HEADER..).unwrap_or_default();
                self.take_error(quote, packet.header.source, kind, code, info);
            }
            _ => {}
        }
    }

    pub(crate) fn receive_icmpv6(&mut self, link: u32, packet: &IpPacket<'_>) {
        let h = packet.header;
        let message = packet.payload;
        if message.len() < HEADER || !checksum_holds(&h, message) {
            return;
        }
        let [kind, code, _, _, a, b, c, d, ..] = *message else { return };
        match kind {
            V6_ECHO if !h.destination.is_multicast() => self.answer_echo(link, packet, V6_ECHO_REPLY),
            V6_UNREACHABLE | V6_TOO_BIG | V6_TIME_EXCEEDED | V6_PARAMETER_PROBLEM => {
                let info = u32::from_be_bytes([a, b, c, d]);
                self.take_error(message.get(HEADER..).unwrap_or_default(), h.source, kind, code, info);
            }
            130 if packet.options => self.receive_mld(link, message),
            // Only a packet that no router has passed on counts: nobody
            // outside the link can pretend to be a neighbour.
            135 | 136 if h.ttl == NDISC_HOPS && code == 0 => {
                let (IpAddr::V6(source), IpAddr::V6(destination)) = (h.source, h.destination) else { return };
                let Ok(icmp) = Icmpv6Packet::new_checked(message) else { return };
                let unchecked = ChecksumCapabilities::ignored();
                if let Ok(Icmpv6Repr::Ndisc(repr)) = Icmpv6Repr::parse(&source, &destination, &icmp, &unchecked) {
                    self.receive_ndisc(link, source, destination, repr);
                }
            }
            _ => {}
        }
    }

    fn answer_echo(&mut self, link: u32, packet: &IpPacket<'_>, reply: u8) {
        let h = packet.header;
        let mut message = packet.payload.to_vec();
        if let Some(kind) = message.first_mut() {
            *kind = reply;
        }
        let header = IpHeader { source: h.destination, destination: h.source, ttl: 64, ..h };
        self.send_icmp(&header, message, Some(link));
    }

    /// Sends a message of ICMP, whose checksum it makes.
    fn send_icmp(&mut self, header: &IpHeader, mut message: Vec<u8>, link: Option<u32>) {
        // The sum is taken over the message with a zero in its field.
        if let Some(field) = message.get_mut(2..4) {
            field.fill(0);
        }
        let sum = if header.source.is_ipv4() { plain_checksum(&message) } else { checksum_of(header, &message) };
        if let Some(field) = message.get_mut(2..4) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
        // Such an address is good for the link that it came over only.
        let device = link.filter(|_| crate::route::is_link_local(header.destination));
        if let Ok(path) = self.path(header.destination, device, Some(header.source)) {
            if header.source.is_ipv4() {
                count(&mut self.counted.icmp_out_messages);
            }
            self.send_payload(&path, header, 0, vec![Bytes::from(message)], Whole::MayCut);
        }
    }

    /// Takes an error that is about the packet which `quote` begins.
    fn take_error(&mut self, quote: &[u8], offender: IpAddr, kind: u8, code: u8, info: u32) {
        let Some((header, payload)) = parse_quote(quote) else { return };
        // Only of what was sent from here.
        if !self.routes.is_local(header.source) || header.destination.is_multicast() {
            return;
        }
        let Some((errno, fatal)) = meaning(header.source.is_ipv4(), kind, code) else { return };
        let mut error = SendError {
            header,
            source_port: 0,
            destination_port: 0,
            errno,
            fatal,
            offender,
            kind,
            code,
            info,
            payload: payload.to_vec(),
            headers: quote.get(..quote.len().saturating_sub(payload.len())).unwrap_or_default().to_vec(),
        };
        if errno == Errno::EMSGSIZE {
            // A forged message must not make packets so small that nothing moves.
            let least = if header.source.is_ipv4() { LEAST_MTU } else { LEAST_MTU_V6 };
            error.info = info.max(least);
        }
        // Ports are in the first four bytes of both protocols.
        if matches!(header.protocol, TCP | UDP)
            && let Some(ports) = payload.first_chunk::<4>()
        {
            let [a, b, c, d] = *ports;
            error.source_port = u16::from_be_bytes([a, b]);
            error.destination_port = u16::from_be_bytes([c, d]);
        }
        if header.protocol == TCP {
            // The number shows whether the message is about something that was sent (RFC 5927).
            let seq = payload.get(4..8).and_then(|b| <[u8; 4]>::try_from(b).ok()).map_or(0, u32::from_be_bytes);
            self.tcp_error(&error, seq);
            return;
        }
        // TCP checks the number first, and narrows the path itself.
        if errno == Errno::EMSGSIZE {
            // Only of a destination that a path is known to: a stranger can fill no table.
            self.narrow_path(header.destination, error.info);
        }
        self.deliver(Delivery::Error(error));
    }

    /// A packet of this namespace's own found no neighbour.
    pub(crate) fn local_unreachable(&mut self, packet: &Packet) {
        let flat = packet.flat();
        let Some(ip) = IpPacket::parse(&flat) else { return };
        let source = ip.header.source;
        let (kind, code) = if source.is_ipv4() { (UNREACHABLE, 1) } else { (V6_UNREACHABLE, 3) };
        self.take_error(&flat, source, kind, code, 0);
    }

    /// Nobody has the port that a datagram was sent to.
    pub fn refuse_datagram(&mut self, datagram: &Datagram) {
        // It was counted as one that came.
        self.counted.udp_in_datagrams = self.counted.udp_in_datagrams.saturating_sub(1);
        count(&mut self.counted.udp_no_ports);
        let h = &datagram.header;
        // The stack has kept no packet: the part that the message quotes is built again.
        let mut udp = Vec::with_capacity(datagram.payload.len().saturating_add(8));
        udp.extend_from_slice(&datagram.source_port.to_be_bytes());
        udp.extend_from_slice(&datagram.destination_port.to_be_bytes());
        udp.extend_from_slice(&datagram.payload.len().saturating_add(8).narrow::<u16>().to_be_bytes());
        udp.extend_from_slice(&[0, 0]);
        udp.extend_from_slice(&datagram.payload);
        let original = Packet::build(h, 0, vec![Bytes::from(udp)], datagram.id, Whole::MayCut).flat();
        let code = if h.source.is_ipv4() { (UNREACHABLE, CODE_PORT) } else { (V6_UNREACHABLE, V6_CODE_PORT) };
        self.send_error(h, &original, code, 0);
        // The sender may be of this namespace.
        self.drain_looped();
    }

    pub(crate) fn protocol_unreachable(&mut self, packet: &IpPacket<'_>) {
        let h = packet.header;
        if h.source.is_ipv4() {
            self.send_error(&h, packet.whole, (UNREACHABLE, CODE_PROTOCOL), 0);
        } else {
            // An unknown next header: where it is.
            self.send_error(&h, packet.whole, (V6_PARAMETER_PROBLEM, 1), 6);
        }
    }

    fn send_error(&mut self, about: &IpHeader, original: &[u8], (kind, code): (u8, u8), info: u32) {
        let (from, to) = (about.destination, about.source);
        // No error about what came from, or went to, more than one host (RFC 1122, section 3.2.2).
        let nowhere = to.is_unspecified() || to.is_multicast() || self.routes.is_broadcast(to);
        if nowhere || from.is_multicast() || self.routes.is_broadcast(from) || !self.may_send_error() {
            return;
        }
        let v4 = to.is_ipv4();
        let room = if v4 {
            MOST_ERROR.saturating_sub(IPV4).saturating_sub(HEADER)
        } else {
            MOST_ERROR_V6.saturating_sub(IPV6).saturating_sub(HEADER)
        };
        let mut message = vec![kind, code, 0, 0];
        message.extend_from_slice(&info.to_be_bytes());
        // As much of the packet as the smallest MTU has room for.
        message.extend_from_slice(original.get(..room.min(original.len())).unwrap_or_default());
        let protocol = if v4 { ICMP } else { ICMPV6 };
        let header = IpHeader { source: from, destination: to, protocol, ttl: 64, tos: 0xc0 };
        self.send_icmp(&header, message, None);
    }
}

/// The beginning of a packet that an error quotes: its header, and what there is of its payload.
fn parse_quote(quote: &[u8]) -> Option<(IpHeader, &[u8])> {
    let word = |at: usize| quote.get(at..at.saturating_add(4)).and_then(|b| <[u8; 4]>::try_from(b).ok());
    let long = |at: usize| quote.get(at..at.saturating_add(16)).and_then(|b| <[u8; 16]>::try_from(b).ok());
    let first = *quote.first()?;
    match first >> 4 {
        4 => {
            let header_len = usize::from(first & 15).saturating_mul(4);
            let offset = u16::from_be_bytes(*quote.get(6..8)?.first_chunk()?) & 0x1fff;
            // Only the first fragment has the transport's header.
            if header_len < IPV4 || offset != 0 {
                return None;
            }
            let header = IpHeader {
                source: word(12)?.into(),
                destination: word(16)?.into(),
                protocol: *quote.get(9)?,
                ttl: *quote.get(8)?,
                tos: *quote.get(1)?,
            };
            Some((header, quote.get(header_len..)?))
        }
        6 => {
            let mut protocol = *quote.get(6)?;
            let mut at = IPV6;
            // A fragment header stands ahead of the transport's.
            if protocol == 44 {
                protocol = *quote.get(at)?;
                at = at.saturating_add(8);
            }
            let header = IpHeader {
                source: long(8)?.into(),
                destination: long(24)?.into(),
                protocol,
                ttl: *quote.get(7)?,
                tos: 0,
            };
            Some((header, quote.get(at..)?))
        }
        _ => None,
    }
}

/// What an error means to a socket (`icmp_err_convert`, `icmpv6_err_convert`), and whether it ends a connection.
fn meaning(v4: bool, kind: u8, code: u8) -> Option<(Errno, bool)> {
    if v4 {
        return Some(match (kind, code) {
            (UNREACHABLE, 0 | 6 | 11) => (Errno::ENETUNREACH, code == 6),
            (UNREACHABLE, 1 | 12) => (Errno::EHOSTUNREACH, false),
            (UNREACHABLE, 2) => (Errno::ENOPROTOOPT, true),
            (UNREACHABLE, 3) => (Errno::ECONNREFUSED, true),
            (UNREACHABLE, CODE_TOO_BIG) => (Errno::EMSGSIZE, false),
            (UNREACHABLE, 5) => (Errno::EOPNOTSUPP, false),
            (UNREACHABLE, 7) => (Errno::EHOSTDOWN, true),
            (UNREACHABLE, 8) => (Errno::ENONET, true),
            (UNREACHABLE, 9 | 13..=15) => (Errno::EHOSTUNREACH, true),
            (UNREACHABLE, 10) => (Errno::EHOSTUNREACH, true),
            (TIME_EXCEEDED, 0) => (Errno::EHOSTUNREACH, false),
            (PARAMETER_PROBLEM, _) => (Errno::EPROTO, true),
            _ => return None,
        });
    }
    Some(match (kind, code) {
        (V6_UNREACHABLE, 0) => (Errno::ENETUNREACH, false),
        (V6_UNREACHABLE, 1 | 5 | 6) => (Errno::EACCES, true),
        (V6_UNREACHABLE, 2 | 3) => (Errno::EHOSTUNREACH, false),
        (V6_UNREACHABLE, V6_CODE_PORT) => (Errno::ECONNREFUSED, true),
        (V6_TOO_BIG, _) => (Errno::EMSGSIZE, false),
        (V6_TIME_EXCEEDED, 0) => (Errno::EHOSTUNREACH, false),
        (V6_PARAMETER_PROBLEM, _) => (Errno::EPROTO, true),
        _ => return None,
    })
}
