//! What calls bring along and take back.

use std::time::Duration;

use moat_platform::conformance::{CODE, DATA, DATA_LEN, Guest, RW, Rig, fault_of, syscall_of};
use moat_platform::{Event, Gifts, Order, parcel};
use moat_stub::layout::{PARCEL_LEN, takes};

use super::{DF, KickStorm, is_rewritten, rig};

/// `mov eax, NR; syscall; mov rbx, [rsi]; inc r13; jmp` back.
fn program(nr: u8) -> [u8; 15] {
    [0xb8, nr, 0, 0, 0, 0x0f, 0x05, 0x48, 0x8b, 0x1e, 0x49, 0xff, 0xc5, 0xeb, 0xf1]
}

const WRITE: u8 = 1;
const READ: u8 = 0;
const STAT: u8 = 4;
const POLL: u8 = 7;
/// Nothing is mapped from here on.
const END: u64 = DATA + DATA_LEN;

/// A guest whose site, which makes call `nr`, is rewritten.
async fn caller(rig: &Rig, nr: u8) -> Guest {
    let mut guest = rig.guest(&program(nr)).await;
    guest.space.rewrite(CODE + 7);
    assert!(is_rewritten(&guest));
    // Its first call finds no area.
    for _ in 0..2 {
        let event = guest.go_with(|r| (r.rip, r.rsi, r.rdx) = (CODE, DATA, 0)).await;
        assert_eq!(syscall_of(&event).0, u64::from(nr));
        guest.thread.set_ret(0);
    }
    guest
}

/// The next call, with these arguments; what it has brought along.
async fn brings(guest: &mut Guest, rdi: u64, rsi: u64, rdx: u64) -> Option<(u64, Vec<u8>)> {
    let event = guest.go_with(|r| (r.rip, r.rdi, r.rsi, r.rdx, r.rflags) = (CODE, rdi, rsi, rdx, r.rflags | DF)).await;
    let (_, args) = syscall_of(&event);
    assert_eq!((args[0], args[1], args[2]), (rdi, rsi, rdx));
    assert_eq!(guest.thread.regs().rflags & DF, DF);
    let parcel = guest.thread.parcel().expect("a call from a rewritten site");
    parcel.taken.map(|(addr, len)| {
        let mut bytes = vec![0; len];
        parcel.memory.read(0, &mut bytes);
        (addr, bytes)
    })
}

fn pattern(len: u64, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(7).wrapping_add(seed)).collect()
}

#[test]
fn what_a_call_refers_to_comes_with_it() {
    let rig = rig();
    rig.run(async {
        let mut guest = caller(&rig, WRITE).await;
        guest.write(DATA, &pattern(DATA_LEN, 3));
        for len in [1, 7, 8, 9, 16, 511, 512, 4095, PARCEL_LEN] {
            for at in [DATA, DATA + 1, DATA + 4093, END - len] {
                let mut memory = vec![0; len as usize];
                guest.space.read(at, &mut memory).expect("memory");
                assert_eq!(brings(&mut guest, 1, at, len).await, Some((at, memory)), "{len} bytes");
            }
        }
        // Nothing, too much, and what can't be read: the sentry sees for itself.
        for (at, len) in [(DATA, 0), (DATA, PARCEL_LEN + 1), (DATA, u64::MAX), (END - 5, 6), (END, 1), (1 << 63, 8)] {
            assert_eq!(brings(&mut guest, 1, at, len).await, None, "{len} bytes at {at:#x}");
        }
        // Rewritten text is shown as it was, which the thread has not seen.
        assert_eq!(brings(&mut guest, 1, CODE, 15).await, None);
        assert_eq!(brings(&mut guest, 1, CODE + 7, 8).await, Some((CODE + 7, program(WRITE)[7..].to_vec())));

        let mut guest = caller(&rig, POLL).await;
        assert_eq!(brings(&mut guest, DATA, 3, 0).await.map(|(addr, bytes)| (addr, bytes.len())), Some((DATA, 24)));
        for count in [1 << 61, (1 << 61) + 1, PARCEL_LEN] {
            assert_eq!(brings(&mut guest, DATA, count, 0).await, None, "{count}");
        }
        let mut guest = caller(&rig, READ).await;
        assert_eq!(brings(&mut guest, 0, DATA, 16).await, None);
    });
}

#[test]
fn strings_come_up_to_their_end() {
    let rig = rig();
    rig.run(async {
        let mut guest = caller(&rig, STAT).await;
        let mut path = vec![b'a'; 300];
        path[9] = 0;
        guest.write(DATA, &path);
        assert_eq!(brings(&mut guest, DATA, DATA, 0).await, Some((DATA, path[..10].to_vec())));
        assert_eq!(brings(&mut guest, DATA + 9, DATA, 0).await, Some((DATA + 9, vec![0])));
        let most = takes::STRING_LEN as usize;
        assert_eq!(brings(&mut guest, DATA + 10, DATA, 0).await, Some((DATA + 10, vec![b'a'; most])));
        // At the end of what is mapped, with its end and without.
        guest.write(END - 3, b"xy\0");
        assert_eq!(brings(&mut guest, END - 3, DATA, 0).await, Some((END - 3, b"xy\0".to_vec())));
        guest.write(END - 1, b"z");
        assert_eq!(brings(&mut guest, END - 3, DATA, 0).await, None);
        assert_eq!(brings(&mut guest, 0, DATA, 0).await, None);
    });
}

/// Has the thread, which is in a call, take back `list`.
fn gifts(guest: &mut Guest, list: &[(u64, &[u8])]) -> Gifts {
    let parcel = guest.thread.parcel().expect("a call from a rewritten site");
    let pid = guest.space.host_pid();
    parcel::open(parcel, &guest.space);
    for (addr, bytes) in list {
        assert!(parcel::has_room(pid, bytes.len()) && parcel::give(pid, *addr, bytes));
    }
    parcel::close().expect("gifts")
}

#[test]
fn what_a_call_gives_is_there_when_it_returns() {
    let rig = rig();
    rig.run(async {
        let mut guest = caller(&rig, READ).await;
        for round in 0..200u64 {
            let at = DATA + 8 + round;
            // The last kick may have come late.
            while matches!(
                guest.go_with(|r| (r.rip, r.rsi, r.rflags) = (CODE, at, r.rflags | DF)).await,
                Event::Interrupted
            ) {}
            let (first, second) = (pattern(1 + round * 7, 1), pattern(round + 1, 2));
            let given = gifts(&mut guest, &[(at, &first), (DATA + 0x4000 + round, &second), (DATA + 0x8000, b"x")]);
            guest.thread.set_ret(first.len() as u64);
            guest.thread.take_back(given);
            let kick = super::kick_after(&guest, Duration::from_micros(round % 20));
            // Whether it is at its next call or was interrupted before that.
            let event = guest.go().await;
            kick.join().expect("kick");
            assert!(matches!(event, Event::Syscall { .. } | Event::Interrupted));
            assert_eq!(guest.thread.regs().rflags & DF, DF);
            for (addr, bytes) in [(at, &first), (DATA + 0x4000 + round, &second), (DATA + 0x8000, &b"x".to_vec())] {
                let mut found = vec![0; bytes.len()];
                guest.space.read(addr, &mut found).expect("memory");
                assert_eq!(&found, bytes, "round {round}, {event:?}");
            }
        }
    });
}

#[test]
fn kicks_lose_no_gift() {
    let rig = rig();
    rig.run(async {
        let mut guest = caller(&rig, READ).await;
        let kicks = KickStorm::begin(&guest);
        let mut calls = 0u64;
        let mut given: Option<[u8; 8]> = None;
        while calls < 20_000 {
            let event = guest.go().await;
            let regs = guest.thread.regs();
            match event {
                Event::Interrupted => {
                    // Behind the call its result is there, and what it has given.
                    if (CODE + 7..CODE + 13).contains(&regs.rip)
                        && let Some(given) = given
                    {
                        assert_eq!(regs.rax, calls, "at {:#x}", regs.rip);
                        assert_eq!(guest.read_u64(regs.rsi).to_le_bytes(), given);
                    }
                }
                Event::Syscall { .. } => {
                    if let Some(given) = given {
                        assert_eq!(regs.rbx.to_le_bytes(), given, "call {calls}");
                    }
                    calls += 1;
                    guest.thread.set_ret(calls);
                    given = Some(calls.wrapping_mul(0x0101_0101_0101_0101).to_le_bytes());
                    let bytes = [given.unwrap_or_default().to_vec(), pattern(3000, calls as u8)].concat();
                    if guest.thread.parcel().is_some() {
                        let gifts = gifts(&mut guest, &[(regs.rsi, &bytes)]);
                        guest.thread.take_back(gifts);
                    } else {
                        guest.write(regs.rsi, &bytes);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        kicks.end();
    });
}

#[test]
fn a_gift_that_finds_no_memory_is_a_fault_of_the_call() {
    let rig = rig();
    rig.run(async {
        let mut guest = caller(&rig, READ).await;
        let page = DATA + 0x100_0000;
        guest.map_anon(page, 0x1000, RW).await;
        for kicked in [false, true] {
            let event = guest.go_with(|r| (r.rip, r.rsi) = (CODE, DATA)).await;
            assert_eq!(syscall_of(&event).0, 0);
            let given = gifts(&mut guest, &[(DATA, b"12345678"), (page + 0xffe, b"abcd"), (DATA + 8, b"not reached")]);
            guest.thread.set_ret(8);
            guest.thread.take_back(given);
            if kicked {
                guest.thread.kicker().kick();
            }
            // A kick before it has gone on has all of it written by the sentry, which does not fail the call.
            let event = guest.go().await;
            let rax = guest.thread.regs().rax;
            assert_eq!(guest.read_u64(DATA), u64::from_le_bytes(*b"12345678"));
            match event {
                Event::Interrupted => assert!(kicked && rax == 8),
                event => assert_eq!((syscall_of(&event).0, kicked), (0, false)),
            }
        }
        // The result, where the application sees it.
        guest.order(Order::Mprotect { addr: CODE, len: 0x1000, prot: RW }).await;
        // mov rbx, rax; nop
        guest.write(CODE + 7, &[0x48, 0x89, 0xc3]);
        guest.order(Order::Mprotect { addr: CODE, len: 0x1000, prot: 5 }).await;
        guest.space.rewrite(CODE + 7);
        let event = guest.go_with(|r| (r.rip, r.rsi) = (CODE, DATA)).await;
        assert_eq!(syscall_of(&event).0, 0);
        let given = gifts(&mut guest, &[(DATA, b"87654321"), (page + 0xffe, b"abcd")]);
        guest.thread.set_ret(8);
        guest.thread.take_back(given);
        assert_eq!(syscall_of(&guest.go().await).0, 0);
        assert_eq!(guest.thread.regs().rbx, 14_u64.wrapping_neg());
        assert_eq!(guest.read_u64(DATA), u64::from_le_bytes(*b"87654321"));
    });
}

#[test]
fn an_order_before_the_return_has_gifts_written() {
    let rig = rig();
    rig.run(async {
        let mut guest = caller(&rig, READ).await;
        let event = guest.go_with(|r| (r.rip, r.rsi) = (CODE, DATA)).await;
        assert_eq!(syscall_of(&event).0, 0);
        let given = gifts(&mut guest, &[(DATA, b"12345678"), (DATA + 0x800, b"more")]);
        guest.thread.set_ret(8);
        guest.thread.take_back(given);
        guest.map_anon(DATA + 0x100_0000, 0x1000, RW).await;
        assert_eq!(guest.read_u64(DATA), u64::from_le_bytes(*b"12345678"));
        assert_eq!(syscall_of(&guest.go().await).0, 0);
        assert_eq!(guest.thread.regs().rbx, u64::from_le_bytes(*b"12345678"));
    });
}

#[test]
fn an_open_parcel_agrees_with_memory() {
    let rig = rig();
    rig.run(async {
        let mut guest = caller(&rig, POLL).await;
        guest.write(DATA, &pattern(64, 9));
        let event = guest.go_with(|r| (r.rip, r.rdi, r.rsi) = (CODE, DATA, 4)).await;
        assert_eq!(syscall_of(&event).0, 7);
        // A store of the guest's after it has stopped is not seen: it is one snapshot.
        let parcel = guest.thread.parcel().expect("parcel");
        assert_eq!(parcel.taken, Some((DATA, 32)));
        let pid = guest.space.host_pid();
        parcel::open(parcel, &guest.space);
        let mut buf = [0; 16];
        assert!(parcel::read(pid, DATA + 8, &mut buf));
        assert_eq!(buf[..], pattern(64, 9)[8..24]);
        assert!(!parcel::read(pid, DATA + 24, &mut buf), "half of it");
        assert!(!parcel::read(pid + 1, DATA, &mut buf), "another process");
        assert_eq!(parcel::bytes_from(pid, DATA + 30, &mut buf), 2);
        // What the call writes there takes its place, and is in memory before anybody reads it.
        assert!(parcel::give(pid, DATA + 8, b"new"));
        assert!(!parcel::read(pid, DATA, &mut buf[..4]));
        let mut memory = [0; 3];
        guest.space.read(DATA + 8, &mut memory).expect("memory");
        assert_ne!(&memory, b"new", "not yet");
        assert!(!parcel::read(pid, DATA + 10, &mut buf[..1]));
        guest.space.read(DATA + 8, &mut memory).expect("memory");
        assert_eq!(&memory, b"new");
        // No more than there is room for.
        assert!(!parcel::has_room(pid, PARCEL_LEN as usize));
        for i in 0..parcel::MOST_GIFTS as u64 {
            assert!(parcel::has_room(pid, 8) && parcel::give(pid, DATA + 0x100 + i * 8, &i.to_le_bytes()));
        }
        assert!(!parcel::has_room(pid, 8) && !parcel::give(pid, DATA, &[0; 8]));
        let given = parcel::close().expect("gifts");
        assert!(parcel::close().is_none());
        guest.thread.take_back(given);
        // It reads where poll has its number of entries.
        assert_eq!(fault_of(guest.go().await).addr, 4);
        for i in 0..parcel::MOST_GIFTS as u64 {
            assert_eq!(guest.read_u64(DATA + 0x100 + i * 8), i);
        }
    });
}
