//! Register sets as guests see them: `struct user_regs_struct`, `struct user_fpregs_struct`, XSAVE.

use moat_abi::ptrace::UserRegs;
use moat_abi::sigframe::{USER_CS, USER_DS};
use moat_abi::{Errno, Result};
use moat_platform::Regs;
use moat_platform::regs::USER_RFLAGS;

/// The registers as a tracer reads them.
#[must_use]
pub fn to_user(r: &Regs) -> UserRegs {
    UserRegs {
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
        cs: USER_CS.into(),
        eflags: r.rflags,
        rsp: r.rsp,
        ss: USER_DS.into(),
        fs_base: r.fs_base,
        gs_base: r.gs_base,
        // Null selectors, as 64-bit programs have.
        ds: 0,
        es: 0,
        fs: 0,
        gs: 0,
    }
}

/// The registers that a tracer wrote; segment selectors can't be changed, privileged flags stay.
#[must_use]
pub fn from_user(u: &UserRegs, old: &Regs) -> Regs {
    Regs {
        r15: u.r15,
        r14: u.r14,
        r13: u.r13,
        r12: u.r12,
        rbp: u.rbp,
        rbx: u.rbx,
        r11: u.r11,
        r10: u.r10,
        r9: u.r9,
        r8: u.r8,
        rax: u.rax,
        rcx: u.rcx,
        rdx: u.rdx,
        rsi: u.rsi,
        rdi: u.rdi,
        orig_rax: u.orig_rax,
        rip: u.rip,
        rflags: (old.rflags & !USER_RFLAGS) | (u.eflags & USER_RFLAGS),
        rsp: u.rsp,
        fs_base: u.fs_base,
        gs_base: u.gs_base,
    }
}

/// Bytes of the part of an XSAVE image that FXSAVE has.
const FPREGS: usize = 512;

/// The XSAVE image as NT_X86_XSTATE has it: XCR0 in the software bytes, no end marker.
///
/// # Errors
/// EIO for an image that is too short.
pub(crate) fn xstate(mut image: Vec<u8>) -> Result<Vec<u8>> {
    // The software bytes from 464 on are a `struct _fpx_sw_bytes`: features at 8, size at 16.
    let word = |at: usize, n: usize| image.get(at..at + n).map(<[u8]>::to_vec).ok_or(Errno::EIO);
    let features = word(464 + 8, 8)?;
    let size = u32::from_ne_bytes(word(464 + 16, 4)?.try_into().map_err(|_| Errno::EIO)?) as usize;
    // At least the legacy area and the XSAVE header.
    image.truncate(size.max(FPREGS + 64));
    let sw = image.get_mut(464..512).ok_or(Errno::EIO)?;
    sw.fill(0);
    sw[..8].copy_from_slice(&features);
    Ok(image)
}
