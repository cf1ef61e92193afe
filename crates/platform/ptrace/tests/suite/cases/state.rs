//! Registers, system calls, extended state, kicks.

use std::time::Duration;

use crate::driver::{CODE, DATA, Guest, STACK_TOP};
use crate::programs;
use moat_platform::{Event, ForeignAbi, Platform, Regs};

/// Number, arguments, instruction pointer, result.
pub fn syscall_arguments(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::two_syscalls());
    let (nr, args) = guest.syscall();
    assert_eq!(nr, 1000);
    assert_eq!(args, [1, 2, -3i64 as u64, 4, 0x1234_5678_90ab_cdef, 6]);
    let regs = guest.thread.regs();
    assert_eq!(regs.syscall_args(), args);
    assert_eq!(regs.orig_rax, 1000);
    let before = [regs.rip - 2, regs.rip - 1];
    let mut code = [0; 2];
    assert_eq!(guest.space.read(before[0], &mut code), Ok(2));
    assert_eq!(code, [0x0f, 0x05], "rip is behind the instruction");
    guest.thread.set_ret(0xdead_beef_0000_0001);
    let (nr, args) = guest.syscall();
    assert_eq!((nr, args[0]), (1001, 0xdead_beef_0000_0001));
    assert_eq!(args[1], 2, "other registers are kept");
    // No result is taken for the host's own "restart me".
    guest.go(CODE);
    guest.syscall();
    guest.thread.set_ret(-512i64 as u64);
    assert_eq!(guest.syscall().1[0], -512i64 as u64);
}

/// Every register comes through a switch as it was set, but those that `syscall` itself uses.
pub fn registers_survive(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::syscalls());
    let set = Regs {
        r15: 15,
        r14: 14,
        r13: 13,
        r12: 12,
        rbp: 0x1111_2222_3333_4444,
        rbx: 0xffff_ffff_ffff_fff0,
        r11: 11,
        r10: 10,
        r9: 9,
        r8: 8,
        rax: 777,
        rcx: 7,
        rdx: 6,
        rsi: 5,
        rdi: 4,
        orig_rax: u64::MAX,
        rip: CODE,
        rflags: 0x203,
        rsp: STACK_TOP - 64,
        fs_base: 0x7000_1234_5000,
        gs_base: 0x1000,
    };
    guest.thread.set_regs(&set);
    assert_eq!(guest.syscall().0, 777);
    let got = guest.thread.regs();
    let expected = Regs { rip: CODE + 2, orig_rax: 777, rax: got.rax, rcx: got.rcx, r11: got.r11, rflags: got.rflags, ..set };
    assert_eq!(got, expected);
    assert_eq!(got.rflags & 1, 1, "the carry flag");
    // And again with what the thread has, changed by nobody.
    guest.thread.set_ret(778);
    assert_eq!(guest.syscall().0, 778);
    let again = guest.thread.regs();
    assert_eq!((again.rbx, again.fs_base, again.gs_base, again.rsp), (set.rbx, set.fs_base, set.gs_base, set.rsp));
}

/// Results reach the right call, over many.
pub fn many_syscalls(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::counting());
    let mut last = 0;
    for n in 0..500u64 {
        let (nr, args) = guest.syscall();
        assert_eq!((nr, args[0]), (n, last));
        last = n * 3 + 1;
        guest.thread.set_ret(last);
    }
}

/// The other ways into a kernel.
pub fn foreign_syscalls(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::int80());
    match guest.run() {
        Event::ForeignSyscall(ForeignAbi::I386) => {}
        event => panic!("{event:?}"),
    }
    guest.thread.set_ret(42);
    assert_eq!(guest.syscall().1[0], 42);

    let mut guest = Guest::load(platform, programs::vsyscall());
    match guest.run() {
        Event::ForeignSyscall(ForeignAbi::Vsyscall) => {
            let regs = guest.thread.regs();
            assert_eq!((regs.rip, regs.rsp), (0xffff_ffff_ff60_0400, STACK_TOP - 8));
        }
        // A host without the page.
        Event::Fault(fault) => assert_eq!(fault.signal, libc::SIGSEGV),
        event => panic!("{event:?}"),
    }
    // What the kernel does about it: return to the caller.
    let mut ret = [0; 8];
    assert_eq!(guest.space.read(STACK_TOP - 8, &mut ret), Ok(8));
    let regs = Regs { rip: u64::from_ne_bytes(ret), rsp: STACK_TOP, rax: 99, ..guest.thread.regs() };
    guest.thread.set_regs(&regs);
    assert_eq!(guest.syscall().1[0], 99);
}

/// Offset of xmm3 in an XSAVE image.
const XMM3: usize = 160 + 3 * 16;

/// The guest's SSE state is read, changed and reset.
pub fn fpu_round_trip(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::sse());
    let pattern: Vec<u8> = (1..=16).collect();
    assert_eq!(guest.space.write(DATA, &pattern), Ok(16));
    let regs = Regs { rdi: DATA, ..guest.thread.regs() };
    guest.thread.set_regs(&regs);
    guest.syscall();
    let at_syscall = guest.thread.regs();

    let mut image = guest.thread.fpu().expect("fpu");
    assert_eq!(&image[XMM3..XMM3 + 16], &pattern);
    let word = |at: usize| u32::from_ne_bytes(image[at..at + 4].try_into().expect("four bytes"));
    assert_eq!(word(464), 0x4650_5853, "FP_XSTATE_MAGIC1");
    let xstate_size = word(464 + 16) as usize;
    assert_eq!(word(464 + 4) as usize, xstate_size + 4);
    assert_eq!(image.len(), xstate_size + 4);
    assert_eq!(word(xstate_size), 0x4650_5845, "FP_XSTATE_MAGIC2");

    image[XMM3..XMM3 + 16].fill(0xa5);
    guest.thread.set_fpu(&image).expect("set_fpu");
    assert_eq!(&guest.thread.fpu().expect("fpu")[XMM3..XMM3 + 16], &[0xa5; 16]);
    guest.syscall();
    let mut stored = [0; 16];
    assert_eq!(guest.space.read(DATA + 16, &mut stored), Ok(16));
    assert_eq!(stored, [0xa5; 16]);

    guest.thread.set_regs(&at_syscall);
    guest.thread.reset_fpu();
    guest.syscall();
    assert_eq!(guest.space.read(DATA + 16, &mut stored), Ok(16));
    assert_eq!(stored, [0; 16]);
    assert_eq!(guest.word(DATA + 32), 0x1f80, "MXCSR");
}

/// Copies of a process and sibling threads begin with their maker's extended state.
pub fn fpu_inherited(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::sse());
    assert_eq!(guest.space.write(DATA, &[0x5a; 16]), Ok(16));
    let regs = Regs { rdi: DATA, ..guest.thread.regs() };
    guest.thread.set_regs(&regs);
    guest.syscall();
    for mut copy in [guest.fork(), guest.spawn()] {
        assert_eq!(&copy.thread.fpu().expect("fpu")[XMM3..XMM3 + 16], &[0x5a; 16]);
        assert_eq!(copy.space.write(DATA + 16, &[0; 16]), Ok(16));
        copy.syscall();
        let mut stored = [0; 16];
        assert_eq!(copy.space.read(DATA + 16, &mut stored), Ok(16));
        assert_eq!(stored, [0x5a; 16]);
    }
}

/// Images that cannot be loaded.
pub fn fpu_bad_image(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::counting());
    guest.syscall();
    let good = guest.thread.fpu().expect("fpu");
    assert!(guest.thread.set_fpu(&good[..good.len() - 8]).is_err());
    assert!(guest.thread.set_fpu(&[]).is_err());
    let mut bad = good.clone();
    bad[24..28].fill(0xff); // MXCSR's reserved bits
    guest.thread.set_fpu(&bad).expect("the size is right");
    assert_eq!(guest.fault().signal, libc::SIGSEGV);
    guest.thread.set_fpu(&good).expect("set_fpu");
    guest.syscall();
}

/// A kick ends a switch.
pub fn kick_running(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::count_memory());
    let regs = Regs { rdi: DATA, ..guest.thread.regs() };
    guest.thread.set_regs(&regs);
    for _ in 0..3 {
        let kicker = guest.thread.kicker();
        let before = guest.word(DATA);
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(10));
            kicker.kick();
        });
        loop {
            match guest.switch() {
                Event::Interrupted if other.is_finished() => break,
                Event::Interrupted => {}
                event => panic!("{event:?}"),
            }
        }
        other.join().expect("kicker");
        assert_ne!(guest.word(DATA), before);
        assert_eq!(guest.thread.regs().rdi, DATA);
    }
}

/// A kick of a parked thread does no harm, then or later.
pub fn kick_parked(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::counting());
    let kicker = guest.thread.kicker();
    for n in 0..20 {
        kicker.kick();
        kicker.kick();
        assert_eq!(guest.syscall().0, n);
        if n % 2 == 0 {
            guest.map(0x5000_0000, 0x1000, 3);
        }
    }
}

/// Kicks at any time neither lose nor repeat a system call, nor spoil an order.
pub fn kick_storm(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::counting());
    let kicker = guest.thread.kicker();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                kicker.kick();
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        let mut last = 0;
        for n in 0..300u64 {
            let (nr, args) = guest.syscall();
            assert_eq!((nr, args[0]), (n, last));
            last = n + 7;
            guest.thread.set_ret(last);
            if n % 8 == 0 {
                guest.map(0x5000_0000, 0x1000, 3);
            }
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    });
}
