//! Frames that come: from Ethernet to the protocols.

use std::net::IpAddr;

use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, TcpPacket, UdpPacket};

use crate::counters::count;
use crate::device::Offload;
use crate::num::Narrow;
use crate::packet::{ICMP, ICMPV6, IGMP, IpHeader, IpPacket, TCP, UDP, checksum_holds};
use crate::route::IFF_UP;
use crate::stack::{Datagram, Delivery, Stack};
use crate::tcp::{Marks, Segment};

/// Packets for sockets that wait to be taken.
const MOST_DELIVERIES: usize = 4096;

/// Whether a packet's checksum has been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It never crossed a wire, or the device has verified it.
    Verified,
    /// Nobody has looked.
    Unknown,
}

impl Stack {
    /// Takes a frame that came over a link.
    pub fn receive(&mut self, link: u32, frame: &[u8], offload: Offload) {
        let Some(own) = self.routes.link(link).filter(|l| l.flags & IFF_UP != 0).map(|l| l.mac) else { return };
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else { return };
        if let Some(state) = self.links.get_mut(&link) {
            state.counters.received_packets = state.counters.received_packets.saturating_add(1);
            state.counters.received_bytes = state.counters.received_bytes.saturating_add(frame.len().narrow());
        }
        let to = ethernet.dst_addr();
        let from = ethernet.src_addr();
        // What others send each other, and what this link has sent itself.
        if from == EthernetAddress(own) || (to != EthernetAddress(own) && !to.is_multicast()) {
            return;
        }
        match ethernet.ethertype() {
            EthernetProtocol::Arp => self.receive_arp(link, ethernet.payload()),
            EthernetProtocol::Ipv4 | EthernetProtocol::Ipv6 => {
                let trust =
                    // A checksum that is still to be made shows that the frame comes from this host.
                    if offload.verified || offload.checksum.is_some() { Trust::Verified } else { Trust::Unknown };
                if !self.receive_ip(link, ethernet.payload(), trust, offload)
                    && let Some(state) = self.links.get_mut(&link)
                {
                    state.counters.received_dropped = state.counters.received_dropped.saturating_add(1);
                }
            }
            _ => {}
        }
        self.drain_looped();
    }

    fn receive_ip(&mut self, link: u32, bytes: &[u8], trust: Trust, offload: Offload) -> bool {
        let Some(packet) = IpPacket::parse(bytes) else { return false };
        let h = packet.header;
        // Sources that nobody on a link may have: the namespace's own, loopback, groups (RFC 1812, section 5.3.7).
        let dubious = h.source.is_multicast()
            || h.source == IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
            || h.source.is_loopback()
            || self.routes.is_local(h.source)
            || h.destination.is_loopback()
            || self.routes.is_broadcast(h.source);
        count(&mut self.counted.ip_in_receives);
        if dubious || !self.is_for_us(link, h.destination) {
            count(&mut self.counted.ip_in_addr_errors);
            return false;
        }
        self.accept_packet(link, &packet, trust, offload);
        true
    }

    fn is_for_us(&self, link: u32, to: IpAddr) -> bool {
        if to.is_multicast() {
            return self.groups.contains(link, to);
        }
        self.routes.is_local(to) || self.routes.is_broadcast(to)
    }

    /// Takes a packet that is for this namespace.
    fn accept_packet(&mut self, link: u32, packet: &IpPacket<'_>, trust: Trust, offload: Offload) {
        let h = packet.header;
        if let Some(fragment) = packet.fragment {
            if let Some(whole) = self.reassembly.insert(&h, fragment, packet.payload, self.now) {
                // A checksum is of the whole payload, which nobody has summed yet.
                let rebuilt = IpPacket { fragment: None, payload: &whole, ..*packet };
                self.accept_payload(link, &rebuilt, Trust::Unknown, Offload::default());
            }
            return;
        }
        self.accept_payload(link, packet, trust, offload);
    }

    fn accept_payload(&mut self, link: u32, packet: &IpPacket<'_>, trust: Trust, offload: Offload) {
        let h = packet.header;
        count(&mut self.counted.ip_in_delivers);
        let mut known = true;
        match h.protocol {
            TCP => self.receive_tcp(link, &h, packet.payload, trust, offload),
            UDP => self.receive_udp(link, packet, trust, offload),
            ICMP if h.source.is_ipv4() => self.receive_icmp(link, packet),
            ICMPV6 if h.source.is_ipv6() => self.receive_icmpv6(link, packet),
            IGMP if h.source.is_ipv4() => self.receive_igmp(link, packet.payload),
            _ => known = false,
        }
        // Raw sockets get a copy also of what is served here.
        if self.raw.contains_key(&h.protocol) {
            self.deliver_raw(link, packet);
        } else if !known {
            self.protocol_unreachable(packet);
        }
    }

    fn deliver_raw(&mut self, link: u32, packet: &IpPacket<'_>) {
        // The header as it came; of a packet that was put together it is the last fragment's.
        let header_len = packet.whole.len().saturating_sub(packet.payload.len());
        let header = if packet.whole.ends_with(packet.payload) {
            packet.whole.get(..header_len)
        } else {
            packet.whole.get(..20)
        };
        let header = header.unwrap_or_default();
        let delivery = Delivery::Raw {
            link,
            header: packet.header,
            packet: [header, packet.payload].concat(),
            payload_at: header.len(),
        };
        self.deliver(delivery);
    }

    pub(crate) fn deliver(&mut self, delivery: Delivery) {
        // A reader that is too slow loses packets, as on Linux by a full receive queue.
        if self.deliveries.len() < MOST_DELIVERIES {
            self.deliveries.push(delivery);
        }
    }

    fn receive_tcp(&mut self, link: u32, h: &IpHeader, payload: &[u8], trust: Trust, offload: Offload) {
        // TCP knows no groups (RFC 1122, section 4.2.3.10).
        if h.destination.is_multicast() || self.routes.is_broadcast(h.destination) {
            return;
        }
        if trust == Trust::Unknown && !checksum_holds(h, payload) {
            return;
        }
        let Ok(packet) = TcpPacket::new_checked(payload) else { return };
        // Port 0 is nobody's.
        if packet.src_port() == 0 || packet.dst_port() == 0 {
            return;
        }
        let Some(mut segment) = Segment::parse(&packet) else { return };
        // A device may have put segments together; the peer's segment size is what acknowledgements go by.
        count(&mut self.counted.tcp_in_segments);
        if let Some((_, size)) = offload.segments {
            segment.part = usize::from(size).min(segment.part);
        }
        segment.ecn = Marks::of(h.tos);
        let ports = (packet.src_port(), packet.dst_port());
        self.segment_arrived(link, h, ports, &segment);
    }

    fn receive_udp(&mut self, link: u32, packet: &IpPacket<'_>, trust: Trust, offload: Offload) {
        let h = packet.header;
        let Ok(udp) = UdpPacket::new_checked(packet.payload) else { return };
        if udp.dst_port() == 0 {
            return;
        }
        let len = usize::from(udp.len());
        // UDP without a checksum is allowed over IPv4 only (RFC 8200, section 8.1).
        let unsummed = udp.checksum() == 0;
        if unsummed && h.source.is_ipv6() {
            return;
        }
        // The datagram may be shorter than the packet.
        let bytes = packet.payload.get(..len).unwrap_or_default();
        if trust == Trust::Unknown && !unsummed && !checksum_holds(&h, bytes) {
            return;
        }
        count(&mut self.counted.udp_in_datagrams);
        let id = packet.whole.get(4..6).filter(|_| h.source.is_ipv4()).and_then(|b| b.first_chunk());
        let id = id.map_or(0, |b| u16::from_be_bytes(*b));
        let make = |payload: &[u8]| {
            Delivery::Datagram(Datagram {
                link,
                header: h,
                id,
                source_port: udp.src_port(),
                destination_port: udp.dst_port(),
                payload: payload.to_vec(),
            })
        };
        match offload.segments {
            // Datagrams of one size came in one frame.
            Some((crate::device::Segmentation::Udp, size)) if size > 0 => {
                for part in udp.payload().chunks(usize::from(size)) {
                    let delivery = make(part);
                    self.deliver(delivery);
                }
            }
            _ => {
                let delivery = make(udp.payload());
                self.deliver(delivery);
            }
        }
    }

    /// Takes the packets that were sent to own addresses.
    pub(crate) fn drain_looped(&mut self) {
        // Answers to answers end: the rounds are bounded by what they may hold.
        for _ in 0..MOST_DELIVERIES {
            let Some(packet) = self.looped.pop_front() else { break };
            let flat = packet.flat();
            if let Some(packet) = IpPacket::parse(&flat) {
                let link = self.routes.loopback();
                let group = packet.header.destination;
                if group.is_multicast() && !self.groups.contains(link, group) {
                    continue;
                }
                self.accept_packet(link, &packet, Trust::Verified, Offload::default());
            }
        }
    }
}
