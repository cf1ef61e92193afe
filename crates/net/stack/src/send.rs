//! Datagrams and packets of raw sockets on their way out; cutting what is too large for its path.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use moat_abi::Errno;
use smoltcp::wire::{IpProtocol, Ipv6FragmentHeader, Ipv6FragmentRepr, UdpPacket};

use crate::counters::count;
use crate::num::Narrow;
use crate::packet::{ETHERNET, IPV4, IPV6, IpHeader, Packet, Summing, UDP, Whole};
use crate::route::{Destination, Path};
use crate::stack::Stack;

/// Bytes of a header of UDP, and of a fragment header.
const UDP_HEADER: usize = 8;
const FRAGMENT_HEADER: usize = 8;
const IPV6_FRAGMENT: u8 = 44;

/// How a packet is sent, as its socket says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// The only link that may be used (SO_BINDTODEVICE, IP_PKTINFO, a scope id).
    pub device: Option<u32>,
    /// Hops; 64, or 1 for groups, without.
    pub ttl: Option<u8>,
    /// Type of service or traffic class.
    pub tos: u8,
    /// Routers must not cut it, and neither may this end (IP_PMTUDISC_DO).
    pub keep_whole: bool,
    /// SO_BROADCAST.
    pub broadcast: bool,
    /// Where a raw socket of IPv6 has its checksum made (IPV6_CHECKSUM).
    pub checksum_at: Option<usize>,
}

impl Stack {
    /// Sends a datagram of UDP. An unspecified source address is chosen by the route.
    ///
    /// # Errors
    /// Those of [`Stack::path`]; EACCES for a broadcast without SO_BROADCAST; EMSGSIZE for one that must not be cut.
    pub fn send_datagram(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        data: &[u8],
        options: &SendOptions,
    ) -> Result<(), Errno> {
        let own = (!source.ip().is_unspecified()).then_some(source.ip());
        let path = self.path(destination.ip(), options.device, own)?;
        count(&mut self.counted.udp_out_datagrams);
        if path.kind == Destination::Broadcast && !options.broadcast {
            return Err(Errno::EACCES);
        }
        let header = header(&path, destination.ip(), UDP, options);
        // Length of header and data, as the header has it.
        let len = data.len().saturating_add(UDP_HEADER);
        let mut udp = vec![0; UDP_HEADER];
        udp.extend_from_slice(data);
        let mut p = UdpPacket::new_unchecked(udp.as_mut_slice());
        p.set_src_port(source.port());
        p.set_dst_port(destination.port());
        p.set_len(len.narrow());
        let by_device = self.links.get(&path.link).and_then(|l| l.features).is_some_and(|f| f.checksum);
        let ip = if destination.is_ipv4() { IPV4 } else { IPV6 };
        if len.saturating_add(ip) <= usize::try_from(path.mtu).unwrap_or(usize::MAX) {
            let whole = if options.keep_whole { Whole::Keep } else { Whole::MayCut };
            let id = (self.random() & 0xffff).narrow();
            let mut packet = Packet::build(&header, len, Vec::new(), id, whole);
            packet.transport_mut().copy_from_slice(&udp);
            // Packets that stay in the namespace have no device.
            let by = if by_device && path.kind != Destination::Local { Summing::Device } else { Summing::Here };
            packet.fill_checksum(&header, 6, by);
            self.dispatch(&path, packet);
        } else {
            if options.keep_whole {
                return Err(Errno::EMSGSIZE);
            }
            // Cut packets can't have a sum made by the device. Zero would mean that there is none.
            let sum = match crate::packet::checksum_of(&header, &udp) {
                0 => 0xffff,
                sum => sum,
            };
            UdpPacket::new_unchecked(udp.as_mut_slice()).set_checksum(sum);
            self.send_payload(&path, &header, 0, vec![Bytes::from(udp)], Whole::MayCut);
        }
        self.drain_looped();
        Ok(())
    }

    /// Sends the payload of a raw or ping socket.
    ///
    /// # Errors
    /// As [`Stack::send_datagram`]; EINVAL where there is no room for a checksum.
    pub fn send_raw(
        &mut self,
        source: Option<IpAddr>,
        destination: IpAddr,
        protocol: u8,
        payload: Vec<u8>,
        options: &SendOptions,
    ) -> Result<(), Errno> {
        let path = self.path(destination, options.device, source.filter(|s| !s.is_unspecified()))?;
        if path.kind == Destination::Broadcast && !options.broadcast {
            return Err(Errno::EACCES);
        }
        let header = header(&path, destination, protocol, options);
        let whole = if options.keep_whole { Whole::Keep } else { Whole::MayCut };
        let ip = if destination.is_ipv4() { IPV4 } else { IPV6 };
        let fits = payload.len().saturating_add(ip) <= usize::try_from(path.mtu).unwrap_or(usize::MAX);
        if options.keep_whole && !fits {
            return Err(Errno::EMSGSIZE);
        }
        let mut payload = payload;
        if let Some(at) = options.checksum_at.filter(|_| destination.is_ipv6()) {
            // The kernel makes this checksum, since only it knows the source (RFC 3542, section 3.1).
            let end = at.checked_add(2).ok_or(Errno::EINVAL)?;
            payload.get_mut(at..end).ok_or(Errno::EINVAL)?.fill(0);
            let sum = match crate::packet::checksum_of(&header, &payload) {
                0 if protocol == UDP => 0xffff,
                sum => sum,
            };
            if let Some(field) = payload.get_mut(at..end) {
                field.copy_from_slice(&sum.to_be_bytes());
            }
        }
        self.send_payload(&path, &header, 0, vec![Bytes::from(payload)], whole);
        self.drain_looped();
        Ok(())
    }

    /// Sends a packet whose IPv4 header the sender made (IP_HDRINCL), on the way to `to`, whatever the header says. Its length and
    /// checksum are made here, its source and number where they are zero; all else goes as it is (`raw_send_hdrinc`).
    ///
    /// # Errors
    /// EINVAL for a header that is none; EMSGSIZE; those of [`Stack::path`].
    pub fn send_with_header(&mut self, to: IpAddr, packet: &[u8], options: &SendOptions) -> Result<(), Errno> {
        let path = self.path(to, options.device, None)?;
        if path.kind == Destination::Broadcast && !options.broadcast {
            return Err(Errno::EACCES);
        }
        let header_len = packet.first().map_or(0, |b| usize::from(b & 15).saturating_mul(4));
        if packet.len() < IPV4 || header_len < IPV4 || header_len > packet.len() {
            return Err(Errno::EINVAL);
        }
        if packet.len() > usize::try_from(path.mtu).unwrap_or(usize::MAX) {
            return Err(Errno::EMSGSIZE);
        }
        // Who gets another version in a packet of IPv4 drops it (`ip_rcv_core`).
        if packet.first().is_none_or(|b| b >> 4 != 4) {
            return Ok(());
        }
        let id = (self.random() & 0xffff).narrow();
        let built = Packet::of_header(packet, header_len, path.source, id);
        self.dispatch(&path, built);
        self.drain_looped();
        Ok(())
    }

    /// Sends a payload with its transport header, in fragments if it is too large.
    pub(crate) fn send_payload(
        &mut self,
        path: &Path,
        h: &IpHeader,
        transport: usize,
        parts: Vec<Bytes>,
        whole: Whole,
    ) {
        let len = parts.iter().fold(transport, |n, p| n.saturating_add(p.len()));
        let mtu = usize::try_from(path.mtu).unwrap_or(usize::MAX);
        let ip = if h.destination.is_ipv4() { IPV4 } else { IPV6 };
        let id = self.random();
        let short: u16 = (id & 0xffff).narrow();
        // Own packets have no link whose MTU would count.
        if len.saturating_add(ip) <= mtu || path.kind == Destination::Local {
            let packet = Packet::build(h, transport, parts, short, whole);
            self.dispatch(path, packet);
            return;
        }
        let flat: Vec<u8> = parts.iter().flat_map(|p| p.to_vec()).collect();
        let overhead = if h.destination.is_ipv4() { IPV4 } else { IPV6.saturating_add(FRAGMENT_HEADER) };
        // Offsets count in units of 8 bytes.
        let step = mtu.saturating_sub(overhead) & !7;
        // More can't be put together by the receiver.
        if step == 0 || len > 65_535 {
            return;
        }
        let mut offset = 0usize;
        for piece in flat.chunks(step) {
            let next = offset.saturating_add(piece.len());
            let more = next < flat.len();
            let packet = if h.destination.is_ipv4() {
                let part = Whole::Part { offset, more };
                Packet::build(h, 0, vec![Bytes::copy_from_slice(piece)], short, part)
            } else {
                let mut body = vec![0; FRAGMENT_HEADER];
                if let Some(first) = body.first_mut() {
                    *first = IpProtocol::from(h.protocol).into();
                }
                let repr = Ipv6FragmentRepr {
                    frag_offset: (offset >> 3).narrow(),
                    more_frags: more,
                    ident: (id >> 32).narrow(),
                };
                repr.emit(&mut Ipv6FragmentHeader::new_unchecked(body.get_mut(2..).unwrap_or_default()));
                body.extend_from_slice(piece);
                let h = IpHeader { protocol: IPV6_FRAGMENT, ..*h };
                Packet::build(&h, 0, vec![Bytes::from(body)], 0, Whole::Keep)
            };
            debug_assert!(packet.len() <= mtu.saturating_add(ETHERNET));
            self.dispatch(path, packet);
            offset = next;
        }
    }
}

fn header(path: &Path, destination: IpAddr, protocol: u8, options: &SendOptions) -> IpHeader {
    // Groups are not to leave the link unless the socket says so.
    let ttl = options.ttl.unwrap_or(if path.kind == Destination::Multicast { 1 } else { 64 });
    IpHeader { source: path.source, destination, protocol, ttl, tos: options.tos }
}
