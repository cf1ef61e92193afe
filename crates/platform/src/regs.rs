//! [`Regs`]: the general registers of a guest thread.

/// The general-purpose registers of a guest thread at its last stop.
///
/// Field names and meaning are those of `struct user_regs_struct` (sys/user.h). `orig_rax` is the
/// number of the syscall that the thread stopped in, or -1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Regs {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub rip: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub fs_base: u64,
    pub gs_base: u64,
}

/// The flags that user code may set in `rflags` (CF PF AF ZF SF TF DF OF RF NT AC ID).
pub const USER_RFLAGS: u64 = 0x0000_0000_0025_4dd5;
/// The trap flag: one #DB after the next instruction.
pub const RFLAGS_TF: u64 = 1 << 8;

impl Regs {
    /// Six syscall arguments in order.
    #[must_use]
    pub fn syscall_args(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }
}
