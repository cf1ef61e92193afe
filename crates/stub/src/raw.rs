//! The system call instruction, for the freestanding programs of this crate.

use core::arch::asm;

/// An address as an argument.
#[inline(always)]
pub fn address<T>(pointer: *const T) -> u64 {
    pointer as u64
}

/// What is at an address.
#[inline(always)]
#[allow(dead_code)]
pub fn pointer<T>(address: u64) -> *mut T {
    address as *mut T
}

/// Any system call; the filter decides.
#[inline(always)]
pub fn call(nr: u64, args: [u64; 6]) -> u64 {
    let ret;
    // SAFETY: the caller's business; memory is clobbered, the stack is not used below rsp.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") nr => ret,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _,
        );
    }
    ret
}
