//! [`Event`]: why a guest thread stopped running application code.

use moat_abi::Errno;

/// Why a guest thread stopped. Every field comes from the guest or its host thread and is hostile.
#[derive(Clone, Debug)]
pub enum Event {
    /// A system call instruction. Read further registers with [`crate::GuestThread::regs`].
    Syscall {
        /// The number in `rax`, unchecked.
        nr: u64,
        /// rdi, rsi, rdx, r10, r8, r9.
        args: [u64; 6],
    },
    /// A call that the host was to carry out ([`crate::HostFutex`]) and has not, for a kick came: registers as after
    /// [`Event::Syscall`].
    Unfinished {
        /// The number in `rax`, unchecked.
        nr: u64,
        /// When it began, and may have been waiting since: on the monotonic clock, by the thread's own word.
        began_ns: u64,
    },
    /// A 32-bit or otherwise foreign entry (int 0x80, x32, the vsyscall page).
    ForeignSyscall(ForeignAbi),
    /// A processor exception.
    Fault(Fault),
    /// What a handler was to begin with ([`crate::GuestThread::enter_handler`]) could not be written: the registers are those of what it
    /// was to interrupt.
    Unwritten,
    /// [`crate::Kick::kick`] took effect: the thread left application code for no reason of its own.
    Interrupted,
    /// A deferred order failed. The thread did not resume application code.
    OrderFailed(Errno),
    /// The host thread or process is gone: killed by the host (out of memory), or by a seccomp rule.
    Died,
}

/// A way into the kernel that moat's guests do not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignAbi {
    /// `int 0x80` or `sysenter`: the i386 table.
    I386,
    /// A call into the legacy vsyscall page (`rip` is 0xffffffffff600000 + 0x400 * n).
    Vsyscall,
}

/// A processor exception, as the host reported it by a signal.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The host signal: SIGSEGV, SIGBUS, SIGFPE, SIGILL or SIGTRAP.
    pub signal: i32,
    /// `si_code`.
    pub code: i32,
    /// `si_addr`.
    pub addr: u64,
    /// The vector number (14 = page fault), `sigcontext.trapno`.
    pub trapno: u64,
    /// The error code, `sigcontext.err` (bit 1: a write, bit 4: an instruction fetch).
    pub err: u64,
}
