//! Copies of processes, sibling threads.

use crate::driver::{DATA, Guest, STACK_TOP};
use crate::programs;
use moat_platform::{Event, Platform, Regs};

/// A copy has its maker's memory and registers, and its own from then on.
pub fn fork_copies(platform: &dyn Platform) {
    let mut parent = Guest::load(platform, programs::counting());
    for n in 0..3 {
        assert_eq!(parent.syscall().0, n);
    }
    parent.set_word(DATA, 1);
    let mut child = parent.fork();
    assert_ne!(child.space.host_pid(), parent.space.host_pid());
    let (ours, its) = (parent.thread.regs(), child.thread.regs());
    assert_eq!(Regs { orig_rax: 0, ..ours }, Regs { orig_rax: 0, ..its });
    assert_eq!(child.word(DATA), 1);
    child.set_word(DATA, 2);
    parent.set_word(DATA, 3);
    assert_eq!((parent.word(DATA), child.word(DATA)), (3, 2));
    parent.thread.set_ret(1111);
    child.thread.set_ret(0);
    assert_eq!(parent.syscall(), (3, [1111, 0, 0, 0, 0, 0]));
    assert_eq!(child.syscall(), (3, [0; 6]));
    drop(parent);
    assert_eq!(child.syscall().0, 4);
}

/// A chain of copies; each is a process of the sentry's own, not of its maker.
pub fn fork_of_fork(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::counting());
    for n in 0..10u32 {
        assert_eq!(guest.syscall().0, u64::from(n));
        guest.set_word(DATA, n);
        let child = guest.fork();
        guest = child;
        assert_eq!(guest.word(DATA), n);
    }
}

/// A sibling has the same memory and its own registers.
pub fn spawn_shares(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::counting());
    assert_eq!(guest.syscall().0, 0);
    let mut sibling = guest.spawn();
    assert_ne!(sibling.thread.host_tid(), guest.thread.host_tid());
    assert_eq!(Regs { orig_rax: 0, ..guest.thread.regs() }, Regs { orig_rax: 0, ..sibling.thread.regs() });
    let regs = Regs { rbx: 99, rsp: STACK_TOP - 4096, fs_base: 0x1000, ..sibling.thread.regs() };
    sibling.thread.set_regs(&regs);
    assert_eq!(sibling.syscall().0, 100);
    assert_eq!(guest.syscall().0, 1);
    assert_eq!(sibling.syscall().0, 101);
    assert_eq!((guest.thread.regs().fs_base, sibling.thread.regs().fs_base), (0, 0x1000));
    sibling.map(0x7000_0000, 0x1000, 3);
    guest.set_word(0x7000_0000, 5);
    // A copy has one thread, whichever made it.
    let mut copy = sibling.fork();
    assert_eq!(copy.word(0x7000_0000), 5);
    assert_eq!(copy.syscall().0, 102);
}

/// Siblings run at the same time: one waits for what another stores.
pub fn spawn_runs_in_parallel(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::await_memory());
    let regs = Regs { rdi: DATA, ..guest.thread.regs() };
    guest.thread.set_regs(&regs);
    let sibling = guest.spawn();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            let mut sibling = sibling;
            sibling.syscall().1[0]
        });
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!waiting.is_finished());
        guest.set_word(DATA, 33);
        assert_eq!(waiting.join().expect("sibling"), 33);
    });
    match guest.run() {
        Event::Syscall { nr: 1000, args } => assert_eq!(args[0], 33),
        event => panic!("{event:?}"),
    }
}
