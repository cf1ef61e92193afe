//! Streams between two stacks over wires of every kind: each byte arrives, once and in order, and the connection ends.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::{PLAIN, Wire, World};
use moat_net_stack::tcp::{Changes, ConnectionState, Follows, Settings, Taking};
use moat_net_stack::time::{MS, SECOND};
use moat_net_stack::{ConnectionId, DeviceFeatures, ListenOn, Observer, TcpOptions};

struct Nobody;

impl Observer for Nobody {
    fn changed(&self, _: Changes) {}
}

/// A byte of the stream from end `from`, by its position.
fn byte(from: usize, at: u64) -> u8 {
    let x = (at.wrapping_add(7) ^ (from as u64) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x >> 56) as u8
}

struct End {
    id: Option<ConnectionId>,
    to_send: u64,
    sent: u64,
    received: u64,
    ended: bool,
}

struct Outcome {
    took_us: u64,
    frames: u64,
}

/// Sends `bytes` each way; the readers pause now and then if `lazy`.
fn transfer(wire: Wire, seed: u64, address: &str, bytes: [u64; 2], lazy: bool, settings: Settings) -> Outcome {
    let mut w = World::new(wire, seed);
    let server: SocketAddr = address.parse().unwrap();
    let client: SocketAddr = if server.is_ipv4() { "10.1.0.1:4000" } else { "[fd00::1]:4000" }.parse().unwrap();
    let on = ListenOn { port: server.port(), address: server.ip(), dual: false, device: None };
    let listener = w.stacks[1].tcp_listen(on, 8, TcpOptions::default(), settings.clone(), Arc::new(Nobody));
    let id = w.stacks[0].tcp_connect(client, server, TcpOptions::default(), settings, None).unwrap();
    let end = |id, to_send| End { id, to_send, sent: 0, received: 0, ended: false };
    let mut ends = [end(Some(id), bytes[0]), end(None, bytes[1])];
    let began = w.now;
    let limit = w.now.after(3600 * SECOND);
    let mut buffer = vec![0; 100_000];
    let mut paused = [w.now; 2];
    loop {
        assert!(
            w.now < limit,
            "seed {seed}: stuck at {:?}",
            ends.iter().map(|e| (e.sent, e.received)).collect::<Vec<_>>()
        );
        let until = w.now.after(5 * MS);
        w.step(until);
        if ends[1].id.is_none() {
            ends[1].id = w.stacks[1].tcp_accept(listener).map(|a| a.id);
        }
        for i in 0..2 {
            let Some(id) = ends[i].id else { continue };
            let want = (ends[i].to_send - ends[i].sent).min(1 + w.random.below(70_000));
            let data: Vec<u8> = (0..want).map(|k| byte(i, ends[i].sent + k)).collect();
            let other = bytes[1 - i];
            let size = 1 + w.random.below(buffer.len() as u64) as usize;
            let reads = !lazy || paused[i] <= w.now;
            if lazy && reads && w.random.chance(20) {
                paused[i] = w.now.after(w.random.below(400) * MS);
            }
            let e = &mut ends[i];
            let buffer = &mut buffer[..size];
            w.stacks[i].with_tcp(id, |c, now| {
                if !data.is_empty() {
                    e.sent += c.write(&data, Follows::Nothing).unwrap_or(0) as u64;
                }
                if e.sent == e.to_send && c.state() != ConnectionState::SynSent {
                    c.finish();
                }
                if reads {
                    let n = c.read(buffer, Taking::Remove, now);
                    for (k, b) in buffer[..n].iter().enumerate() {
                        assert_eq!(
                            *b,
                            byte(1 - i, e.received + k as u64),
                            "seed {seed}: byte {}",
                            e.received + k as u64
                        );
                    }
                    e.received += n as u64;
                }
                let r = c.readiness();
                e.ended = r.read_ended && r.readable == 0;
                assert_eq!(c.take_error(), None, "seed {seed}");
                if e.ended {
                    assert_eq!(e.received, other, "seed {seed}");
                }
            });
        }
        if ends.iter().all(|e| e.ended && e.sent == e.to_send) {
            break;
        }
    }
    let took_us = w.now.since(began);
    let frames = w.sent;
    for (stack, e) in w.stacks.iter_mut().zip(&ends) {
        stack.tcp_release(e.id.unwrap());
    }
    w.run(400 * SECOND);
    assert!(w.stacks.iter().all(|s| s.tcp_list().is_empty()), "seed {seed}: connections are left");
    Outcome { took_us, frames }
}

const OFFLOADS: DeviceFeatures = DeviceFeatures { checksum: true, tcp_segments: 65536 };

#[test]
fn a_good_wire_is_fast_and_little_is_sent() {
    let o = transfer(PLAIN, 1, "10.1.0.2:80", [4 << 20, 0], false, Settings::default());
    // 2900 full segments, half as many acknowledgements.
    assert!(o.frames < 5500, "{} frames", o.frames);
    let o = transfer(
        Wire { features: OFFLOADS, ..PLAIN },
        1,
        "[fd00::2]:80",
        [4 << 20, 1 << 20],
        false,
        Settings::default(),
    );
    // The acknowledgements of what the device has cut.
    assert!(o.frames < 2500, "{} frames with offloads", o.frames);
}

#[test]
fn a_long_path_is_filled() {
    // 10 MB/s with 50 ms each way: a megabyte is under way. Queues from a third of that to twice as much.
    for (seed, queue) in [(1, 300_000), (2, 500_000), (3, 2_000_000)] {
        let wire = Wire { delay_us: 50 * MS, rate: 10_000, queue, ..PLAIN };
        let o = transfer(wire, seed, "10.1.0.2:80", [20 << 20, 0], false, Settings::default());
        let ideal = (20u64 << 20) / 10_000 * MS;
        // Eight round trips until the path is full, and what repairs take where slow start ends.
        assert!(o.took_us < 2 * ideal, "queue {queue}: {} ms for {} ms", o.took_us / MS, ideal / MS);
        // 21,700 frames if nothing is lost.
        assert!(o.frames < 30_000, "queue {queue}: {} frames", o.frames);
    }
}

#[test]
fn one_percent_of_loss_at_20_ms_costs_little() {
    let wire = Wire { delay_us: 10 * MS, loss: 10, rate: 10_000, queue: 300_000, ..PLAIN };
    let o = transfer(wire, 5, "10.1.0.2:80", [8 << 20, 0], false, Settings::default());
    // CUBIC at 1% has a window of some 12 segments: 0.9 MB/s.
    assert!(o.took_us < 16 * SECOND, "{} ms", o.took_us / MS);
}

#[test]
fn every_byte_arrives_over_bad_wires() {
    for seed in 0..24 {
        let mut r = common::Random::new(seed + 1000);
        let wire = Wire {
            delay_us: 50 + r.below(50_000),
            loss: r.below(60),
            duplication: r.below(30),
            reordering: r.below(200),
            rate: if r.chance(500) { 500 + r.below(20_000) } else { 0 },
            queue: 20_000 + r.below(500_000),
            mtu: [576, 1280, 1500, 9000][r.below(4) as usize],
            features: if r.chance(500) { OFFLOADS } else { PLAIN.features },
        };
        let v6 = wire.mtu >= 1280 && r.chance(300);
        let address = if v6 { "[fd00::2]:80" } else { "10.1.0.2:80" };
        let settings = Settings { no_delay: r.chance(500), ..Settings::default() };
        let sizes = [r.below(600_000), r.below(300_000)];
        transfer(wire, seed, address, sizes, r.chance(500), settings);
    }
}

#[test]
fn tiny_buffers_and_lazy_readers_lose_nothing() {
    for seed in 0..6 {
        let settings =
            Settings { receive_buffer: Some(2304 << (seed % 3)), send_buffer: Some(4608), ..Settings::default() };
        let wire = Wire { loss: 10 * (seed % 2), ..PLAIN };
        transfer(wire, seed, "10.1.0.2:80", [60_000, 30_000], true, settings);
    }
}

#[test]
fn a_short_queue_before_a_fast_path_is_not_overrun() {
    // 12.5 MB/s, 100 ms away, with a queue of 50 KB: a window that comes as bursts runs over long before the path is full.
    for features in [OFFLOADS, PLAIN.features] {
        let wire = Wire { delay_us: 50 * MS, rate: 12_500, queue: 50_000, features, ..PLAIN };
        let o = transfer(wire, 1, "10.1.0.2:80", [10 << 20, 0], false, Settings::default());
        // 840 ms at the full rate; 7,600 without pacing.
        assert!(o.took_us < 4 * SECOND, "{} ms", o.took_us / MS);
    }
}
