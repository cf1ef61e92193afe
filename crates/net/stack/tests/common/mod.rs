//! A wire between two stacks, in virtual time: it delays, loses, doubles and reorders frames as its settings say, by a seeded
//! generator.
#![allow(dead_code)]

pub mod script;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use moat_net_stack::time::MS;
use moat_net_stack::{
    AddressConfig, DeviceFeatures, LinkConfig, LinkKind, NetworkConfig, Offload, RouteConfig, RouteKind, Segmentation,
    Stack, Time, internet_checksum,
};

/// A small generator: xorshift.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }

    /// True in `permille` of 1000 cases.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }
}

/// What a wire does to frames.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    pub delay_us: u64,
    /// In thousandths.
    pub loss: u64,
    pub duplication: u64,
    pub reordering: u64,
    /// Bytes in a millisecond; 0 for no bound.
    pub rate: u64,
    /// Bytes that wait for their turn at most.
    pub queue: u64,
    pub mtu: u32,
    /// What the devices can do.
    pub features: DeviceFeatures,
}

pub const PLAIN: Wire = Wire {
    delay_us: 100,
    loss: 0,
    duplication: 0,
    reordering: 0,
    rate: 0,
    queue: 1 << 40,
    mtu: 1500,
    features: DeviceFeatures { checksum: false, tcp_segments: 0 },
};

fn address(ip: String, prefix_len: u8) -> AddressConfig {
    AddressConfig { ip: ip.parse().unwrap(), prefix_len, broadcast: None, scope: 0 }
}

/// Host number `host` of 10.1.0.0/16 and fd00::/64.
pub fn config(host: u8, mtu: u32) -> NetworkConfig {
    let lo = LinkConfig {
        name: "lo".into(),
        index: 1,
        kind: LinkKind::Loopback,
        mac: [0; 6],
        mtu: 65536,
        flags: 0x49,
        queue_len: 1000,
        peer_index: None,
        driver: None,
        addresses: vec![address("127.0.0.1".into(), 8)],
    };
    let eth0 = LinkConfig {
        name: "eth0".into(),
        index: 2,
        kind: LinkKind::Ethernet,
        mac: [2, 0, 0, 0, 0, host],
        mtu,
        addresses: vec![address(format!("10.1.0.{host}"), 16), address(format!("fd00::{host}"), 64)],
        ..lo.clone()
    };
    let route = |destination: &str, prefix_len| RouteConfig {
        destination: destination.parse().unwrap(),
        prefix_len,
        gateway: None,
        link: 2,
        preferred_source: None,
        metric: 0,
        scope: 253,
        protocol: 2,
        table: 254,
        kind: RouteKind::Unicast,
        on_link: false,
        mtu: None,
    };
    NetworkConfig {
        links: vec![lo, eth0],
        routes: vec![route("10.1.0.0", 16), route("fd00::", 64)],
        neighbours: Vec::new(),
    }
}

/// The packets that a device makes of a frame of TCP which it is to cut: a wire delays and loses each on its own.
pub fn cut(frame: Vec<u8>, offload: Offload) -> Vec<(Vec<u8>, Offload)> {
    let Some((kind, size)) = offload.segments else { return vec![(frame, offload)] };
    let ip = 14;
    let (network, length_at) = if kind == Segmentation::Tcp4 { (20, 2) } else { (40, 4) };
    let tcp = ip + network;
    let header = tcp + usize::from(frame[tcp + 12] >> 4) * 4;
    let (head, payload) = frame.split_at(header);
    let seq = u32::from_be_bytes(head[tcp + 4..tcp + 8].try_into().unwrap());
    let parts: Vec<&[u8]> = payload.chunks(usize::from(size)).collect();
    let make = |(i, part): (usize, &&[u8])| {
        let mut bytes = [head, part].concat();
        let counted = bytes.len() - ip - if kind == Segmentation::Tcp4 { 0 } else { 40 };
        bytes[ip + length_at..ip + length_at + 2].copy_from_slice(&(counted as u16).to_be_bytes());
        if kind == Segmentation::Tcp4 {
            bytes[ip + 10..ip + 12].fill(0);
            let sum = internet_checksum(&bytes[ip..tcp]);
            bytes[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
        }
        let at = seq.wrapping_add((i * usize::from(size)) as u32);
        bytes[tcp + 4..tcp + 8].copy_from_slice(&at.to_be_bytes());
        // FIN and PSH are the last packet's, CWR is the first one's.
        if i + 1 < parts.len() {
            bytes[tcp + 13] &= !0x09;
        }
        if i > 0 {
            bytes[tcp + 13] &= !0x80;
        }
        (bytes, Offload { segments: None, ..offload })
    };
    parts.iter().enumerate().map(make).collect()
}

/// Two stacks and the wire between them.
pub struct World {
    pub stacks: [Stack; 2],
    pub now: Time,
    pub wire: Wire,
    pub random: Random,
    under_way: BinaryHeap<Reverse<(Time, u64, usize)>>,
    frames: std::collections::HashMap<u64, (Vec<u8>, Offload)>,
    free_at: [Time; 2],
    count: u64,
    /// Frames that the devices were handed.
    pub sent: u64,
}

impl World {
    pub fn new(wire: Wire, seed: u64) -> World {
        let now = Time::from_us(1_000_000);
        let make = |host| Stack::new(&config(host, wire.mtu), |link| (link == 2).then_some(wire.features), now);
        World {
            stacks: [make(1), make(2)],
            now,
            wire,
            random: Random::new(seed),
            under_way: BinaryHeap::new(),
            frames: std::collections::HashMap::new(),
            free_at: [now; 2],
            count: 0,
            sent: 0,
        }
    }

    fn put(&mut self, to: usize, bytes: Vec<u8>, offload: Offload) {
        let len = bytes.len() as u64;
        let mut at = self.now;
        if self.wire.rate > 0 {
            let free = self.free_at[to].max(self.now);
            if free.since(self.now) * self.wire.rate / MS > self.wire.queue {
                return;
            }
            at = free.after(len * MS / self.wire.rate);
            self.free_at[to] = at;
        }
        if self.random.chance(self.wire.loss) {
            return;
        }
        let copies = if self.random.chance(self.wire.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            let extra =
                if self.random.chance(self.wire.reordering) { self.random.below(self.wire.delay_us * 2) } else { 0 };
            self.count += 1;
            self.under_way.push(Reverse((at.after(self.wire.delay_us + extra), self.count, to)));
            self.frames.insert(self.count, (bytes.clone(), offload));
        }
    }

    /// Takes the frames that both stacks send.
    pub fn pump(&mut self) {
        for from in 0..2 {
            loop {
                let packets = self.stacks[from].take_output(2);
                if packets.is_empty() {
                    break;
                }
                for p in packets {
                    self.sent += 1;
                    let bytes: Vec<u8> = p.parts().iter().flat_map(|s| s.to_vec()).collect();
                    for (bytes, offload) in cut(bytes, p.offload()) {
                        assert!(bytes.len() <= self.wire.mtu as usize + 14, "{} bytes", bytes.len());
                        self.put(1 - from, bytes, offload);
                    }
                }
                self.stacks[from].resume_tcp();
            }
        }
    }

    /// Goes to the next moment at which something happens, not beyond `until`; false if nothing does.
    pub fn step(&mut self, until: Time) -> bool {
        self.pump();
        let wire = self.under_way.peek().map(|Reverse((at, ..))| *at);
        let next = [wire, self.stacks[0].deadline(), self.stacks[1].deadline()].into_iter().flatten().min();
        let Some(next) = next.filter(|n| *n <= until) else {
            self.now = until;
            for s in &mut self.stacks {
                s.set_time(until);
            }
            return false;
        };
        self.now = self.now.max(next);
        for s in &mut self.stacks {
            s.poll(self.now);
        }
        while let Some(Reverse((at, id, to))) = self.under_way.peek().copied() {
            if at > self.now {
                break;
            }
            self.under_way.pop();
            let (bytes, offload) = self.frames.remove(&id).unwrap();
            self.stacks[to].receive(2, &bytes, offload);
        }
        self.pump();
        true
    }

    /// Runs for a time.
    pub fn run(&mut self, us: u64) {
        let until = self.now.after(us);
        while self.step(until) {}
    }
}
