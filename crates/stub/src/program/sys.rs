//! Host calls and instructions that the stub uses.

use core::arch::asm;

use core::sync::atomic::{AtomicU32, Ordering};

use crate::layout::{DOORBELL, RING_SLEEP, STATE_SLEEPS};

pub use crate::raw::{address, call};

pub const SIGSYS: u32 = 31;
pub const ARCH_PRCTL: u64 = 158;
pub const ARCH_SET_GS: u64 = 0x1001;
pub const ARCH_SET_FS: u64 = 0x1002;
pub const ARCH_GET_FS: u64 = 0x1003;
pub const ARCH_GET_GS: u64 = 0x1004;
const FUTEX: u64 = 202;
const EXIT: u64 = 60;
const EXIT_GROUP: u64 = 231;

/// Waits until the sentry replies; for long, if it says so, on the state word.
pub fn ring(state: &AtomicU32) {
    match call(DOORBELL, [0; 6]).cast_signed() {
        0 => {}
        RING_SLEEP => sleep(state),
        // There is no sentry any more.
        _ => die(),
    }
}

/// Waits on the state word until the reply is there.
pub fn sleep(state: &AtomicU32) {
    while state.load(Ordering::Acquire) == STATE_SLEEPS {
        call(FUTEX, [address(state.as_ptr().cast_const()), 0, u64::from(STATE_SLEEPS), 0, 0, 0]);
    }
}

/// Ends the process.
pub fn die() -> ! {
    loop {
        call(EXIT_GROUP, [127, 0, 0, 0, 0, 0]);
    }
}

/// Ends the thread. Touches no memory after the call has begun.
pub fn exit_thread() -> ! {
    loop {
        call(EXIT, [0; 6]);
    }
}

pub fn rdfsbase() -> u64 {
    let base;
    // SAFETY: FSGSBASE is enabled (the sentry checked).
    unsafe { asm!("rdfsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
    base
}

pub fn rdgsbase() -> u64 {
    let base;
    // SAFETY: as above.
    unsafe { asm!("rdgsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
    base
}

pub fn wrfsbase(base: u64) {
    // SAFETY: as above; the stub itself uses neither segment. A bad value faults, which ends the process.
    unsafe { asm!("wrfsbase {}", in(reg) base, options(nomem, nostack, preserves_flags)) };
}

pub fn wrgsbase(base: u64) {
    // SAFETY: as above.
    unsafe { asm!("wrgsbase {}", in(reg) base, options(nomem, nostack, preserves_flags)) };
}

/// The number of this CPU.
pub fn rdpid() -> u32 {
    let cpu: u64;
    // SAFETY: the instruction exists (the sentry checked).
    unsafe { asm!("rdpid {}", out(reg) cpu, options(nomem, nostack, preserves_flags)) };
    // The kernel keeps the node above bit 12.
    (cpu & 0xfff) as u32
}

/// The cycle counter.
pub fn rdtsc() -> u64 {
    // SAFETY: every x86-64 CPU has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}
