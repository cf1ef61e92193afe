//! Frames from a hostile neighbour: nothing panics, memory stays bounded, and the stack goes on to work.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::{PLAIN, Random, World, config};
use moat_net_stack::tcp::{Changes, ConnectionState, CookieRule, Follows, Rules, Settings, Taking};
use moat_net_stack::time::{MS, SECOND};
use moat_net_stack::{
    Checksum, ListenOn, Observer, Offload, Segmentation, SendOptions, Stack, TcpOptions, Time, internet_checksum,
};

struct Nobody;

impl Observer for Nobody {
    fn changed(&self, _: Changes) {}
}

fn listen(stack: &mut Stack, port: u16) -> moat_net_stack::ListenerId {
    let on = ListenOn { port, address: "0.0.0.0".parse().unwrap(), dual: false, device: None };
    stack.tcp_listen(on, 4, TcpOptions::default(), Settings::default(), Arc::new(Nobody))
}

/// Real traffic of every kind, as frames from stack 0 to stack 1.
fn seeds() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for address in ["10.1.0", "fd00:"] {
        let mut w = World::new(PLAIN, 1);
        let at = |host: u8, port: u16| -> SocketAddr {
            match address {
                "10.1.0" => format!("10.1.0.{host}:{port}"),
                _ => format!("[fd00::{host}]:{port}"),
            }
            .parse()
            .unwrap()
        };
        let on = ListenOn { port: 80, address: at(2, 80).ip(), dual: false, device: None };
        w.stacks[1].tcp_listen(on, 4, TcpOptions::default(), Settings::default(), Arc::new(Nobody));
        let id = w.stacks[0].tcp_connect(at(1, 4000), at(2, 80), TcpOptions::default(), Settings::default(), None);
        let id = id.unwrap();
        let mut send = |w: &mut World, what: &dyn Fn(&mut Stack)| {
            what(&mut w.stacks[0]);
            for p in w.stacks[0].take_output(2) {
                frames.push(p.parts().iter().flat_map(|s| s.to_vec()).collect::<Vec<u8>>());
                let bytes = frames.last().unwrap().clone();
                w.stacks[1].receive(2, &bytes, Offload::default());
            }
            for p in w.stacks[1].take_output(2) {
                let bytes: Vec<u8> = p.parts().iter().flat_map(|s| s.to_vec()).collect();
                w.stacks[0].receive(2, &bytes, Offload::default());
            }
        };
        for _ in 0..4 {
            send(&mut w, &|_| {});
        }
        send(&mut w, &|s| {
            let _ = s.with_tcp(id, |c, _| c.write(&[7; 3000], Follows::Nothing));
        });
        let options = SendOptions::default();
        send(&mut w, &|s| {
            let _ = s.send_datagram(at(1, 5000), at(2, 53), b"question", &options);
        });
        send(&mut w, &|s| {
            let _ = s.send_datagram(at(1, 5000), at(2, 53), &[1; 4000], &options);
        });
        let (protocol, echo) = if address == "10.1.0" { (1, 8) } else { (58, 128) };
        let mut ping = vec![echo, 0, 0, 0, 1, 2, 0, 1, 9, 9];
        let sum = moat_net_stack::internet_checksum(&ping).to_be_bytes();
        ping[2..4].copy_from_slice(&sum);
        send(&mut w, &|s| {
            let _ = s.send_raw(None, at(2, 0).ip(), protocol, ping.clone(), &options);
        });
        send(&mut w, &|s| {
            s.with_tcp(id, |c, _| c.finish());
        });
        send(&mut w, &|_| {});
    }
    assert!(frames.len() > 20, "{}", frames.len());
    frames
}

fn mutate(r: &mut Random, frame: &[u8]) -> (Vec<u8>, Offload) {
    let mut f = frame.to_vec();
    for _ in 0..1 + r.below(4) {
        let at = r.below(f.len() as u64) as usize;
        match r.below(6) {
            0 => f[at] ^= 1 << r.below(8),
            1 => f[at] = r.next() as u8,
            2 => f.truncate(at.max(1)),
            3 => f.insert(at, r.next() as u8),
            4 => f[at] = [0, 1, 0x7f, 0x80, 0xff][r.below(5) as usize],
            _ => f.extend((0..r.below(64)).map(|_| 0u8)),
        }
    }
    let mut offload = Offload { verified: r.chance(600), ..Offload::default() };
    if r.chance(300) {
        offload.checksum = Some(Checksum { start: r.next() as u16, offset: r.next() as u16 });
    }
    if r.chance(300) {
        let kind = [Segmentation::Tcp4, Segmentation::Tcp6, Segmentation::Udp][r.below(3) as usize];
        offload.segments = Some((kind, r.below(2000) as u16));
    }
    (f, offload)
}

#[test]
fn mutated_frames_do_no_harm() {
    let seeds = seeds();
    let mut r = Random::new(99);
    for round in 0..20 {
        let mut now = Time::from_us(1_000_000);
        let mut s = Stack::new(&config(2, 1500), |link| (link == 2).then_some(PLAIN.features), now);
        s.want_raw(1);
        let listener = listen(&mut s, 80);
        let mut open = Vec::new();
        for _ in 0..1500 {
            now = now.after(r.below(20_000));
            s.poll(now);
            let seed = &seeds[r.below(seeds.len() as u64) as usize];
            // Most are right but for what was changed: the deep parts are reached, checksums or not.
            let (frame, offload) =
                if r.chance(200) { (seed.clone(), Offload::default()) } else { mutate(&mut r, seed) };
            s.receive(2, &frame, offload);
            if let Some(accepted) = s.tcp_accept(listener) {
                open.push(accepted.id);
            }
            if let Some(id) = open.last() {
                s.with_tcp(*id, |c, now| {
                    let _ = c.write(b"answer", Follows::Nothing);
                    let mut buffer = [0; 512];
                    c.read(&mut buffer, Taking::Remove, now);
                    let _ = c.info(now);
                });
            }
            assert!(s.take_output(2).len() < 200);
            for d in s.take_deliveries() {
                if let moat_net_stack::Delivery::Datagram(d) = d {
                    s.refuse_datagram(&d);
                }
            }
            s.take_notices();
        }
        assert!(s.tcp_list().len() < 200, "round {round}: {} connections", s.tcp_list().len());
        for id in open {
            s.tcp_release(id);
        }
        for _ in 0..400 {
            now = now.after(5 * SECOND);
            s.poll(now);
            s.take_output(2);
        }
        assert!(s.tcp_list().is_empty(), "round {round}");
    }
}

/// Connections that never stand are bounded, and go.
#[test]
fn a_flood_of_syns_is_bounded() {
    let mut w = World::new(PLAIN, 3);
    listen(&mut w.stacks[1], 80);
    for port in 1..3000u16 {
        let from: SocketAddr = format!("10.1.0.1:{port}").parse().unwrap();
        let to = "10.1.0.2:80".parse().unwrap();
        if let Ok(id) = w.stacks[0].tcp_connect(from, to, TcpOptions::default(), Settings::default(), None) {
            // Only the SYN gets out.
            for p in w.stacks[0].take_output(2) {
                let bytes: Vec<u8> = p.parts().iter().flat_map(|s| s.to_vec()).collect();
                w.stacks[1].receive(2, &bytes, Offload::default());
            }
            w.stacks[1].take_output(2).into_iter().for_each(|p| {
                let bytes: Vec<u8> = p.parts().iter().flat_map(|s| s.to_vec()).collect();
                if bytes[12..14] == [8, 6] {
                    w.stacks[0].receive(2, &bytes, Offload::default());
                }
            });
            w.stacks[0].with_tcp(id, |c, _| c.abort());
            w.stacks[0].tcp_release(id);
        }
    }
    let embryos = w.stacks[1].tcp_list().iter().filter(|l| l.state == ConnectionState::SynReceived).count();
    assert!((1..=32).contains(&embryos), "{embryos}");
}

/// A client among a flood of SYNs from everywhere: whether its connection stands, what gets through, and what it has of options.
fn served_in_a_flood(rules: Rules) -> (bool, Vec<u8>, u8) {
    let mut w = World::new(PLAIN, 3);
    w.stacks[1].set_rules(rules);
    let listener = listen(&mut w.stacks[1], 80);
    let connect = |w: &mut World, port: u16| {
        let (from, to) = (format!("10.1.0.1:{port}").parse().unwrap(), "10.1.0.2:80".parse().unwrap());
        w.stacks[0].tcp_connect(from, to, TcpOptions::default(), Settings::default(), None).unwrap()
    };
    // The hosts learn of each other.
    let first = connect(&mut w, 1000);
    w.run(10 * MS);
    w.stacks[0].with_tcp(first, |c, _| c.abort());
    w.run(10 * MS);
    while w.stacks[1].tcp_accept(listener).is_some() {}
    // A SYN as it is, from 500 hosts that are not there.
    connect(&mut w, 1001);
    let syn: Vec<u8> = w.stacks[0].take_output(2)[0].parts().iter().flat_map(|s| s.to_vec()).collect();
    for host in 0..500u16 {
        let mut frame = syn.clone();
        frame[14 + 14..14 + 16].copy_from_slice(&(0x6400 + host).to_be_bytes());
        frame[14 + 10..14 + 12].fill(0);
        let sum = internet_checksum(&frame[14..34]);
        frame[14 + 10..14 + 12].copy_from_slice(&sum.to_be_bytes());
        w.stacks[1].receive(2, &frame, Offload { verified: true, ..Offload::default() });
        w.stacks[1].take_output(2);
    }
    assert!(w.stacks[1].tcp_list().len() <= 32, "the flood is bounded");
    let id = connect(&mut w, 1002);
    w.run(100 * MS);
    let (state, options) = w.stacks[0].look_at_tcp(id, |c, now| (c.state(), c.info(now).tcpi_options)).unwrap();
    let _ = w.stacks[0].with_tcp(id, |c, _| c.write(b"served", Follows::Nothing));
    w.run(100 * MS);
    let mut bytes = [0; 100];
    let accepted = w.stacks[1].tcp_accept(listener);
    let read =
        |a: moat_net_stack::Accepted| w.stacks[1].with_tcp(a.id, |c, now| c.read(&mut bytes, Taking::Remove, now));
    let n = accepted.and_then(read).unwrap_or(0);
    (state == ConnectionState::Established, bytes[..n].to_vec(), options)
}

#[test]
fn a_flood_keeps_nobody_out() {
    // With all options: the cookie keeps them in the timestamp.
    assert_eq!(served_in_a_flood(Rules::default()), (true, b"served".to_vec(), 7));
    let always = Rules { cookies: CookieRule::Always, ..Rules::default() };
    assert_eq!(served_in_a_flood(always), (true, b"served".to_vec(), 7));
    let without = Rules { timestamps: false, ..Rules::default() };
    assert_eq!(served_in_a_flood(without), (true, b"served".to_vec(), 0));
    let never = Rules { cookies: CookieRule::Never, ..Rules::default() };
    assert!(!served_in_a_flood(never).0, "it is a flood");
}

/// What is not for this host is not answered.
#[test]
fn strangers_get_no_answer() {
    let seeds = seeds();
    let now = Time::from_us(1_000_000);
    for seed in &seeds {
        // The same frames, to another host at the same link address.
        let mut other = config(2, 1500);
        other.links[1].addresses.truncate(0);
        other.routes.clear();
        let mut s = Stack::new(&other, |link| (link == 2).then_some(PLAIN.features), now);
        listen(&mut s, 80);
        s.receive(2, seed, Offload::default());
        assert!(s.take_output(2).is_empty());
        assert!(s.take_deliveries().is_empty());
    }
}
