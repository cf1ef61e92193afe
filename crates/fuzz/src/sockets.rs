//! What goes through sockets to the kernel itself: control messages and options of all families, requests of netlink.

use moat_abi::nr;

use crate::input::{Input, pick};
use crate::world::{World, address};

/// Places in the area of arguments.
const HEADER: usize = 0;
const NAME: usize = 0x100;
const BUFFERS: usize = 0x200;
const DATA: usize = 0x1000;
const CONTROL: usize = 0x4000;
/// Bytes of control data.
const MOST: usize = 0x4000;
/// A reading buffer.
const ROOM: usize = 0x8000;

/// Families with what they take: type and protocol, with SOCK_NONBLOCK.
const KINDS: [[u64; 3]; 8] = [
    [2, 0o4002, 0],
    [10, 0o4002, 0],
    [2, 0o4001, 0],
    [10, 0o4001, 0],
    [2, 0o4003, 1],
    [16, 0o4003, 0],
    [16, 0o4003, 4],
    [17, 0o4003, 0],
];

/// Sockets in pairs; the second of a pair gets what the first sends, or is itself.
fn sockets(world: &mut World) -> Vec<(u64, u64)> {
    let mut pairs = Vec::new();
    for kind in [1, 2, 5] {
        let made = world.call(nr::SOCKETPAIR, [1, 0o4000 | kind, 0, address(HEADER), 0, 0]);
        assert_eq!(made, Some(Ok(0)), "a pair of sockets");
        if let [a0, a1, a2, a3, b0, b1, b2, b3] = world.get(HEADER, 8)[..] {
            let (a, b) = (u32::from_le_bytes([a0, a1, a2, a3]), u32::from_le_bytes([b0, b1, b2, b3]));
            pairs.push((u64::from(a), u64::from(b)));
        }
    }
    for [family, kind, protocol] in KINDS {
        let Some(Ok(fd)) = world.call(nr::SOCKET, [family, kind, protocol, 0, 0, 0]) else { continue };
        if family == 2 || family == 10 {
            // To themselves, by the loopback device.
            let name = if family == 2 {
                [&[2, 0, 0x12, 0x34, 127, 0, 0, 1][..], &[0; 8]].concat()
            } else {
                [&[10, 0, 0x12, 0x35, 0, 0, 0, 0][..], &[0; 15], &[1, 0, 0, 0, 0]].concat()
            };
            let len = name.len().try_into().unwrap_or_default();
            let name = world.put(NAME, &name);
            let _ = world.call(nr::BIND, [fd, name, len, 0, 0, 0]);
            let _ = world.call(nr::CONNECT, [fd, name, len, 0, 0, 0]);
        }
        pairs.push((fd, fd));
    }
    pairs
}

/// Writes a `struct msghdr` for these lengths.
fn header(world: &mut World, name: usize, data: usize, control: usize) -> u64 {
    let words = [address(DATA), u64::try_from(data).unwrap_or_default()];
    let buffers: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let buffers = world.put(BUFFERS, &buffers);
    let n = |len: usize| u64::try_from(len).unwrap_or_default();
    let words = [if name == 0 { 0 } else { address(NAME) }, n(name), buffers, 1, address(CONTROL), n(control), 0];
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    world.put(HEADER, &bytes)
}

/// One byte says what is done, one with which socket, others with what.
pub fn cmsg(data: &[u8]) {
    let (mut input, mut world) = (Input(data), World::new());
    let pairs = sockets(&mut world);
    let first_free = pairs.iter().map(|p| p.0.max(p.1)).max().unwrap_or_default().saturating_add(1);
    while let Some(what) = input.byte() {
        let which = pick(input.byte().unwrap_or_default(), pairs.len());
        let Some(&(from, to)) = pairs.get(which) else { return };
        let flags = u64::from(input.short());
        match what % 8 {
            0..=2 => {
                let name = if what & 8 == 0 { 0 } else { usize::from(input.byte().unwrap_or_default() % 64) };
                world.put(NAME, input.take(name));
                let control = usize::from(input.short()) % MOST;
                let control = input.take(control);
                world.put(CONTROL, control);
                let header = header(&mut world, name, usize::from(what >> 4), control.len());
                let _ = world.call(nr::SENDMSG, [from, header, flags, 0, 0, 0]);
            }
            3 | 4 => receive(&mut world, to, usize::from(input.short()) % MOST, flags),
            5 => {
                let (level, name) = (level(&mut input), u64::from(input.byte().unwrap_or_default()));
                let n = usize::from(input.byte().unwrap_or_default());
                let value = input.take(n);
                let len = value.len().try_into().unwrap_or_default();
                let value = world.put(DATA, value);
                let _ = world.call(nr::SETSOCKOPT, [from, level, name, value, len, 0]);
            }
            6 => {
                let (level, name) = (level(&mut input), u64::from(input.byte().unwrap_or_default()));
                let room = world.put(NAME, &u32::from(input.short()).to_le_bytes());
                let _ = world.call(nr::GETSOCKOPT, [from, level, name, address(DATA), room, 0]);
            }
            _ => {
                let n = usize::from(input.byte().unwrap_or_default());
                let name = input.take(n);
                let len = name.len().try_into().unwrap_or_default();
                let name = world.put(NAME, name);
                let nr = if what & 8 != 0 { nr::BIND } else { nr::CONNECT };
                let _ = world.call(nr, [from, name, len, 0, 0, 0]);
            }
        }
        // Descriptors that came with a message.
        let _ = world.call(nr::CLOSE_RANGE, [first_free, u64::from(u32::MAX), 0, 0, 0, 0]);
    }
}

fn level(input: &mut Input<'_>) -> u64 {
    const LEVELS: [u64; 10] = [1, 0, 41, 6, 17, 58, 255, 263, 270, 136];
    LEVELS.into_iter().nth(pick(input.byte().unwrap_or_default(), LEVELS.len())).unwrap_or_default()
}

/// Receives a message, whose control data must be whole and within its room.
fn receive(world: &mut World, fd: u64, room: usize, flags: u64) {
    let header = header(world, 128, 64, room);
    if !matches!(world.call(nr::RECVMSG, [fd, header, flags, 0, 0, 0]), Some(Ok(_))) {
        return;
    }
    let head = world.get(HEADER, 56);
    let len = head.get(40..48).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b));
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    assert!(len <= room, "more control data than there was room for");
    let control = world.get(CONTROL, len);
    let mut rest = &control[..];
    while let Some(len) = rest.first_chunk().map(|b| usize::try_from(u64::from_le_bytes(*b)).unwrap_or(usize::MAX)) {
        assert!(len >= 16 && len <= rest.len(), "a control message of {len} bytes in {}", rest.len());
        rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
}

/// Requests of NETLINK_ROUTE: by root first, who changes devices, addresses and routes.
pub fn rtnetlink(data: &[u8]) {
    netlink(data, 0);
}

/// Requests of NETLINK_SOCK_DIAG, among some sockets.
pub fn sock_diag(data: &[u8]) {
    netlink(data, 4);
}

/// Each request is its type, its flags and its body; types are counted from the first of the protocol's.
fn netlink(data: &[u8], protocol: u64) {
    let (mut input, mut world) = (Input(data), World::new());
    let _others = (protocol == 4).then(|| sockets(&mut world));
    let Some(Ok(fd)) = world.call(nr::SOCKET, [16, 0o4003, protocol, 0, 0, 0]) else { return };
    while let Some(kind) = input.byte() {
        let flags = input.short();
        let n = usize::from(input.short()) % 1024;
        let body = input.take(n);
        let len = u32::try_from(body.len()).unwrap_or_default().saturating_add(16);
        let kind = if protocol == 4 { u16::from(kind % 8).saturating_add(18) } else { u16::from(kind) };
        let header = [&len.to_le_bytes()[..], &kind.to_le_bytes(), &flags.to_le_bytes(), &[1; 4], &[0; 4]].concat();
        let message = [&header, body].concat();
        let message_len = message.len().try_into().unwrap_or_default();
        let message = world.put(DATA, &message);
        let _ = world.call(nr::SENDTO, [fd, message, message_len, 0, 0, 0]);
        drain(&mut world, fd);
        // The rest as an ordinary user.
        if kind == 255 {
            world.become_user(1000);
        }
    }
}

/// Reads all answers: each is a row of messages whose lengths fit.
fn drain(world: &mut World, fd: u64) {
    for _ in 0..64 {
        let read = world.call(nr::RECVFROM, [fd, address(ROOM), 0x8000, 0, 0, 0]);
        let Some(Ok(n)) = read else { return };
        let bytes = world.get(ROOM, usize::try_from(n).unwrap_or_default().min(0x8000));
        let mut rest = &bytes[..];
        while let Some(len) = rest.first_chunk().map(|b| usize::try_from(u32::from_le_bytes(*b)).unwrap_or(usize::MAX))
        {
            assert!(len >= 16 && len <= rest.len(), "a message of {len} bytes in {}", rest.len());
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    panic!("the answer to one request does not end");
}
