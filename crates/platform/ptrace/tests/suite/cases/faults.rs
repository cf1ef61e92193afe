//! Processor exceptions.

use crate::driver::{CODE, DATA, Guest, HOLE, R, RW, STACK_TOP};
use crate::programs;
use moat_platform::{Fault, MapSource, Order, PAGE_SIZE, Platform, Regs, regs::RFLAGS_TF};

const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const SI_KERNEL: i32 = 0x80;

fn fault_of(platform: &dyn Platform, program: &[u8], rdi: u64) -> (Fault, Regs) {
    let mut guest = Guest::load(platform, program);
    let regs = Regs { rdi, ..guest.thread.regs() };
    guest.thread.set_regs(&regs);
    let fault = guest.fault();
    (fault, guest.thread.regs())
}

/// A read of nothing; the thread can be repaired and goes on.
pub fn fault_read(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::read_byte());
    let regs = Regs { rdi: HOLE + 5, ..guest.thread.regs() };
    guest.thread.set_regs(&regs);
    let fault = guest.fault();
    assert_eq!((fault.signal, fault.code, fault.addr), (libc::SIGSEGV, SEGV_MAPERR, HOLE + 5));
    assert_eq!((fault.trapno, fault.err & !2), (14, 4));
    assert_eq!(guest.thread.regs().rip, CODE);
    assert_eq!(guest.thread.regs().rdi, HOLE + 5);
    guest.map(HOLE, PAGE_SIZE, RW);
    assert_eq!(guest.space.write(HOLE + 5, &[77]), Ok(1));
    assert_eq!(guest.syscall().1[0], 77);
}

/// A write to a read-only page.
pub fn fault_write(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::write_byte());
    guest.order(Order::Mprotect { addr: DATA, len: PAGE_SIZE, prot: R }).expect("mprotect");
    let regs = Regs { rdi: DATA + 9, rsi: 5, ..guest.thread.regs() };
    guest.thread.set_regs(&regs);
    let fault = guest.fault();
    assert_eq!((fault.signal, fault.code, fault.addr), (libc::SIGSEGV, SEGV_ACCERR, DATA + 9));
    assert_eq!((fault.trapno, fault.err), (14, 7));
    guest.order(Order::Mprotect { addr: DATA, len: PAGE_SIZE, prot: RW }).expect("mprotect");
    guest.syscall();
    assert_eq!(guest.word(DATA + 8), 5 << 8);
}

/// A jump to a page that is not executable, and one to nothing.
pub fn fault_fetch(platform: &dyn Platform) {
    let (fault, regs) = fault_of(platform, programs::jump(), DATA);
    assert_eq!((fault.signal, fault.code, fault.addr, regs.rip), (libc::SIGSEGV, SEGV_ACCERR, DATA, DATA));
    assert_eq!(fault.trapno, 14);
    assert_ne!(fault.err & 16, 0);
    let (fault, regs) = fault_of(platform, programs::jump(), 0);
    assert_eq!((fault.signal, fault.code, fault.addr, regs.rip), (libc::SIGSEGV, SEGV_MAPERR, 0, 0));
}

/// A division by zero.
pub fn fault_divide(platform: &dyn Platform) {
    let (fault, regs) = fault_of(platform, programs::divide(), 0);
    assert_eq!((fault.signal, fault.code, fault.trapno), (libc::SIGFPE, 1, 0));
    assert_eq!((fault.addr, regs.rip), (CODE + 2, CODE + 2));
}

/// An undefined opcode.
pub fn fault_opcode(platform: &dyn Platform) {
    let (fault, regs) = fault_of(platform, &[0x0f, 0x0b], 0);
    assert_eq!((fault.signal, fault.trapno, regs.rip), (libc::SIGILL, 6, CODE));
}

/// A breakpoint: rip is behind it, and the thread can go on.
pub fn fault_breakpoint(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::breakpoint());
    let fault = guest.fault();
    assert_eq!((fault.signal, fault.code, fault.trapno), (libc::SIGTRAP, SI_KERNEL, 3));
    assert_eq!(guest.thread.regs().rip, CODE + 1);
    assert_eq!(guest.syscall().0, 1000);
}

/// A privileged instruction, and a non-canonical address.
pub fn fault_protection(platform: &dyn Platform) {
    let (fault, regs) = fault_of(platform, programs::halt(), 0);
    assert_eq!((fault.signal, fault.code, fault.trapno, regs.rip), (libc::SIGSEGV, SI_KERNEL, 13, CODE));
    let (fault, _) = fault_of(platform, programs::read_byte(), 0x8000_0000_0000_0000);
    assert_eq!((fault.signal, fault.code, fault.trapno), (libc::SIGSEGV, SI_KERNEL, 13));
}

/// A read beyond the end of a mapped file.
pub fn fault_bus(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::read_byte());
    let fd = super::orders::memfd(&[1; 100]);
    let source = MapSource::File { fd, offset: 0, shared: true };
    guest.order(Order::Mmap { addr: HOLE, len: 2 * PAGE_SIZE, prot: R, source }).expect("mmap");
    let regs = Regs { rdi: HOLE + PAGE_SIZE, ..guest.thread.regs() };
    guest.thread.set_regs(&regs);
    let fault = guest.fault();
    assert_eq!((fault.signal, fault.code, fault.addr), (libc::SIGBUS, 2, HOLE + PAGE_SIZE));
}

/// Registers that user mode cannot have.
pub fn fault_in_system_registers(platform: &dyn Platform) {
    for bad in [Regs { rip: 0x8000_0000_0000_0000, ..Regs::default() }, Regs { fs_base: 0x8000_0000_0000_0000, ..Regs::default() }] {
        let mut guest = Guest::load(platform, programs::syscalls());
        let good = guest.thread.regs();
        guest.thread.set_regs(&Regs { rip: if bad.rip == 0 { CODE } else { bad.rip }, rsp: STACK_TOP, ..bad });
        assert_eq!(guest.fault().signal, libc::SIGSEGV);
        guest.thread.set_regs(&good);
        guest.syscall();
    }
}

/// One exception after each instruction.
pub fn trap_flag(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::nops());
    let regs = Regs { rflags: 0x202 | RFLAGS_TF, ..guest.thread.regs() };
    guest.thread.set_regs(&regs);
    for step in 1..=3 {
        let fault = guest.fault();
        assert_eq!((fault.signal, fault.trapno), (libc::SIGTRAP, 1));
        let regs = guest.thread.regs();
        assert_eq!(regs.rip, CODE + step);
        assert_ne!(regs.rflags & RFLAGS_TF, 0);
    }
    let regs = Regs { rflags: 0x202, ..guest.thread.regs() };
    guest.thread.set_regs(&regs);
    assert_eq!(guest.syscall().0, 1000);
    assert_eq!(guest.thread.regs().rflags & RFLAGS_TF, 0);
}
