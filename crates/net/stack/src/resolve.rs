//! From a packet to a frame: neighbours are asked for by ARP and NDISC, and answered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv6Packet, Icmpv6Repr,
    NdiscNeighborFlags, NdiscRepr,
};

use crate::config::LinkKind;
use crate::counters::count;
use crate::neighbour::{Due, Resolution};
use crate::packet::{ETHERNET, ICMPV6, IpHeader, Packet, Whole};
use crate::route::{Destination, Path, Routes};
use crate::stack::Stack;

const EVERYBODY: [u8; 6] = [0xff; 6];
/// Bytes of an ARP packet for Ethernet and IPv4.
const ARP_LEN: usize = 28;
/// NDISC counts only with it: no router passed the packet on.
pub(crate) const NDISC_HOPS: u8 = 255;

/// The link address of a group (RFC 1112, RFC 2464).
#[must_use]
pub fn group_mac(ip: IpAddr) -> [u8; 6] {
    match ip {
        IpAddr::V4(v4) => {
            // The low 23 bits, by which 32 groups share an address.
            let [_, b, c, d] = v4.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

fn put_ethernet(packet: &mut Packet, from: [u8; 6], to: [u8; 6], ip: bool) {
    let v6 = packet.head.get(ETHERNET).is_some_and(|b| b >> 4 == 6);
    let mut frame = EthernetFrame::new_unchecked(packet.head.as_mut_slice());
    frame.set_src_addr(EthernetAddress(from));
    frame.set_dst_addr(EthernetAddress(to));
    frame.set_ethertype(match (ip, v6) {
        (false, _) => EthernetProtocol::Arp,
        (true, false) => EthernetProtocol::Ipv4,
        (true, true) => EthernetProtocol::Ipv6,
    });
}

impl Stack {
    /// Sends a packet on its way.
    pub(crate) fn dispatch(&mut self, path: &Path, packet: Packet) {
        count(&mut self.counted.ip_out_requests);
        // The loopback's device gives back all that is sent over it, groups and broadcasts as well.
        if path.kind == Destination::Local || path.link == self.routes.loopback() {
            // Taken by `drain_looped`, not here: an answer may follow, and that would recurse.
            self.looped.push_back(packet);
            return;
        }
        let Some(link) = self.routes.link(path.link) else { return };
        let (kind, own) = (link.kind, link.mac);
        let mac = match path.kind {
            Destination::Multicast => group_mac(path.next_hop),
            Destination::Broadcast => EVERYBODY,
            // Without ARP the device knows where frames go; the address means nothing.
            _ if kind == LinkKind::EthernetNoArp => EVERYBODY,
            _ => {
                let key = (path.link, path.next_hop);
                match self.neighbours.resolve(key, packet, self.now) {
                    Resolution::Known(mac, packet) => {
                        self.send_frame(path.link, own, mac, packet);
                        return;
                    }
                    Resolution::Ask => self.ask(key.0, key.1, None),
                    Resolution::Waiting => {}
                    Resolution::Lost(packet) => self.local_unreachable(&packet),
                }
                return;
            }
        };
        self.send_frame(path.link, own, mac, packet);
    }

    fn send_frame(&mut self, link: u32, from: [u8; 6], to: [u8; 6], mut packet: Packet) {
        put_ethernet(&mut packet, from, to, true);
        self.enqueue(link, packet);
    }

    /// Asks for a neighbour: everybody, or the one at `mac`.
    fn ask(&mut self, link: u32, target: IpAddr, mac: Option<[u8; 6]>) {
        let Some(config) = self.routes.link(link) else { return };
        let own = config.mac;
        let Ok(path) = self.routes.find(target, Some(link), None) else { return };
        match (target, path.source) {
            (IpAddr::V4(target), IpAddr::V4(source)) => {
                let to = mac.unwrap_or(EVERYBODY);
                self.send_arp(link, ArpOperation::Request, (own, source), ([0; 6], target), to);
            }
            (IpAddr::V6(target), IpAddr::V6(source)) => {
                // The group of the few addresses that end alike, instead of everybody (RFC 4861, section 7.2.2).
                let to = if mac.is_some() { target } else { Routes::solicited_node(target) };
                let repr =
                    NdiscRepr::NeighborSolicit { target_addr: target, lladdr: Some(EthernetAddress(own).into()) };
                self.send_ndisc(link, source, to, repr, mac.unwrap_or_else(|| group_mac(to.into())));
            }
            _ => {}
        }
    }

    fn send_arp(
        &mut self,
        link: u32,
        operation: ArpOperation,
        (source_mac, source): ([u8; 6], Ipv4Addr),
        (target_mac, target): ([u8; 6], Ipv4Addr),
        to: [u8; 6],
    ) {
        let mut packet = Packet { head: vec![0; ETHERNET.saturating_add(ARP_LEN)], ..Packet::default() };
        let repr = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(source_mac),
            source_protocol_addr: source,
            target_hardware_addr: EthernetAddress(target_mac),
            target_protocol_addr: target,
        };
        let body = packet.head.get_mut(ETHERNET..).unwrap_or_default();
        repr.emit(&mut ArpPacket::new_unchecked(body));
        put_ethernet(&mut packet, source_mac, to, false);
        self.enqueue(link, packet);
    }

    fn send_ndisc(&mut self, link: u32, source: Ipv6Addr, to: Ipv6Addr, repr: NdiscRepr<'_>, mac: [u8; 6]) {
        let Some(own) = self.routes.link(link).map(|l| l.mac) else { return };
        let repr = Icmpv6Repr::Ndisc(repr);
        let mut body = vec![0; repr.buffer_len()];
        let mut message = Icmpv6Packet::new_unchecked(body.as_mut_slice());
        repr.emit(&source, &to, &mut message, &ChecksumCapabilities::default());
        let header =
            IpHeader { source: source.into(), destination: to.into(), protocol: ICMPV6, ttl: NDISC_HOPS, tos: 0 };
        let packet = Packet::build(&header, 0, vec![Bytes::from(body)], 0, Whole::Keep);
        self.send_frame(link, own, mac, packet);
    }

    /// Takes a packet of ARP.
    pub(crate) fn receive_arp(&mut self, link: u32, bytes: &[u8]) {
        let Ok(packet) = ArpPacket::new_checked(bytes) else { return };
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(mac),
            source_protocol_addr: source,
            target_protocol_addr: target,
            ..
        }) = ArpRepr::parse(&packet)
        else {
            return;
        };
        let Some(config) = self.routes.link(link) else { return };
        let own = config.mac;
        let ours = config.addresses.iter().any(|a| a.ip == IpAddr::V4(target));
        // An address that cannot be one host's, or is our own, is a forgery or a loop.
        let usable = !EthernetAddress(mac).is_multicast() && mac != [0; 6] && mac != own;
        if !usable || source.is_multicast() || source.is_broadcast() || self.routes.is_local(source.into()) {
            return;
        }
        let key = (link, IpAddr::V4(source));
        match operation {
            ArpOperation::Request if ours => {
                // Without an address the sender only looks whether this one is in use.
                let waiting =
                    if source.is_unspecified() { Vec::new() } else { self.neighbours.heard(key, mac, self.now) };
                // Answered before what waited is sent, so that the asker can receive it.
                self.send_arp(link, ArpOperation::Reply, (own, target), (mac, source), mac);
                self.send_waiting(link, own, mac, waiting);
            }
            ArpOperation::Reply if !source.is_unspecified() => {
                let waiting = self.neighbours.answered(key, mac, self.now);
                self.send_waiting(link, own, mac, waiting);
            }
            _ => {}
        }
    }

    fn send_waiting(&mut self, link: u32, own: [u8; 6], mac: [u8; 6], waiting: Vec<Packet>) {
        for packet in waiting {
            self.send_frame(link, own, mac, packet);
        }
    }

    /// Takes a message of NDISC, whose hop limit shows that it comes from the link.
    pub(crate) fn receive_ndisc(&mut self, link: u32, source: Ipv6Addr, destination: Ipv6Addr, repr: NdiscRepr<'_>) {
        let Some(own) = self.routes.link(link).map(|l| l.mac) else { return };
        let mac_of = |address: Option<smoltcp::wire::RawHardwareAddress>| {
            let bytes: [u8; 6] = address?.as_bytes().try_into().ok()?;
            (!EthernetAddress(bytes).is_multicast() && bytes != [0; 6] && bytes != own).then_some(bytes)
        };
        match repr {
            // An address of another link is not answered for here.
            NdiscRepr::NeighborSolicit { target_addr, lladdr } => {
                let ours =
                    self.routes.link(link).is_some_and(|l| l.addresses.iter().any(|a| a.ip == IpAddr::V6(target_addr)));
                // A source that is our own address is forged.
                if !ours || self.routes.is_local(source.into()) {
                    return;
                }
                let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
                let mut flags = NdiscNeighborFlags::OVERRIDE;
                // The sender has no address yet (RFC 4862): the answer goes to all.
                let (to, mac) = if source.is_unspecified() {
                    (all_nodes, group_mac(all_nodes.into()))
                } else {
                    flags |= NdiscNeighborFlags::SOLICITED;
                    let key = (link, IpAddr::V6(source));
                    let Some(mac) = mac_of(lladdr).or_else(|| self.neighbours.mac(key)) else {
                        // It says nothing of itself, and nothing is known: the answer has to ask first.
                        return self.answer_unknown(link, target_addr, source);
                    };
                    if lladdr.is_some() {
                        let waiting = self.neighbours.heard(key, mac, self.now);
                        self.send_waiting(link, own, mac, waiting);
                    }
                    (source, mac)
                };
                let repr = NdiscRepr::NeighborAdvert { flags, target_addr, lladdr: Some(EthernetAddress(own).into()) };
                self.send_ndisc(link, target_addr, to, repr, mac);
            }
            NdiscRepr::NeighborAdvert { flags, target_addr, lladdr } => {
                let Some(mac) = mac_of(lladdr) else { return };
                let solicited = flags.contains(NdiscNeighborFlags::SOLICITED) && !destination.is_multicast();
                if target_addr.is_multicast() || self.routes.is_local(target_addr.into()) {
                    return;
                }
                let key = (link, IpAddr::V6(target_addr));
                let known = self.neighbours.mac(key);
                // It must not replace what is known (RFC 4861, section 7.2.5).
                if !flags.contains(NdiscNeighborFlags::OVERRIDE) && known.is_some_and(|k| k != mac) {
                    return;
                }
                // An unsolicited one only changes an entry that exists.
                if solicited || known.is_some() {
                    let waiting = self.neighbours.answered(key, mac, self.now);
                    self.send_waiting(link, own, mac, waiting);
                }
            }
            _ => {}
        }
    }

    /// Answers a question for `target` by way of the neighbour table.
    fn answer_unknown(&mut self, link: u32, target: Ipv6Addr, to: Ipv6Addr) {
        let Some(own) = self.routes.link(link).map(|l| l.mac) else { return };
        let repr = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
            flags: NdiscNeighborFlags::OVERRIDE | NdiscNeighborFlags::SOLICITED,
            target_addr: target,
            lladdr: Some(EthernetAddress(own).into()),
        });
        let mut body = vec![0; repr.buffer_len()];
        let mut message = Icmpv6Packet::new_unchecked(body.as_mut_slice());
        repr.emit(&target, &to, &mut message, &ChecksumCapabilities::default());
        let header =
            IpHeader { source: target.into(), destination: to.into(), protocol: ICMPV6, ttl: NDISC_HOPS, tos: 0 };
        let packet = Packet::build(&header, 0, vec![Bytes::from(body)], 0, Whole::Keep);
        if let Ok(path) = self.routes.find(to.into(), Some(link), Some(target.into())) {
            self.dispatch(&path, packet);
        }
    }

    pub(crate) fn poll_neighbours(&mut self) {
        for due in self.neighbours.poll(self.now) {
            match due {
                Due::Ask((link, ip)) => self.ask(link, ip, None),
                Due::AskDirectly((link, ip), mac) => self.ask(link, ip, Some(mac)),
                Due::GaveUp(waiting) => waiting.iter().for_each(|packet| self.local_unreachable(packet)),
            }
        }
    }
}
