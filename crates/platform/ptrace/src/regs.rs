//! Registers: between the contract's and the host's.

use moat_host::ptrace::UserRegs;
use moat_platform::{Regs, regs::USER_RFLAGS};

/// Bit 1 of rflags always reads as one, and user mode runs with interrupts on.
pub(crate) const FIXED_RFLAGS: u64 = 0x202;
/// The host's code selector of 64-bit user mode.
pub(crate) const USER_CS: u64 = 0x33;
/// The host's stack selector of user mode.
pub(crate) const USER_SS: u64 = 0x2b;

/// The contract's registers of the host's.
pub(crate) fn guest_regs(r: &UserRegs) -> Regs {
    Regs {
        r15: r.r15,
        r14: r.r14,
        r13: r.r13,
        r12: r.r12,
        rbp: r.rbp,
        rbx: r.rbx,
        r11: r.r11,
        r10: r.r10,
        r9: r.r9,
        r8: r.r8,
        rax: r.rax,
        rcx: r.rcx,
        rdx: r.rdx,
        rsi: r.rsi,
        rdi: r.rdi,
        orig_rax: r.orig_rax,
        rip: r.rip,
        rflags: r.eflags,
        rsp: r.rsp,
        fs_base: r.fs_base,
        gs_base: r.gs_base,
    }
}

/// Sets the host's registers to the contract's, in 64-bit mode.
pub(crate) fn set_guest_regs(r: &mut UserRegs, g: &Regs) {
    (r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10) = (g.r15, g.r14, g.r13, g.r12, g.rbp, g.rbx, g.r11, g.r10);
    (r.r9, r.r8, r.rax, r.rcx, r.rdx, r.rsi, r.rdi) = (g.r9, g.r8, g.rax, g.rcx, g.rdx, g.rsi, g.rdi);
    (r.rip, r.rsp, r.fs_base, r.gs_base, r.orig_rax) = (g.rip, g.rsp, g.fs_base, g.gs_base, g.orig_rax);
    r.eflags = g.rflags & USER_RFLAGS | FIXED_RFLAGS;
    (r.cs, r.ss) = (USER_CS, USER_SS);
}

/// Registers of a process that has run nothing yet.
pub(crate) fn blank(regs: &mut UserRegs) {
    // SAFETY: a user_regs_struct is integers only.
    *regs = unsafe { std::mem::zeroed() };
    (regs.cs, regs.ss, regs.eflags, regs.orig_rax) = (USER_CS, USER_SS, FIXED_RFLAGS, u64::MAX);
}
