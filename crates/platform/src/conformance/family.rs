//! Forks, threads, and the ends of both.

use std::time::Duration;

use moat_abi::Errno;

use super::{CODE, DATA, Guest, Rig, both, fault_of, host_process_exists, syscall_of, vanishes};
use crate::{Event, GuestThread, Order, execute};

/// `1: mov rax,[rdi]; syscall; mov [rdi],rsi; syscall; jmp 1b`
const LOAD_STORE: &[u8] = &[0x48, 0x8b, 0x07, 0x0f, 0x05, 0x48, 0x89, 0x37, 0x0f, 0x05, 0xeb, 0xf4];
/// `jmp .`
const LOOP: &[u8] = &[0xeb, 0xfe];

/// Forks `guest`.
pub async fn fork(guest: &mut Guest) -> Guest {
    let new = std::future::poll_fn(|cx| guest.thread.poll_fork(cx)).await.expect("fork");
    Guest { space: new.space, thread: new.thread }
}

/// Makes a sibling thread.
pub async fn spawn(guest: &mut Guest) -> Guest {
    let thread = std::future::poll_fn(|cx| guest.thread.poll_spawn(cx)).await.expect("spawn");
    Guest { space: guest.space.clone(), thread }
}

async fn load(guest: &mut Guest, addr: u64) -> u64 {
    syscall_of(&guest.go_with(|r| (r.rip, r.rdi) = (CODE, addr)).await).0
}

async fn store(guest: &mut Guest, addr: u64, value: u64) {
    let event = guest.go_with(|r| (r.rip, r.rdi, r.rsi, r.rax) = (CODE + 5, addr, value, 1)).await;
    assert_eq!(syscall_of(&event).0, 1);
}

/// A fork has the same registers and memory, and later stores are private to each.
pub fn fork_copies_memory_and_registers(rig: &Rig) {
    rig.run(async {
        let mut parent = rig.guest(LOAD_STORE).await;
        parent.write_u64(DATA, 10);
        let _ = syscall_of(&parent.go_with(|r| (r.rdi, r.r15, r.fs_base) = (DATA, 0x15, DATA)).await);
        let mut child = fork(&mut parent).await;
        assert_ne!(child.space.host_pid(), parent.space.host_pid());
        assert_eq!(child.thread.regs(), parent.thread.regs());
        child.thread.set_ret(0);
        assert_eq!(load(&mut child, DATA).await, 10);
        store(&mut child, DATA, 11).await;
        assert_eq!(load(&mut parent, DATA).await, 10);
        store(&mut parent, DATA, 12).await;
        assert_eq!(load(&mut child, DATA).await, 11);
        assert_eq!((child.read_u64(DATA), parent.read_u64(DATA)), (11, 12));
        assert_eq!((child.thread.regs().r15, child.thread.regs().fs_base), (0x15, DATA));
        child.map_anon(0x5000_0000, 0x1000, super::RW).await;
        assert_eq!(parent.space.read(0x5000_0000, &mut [0]), Err(moat_abi::Errno::EFAULT));
        // The extended state is copied too.
        let (one, two) = (parent.thread.fpu().expect("fpu"), child.thread.fpu().expect("fpu"));
        assert_eq!(one.len(), two.len());
    });
}

/// Grandchildren, and a parent that forks many times.
pub fn fork_of_a_fork_works(rig: &Rig) {
    rig.run(async {
        let mut line = vec![rig.guest(LOAD_STORE).await];
        for depth in 1..6u64 {
            let mut parent = line.pop().expect("a parent");
            store(&mut parent, DATA + depth * 8, depth).await;
            let child = fork(&mut parent).await;
            line.push(parent);
            line.push(child);
        }
        let mut last = line.pop().expect("the youngest");
        for depth in 1..6u64 {
            assert_eq!(load(&mut last, DATA + depth * 8).await, depth);
        }
        for _ in 0..20 {
            let mut child = fork(&mut last).await;
            store(&mut child, DATA, 1).await;
        }
        assert_eq!(load(&mut last, DATA).await, 0);
    });
}

/// Only the forking thread is in the child; both processes can go on making threads.
pub fn fork_of_a_threaded_process_works(rig: &Rig) {
    rig.run(async {
        let mut main = rig.guest(LOAD_STORE).await;
        let mut side = spawn(&mut main).await;
        store(&mut main, DATA, 1).await;
        let mut child = fork(&mut side).await;
        let mut child_side = spawn(&mut child).await;
        store(&mut child_side, DATA, 2).await;
        assert_eq!(load(&mut child, DATA).await, 2);
        assert_eq!(load(&mut main, DATA).await, 1);
        let mut child_of_main = fork(&mut main).await;
        drop(main);
        assert_eq!(load(&mut side, DATA).await, 1, "the first thread may go before the others");
        assert_eq!(side.read_u64(DATA), 1);
        store(&mut child_of_main, DATA, 3).await;
        let mut late = fork(&mut side).await;
        assert_eq!(load(&mut late, DATA).await, 1);
    });
}

/// A thread shares memory with its maker and starts with its registers.
pub fn spawn_shares_memory(rig: &Rig) {
    rig.run(async {
        let mut main = rig.guest(LOAD_STORE).await;
        let _ = syscall_of(&main.go_with(|r| (r.rdi, r.r14) = (DATA, 0x14)).await);
        let mut side = spawn(&mut main).await;
        assert_eq!(side.thread.regs(), main.thread.regs());
        assert_ne!(side.thread.host_tid(), main.thread.host_tid());
        store(&mut side, DATA + 8, 21).await;
        assert_eq!(side.thread.regs().r14, 0x14);
        assert_eq!(load(&mut main, DATA + 8).await, 21);
        // Both run at once.
        let (a, b) = both(load(&mut main, DATA + 8), load(&mut side, DATA + 8)).await;
        assert_eq!((a, b), (21, 21));
        // One loops, the other works.
        main.write_u64(DATA, 0);
        let kicker = side.thread.kicker();
        let looping = async {
            assert_eq!(side.space.write_forced(CODE + 0x100, LOOP), Ok(2));
            side.go_with(|r| r.rip = CODE + 0x100).await
        };
        let working = async {
            for i in 0..50 {
                store(&mut main, DATA, i).await;
                assert_eq!(load(&mut main, DATA).await, i);
            }
            kicker.kick();
        };
        let (event, ()) = both(looping, working).await;
        assert!(matches!(event, Event::Interrupted), "{event:?}");
    });
}

/// Many short-lived threads, with distinct memory of their own.
pub fn threads_come_and_go(rig: &Rig) {
    rig.run(async {
        let mut main = rig.guest(LOAD_STORE).await;
        for round in 0..10u64 {
            let mut sides = Vec::new();
            for i in 0..4 {
                let mut side = spawn(&mut main).await;
                store(&mut side, DATA + i * 8, round * 4 + i).await;
                sides.push(side);
            }
            for (i, side) in (0u64..).zip(&mut sides) {
                assert_eq!(load(side, DATA + i * 8).await, round * 4 + i);
            }
        }
        assert_eq!(load(&mut main, DATA).await, 36);
    });
}

/// An XSAVE image in which SSE and AVX state that is in its initial configuration counts as not in use: whether the
/// processor says so may differ from one context switch to the next (Intel SDM volume 1, 13.6).
fn without_unused_state(mut image: Vec<u8>) -> Vec<u8> {
    const XSTATE_BV: usize = 512;
    for (bit, registers) in [(1 << 1, 160..416), (1 << 2, 576..832)] {
        if image.get(registers).is_none_or(|bytes| bytes.iter().all(|&byte| byte == 0)) {
            image[XSTATE_BV] &= !bit;
        }
    }
    image
}

/// Nothing of a thread that has ended is found in one that is made after it.
pub fn a_later_thread_has_nothing_of_an_earlier_one(rig: &Rig) {
    const TRACES: [u64; 6] = [1, 2, 3, 4, 5, 6];
    rig.run(async {
        let mut guest = rig.guest(LOAD_STORE).await;
        let name = |byte: u8| Order::SetName([byte, byte, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        guest.order(name(b'p')).await;
        let rseq = |flags| Order::Rseq { addr: DATA + 128, len: 32, flags, sig: 0x5305_3053 };
        for ends_registered in [false, true, false, false] {
            let mut side = spawn(&mut guest).await;
            let regs = guest.thread.regs();
            assert_eq!(side.thread.regs(), regs);
            let [fpu, parents] = [&mut side, &mut guest].map(|g| without_unused_state(g.thread.fpu().expect("fpu")));
            assert!(fpu == parents, "another FPU state than the parent's");
            let event = side
                .go_with(|r| {
                    assert_eq!((r.fs_base, r.gs_base), (regs.fs_base, regs.gs_base));
                    (r.rip, r.rdi, r.fs_base, r.gs_base) = (CODE, DATA, DATA + 8, DATA + 16);
                    [r.r8, r.r9, r.r10, r.r12, r.r13, r.r14] = TRACES;
                })
                .await;
            let _ = syscall_of(&event);
            side.order(name(b's')).await;
            // Neither the last one's registration nor its kick is there.
            match execute(&mut *side.thread, rseq(0)).await {
                Err(Errno::ENOSYS) => {}
                registered => {
                    assert_eq!(registered, Ok(0));
                    if !ends_registered {
                        side.order(rseq(1)).await;
                    }
                }
            }
            side.thread.kicker().kick();
        }
        // With the bases of the parent, not those of the last one.
        let mut side = spawn(&mut guest).await;
        assert_eq!(load(&mut side, DATA).await, guest.read_u64(DATA));
        assert_eq!(side.thread.regs().fs_base, guest.thread.regs().fs_base);
        let comm = |tid: i32, pid: i32| std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).expect("comm");
        assert_eq!(comm(side.thread.host_tid(), guest.space.host_pid()), "pp\n");
    });
}

/// A child outlives the process that made it.
pub fn forked_child_survives_its_parent(rig: &Rig) {
    let (mut child, pid) = rig.run(async {
        let mut parent = rig.guest(LOAD_STORE).await;
        store(&mut parent, DATA, 8).await;
        let child = fork(&mut parent).await;
        (child, parent.space.host_pid())
    });
    assert!(vanishes(rig, pid));
    rig.run(async {
        assert_eq!(load(&mut child, DATA).await, 8);
        let mut grandchild = fork(&mut child).await;
        assert_eq!(load(&mut grandchild, DATA).await, 8);
    });
}

/// `kill` ends a running and a parked thread with `Died`, and every later call says so.
pub fn death_is_reported(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOOP).await;
        let mut parked = spawn(&mut guest).await;
        let space = guest.space.clone();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            space.kill();
        });
        let event = guest.go().await;
        assert!(matches!(event, Event::Died), "{event:?}");
        killer.join().expect("killer");
        for thread in [&mut guest, &mut parked] {
            let event = thread.go().await;
            assert!(matches!(event, Event::Died), "{event:?}");
            let order = crate::Order::Munmap { addr: DATA, len: 0x1000 };
            let result = crate::execute(&mut *thread.thread, order).await;
            assert_eq!(result, Err(moat_abi::Errno::ESRCH));
            let fork = std::future::poll_fn(|cx| thread.thread.poll_fork(cx)).await;
            assert_eq!(fork.err(), Some(moat_abi::Errno::ESRCH));
            assert!(thread.space.read(DATA, &mut [0]).is_err());
            thread.thread.kicker().kick();
        }
    });
}

/// Dropping the handles ends and reaps the process, running or parked; a dropped thread leaves the others alone.
pub fn dropping_frees_the_host_process(rig: &Rig) {
    let pids = rig.run(async {
        let parked = rig.guest(LOAD_STORE).await;
        let mut stopped = rig.guest(LOAD_STORE).await;
        let _ = syscall_of(&stopped.go_with(|r| r.rdi = DATA).await);
        let mut running = rig.guest(LOOP).await;
        let waker = std::task::Waker::noop();
        let mut cx = std::task::Context::from_waker(waker);
        assert!(running.thread.poll_switch(&mut cx).is_pending());
        let pids = [parked.space.host_pid(), stopped.space.host_pid(), running.space.host_pid()];
        assert!(pids.iter().all(|pid| host_process_exists(*pid)));
        // A thread dropped while it runs.
        let mut side = spawn(&mut stopped).await;
        assert_eq!(side.space.write_forced(CODE + 0x100, LOOP), Ok(2));
        let mut regs = side.thread.regs();
        regs.rip = CODE + 0x100;
        side.thread.set_regs(&regs);
        assert!(side.thread.poll_switch(&mut cx).is_pending());
        drop(side);
        assert_eq!(load(&mut stopped, DATA).await, 0);
        let _thread: Box<dyn GuestThread> = spawn(&mut stopped).await.thread;
        pids
    });
    for pid in pids {
        assert!(vanishes(rig, pid), "host process {pid} is still there");
    }
}

/// A SIGKILL from outside, as by the host's out-of-memory killer, wakes the waiting future.
pub fn outside_kill_is_reported(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOOP).await;
        let pid = rustix::process::Pid::from_raw(guest.space.host_pid()).expect("a pid");
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
        });
        let event = guest.go().await;
        assert!(matches!(event, Event::Died), "{event:?}");
        killer.join().expect("killer");
        // The platform goes on.
        let mut next = rig.guest(&[0x0f, 0x0b]).await;
        assert_eq!(fault_of(next.go().await).signal, 4);
    });
}
