//! ptrace(2) and seccomp(2).
//!
//! Sources: `linux/{ptrace,seccomp,filter}.h`, `asm/ptrace-abi.h`, `sys/user.h`.

consts! { "ptrace(2) requests.", u32; PTRACE_TRACEME = 0, PTRACE_PEEKTEXT = 1, PTRACE_PEEKDATA = 2,
PTRACE_PEEKUSR = 3, PTRACE_POKETEXT = 4,
PTRACE_POKEDATA = 5, PTRACE_POKEUSR = 6, PTRACE_CONT = 7, PTRACE_KILL = 8, PTRACE_SINGLESTEP = 9,
PTRACE_GETREGS = 12, PTRACE_SETREGS = 13,
PTRACE_GETFPREGS = 14, PTRACE_SETFPREGS = 15, PTRACE_ATTACH = 16, PTRACE_DETACH = 17, PTRACE_SYSCALL = 24,
PTRACE_GET_THREAD_AREA = 25,
PTRACE_SET_THREAD_AREA = 26, PTRACE_ARCH_PRCTL = 30, PTRACE_SYSEMU = 31, PTRACE_SYSEMU_SINGLESTEP = 32,
PTRACE_SINGLEBLOCK = 33,
PTRACE_SETOPTIONS = 0x4200, PTRACE_GETEVENTMSG = 0x4201, PTRACE_GETSIGINFO = 0x4202, PTRACE_SETSIGINFO = 0x4203,
PTRACE_GETREGSET = 0x4204,
PTRACE_SETREGSET = 0x4205, PTRACE_SEIZE = 0x4206, PTRACE_INTERRUPT = 0x4207, PTRACE_LISTEN = 0x4208,
PTRACE_PEEKSIGINFO = 0x4209,
PTRACE_GETSIGMASK = 0x420a, PTRACE_SETSIGMASK = 0x420b, PTRACE_SECCOMP_GET_FILTER = 0x420c,
PTRACE_SECCOMP_GET_METADATA = 0x420d,
PTRACE_GET_SYSCALL_INFO = 0x420e, PTRACE_GET_RSEQ_CONFIGURATION = 0x420f,
PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG = 0x4210,
PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG = 0x4211 }

flag_set! {
    /// Options of PTRACE_SETOPTIONS and PTRACE_SEIZE.
    PtraceOptions: u32, "PTRACE_O_" {
        TRACESYSGOOD = 1, TRACEFORK = 2, TRACEVFORK = 4, TRACECLONE = 8, TRACEEXEC = 16, TRACEVFORKDONE = 32,
        TRACEEXIT = 64, TRACESECCOMP = 128,
        EXITKILL = 1 << 20, SUSPEND_SECCOMP = 1 << 21,
    }
}
consts! { "Events in bits 8 and up of a ptrace stop's status, ptrace(2).", u32; PTRACE_EVENT_FORK = 1,
PTRACE_EVENT_VFORK = 2, PTRACE_EVENT_CLONE = 3,
PTRACE_EVENT_EXEC = 4, PTRACE_EVENT_VFORK_DONE = 5, PTRACE_EVENT_EXIT = 6, PTRACE_EVENT_SECCOMP = 7,
PTRACE_EVENT_STOP = 128 }
consts! { "`op` of PTRACE_GET_SYSCALL_INFO.", u8; PTRACE_SYSCALL_INFO_NONE = 0, PTRACE_SYSCALL_INFO_ENTRY = 1,
PTRACE_SYSCALL_INFO_EXIT = 2,
PTRACE_SYSCALL_INFO_SECCOMP = 3 }

guest_struct! {
    /// `struct user_regs_struct`, PTRACE_GETREGS and NT_PRSTATUS of PTRACE_GETREGSET.
    UserRegs: 216 { r15: u64, r14: u64, r13: u64, r12: u64, rbp: u64, rbx: u64, r11: u64, r10: u64, r9: u64, r8: u64,
        rax: u64, rcx: u64, rdx: u64,
        rsi: u64, rdi: u64, orig_rax: u64, rip: u64, cs: u64, eflags: u64, rsp: u64, ss: u64, fs_base: u64,
        gs_base: u64, ds: u64, es: u64, fs: u64,
        gs: u64 }
}
/// Bytes of `struct user`, PTRACE_PEEKUSR: registers first, debug registers from [`USER_DEBUGREG_OFFSET`].
pub const USER_SIZE: u64 = 912;
/// Where `u_debugreg[0]` is in `struct user`.
pub const USER_DEBUGREG_OFFSET: u64 = 848;

guest_struct! {
    /// `struct ptrace_syscall_info`: `data` is nr and args on entry, rval and is_error on exit.
    PtraceSyscallInfo: 88 { op: u8, reserved: u8, flags: u16, arch: u32, instruction_pointer: u64, stack_pointer: u64,
        data: [u64; 8] }
}
guest_struct! {
    /// `struct ptrace_peeksiginfo_args`.
    PtracePeeksiginfoArgs: 16 { off: u64, flags: u32, nr: i32 }
}
guest_struct! {
    /// `struct ptrace_rseq_configuration`.
    PtraceRseqConfiguration: 24 { rseq_abi_pointer: u64, rseq_abi_size: u32, signature: u32, flags: u32, pad: u32 }
}

consts! { "seccomp(2) operations.", u32; SECCOMP_SET_MODE_STRICT = 0, SECCOMP_SET_MODE_FILTER = 1,
SECCOMP_GET_ACTION_AVAIL = 2,
SECCOMP_GET_NOTIF_SIZES = 3 }
consts! { "Modes of prctl(PR_SET_SECCOMP).", u32; SECCOMP_MODE_DISABLED = 0, SECCOMP_MODE_STRICT = 1,
SECCOMP_MODE_FILTER = 2 }
consts! { "SECCOMP_SET_MODE_FILTER flags.", u32; SECCOMP_FILTER_FLAG_TSYNC = 1, SECCOMP_FILTER_FLAG_LOG = 2,
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4,
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8, SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 16,
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 32 }
consts! { "Results of seccomp filters, seccomp(2); the low 16 bits are data.", u32;
SECCOMP_RET_KILL_PROCESS = 0x8000_0000, SECCOMP_RET_KILL_THREAD = 0,
SECCOMP_RET_TRAP = 0x3_0000, SECCOMP_RET_ERRNO = 0x5_0000, SECCOMP_RET_USER_NOTIF = 0x7fc0_0000,
SECCOMP_RET_TRACE = 0x7ff0_0000,
SECCOMP_RET_LOG = 0x7ffc_0000, SECCOMP_RET_ALLOW = 0x7fff_0000, SECCOMP_RET_ACTION_FULL = 0xffff_0000,
SECCOMP_RET_DATA = 0xffff }
guest_struct! {
    /// `struct seccomp_data`: what a filter sees.
    SeccompData: 64 { nr: i32, arch: u32, instruction_pointer: u64, args: [u64; 6] }
}
guest_struct! {
    /// `struct sock_filter`: one instruction of classic BPF.
    SockFilter: 8 { code: u16, jt: u8, jf: u8, k: u32 }
}
guest_struct! {
    /// `struct sock_fprog`: a program of classic BPF.
    SockFprog: 16 { len: u16, pad: [u16; 3], filter: u64 }
}
/// Most instructions of one classic BPF program.
pub const BPF_MAXINSNS: u16 = 4096;
consts! { "Opcodes of classic BPF, `linux/bpf_common.h`.", u16; BPF_LD = 0, BPF_LDX = 1, BPF_ST = 2, BPF_STX = 3,
BPF_ALU = 4, BPF_JMP = 5, BPF_RET = 6,
BPF_MISC = 7, BPF_W = 0, BPF_H = 8, BPF_B = 16, BPF_IMM = 0, BPF_ABS = 0x20, BPF_IND = 0x40, BPF_MEM = 0x60,
BPF_LEN = 0x80, BPF_MSH = 0xa0,
BPF_ADD = 0, BPF_SUB = 0x10, BPF_MUL = 0x20, BPF_DIV = 0x30, BPF_OR = 0x40, BPF_AND = 0x50, BPF_LSH = 0x60,
BPF_RSH = 0x70, BPF_NEG = 0x80,
BPF_MOD = 0x90, BPF_XOR = 0xa0, BPF_JA = 0, BPF_JEQ = 0x10, BPF_JGT = 0x20, BPF_JGE = 0x30, BPF_JSET = 0x40,
BPF_K = 0, BPF_X = 8, BPF_A = 0x10,
BPF_TAX = 0, BPF_TXA = 0x80 }
