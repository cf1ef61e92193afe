//! Packets of IPv4 and IPv6 as the stack sees them: [`IpPacket`] that came, [`Packet`] that is to go.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6ExtHeader, Ipv6FragmentHeader, Ipv6Packet};

use crate::device::{Checksum, Frame, Offload};
use crate::num::Narrow;

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;
/// Bytes of the IP headers without options.
pub(crate) const IPV4: usize = 20;
/// See [`IPV4`].
pub(crate) const IPV6: usize = 40;
/// Extension headers that are looked through.
const MOST_EXTENSIONS: usize = 8;
/// Parts of a payload that are copied behind the headers rather than referred to.
const COPIED: usize = 1024;

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ICMP: u8 = 1;
pub(crate) const IGMP: u8 = 2;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

/// What the header of a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpHeader {
    /// From where.
    pub source: IpAddr,
    /// To where.
    pub destination: IpAddr,
    /// `IPPROTO_*`, behind all extension headers.
    pub protocol: u8,
    /// Hops that are left.
    pub ttl: u8,
    /// Type of service, or traffic class.
    pub tos: u8,
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) id: u32,
    pub(crate) offset: usize,
    pub(crate) more: bool,
}

/// A packet that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IpPacket<'a> {
    pub(crate) header: IpHeader,
    pub(crate) fragment: Option<Fragment>,
    pub(crate) payload: &'a [u8],
    /// All of it, from the IP header.
    pub(crate) whole: &'a [u8],
    /// An option asks routers to look (a router alert).
    pub(crate) options: bool,
}

impl<'a> IpPacket<'a> {
    /// Decodes a packet; `None` if it is malformed.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<IpPacket<'a>> {
        match bytes.first()? >> 4 {
            4 => IpPacket::parse_v4(bytes),
            6 => IpPacket::parse_v6(bytes),
            _ => None,
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Option<IpPacket<'a>> {
        let p = Ipv4Packet::new_checked(bytes).ok()?;
        // The header's checksum is apart from the transport's, which a device may have verified.
        if p.version() != 4 || usize::from(p.header_len()) < IPV4 || !p.verify_checksum() {
            return None;
        }
        let header = IpHeader {
            source: p.src_addr().into(),
            destination: p.dst_addr().into(),
            protocol: p.next_header().into(),
            ttl: p.hop_limit(),
            tos: p.dscp().wrapping_shl(2) | p.ecn(),
        };
        let fragment = (p.more_frags() || p.frag_offset() > 0).then(|| Fragment {
            id: u32::from(p.ident()),
            offset: usize::from(p.frag_offset()),
            more: p.more_frags(),
        });
        let options = usize::from(p.header_len()) > IPV4;
        // Ethernet pads short frames: what is behind the packet's length is none of it.
        let whole = bytes.get(..usize::from(p.total_len()))?;
        Some(IpPacket { header, fragment, payload: p.payload(), whole, options })
    }

    fn parse_v6(bytes: &'a [u8]) -> Option<IpPacket<'a>> {
        let p = Ipv6Packet::new_checked(bytes).ok()?;
        if p.version() != 6 {
            return None;
        }
        let whole = bytes.get(..p.total_len())?;
        let mut protocol = p.next_header();
        let mut payload = p.payload();
        let mut fragment = None;
        let mut options = false;
        // A bound: headers could be nested as deep as the packet is long.
        for _ in 0..MOST_EXTENSIONS {
            match protocol {
                IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Opts => {
                    let extension = Ipv6ExtHeader::new_checked(payload).ok()?;
                    options |= protocol == IpProtocol::HopByHop;
                    let len = usize::from(extension.header_len()).saturating_add(1).saturating_mul(8);
                    protocol = extension.next_header();
                    payload = payload.get(len..)?;
                }
                IpProtocol::Ipv6Frag => {
                    let next = IpProtocol::from(*payload.first()?);
                    // Of the fragment header the crate reads from the third byte on.
                    let f = Ipv6FragmentHeader::new_checked(payload.get(2..)?).ok()?;
                    let offset = usize::from(f.frag_offset()).saturating_mul(8);
                    fragment = Some(Fragment { id: f.ident(), offset, more: f.more_frags() });
                    protocol = next;
                    payload = payload.get(8..)?;
                    // What follows a fragment header may be in another fragment.
                    break;
                }
                _ => break,
            }
        }
        let header = IpHeader {
            source: p.src_addr().into(),
            destination: p.dst_addr().into(),
            protocol: protocol.into(),
            ttl: p.hop_limit(),
            tos: p.traffic_class(),
        };
        // A fragment that is all of its packet is none.
        let fragment = fragment.filter(|f| f.more || f.offset > 0);
        Some(IpPacket { header, fragment, payload, whole, options })
    }
}

/// A frame to be sent: room for the Ethernet header, the other headers, and the payload.
#[derive(Clone, Debug, Default)]
pub struct Packet {
    pub(crate) head: Vec<u8>,
    pub(crate) tail: Vec<Bytes>,
    pub(crate) offload: Offload,
}

impl Packet {
    /// Bytes of the frame.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tail.iter().fold(self.head.len(), |n, b| n.saturating_add(b.len()))
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `f` with the frame.
    pub fn with_frame<R>(&self, f: impl FnOnce(&Frame<'_>) -> R) -> R {
        let parts = self.parts();
        f(&Frame { parts: &parts, offload: self.offload })
    }

    /// The parts of the frame.
    #[must_use]
    pub fn parts(&self) -> Vec<IoSlice<'_>> {
        let mut parts = Vec::with_capacity(self.tail.len().saturating_add(1));
        parts.push(IoSlice::new(&self.head));
        parts.extend(self.tail.iter().map(|b| IoSlice::new(b)));
        parts
    }

    /// What is beside the frame.
    #[must_use]
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// The whole frame, in one piece.
    #[must_use]
    pub fn flat_frame(&self) -> Vec<u8> {
        let mut out = self.head.clone();
        for part in &self.tail {
            out.extend_from_slice(part);
        }
        out
    }

    /// The packet without its Ethernet header, in one piece.
    pub(crate) fn flat(&self) -> Vec<u8> {
        let mut out = self.head.get(ETHERNET..).unwrap_or_default().to_vec();
        for part in &self.tail {
            out.extend_from_slice(part);
        }
        out
    }

    /// A packet with its IP header and a zeroed transport header; small payloads are copied.
    pub(crate) fn build(header: &IpHeader, transport: usize, payload: Vec<Bytes>, id: u16, whole: Whole) -> Packet {
        let len = payload.iter().fold(0usize, |n, p| n.saturating_add(p.len()));
        let ip = if header.destination.is_ipv4() { IPV4 } else { IPV6 };
        let fixed = ETHERNET.saturating_add(ip).saturating_add(transport);
        // A copy of so little is cheaper than another part for the device.
        let copied = len <= COPIED;
        let mut head = Vec::with_capacity(if copied { fixed.saturating_add(len) } else { fixed });
        head.resize(fixed, 0);
        emit_ip(head.get_mut(ETHERNET..).unwrap_or_default(), header, transport.saturating_add(len), id, whole);
        let tail = if copied {
            payload.iter().for_each(|p| head.extend_from_slice(p));
            Vec::new()
        } else {
            payload
        };
        Packet { head, tail, offload: Offload { header_len: fixed.narrow(), ..Offload::default() } }
    }

    /// A packet of IPv4 with the header that its sender made. Length and checksum are filled; `source` and `id` where it has none.
    pub(crate) fn of_header(packet: &[u8], header_len: usize, source: IpAddr, id: u16) -> Packet {
        let mut head = vec![0; ETHERNET];
        head.extend_from_slice(packet);
        let len = packet.len().narrow();
        let mut p = Ipv4Packet::new_unchecked(head.get_mut(ETHERNET..).unwrap_or_default());
        p.set_total_len(len);
        if p.ident() == 0 {
            p.set_ident(id);
        }
        if let (IpAddr::V4(source), true) = (source, p.src_addr().is_unspecified()) {
            p.set_src_addr(source);
        }
        // Over the options, too.
        p.fill_checksum();
        let header_len = ETHERNET.saturating_add(header_len).narrow();
        Packet { head, tail: Vec::new(), offload: Offload { header_len, ..Offload::default() } }
    }

    /// The transport header and what of the payload lies behind it.
    pub(crate) fn transport_mut(&mut self) -> &mut [u8] {
        let at = match self.head.get(ETHERNET).copied().unwrap_or(0) >> 4 {
            4 => ETHERNET.saturating_add(IPV4),
            _ => ETHERNET.saturating_add(IPV6),
        };
        self.head.get_mut(at..).unwrap_or_default()
    }

    /// Fills the checksum of the transport header, at `offset` in it; the device does the sum if `by_device`.
    pub(crate) fn fill_checksum(&mut self, header: &IpHeader, offset: usize, by: Summing) {
        // The tail belongs to the payload and is summed with it.
        let transport = self.transport_mut().len();
        let len = self.tail.iter().fold(transport, |n, b| n.saturating_add(b.len()));
        let start = self.head.len().saturating_sub(transport);
        let pseudo = pseudo_sum(header, len);
        let sum = match by {
            // The device adds the rest to the pseudo-header's sum, and negates it.
            Summing::Device => fold(pseudo),
            Summing::Here => {
                let mut sum = Sum { total: pseudo, odd: None };
                sum.add(self.head.get(start..).unwrap_or_default());
                for part in &self.tail {
                    sum.add(part);
                }
                match !fold(sum.finish()) {
                    // Zero would mean that there is none.
                    0 if header.protocol == UDP => 0xffff,
                    sum => sum,
                }
            }
        };
        if by == Summing::Device {
            self.offload.checksum = Some(Checksum { start: start.narrow(), offset: offset.narrow() });
        }
        let end = offset.saturating_add(2);
        if let Some(field) = self.transport_mut().get_mut(offset..end) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// Who makes a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Summing {
    Here,
    Device,
}

/// Whether routers may cut a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whole {
    Keep,
    MayCut,
    /// It is a fragment of IPv4.
    Part {
        offset: usize,
        more: bool,
    },
}

fn emit_ip(buffer: &mut [u8], h: &IpHeader, len: usize, id: u16, whole: Whole) {
    match (h.source, h.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut p = Ipv4Packet::new_unchecked(buffer);
            p.set_version(4);
            p.set_header_len(20);
            p.set_dscp(h.tos >> 2);
            p.set_ecn(h.tos & 3);
            p.set_total_len(len.saturating_add(IPV4).narrow());
            p.set_ident(id);
            p.clear_flags();
            match whole {
                Whole::Keep => p.set_dont_frag(true),
                Whole::MayCut => {}
                Whole::Part { offset, more } => {
                    p.set_frag_offset(offset.narrow());
                    p.set_more_frags(more);
                }
            }
            p.set_hop_limit(h.ttl);
            p.set_next_header(IpProtocol::from(h.protocol));
            p.set_src_addr(source);
            p.set_dst_addr(destination);
            p.fill_checksum();
        }
        (source, destination) => {
            let v6 = |ip| match ip {
                IpAddr::V6(v6) => v6,
                IpAddr::V4(v4) => Ipv4Addr::to_ipv6_mapped(&v4),
            };
            let mut p = Ipv6Packet::new_unchecked(buffer);
            p.set_version(6);
            p.set_traffic_class(h.tos);
            p.set_flow_label(0);
            p.set_payload_len(len.narrow());
            p.set_next_header(IpProtocol::from(h.protocol));
            p.set_hop_limit(h.ttl);
            p.set_src_addr(v6(source));
            p.set_dst_addr(v6(destination));
        }
    }
}

/// A sum of 16-bit words over parts that may have odd lengths.
struct Sum {
    total: u64,
    odd: Option<u8>,
}

impl Sum {
    fn add(&mut self, mut bytes: &[u8]) {
        // A word that began in the part before.
        if let Some(high) = self.odd
            && let Some((low, rest)) = bytes.split_first()
        {
            self.total = self.total.saturating_add(u64::from(u16::from_be_bytes([high, *low])));
            self.odd = None;
            bytes = rest;
        }
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            // 2^32 and 2^16 are 1 in this arithmetic, so that wide words may be added.
            self.total = self.total.saturating_add(u64::from(u32::from_be_bytes(*word)));
        }
        // At most three bytes are left.
        match rest {
            [] => {}
            [a] => self.odd = Some(*a),
            [a, b] => self.total = self.total.saturating_add(u64::from(u16::from_be_bytes([*a, *b]))),
            [a, b, c, ..] => {
                self.total = self.total.saturating_add(u64::from(u16::from_be_bytes([*a, *b])));
                self.odd = Some(*c);
            }
        }
    }

    fn finish(self) -> u64 {
        match self.odd {
            Some(high) => self.total.saturating_add(u64::from(u16::from_be_bytes([high, 0]))),
            None => self.total,
        }
    }
}

fn fold(sum: u64) -> u16 {
    let mut sum = sum;
    while sum > 0xffff {
        sum = (sum & 0xffff).saturating_add(sum >> 16);
    }
    sum.narrow()
}

fn pseudo_sum(h: &IpHeader, len: usize) -> u64 {
    let mut sum = Sum { total: 0, odd: None };
    match (h.source, h.destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            sum.add(&a.octets());
            sum.add(&b.octets());
        }
        (a, b) => {
            let octets = |ip| match ip {
                IpAddr::V6(v6) => Ipv6Addr::octets(&v6),
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            };
            sum.add(&octets(a));
            sum.add(&octets(b));
        }
    }
    sum.finish().saturating_add(u64::from(h.protocol)).saturating_add(len.narrow())
}

/// Whether the checksum of a transport's bytes is right.
#[must_use]
pub fn checksum_holds(h: &IpHeader, bytes: &[u8]) -> bool {
    let mut sum = Sum { total: pseudo_sum(h, bytes.len()), odd: None };
    sum.add(bytes);
    fold(sum.finish()) == 0xffff
}

/// The checksum of a transport's bytes, whose field is zero.
pub(crate) fn checksum_of(h: &IpHeader, bytes: &[u8]) -> u16 {
    let mut sum = Sum { total: pseudo_sum(h, bytes.len()), odd: None };
    sum.add(bytes);
    !fold(sum.finish())
}

/// Whether the checksum of a message of ICMP or IGMP is right: it has no pseudo-header.
pub(crate) fn plain_checksum_holds(bytes: &[u8]) -> bool {
    let mut sum = Sum { total: 0, odd: None };
    sum.add(bytes);
    fold(sum.finish()) == 0xffff
}

/// The checksum of bytes without a pseudo-header (RFC 1071).
#[must_use]
pub fn plain_checksum(bytes: &[u8]) -> u16 {
    let mut sum = Sum { total: 0, odd: None };
    sum.add(bytes);
    !fold(sum.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_over_odd_parts_is_that_over_the_whole() {
        let header = IpHeader {
            source: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.2".parse().unwrap(),
            protocol: UDP,
            ttl: 64,
            tos: 0,
        };
        let big: Vec<u8> = (0..3001u32).map(|i| (i % 253) as u8).collect();
        let parts = vec![Bytes::from(big[..1501].to_vec()), Bytes::from(big[1501..].to_vec())];
        let mut p = Packet::build(&header, 8, parts, 1, Whole::Keep);
        p.fill_checksum(&header, 6, Summing::Here);
        let flat = p.flat();
        let ip = IpPacket::parse(&flat).unwrap();
        assert_eq!((ip.header, ip.payload.len()), (header, 3009));
        assert!(checksum_holds(&header, ip.payload));
        let mut broken = ip.payload.to_vec();
        broken[100] ^= 1;
        assert!(!checksum_holds(&header, &broken));
    }
}
