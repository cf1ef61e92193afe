//! The signal frame of x86-64: what the kernel puts on the stack for a handler.
//!
//! Upwards from the stack pointer at entry: return address (`sa_restorer`), [`Ucontext`], `siginfo_t`;
//! above them, 64-byte aligned, the extended state ([`FpState`] and the rest of the XSAVE area, ended by
//! [`FP_XSTATE_MAGIC2`]). Sources: `arch/x86/include/uapi/asm/{sigcontext,ucontext}.h`, `arch/x86/kernel/signal_64.c`.

use crate::siginfo::SigInfo;
use crate::signal::{SigSet, StackT};

/// Bytes below the stack pointer that a function may use: a frame never touches them.
pub const REDZONE: u64 = 128;
/// `cs` of 64-bit user code.
pub const USER_CS: u16 = 0x33;
/// `ss` of user code.
pub const USER_DS: u16 = 0x2b;
consts! { "`uc_flags` of the frame, `asm/ucontext.h`.", u64; UC_FP_XSTATE = 1, UC_SIGCONTEXT_SS = 2,
UC_STRICT_RESTORE_SS = 4 }
consts! { "Markers of the extended state in the frame, `asm/sigcontext.h`.", u32; FP_XSTATE_MAGIC1 = 0x4650_5853,
FP_XSTATE_MAGIC2 = 0x4650_5845 }

guest_struct! {
    /// `struct sigcontext` of x86-64.
    Sigcontext: 256 {
        r8: u64, r9: u64, r10: u64, r11: u64, r12: u64, r13: u64, r14: u64, r15: u64,
        rdi: u64, rsi: u64, rbp: u64, rbx: u64, rdx: u64, rax: u64, rcx: u64, rsp: u64, rip: u64, eflags: u64,
        cs: u16, gs: u16, fs: u16, ss: u16, err: u64, trapno: u64, oldmask: u64, cr2: u64, fpstate: u64,
        reserved: [u64; 8],
    }
}

guest_struct! {
    /// `struct ucontext` of the kernel (glibc's `ucontext_t` is longer).
    Ucontext: 304 { uc_flags: u64, uc_link: u64, uc_stack: StackT, uc_mcontext: Sigcontext, uc_sigmask: SigSet }
}

guest_struct! {
    /// `struct rt_sigframe`: what the stack pointer points to when a handler starts.
    RtSigframe: 440 { pretcode: u64, uc: Ucontext, info: SigInfo }
}

guest_struct! {
    /// `struct _fpx_sw_bytes`: the software-reserved end of [`FpState`].
    FpxSwBytes: 48 { magic1: u32, extended_size: u32, xfeatures: u64, xstate_size: u32, padding: [u32; 7] }
}

guest_struct! {
    /// `struct _fpstate`: the FXSAVE image.
    FpState: 512 {
        cwd: u16, swd: u16, twd: u16, fop: u16, rip: u64, rdp: u64, mxcsr: u32, mxcr_mask: u32,
        st_space: [u32; 32], xmm_space: [u32; 64], reserved2: [u32; 12], sw_reserved: FpxSwBytes,
    }
}

guest_struct! {
    /// `struct _header` of the XSAVE area, at offset 512.
    XsaveHeader: 64 { xfeatures: u64, reserved1: [u64; 2], reserved2: [u64; 5] }
}

/// Control word of a fresh FPU.
pub const FPU_DEFAULT_CWD: u16 = 0x37f;
/// MXCSR of a fresh program.
pub const MXCSR_DEFAULT: u32 = 0x1f80;

const _: () = assert!(core::mem::offset_of!(RtSigframe, info) == 312);
const _: () = assert!(core::mem::offset_of!(Ucontext, uc_mcontext) == 40);
const _: () = assert!(core::mem::offset_of!(Sigcontext, fpstate) == 184);
const _: () = assert!(core::mem::offset_of!(FpState, sw_reserved) == 464);
