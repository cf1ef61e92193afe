//! Many parked threads: those that are parked for long wait on futexes, and go on as all others do.

use std::sync::Arc;

use moat_platform::Event;
use moat_platform::conformance::{Guest, Rig, spawn};
use moat_platform_systrap::Systrap;

/// `1: syscall; jmp 1b`
const CALLS: &[u8] = &[0x0f, 0x05, 0xeb, 0xfc];
const THREADS: u64 = 200;

/// Threads of the guest process that the host has in futex(2).
fn in_futex(pid: i32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the guest's threads");
    let calls = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("syscall")).ok());
    calls.filter(|call| call.starts_with("202 ")).count()
}

async fn call(guest: &mut Guest, expected: u64, next: u64) {
    match guest.go().await {
        Event::Syscall { nr, .. } => assert_eq!(nr, expected),
        other => panic!("{other:?}"),
    }
    guest.thread.set_ret(next);
}

#[test]
fn long_parked_threads_sleep_and_go_on() {
    let rig = Rig::new(Arc::new(Systrap::new().expect("systrap starts")));
    rig.run(async {
        let mut guest = rig.guest(CALLS).await;
        guest.thread.set_ret(7);
        call(&mut guest, 7, 8).await;
        let mut threads = Vec::new();
        for n in 0..THREADS {
            let mut side = spawn(&mut guest).await;
            side.thread.set_ret(1000 + n);
            call(&mut side, 1000 + n, 2000 + n).await;
            threads.push(side);
        }
        let pid = guest.space.host_pid();
        let asleep = in_futex(pid);
        assert!((100..190).contains(&asleep), "{asleep} of {THREADS} threads wait on a futex");
        // The first ones to sleep go on, several times, and the others after them.
        for round in 2..6 {
            for (n, side) in (0u64..).zip(&mut threads) {
                call(side, round * 1000 + n, (round + 1) * 1000 + n).await;
            }
        }
        // A kick of a sleeper is remembered.
        let first = &mut threads[0];
        first.thread.kicker().kick();
        assert!(matches!(first.go().await, Event::Interrupted));
        call(first, 6000, 1).await;
        // Sleepers end with their owners, and the process goes on.
        threads.truncate(20);
        for n in 0..100 {
            let mut side = spawn(&mut guest).await;
            side.thread.set_ret(n);
            call(&mut side, n, n + 1).await;
        }
        for (n, side) in (0u64..).zip(&mut threads).skip(1) {
            call(side, 6000 + n, 1).await;
        }
        call(&mut guest, 8, 9).await;
        // Those that are left die asleep.
        guest.space.kill();
        for side in &mut threads {
            while !matches!(side.go().await, Event::Died) {}
        }
    });
}
