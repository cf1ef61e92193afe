//! Segments on their way to connections and listeners, and from them into packets.

use std::net::SocketAddr;

use moat_abi::Errno;
use smoltcp::wire::TcpPacket;

use crate::connections::{ConnectionId, ListenerId, TcpOptions, path_mss};
use crate::counters::count;
use crate::device::{Offload, Segmentation};
use crate::num::Narrow;
use crate::packet::{IpHeader, Packet, Summing, TCP, Whole};
use crate::route::{Path, is_link_local};
use crate::stack::{Notice, SendError, Stack};
use crate::tcp::{Changes, Connection, ConnectionState, CookieRule, Flags, Segment, SegmentOut};

/// Connections that do not stand yet, of a listener, beyond twice its backlog.
const EXTRA_EMBRYOS: usize = 16;

impl Stack {
    /// Takes a segment to its connection or listener.
    pub(crate) fn segment_arrived(&mut self, link: u32, h: &IpHeader, ports: (u16, u16), s: &Segment<'_>) {
        let remote = SocketAddr::new(h.source, ports.0);
        let local = SocketAddr::new(h.destination, ports.1);
        if let Some(&id) = self.tcp.by_tuple.get(&(local, remote)) {
            self.tcp.wake(id, self.rules, self.now);
            if self.gives_way(id, local, link, s) {
                self.tcp.remove(id);
            } else {
                self.hand_to_connection(id, link, h, ports, s);
                return;
            }
        }
        let turn = self.secret((local, remote));
        // A reset is no beginning of anything.
        let listener = self.tcp.listener_for(local, link, turn).filter(|_| !s.flags.rst);
        match listener {
            Some(listener) if s.flags.syn && s.ack.is_none() => {
                self.syn_arrived(listener, link, local, remote, s);
            }
            Some(listener) if s.ack.is_some() && self.room_to_accept(listener) => {
                match self.accept_cookie(listener, link, (local, remote), s) {
                    Some(id) => self.hand_to_connection(id, link, h, ports, s),
                    None => self.refuse_segment(link, h, ports, s),
                }
            }
            // Without an acknowledgement it is no answer to anything: dropped (RFC 9293, section 3.10.7.2).
            Some(_) if s.ack.is_none() => {}
            _ => self.refuse_segment(link, h, ports, s),
        }
    }

    /// Whether a connection in TIME_WAIT makes room for a new one (RFC 6191).
    fn gives_way(&self, id: ConnectionId, local: SocketAddr, link: u32, s: &Segment<'_>) -> bool {
        let new = s.flags.syn && s.ack.is_none() && !s.flags.rst;
        new && self.tcp.listener_for(local, link, 0).is_some()
            && self.tcp.slots.get(&id).is_some_and(|slot| {
                slot.connection.state() == ConnectionState::Closed || slot.connection.is_older_than(s)
            })
    }

    fn hand_to_connection(&mut self, id: ConnectionId, link: u32, h: &IpHeader, ports: (u16, u16), s: &Segment<'_>) {
        let now = self.now;
        let Some(slot) = self.tcp.slots.get_mut(&id) else { return };
        let before = slot.connection.state();
        if before == ConnectionState::Closed || slot.connection.is_foreign(s) {
            self.refuse_segment(link, h, ports, s);
            return;
        }
        if before == ConnectionState::SynReceived
            && !s.flags.rst
            && let Some(listener) = slot.listener.and_then(|l| self.tcp.listeners.get(&l))
            && listener.ready.len() > listener.backlog
        {
            // It stands only when there is room for it: the peer sends its last segment again.
            return;
        }
        slot.connection.input(s, now);
        let state = slot.connection.state();
        let (listener, remote) = (slot.listener, slot.remote.ip());
        if before == ConnectionState::SynReceived
            && state != before
            && state != ConnectionState::Closed
            && let Some(listener) = listener.and_then(|l| self.tcp.listeners.get_mut(&l))
        {
            count(&mut self.counted.tcp_passive_opens);
            listener.embryos = listener.embryos.saturating_sub(1);
            listener.ready.push_back(id);
            let changes = Changes { read: true, ..Changes::default() };
            self.notices.push(Notice { observer: listener.observer.clone(), changes });
        }
        if s.ack.is_some() && state == ConnectionState::Established {
            // The peer has acknowledged what was sent: its link address is right.
            self.neighbours.confirm((link, remote), now);
        }
        self.flush_tcp(id);
    }

    /// Whether a listener has room for one more connection that stands.
    fn room_to_accept(&self, id: ListenerId) -> bool {
        self.tcp.listeners.get(&id).is_some_and(|l| l.ready.len() <= l.backlog)
    }

    fn syn_arrived(&mut self, id: ListenerId, link: u32, local: SocketAddr, remote: SocketAddr, s: &Segment<'_>) {
        let rules = self.rules;
        let Some(listener) = self.tcp.listeners.get(&id) else { return };
        let most = listener.backlog.saturating_mul(2).saturating_add(EXTRA_EMBRYOS).min(rules.syn_backlog);
        // The connections that stand wait for the application: the SYN is dropped, and is sent again.
        if listener.ready.len() > listener.backlog {
            count(&mut self.counted.tcp_listen_overflows);
            count(&mut self.counted.tcp_listen_drops);
            return;
        }
        // The connection keeps what the listener has when its SYN comes.
        let (options, settings) = (listener.options.on_link_of(remote, link), listener.settings.clone());
        let full = listener.embryos >= most;
        if full && rules.cookies == CookieRule::Never {
            count(&mut self.counted.tcp_listen_drops);
            return;
        }
        let Ok(path) = self.path(remote.ip(), options.device, Some(local.ip())) else { return };
        if full || rules.cookies == CookieRule::Always {
            self.answer_by_cookie(id, (local, remote), (&path, &options), s);
            return;
        }
        let Ok(parameters) = self.parameters(local, remote, &path, settings) else { return };
        if let Some(listener) = self.tcp.listeners.get_mut(&id) {
            listener.embryos = listener.embryos.saturating_add(1);
        }
        let connection = Connection::accept(parameters, s, self.now);
        let id = self.add(connection, local, remote, options, None, Some(id));
        self.flush_tcp(id);
    }

    /// Answers a segment that belongs to nothing (RFC 9293, section 3.10.7.1).
    fn refuse_segment(&mut self, link: u32, h: &IpHeader, ports: (u16, u16), s: &Segment<'_>) {
        // Resets are never answered, or two ends could go on for ever.
        if s.flags.rst {
            return;
        }
        let length: u32 = s.length().narrow();
        let reset = SegmentOut {
            // The number that the peer would expect: a reset with another is ignored.
            seq: s.ack.unwrap_or(0),
            ack: s.ack.is_none().then(|| s.seq.wrapping_add(length)),
            flags: Flags { rst: true, ..Flags::default() },
            ..SegmentOut::default()
        };
        let device = Some(link).filter(|_| is_link_local(h.source));
        let Ok(path) = self.path(h.source, device, Some(h.destination)) else { return };
        let local = SocketAddr::new(h.destination, ports.1);
        let remote = SocketAddr::new(h.source, ports.0);
        self.send_segment(&path, local, remote, &TcpOptions::default(), reset);
    }

    /// ICMP says something of a segment that was sent.
    pub(crate) fn tcp_error(&mut self, error: &SendError, seq: u32) {
        let local = SocketAddr::new(error.header.source, error.source_port);
        let remote = SocketAddr::new(error.header.destination, error.destination_port);
        let Some(&id) = self.tcp.by_tuple.get(&(local, remote)) else { return };
        let Some(slot) = self.tcp.slots.get_mut(&id) else { return };
        if error.errno == Errno::EMSGSIZE {
            // A forged message would have to guess a number that is under way (RFC 5927).
            if !slot.connection.is_under_way(seq) {
                return;
            }
            slot.connection.path_shrank(path_mss(error.info, local.is_ipv4()), Some(seq));
            self.narrow_path(remote.ip(), error.info);
        } else {
            slot.connection.icmp_error(error.errno, seq);
        }
        self.flush_tcp(id);
    }

    pub(crate) fn send_segment(
        &mut self,
        path: &Path,
        local: SocketAddr,
        remote: SocketAddr,
        o: &TcpOptions,
        mut s: SegmentOut,
    ) {
        let header = IpHeader {
            source: local.ip(),
            destination: remote.ip(),
            protocol: TCP,
            ttl: o.ttl.unwrap_or(64),
            // The lowest two bits are ECN's: ECT(0).
            tos: if s.capable { (o.tos & !3) | 2 } else { o.tos },
        };
        count(&mut self.counted.tcp_out_segments);
        if s.flags.rst {
            count(&mut self.counted.tcp_out_resets);
        }
        let len = s.len();
        let transport = s.header_len();
        // An identification that nobody can count on (RFC 6864, section 5.3).
        let id = (self.random() & 0xffff).narrow();
        let mut packet = Packet::build(&header, transport, std::mem::take(&mut s.payload), id, Whole::Keep);
        let mut tcp = TcpPacket::new_unchecked(packet.transport_mut());
        tcp.set_src_port(local.port());
        tcp.set_dst_port(remote.port());
        s.emit(&mut tcp);
        let features = self.links.get(&path.link).and_then(|l| l.features).unwrap_or_default();
        // Larger than a packet: the device cuts it.
        if len > usize::from(s.mss) && s.mss > 0 {
            let kind = if local.is_ipv4() { Segmentation::Tcp4 } else { Segmentation::Tcp6 };
            packet.offload = Offload { segments: Some((kind, s.mss)), ..packet.offload };
        }
        let by = if features.checksum { Summing::Device } else { Summing::Here };
        packet.fill_checksum(&header, 16, by);
        self.dispatch(path, packet);
    }
}
