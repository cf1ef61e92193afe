//! The template's first code: makes a blank guest process out of a copy of the sentry's.
//!
//! Until the filter is in place this is the sentry's own code in a process of its own.

use core::mem::size_of;

use crate::layout::{
    AREA_LEN, AREA_STRIDE, BOARD, Control, FEATURE_FSGSBASE, FEATURE_RDPID, Init, JUMP_TABLE, KICK_SIGNAL, MAX_SITES,
    SITES, STACK_OFFSET, STUB_BASE,
};
use crate::raw::pointer;
use crate::{call, entry, sys};

const CLOSE_RANGE: u64 = 436;
const MMAP: u64 = 9;
const MPROTECT: u64 = 10;
const MUNMAP: u64 = 11;
const RT_SIGACTION: u64 = 13;
const RT_SIGPROCMASK: u64 = 14;
const SIGALTSTACK: u64 = 131;
const SETSID: u64 = 112;
const PRCTL: u64 = 157;
const PRLIMIT64: u64 = 302;
const SECCOMP: u64 = 317;
const CAPSET: u64 = 126;
const GETPPID: u64 = 110;
const MEMBARRIER: u64 = 324;

/// One past the last address of user space with four-level page tables.
const TASK_SIZE: u64 = 0x7fff_ffff_f000;
/// SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS and the kick: each handler runs with all of them blocked but
/// SIGBUS and SIGSEGV, which the recoverable accesses raise in the handler itself.
const SIGNALS: [u32; 7] = [4, 5, 7, 8, 11, sys::SIGSYS, KICK_SIGNAL];
const NESTING: u64 = 1 << (7 - 1) | 1 << (11 - 1);

/// `struct kernel_sigaction`.
#[repr(C)]
struct SigAction {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

/// Never returns: ends in the first trap, and stays there as the template.
///
/// # Safety
/// Called once, in a process that nobody needs the memory of, with its area mapped at `control` and [`Init`] in it.
#[unsafe(no_mangle)]
unsafe extern "C" fn stub_init(control: *mut Control) -> ! {
    let area = sys::address(control);
    let init = pointer::<Init>(area + STACK_OFFSET);
    // SAFETY: the sentry wrote it before it made this process.
    unsafe {
        let keep = (*init).keep;
        for (start, end) in [
            (0, keep[0]),
            (keep[1], STUB_BASE),
            ((*init).stub_end, BOARD),
            (BOARD + 4096, area),
            (area + AREA_LEN, TASK_SIZE),
        ] {
            sys::call(MUNMAP, [start, end - start, 0, 0, 0, 0]);
        }
        (&raw mut (*init).rewrites).write_volatile(u64::from(map_tables((*control).features)));
        // MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, which children inherit.
        let registered = sys::call(MEMBARRIER, [4, 0, 0, 0, 0, 0]) == 0;
        (&raw mut (*init).barriers).write_volatile(u64::from(registered));
        signals(area);
        // Away from the sentry's terminal and process group; no core dumps; room for descriptors of orders.
        sys::call(SETSID, [0; 6]);
        limit(4, Some(0)); // RLIMIT_CORE
        limit(7, None); // RLIMIT_NOFILE
        // PR_SET_NO_NEW_PRIVS; then no capability at all; then readable by the sentry, which has the same user.
        sys::call(PRCTL, [38, 1, 0, 0, 0, 0]);
        let header: [u32; 2] = [0x2008_0522, 0];
        let none = [0u32; 6];
        sys::call(CAPSET, [sys::address(header.as_ptr()), sys::address(none.as_ptr()), 0, 0, 0, 0]);
        sys::call(PRCTL, [4, 1, 0, 0, 0, 0]); // PR_SET_DUMPABLE
        sys::call(PRCTL, [15, sys::address(c"moat-guest".as_ptr()), 0, 0, 0, 0]); // PR_SET_NAME
        // The listener lands in the descriptor table that is still shared with the sentry.
        let program: [u64; 2] = [u64::from((*init).filter_len), sys::address(&raw const (*init).filter)];
        let flags = u64::from((*init).filter_flags);
        let listener = sys::call(SECCOMP, [1, flags, sys::address(program.as_ptr()), 0, 0, 0]) as i32;
        let keep_fd = u64::from((*init).areas_fd);
        if listener < 0 {
            (&raw mut (*init).listener).write_volatile(listener);
            sys::die();
        }
        if keep_fd > 0 {
            sys::call(CLOSE_RANGE, [0, keep_fd - 1, 2, 0, 0, 0]); // CLOSE_RANGE_UNSHARE
            sys::call(CLOSE_RANGE, [keep_fd + 1, u64::from(u32::MAX), 0, 0, 0, 0]);
        } else {
            sys::call(CLOSE_RANGE, [1, u64::from(u32::MAX), 2, 0, 0, 0]);
        }
        (&raw mut (*init).listener).write_volatile(listener + 1);
        // Not in the filter's list: SIGSYS, and the handler waits for orders on the frame that every guest
        // process descends from. This code has run on the signal stack: off it, so that the frame comes to lie at its
        // top as all later ones do.
        core::arch::asm!("xor esp, esp", "syscall", "ud2", in("rax") GETPPID, options(noreturn))
    }
}

/// Maps the tables of rewritten call sites; false if the host has no room or user code lacks the instructions.
unsafe fn map_tables(features: u64) -> bool {
    const READ: u64 = 1;
    const READ_WRITE: u64 = 3;
    // MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
    const FLAGS: u64 = 0x02 | 0x20 | 0x10_0000;
    let len = u64::from(MAX_SITES) * 8;
    let needed = FEATURE_FSGSBASE | FEATURE_RDPID;
    if features & needed != needed {
        return false;
    }
    for (addr, prot) in [(JUMP_TABLE, READ_WRITE), (SITES, READ)] {
        if sys::call(MMAP, [addr, len, prot, FLAGS, u64::MAX, 0]) != addr {
            return false;
        }
    }
    for i in 0..u64::from(MAX_SITES) {
        // SAFETY: just mapped.
        unsafe { pointer::<u64>(JUMP_TABLE + i * 8).write_volatile(call::landing(i)) };
    }
    sys::call(MPROTECT, [JUMP_TABLE, len, READ, 0, 0, 0]) == 0
}

unsafe fn signals(area: u64) {
    let handled = SIGNALS.iter().fold(0u64, |set, signal| set | 1 << (signal - 1));
    // Everything else is blocked for good: a guest process dies by SIGKILL only.
    let blocked = !handled;
    sys::call(RT_SIGPROCMASK, [2, &raw const blocked as u64, 0, 8, 0, 0]);
    for signal in 1..=64 {
        let mut action = SigAction { handler: 0, flags: 0, restorer: 0, mask: 0 };
        if handled & 1 << (signal - 1) != 0 {
            let entry = entry::stub_signal as *const () as u64;
            // SA_SIGINFO | SA_RESTORER | SA_ONSTACK | SA_NODEFER. The frame is left by an explicit rt_sigreturn.
            let flags = 0x4 | 0x0400_0000 | 0x0800_0000 | 0x4000_0000;
            action = SigAction { handler: entry, flags, restorer: entry, mask: handled & !NESTING };
        }
        let size = size_of::<u64>() as u64;
        sys::call(RT_SIGACTION, [signal, &raw const action as u64, 0, size, 0, 0]);
    }
    let stack: [u64; 3] = [area + STACK_OFFSET, 0, AREA_LEN - STACK_OFFSET];
    sys::call(SIGALTSTACK, [sys::address(stack.as_ptr()), 0, 0, 0, 0, 0]);
    const { assert!(AREA_LEN <= AREA_STRIDE) };
}

fn limit(resource: u64, soft_and_hard: Option<u64>) {
    let mut limits = [0u64; 2];
    match soft_and_hard {
        Some(value) => limits = [value, value],
        None => {
            sys::call(PRLIMIT64, [0, resource, 0, sys::address(limits.as_mut_ptr()), 0, 0]);
            limits[0] = limits[1];
        }
    }
    sys::call(PRLIMIT64, [0, resource, sys::address(limits.as_ptr()), 0, 0, 0]);
}
