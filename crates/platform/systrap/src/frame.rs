//! The kernel's signal frame on x86-64 (`struct rt_sigframe`), as the sentry reads and writes it in an area.

use moat_platform::Regs;
use moat_stub::layout::MAX_EXTENDED;

/// Offsets from the start of the frame.
pub mod at {
    /// `uc.uc_stack.ss_sp`: sigreturn makes this the thread's signal stack.
    pub const STACK_SP: u64 = 8 + 16;
    /// `uc.uc_mcontext`: r8 to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags.
    pub const GREGS: u64 = 8 + 40;
    /// rax in it.
    pub const RAX: u64 = GREGS + 13 * 8;
    /// rbx in it.
    pub const RBX: u64 = GREGS + 11 * 8;
    /// rip in it.
    pub const RIP: u64 = GREGS + 16 * 8;
    /// The flags in it.
    pub const RFLAGS: u64 = GREGS + 17 * 8;
    /// `err`, `trapno` follow eflags and the segment registers.
    pub const ERR: u64 = GREGS + 19 * 8;
    /// The vector.
    pub const TRAPNO: u64 = GREGS + 20 * 8;
    /// The address of the extended state.
    pub const FPSTATE: u64 = GREGS + 23 * 8;
    /// `info.si_code` (with `si_errno` in the lower half of the word before).
    pub const SI_CODE: u64 = 8 + 304 + 8;
    /// `info.si_addr`, or `si_call_addr` of SIGSYS.
    pub const SI_ADDR: u64 = 8 + 304 + 16;
    /// SIGSYS: `si_syscall` and `si_arch`.
    pub const SI_SYSCALL: u64 = 8 + 304 + 24;
}

/// Whether the processor takes an address: the sign of bit 47 is in all bits above.
pub fn canonical(addr: u64) -> bool {
    (addr.cast_signed() << 16 >> 16).cast_unsigned() == addr
}

/// Words of general registers in a frame.
pub const GREG_COUNT: usize = 18;

/// The words of a frame as registers; the bases and `orig_rax` are elsewhere.
pub fn regs_from_words(w: &[u64; GREG_COUNT]) -> Regs {
    Regs {
        r8: w[0],
        r9: w[1],
        r10: w[2],
        r11: w[3],
        r12: w[4],
        r13: w[5],
        r14: w[6],
        r15: w[7],
        rdi: w[8],
        rsi: w[9],
        rbp: w[10],
        rbx: w[11],
        rdx: w[12],
        rax: w[13],
        rcx: w[14],
        rsp: w[15],
        rip: w[16],
        rflags: w[17],
        ..Regs::default()
    }
}

/// The other way.
pub fn words_from_regs(r: &Regs) -> [u64; GREG_COUNT] {
    [
        r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rbp, r.rbx, r.rdx, r.rax, r.rcx, r.rsp,
        r.rip, r.rflags,
    ]
}

/// Where the host puts a frame in an area: the same place at every stop, as the signal stack is the same.
#[derive(Clone, Copy, Debug)]
pub struct FrameLayout {
    /// Offset of the frame.
    pub frame: u64,
    /// Offset of the extended state.
    pub fpstate: u64,
    /// Its bytes, `FP_XSTATE_MAGIC2` included.
    pub fp_len: u64,
}

/// Offset of `sw_reserved` in the extended state, and its magic numbers.
const SW_RESERVED: usize = 464;
/// First word of `sw_reserved`.
pub const MAGIC1: u32 = 0x4650_5853;
/// Offset of `sw_reserved.extended_size`.
pub const EXTENDED_SIZE: u64 = SW_RESERVED as u64 + 4;

/// The components of an extended state, if it says what it has and the stub has room for as much.
pub fn components(image: &[u8]) -> Option<u64> {
    let word = |at: usize| image.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes);
    let magic = word(SW_RESERVED)? & u64::from(u32::MAX);
    let all = word(SW_RESERVED.saturating_add(8))?;
    let fits = (STATE_HEADER.end..=MAX_EXTENDED).contains(&image.len());
    (magic == u64::from(MAGIC1) && fits).then_some(all)
}

/// In the extended state, what XSAVE leaves to software, and the header, which it does not write all of.
pub const STATE_HEADER: std::ops::Range<usize> = SW_RESERVED..512 + 64;

/// The extended state of a fresh program, made from any image of the same host.
pub fn fresh_fpu(image: &[u8]) -> Vec<u8> {
    let mut fresh = vec![0; image.len()];
    fresh[..2].copy_from_slice(&0x37fu16.to_le_bytes()); // FCW
    fresh[24..28].copy_from_slice(&0x1f80u32.to_le_bytes()); // MXCSR
    fresh[28..32].copy_from_slice(&image[28..32]); // MXCSR_MASK
    // sw_reserved, and the second magic number behind the state; xstate_bv 0 = everything in its initial state.
    fresh[SW_RESERVED..512].copy_from_slice(&image[SW_RESERVED..512]);
    let end = image.len() - 4;
    fresh[end..].copy_from_slice(&image[end..]);
    fresh
}
