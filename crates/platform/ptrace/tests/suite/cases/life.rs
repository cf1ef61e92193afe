//! Death and disposal.

use moat_abi::Errno;

use crate::driver::{DATA, Guest, HOLE, eventually, exists_on_host};
use crate::programs;
use moat_platform::{Event, Order, PAGE_SIZE, Platform, Regs};

fn looping(platform: &dyn Platform) -> Guest<'_> {
    let mut guest = Guest::load(platform, programs::count_memory());
    let regs = Regs { rdi: DATA, ..guest.thread.regs() };
    guest.thread.set_regs(&regs);
    guest
}

fn expect_died(guest: &mut Guest<'_>) {
    match guest.run() {
        Event::Died => {}
        event => panic!("{event:?}"),
    }
    // For ever.
    assert!(matches!(guest.run(), Event::Died));
    assert_eq!(guest.order(Order::Munmap { addr: HOLE, len: PAGE_SIZE }), Err(Errno::ESRCH));
    assert_eq!(guest.thread.fpu().err(), Some(Errno::ESRCH));
}

/// A kill ends the switch of every thread.
pub fn killed(platform: &dyn Platform) {
    let mut guest = looping(platform);
    let mut sibling = guest.spawn();
    let pid = guest.space.host_pid();
    let space = std::sync::Arc::clone(&guest.space);
    std::thread::scope(|scope| {
        let other = scope.spawn(move || expect_died(&mut sibling));
        scope.spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(10));
            space.kill();
        });
        expect_died(&mut guest);
        other.join().expect("sibling");
    });
    eventually(platform, "the process is reaped", || !exists_on_host(pid));
    assert_eq!(guest.space.read(DATA, &mut [0]), Err(Errno::ESRCH));
    assert_eq!(guest.space.write(DATA, &[0]), Err(Errno::ESRCH));
    assert_eq!(guest.space.write_forced(DATA, &[0]), Err(Errno::ESRCH));
    guest.thread.kicker().kick();
    guest.space.kill();
}

/// The host kills a process (out of memory).
pub fn killed_by_host(platform: &dyn Platform) {
    let mut guest = looping(platform);
    let pid = guest.space.host_pid();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(10));
            // SAFETY: a signal to a process of this test, which is not reaped before it.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        });
        expect_died(&mut guest);
    });
    eventually(platform, "the process is reaped", || !exists_on_host(pid));
}

/// A parked thread whose process is killed says so at its next use.
pub fn killed_while_parked(platform: &dyn Platform) {
    for by_order in [true, false] {
        let mut guest = Guest::load(platform, programs::counting());
        guest.syscall();
        guest.space.kill();
        if by_order {
            // The kill and the order may meet; once it fails, it fails for ever.
            while guest.order(Order::Munmap { addr: HOLE, len: PAGE_SIZE }) != Err(Errno::ESRCH) {}
        }
        loop {
            match guest.run() {
                Event::Died => break,
                Event::Syscall { .. } => assert!(!by_order),
                event => panic!("{event:?}"),
            }
        }
        expect_died(&mut guest);
    }
}

/// The handle of a thread is dropped in the middle of a switch: the thread stops.
pub fn drop_running(platform: &dyn Platform) {
    let mut guest = looping(platform);
    {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(guest.thread.poll_switch(&mut context).is_pending());
    }
    eventually(platform, "it runs", || guest.word(DATA) > 100);
    let Guest { space, thread, .. } = guest;
    let pid = space.host_pid();
    drop(thread);
    drop(space);
    eventually(platform, "the process is reaped", || !exists_on_host(pid));
}

/// A sibling's handle is dropped: its host thread goes, the process stays.
pub fn drop_sibling(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::counting());
    for _ in 0..5 {
        let mut sibling = guest.spawn();
        let tid = sibling.thread.host_tid();
        sibling.syscall();
        drop(sibling);
        eventually(platform, "the thread is reaped", || !exists_on_host(tid));
    }
    guest.syscall();
}

/// The first thread's handle is dropped: siblings and memory stay.
pub fn drop_leader(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::counting());
    let sibling = guest.spawn();
    let mut guest = {
        let old = std::mem::replace(&mut guest.thread, sibling.thread);
        drop(old);
        guest
    };
    for n in 0..5 {
        assert_eq!(guest.syscall().0, n);
        guest.set_word(DATA, 9);
        assert_eq!(guest.word(DATA), 9);
        guest.map(HOLE, PAGE_SIZE, 3);
    }
    let mut copy = guest.fork();
    assert_eq!((copy.syscall().0, copy.word(DATA)), (5, 9));
    let mut third = guest.spawn();
    drop(guest);
    assert_eq!(third.syscall().0, 5);
}

/// Dropping all there is of a process leaves nothing on the host.
pub fn drop_everything(platform: &dyn Platform) {
    let mut pids = Vec::new();
    for n in 0..6 {
        let mut guest = Guest::load(platform, programs::counting());
        pids.push(guest.space.host_pid());
        if n % 2 == 0 {
            guest.syscall();
        }
        if n % 3 == 0 {
            let copy = guest.fork();
            pids.push(copy.space.host_pid());
            let sibling = guest.spawn();
            pids.push(sibling.thread.host_tid());
        }
    }
    for pid in pids {
        eventually(platform, "the process is reaped", || !exists_on_host(pid));
    }
}
