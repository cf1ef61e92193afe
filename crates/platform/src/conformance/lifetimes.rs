//! Handles dropped and processes killed at awkward moments.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use moat_abi::Errno;

use super::{CODE, DATA, Guest, RW, Rig, fork, host_process_exists, spawn, syscall_of, vanishes};
use crate::{Event, MapSource, Order, execute};

/// `1: mov rax,[rdi]; syscall; jmp 1b`
const LOAD: &[u8] = &[0x48, 0x8b, 0x07, 0x0f, 0x05, 0xeb, 0xf9];
/// `1: inc dword [rdi]; jmp 1b`
const COUNT: &[u8] = &[0xff, 0x07, 0xeb, 0xfc];
const AREA: u64 = 0x4000_0000;

async fn load(guest: &mut Guest, addr: u64) -> u64 {
    syscall_of(&guest.go_with(|r| (r.rip, r.rdi) = (CODE, addr)).await).0
}

/// The first thread's handle is dropped: memory, siblings, forks and new siblings work on.
pub fn first_thread_may_go(rig: &Rig) {
    rig.run(async {
        let mut first = rig.guest(LOAD).await;
        first.write_u64(DATA, 7);
        let mut side = spawn(&mut first).await;
        drop(first);
        for _ in 0..5 {
            assert_eq!(load(&mut side, DATA).await, 7);
            side.map_anon(AREA, 0x1000, RW).await;
            assert_eq!(side.read_u64(DATA), 7);
            assert_eq!(side.space.write_forced(CODE + 0x100, &[0x90]), Ok(1));
        }
        let mut third = spawn(&mut side).await;
        let mut copy = fork(&mut side).await;
        drop(side);
        assert_eq!((load(&mut third, DATA).await, load(&mut copy, DATA).await), (7, 7));
    });
}

/// Siblings come and go, and leave no host thread behind.
pub fn dropped_threads_are_reaped(rig: &Rig) {
    let (guest, tids) = rig.run(async {
        let mut guest = rig.guest(LOAD).await;
        let mut tids = Vec::new();
        for _ in 0..8 {
            let mut side = spawn(&mut guest).await;
            tids.push(side.thread.host_tid());
            let _ = load(&mut side, DATA).await;
        }
        (guest, tids)
    });
    for tid in tids {
        assert!(vanishes(rig, tid), "host thread {tid} is still there");
    }
    assert!(host_process_exists(guest.space.host_pid()));
}

/// The handle is dropped in the middle of a switch, the process stays: the host thread stops running guest code.
pub fn dropped_while_running_stops(rig: &Rig) {
    let (guest, tid) = rig.run(async {
        let mut guest = rig.guest(COUNT).await;
        let mut side = spawn(&mut guest).await;
        let tid = side.thread.host_tid();
        let mut regs = side.thread.regs();
        regs.rdi = DATA;
        side.thread.set_regs(&regs);
        assert!(side.thread.poll_switch(&mut Context::from_waker(Waker::noop())).is_pending());
        while guest.read_u64(DATA) == 0 {
            rig.dispatch_for(Duration::from_millis(1));
        }
        (guest, tid)
    });
    assert!(vanishes(rig, tid), "host thread {tid} is still there");
    let count = guest.read_u64(DATA);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(guest.read_u64(DATA), count);
}

/// A process killed while its thread is parked: sooner or later every call says so, and goes on saying so.
pub fn killed_while_parked(rig: &Rig) {
    rig.run(async {
        for _ in 0..10 {
            let mut guest = rig.guest(LOAD).await;
            let _ = load(&mut guest, DATA).await;
            guest.space.kill();
            let unmap = Order::Munmap { addr: AREA, len: 0x1000 };
            while execute(&mut *guest.thread, unmap.clone()).await != Err(Errno::ESRCH) {}
            for _ in 0..3 {
                assert!(matches!(guest.go().await, Event::Died));
                assert_eq!(execute(&mut *guest.thread, unmap.clone()).await, Err(Errno::ESRCH));
                assert_eq!(guest.thread.fpu().err(), Some(Errno::ESRCH));
            }
            guest.space.kill();
        }
    });
}

/// What a thread was doing when its process was killed.
async fn work_until_death(rig: &Rig, kind: u32) -> i32 {
    let mut guest = rig.guest(LOAD).await;
    guest.write_u64(DATA, 5);
    let pid = guest.space.host_pid();
    let space = Arc::clone(&guest.space);
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_micros(u64::from(kind) * 37 % 2000));
        space.kill();
    });
    let file = super::memfd(0x1000);
    let mut forks = Vec::new();
    loop {
        let order = match kind % 5 {
            0 => Order::Madvise { addr: DATA, len: 0x1000, advice: 4 },
            1 => Order::Mmap {
                addr: AREA,
                len: 0x1000,
                prot: RW,
                source: MapSource::File { fd: Arc::clone(&file), offset: 0, shared: true },
            },
            2 => match std::future::poll_fn(|cx| guest.thread.poll_fork(cx)).await {
                Ok(child) => {
                    forks.truncate(2);
                    forks.push(child);
                    continue;
                }
                Err(_) => break,
            },
            3 => match std::future::poll_fn(|cx| guest.thread.poll_spawn(cx)).await {
                Ok(_) => continue,
                Err(_) => break,
            },
            _ => match guest.go_with(|r| r.rdi = DATA).await {
                Event::Died => break,
                _ => continue,
            },
        };
        match execute(&mut *guest.thread, order).await {
            Ok(_) => {}
            Err(errno) => {
                assert_eq!(errno, Errno::ESRCH);
                break;
            }
        }
    }
    killer.join().expect("killer");
    // The end may have shown as another errno of the host first.
    while !matches!(guest.go_with(|r| r.rdi = DATA).await, Event::Died) {}
    pid
}

/// A kill may come at any point of any operation: nothing hangs, and the next process gets nobody else's file.
pub fn killed_at_any_time(rig: &Rig) {
    for kind in 0..60 {
        let pid = rig.run(work_until_death(rig, kind));
        assert!(vanishes(rig, pid), "host process {pid} is still there");
    }
    rig.run(async {
        let mut guest = rig.guest(LOAD).await;
        let file = super::memfd(0x1000);
        rustix::io::pwrite(&*file, &[9], 0).expect("pwrite");
        guest
            .order(Order::Mmap {
                addr: AREA,
                len: 0x1000,
                prot: RW,
                source: MapSource::File { fd: file, offset: 0, shared: true },
            })
            .await;
        assert_eq!(guest.read_u64(AREA), 9);
    });
}

/// Kicks at any time neither lose nor repeat a syscall, nor spoil an order.
pub fn kick_storm_changes_nothing(rig: &Rig) {
    // 1: mov rdi,rax; mov rax,rbx; syscall; inc rbx; jmp 1b
    let code = [0x48, 0x89, 0xc7, 0x48, 0x89, 0xd8, 0x0f, 0x05, 0x48, 0xff, 0xc3, 0xeb, 0xf3];
    let stop = AtomicBool::new(false);
    let mut guest = rig.run(rig.guest(&code));
    let kicker = guest.thread.kicker();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                kicker.kick();
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        rig.run(async {
            let mut result = 0;
            for n in 0..300 {
                let event = loop {
                    match guest.go().await {
                        Event::Interrupted => {}
                        event => break event,
                    }
                };
                let (nr, args) = syscall_of(&event);
                assert_eq!((nr, args[0]), (n, result));
                result = n + 7;
                guest.thread.set_ret(result);
                if n % 8 == 0 {
                    guest.map_anon(AREA, 0x1000, RW).await;
                }
            }
        });
        stop.store(true, Ordering::SeqCst);
    });
}
