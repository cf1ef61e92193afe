//! Frames from a hostile network, and the TCP state machine: a stack with a listener and a connection of its own, a peer that answers
//! with any flags, numbers near the right ones, any window and options, and time that goes on in any steps.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use moat_net_stack::tcp::{Changes, Follows, Settings, Taking};
use moat_net_stack::time::MS;
use moat_net_stack::{
    AddressConfig, ConnectionId, DeviceFeatures, LinkConfig, LinkKind, ListenOn, ListenerId, NetworkConfig, Observer,
    Offload, RouteConfig, RouteKind, SendOptions, Stack, TcpOptions, Time,
};

use crate::input::Input;

const LINK: u32 = 2;
const OWN: [u8; 4] = [10, 1, 0, 1];
const PEER: [u8; 4] = [10, 1, 0, 2];
const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Connections that are held on to.
const MOST: usize = 8;

struct Nobody;

impl Observer for Nobody {
    fn changed(&self, _: Changes) {}
}

/// One Ethernet link with 10.1.0.1/16 and fd00::1/64.
fn network() -> NetworkConfig {
    let address =
        |ip: &str, prefix_len| ip.parse().ok().map(|ip| AddressConfig { ip, prefix_len, broadcast: None, scope: 0 });
    let route = |destination: &str, prefix_len| {
        Some(RouteConfig {
            destination: destination.parse().ok()?,
            prefix_len,
            gateway: None,
            link: LINK,
            preferred_source: None,
            metric: 0,
            scope: 253,
            protocol: 2,
            table: 254,
            kind: RouteKind::Unicast,
            on_link: false,
            mtu: None,
        })
    };
    let link = LinkConfig {
        name: "eth0".into(),
        index: LINK,
        kind: LinkKind::Ethernet,
        mac: OWN_MAC,
        mtu: 1500,
        flags: 0x49,
        queue_len: 1000,
        peer_index: None,
        driver: None,
        addresses: [address("10.1.0.1", 16), address("fd00::1", 64)].into_iter().flatten().collect(),
    };
    let routes = [route("10.1.0.0", 16), route("fd00::", 64)].into_iter().flatten().collect();
    NetworkConfig { links: vec![link], routes, neighbours: Vec::new() }
}

/// The stack and what the peer knows of it.
struct World {
    stack: Stack,
    now: Time,
    listener: ListenerId,
    connections: Vec<ConnectionId>,
    /// Ports of the last segment that the stack sent, own and peer's, and what a right answer to it has as numbers.
    ports: [u8; 4],
    sequence: u32,
    acknowledged: u32,
}

impl World {
    fn new() -> World {
        let now = Time::from_us(1_000_000);
        let mut stack = Stack::new(&network(), |_| Some(DeviceFeatures { checksum: false, tcp_segments: 0 }), now);
        let on = ListenOn { port: 80, address: IpAddr::from(OWN), dual: false, device: None };
        let listener = stack.tcp_listen(on, 4, TcpOptions::default(), Settings::default(), Arc::new(Nobody));
        World { stack, now, listener, connections: Vec::new(), ports: [0, 80, 15, 160], sequence: 1, acknowledged: 0 }
    }

    fn connect(&mut self) {
        let (own, peer) = (SocketAddr::from((OWN, 4000)), SocketAddr::from((PEER, 80)));
        let made = self.stack.tcp_connect(own, peer, TcpOptions::default(), Settings::default(), None);
        self.keep(made.ok());
    }

    fn keep(&mut self, id: Option<ConnectionId>) {
        self.connections.extend(id);
        if self.connections.len() > MOST {
            self.stack.tcp_release(self.connections.remove(0));
        }
    }

    /// Takes what the stack sends, and answers questions for addresses, without which it sends nothing more.
    fn drain(&mut self) {
        // An answer may let out what has waited for it, which is answered in turn.
        for _ in 0..4 {
            let frames: Vec<_> = self.stack.take_output(LINK).iter().map(moat_net_stack::Packet::flat_frame).collect();
            for frame in &frames {
                match frame.get(12..14) {
                    Some([8, 6]) => self.answer_arp(frame),
                    Some([8, 0]) => self.learn(frame),
                    _ => {}
                }
            }
            let _ = (self.stack.take_deliveries().len(), self.stack.take_notices().len());
        }
    }

    fn answer_arp(&mut self, frame: &[u8]) {
        let Some(asked) = frame.get(38..42) else { return };
        let head =
            [&OWN_MAC[..], &PEER_MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &PEER_MAC, asked, &OWN_MAC, &OWN].concat();
        self.stack.receive(LINK, &head, Offload::default());
    }

    fn learn(&mut self, frame: &[u8]) {
        let Some(tcp) = frame.get(34..54).filter(|_| frame.get(23) == Some(&6)) else { return };
        let word = |at: usize| tcp.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b));
        let payload = u32::try_from(frame.len()).unwrap_or_default().saturating_sub(54);
        self.acknowledged = word(4).wrapping_add(payload.max(1));
        self.sequence = if word(8) == 0 { self.sequence } else { word(8) };
        if let [s0, s1, d0, d1, ..] = *tcp {
            self.ports = [d0, d1, s0, s1].map(|b| b);
        }
    }

    /// A segment near what would be right.
    fn segment(&mut self, input: &mut Input<'_>) {
        let flags = input.byte().unwrap_or_default();
        let near = |value: u32, by: u16| value.wrapping_add_signed(i32::from(by.cast_signed()));
        // Numbers by chance alone would never be inside a window.
        let (sequence, acknowledged) = match flags >> 6 {
            0 | 1 => (self.sequence, self.acknowledged),
            2 => (near(self.sequence, input.short()), near(self.acknowledged, input.short())),
            _ => (self.sequence.wrapping_mul(3), self.acknowledged.wrapping_mul(5)),
        };
        let window = input.short();
        let words = input.byte().unwrap_or_default() % 11;
        let options = input.take(usize::from(words).saturating_mul(4)).to_vec();
        let size = usize::from(input.short() % 1400);
        let payload = input.take(size);
        let mut tcp = self.ports.to_vec();
        if flags & 0x80 != 0 && flags & 2 != 0 {
            // A new connection, from one of a few ports.
            tcp = vec![0x13, flags, 0, 80];
        }
        tcp.extend_from_slice(&sequence.to_be_bytes());
        tcp.extend_from_slice(&acknowledged.to_be_bytes());
        tcp.extend_from_slice(&[words.saturating_add(5) << 4, flags & 0x3f]);
        tcp.extend_from_slice(&window.to_be_bytes());
        tcp.extend_from_slice(&[0; 4]);
        tcp.extend_from_slice(&options);
        tcp.extend_from_slice(payload);
        let total = u16::try_from(tcp.len()).unwrap_or_default().saturating_add(20).to_be_bytes();
        let mut ip = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0];
        ip.extend_from_slice(&PEER);
        ip.extend_from_slice(&OWN);
        let sum = moat_net_stack::internet_checksum(&ip).to_be_bytes();
        ip.splice(10..12, sum);
        let frame = [&OWN_MAC[..], &PEER_MAC, &[8, 0], &ip, &tcp].concat();
        // The checksum of the segment is believed.
        self.stack.receive(LINK, &frame, Offload { verified: true, ..Offload::default() });
    }

    fn use_connection(&mut self, input: &mut Input<'_>) {
        let what = input.byte().unwrap_or_default();
        let Some(&id) = self.connections.get(usize::from(what) % MOST) else { return };
        let n = usize::from(input.short() % 8192);
        let mut buffer = vec![0; n];
        match what >> 5 {
            0 | 1 => drop(self.stack.with_tcp(id, |c, _| c.write(&buffer, Follows::Nothing))),
            2 => drop(self.stack.with_tcp(id, |c, _| c.finish())),
            3 => self.stack.tcp_release(id),
            _ => drop(self.stack.with_tcp(id, |c, now| c.read(&mut buffer, Taking::Remove, now))),
        }
    }
}

/// One byte says what happens next, others how.
pub fn frames(data: &[u8]) {
    let (mut input, mut world) = (Input(data), World::new());
    while let Some(what) = input.byte() {
        match what % 8 {
            0 => {
                let size = usize::from(input.short() % 2000);
                let frame = [&OWN_MAC[..], &PEER_MAC, input.take(size)].concat();
                world.stack.receive(LINK, &frame, Offload { verified: what & 8 != 0, ..Offload::default() });
            }
            1..=3 => world.segment(&mut input),
            4 => {
                world.now = world.now.after(u64::from(input.short()).saturating_mul(MS));
                world.stack.poll(world.now);
            }
            5 => world.use_connection(&mut input),
            6 => {
                let accepted = world.stack.tcp_accept(world.listener).map(|a| a.id);
                world.keep(accepted);
            }
            _ if what & 8 != 0 => world.connect(),
            _ => {
                let (own, peer) = (SocketAddr::from((OWN, 5000)), SocketAddr::from((PEER, 53)));
                let size = usize::from(input.short() % 4000);
                let _ = world.stack.send_datagram(own, peer, input.take(size), &SendOptions::default());
            }
        }
        world.drain();
    }
}
