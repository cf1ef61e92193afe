//! The seccomp filter of guest processes: belt and braces.
//!
//! Guest code never gets here, because PTRACE_SYSEMU skips its system calls before seccomp sees them, with one exception:
//! a call into the vsyscall page, which the host emulates in its page-fault handler. So the filter sees what the tracer
//! injects, and those three numbers, which it turns into a SIGSYS for the tracer.

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS,
    SECCOMP_RET_TRAP, sock_filter,
};
use moat_host::ptrace::AUDIT_ARCH_X86_64;

/// What the tracer injects once a process is blank.
const INJECTED: &[i64] = &[
    libc::SYS_mmap,            // orders.rs: Mmap
    libc::SYS_munmap,          // orders.rs: Munmap
    libc::SYS_mprotect,        // orders.rs: Mprotect
    libc::SYS_mremap,          // orders.rs: Mremap
    libc::SYS_madvise,         // orders.rs: Madvise
    libc::SYS_mlock2,          // orders.rs: Mlock
    libc::SYS_munlock,         // orders.rs: Mlock
    libc::SYS_recvmsg,         // orders.rs: Mmap of a file: takes the descriptor
    libc::SYS_close,           // orders.rs: and drops it; EndWatch
    libc::SYS_userfaultfd,     // orders.rs: WatchWrites
    libc::SYS_clone,           // family.rs: fork, spawn, blank processes
    libc::SYS_exit,            // family.rs: a thread whose handle was dropped
    libc::SYS_restart_syscall, // the host itself, for a call that a signal interrupted
];

/// The numbers that the host's vsyscall emulation shows to seccomp.
const VSYSCALL: &[i64] = &[libc::SYS_gettimeofday, libc::SYS_time, libc::SYS_getcpu];

// Offsets in struct seccomp_data (linux/seccomp.h).
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARG0_LOW: u32 = 16;

/// A jump target that [`Assembler::finish`] resolves.
#[derive(Clone, Copy)]
enum To {
    Next,
    Allow,
    Trap,
    Kill,
}

/// Instructions whose jumps are still symbolic.
#[derive(Default)]
struct Assembler {
    code: Vec<(sock_filter, To, To)>,
}

impl Assembler {
    fn load(&mut self, offset: u32) {
        self.code.push((instruction(BPF_LD | BPF_W | BPF_ABS, offset), To::Next, To::Next));
    }

    fn equal(&mut self, value: u32, then: To, otherwise: To) {
        self.code.push((instruction(BPF_JMP | BPF_JEQ | BPF_K, value), then, otherwise));
    }

    /// Resolves the jumps. `None` if one is out of the reach of a jump (255).
    fn finish(self) -> Option<Vec<sock_filter>> {
        let len = self.code.len();
        let jump = |at: usize, to: To| match to {
            To::Next => Some(0),
            To::Kill => u8::try_from(len - at - 1).ok(),
            To::Trap => u8::try_from(len - at).ok(),
            To::Allow => u8::try_from(len - at + 1).ok(),
        };
        let mut out = Vec::with_capacity(len + 3);
        for (at, (mut ins, then, otherwise)) in self.code.into_iter().enumerate() {
            (ins.jt, ins.jf) = (jump(at, then)?, jump(at, otherwise)?);
            out.push(ins);
        }
        out.push(instruction(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
        out.push(instruction(BPF_RET | BPF_K, SECCOMP_RET_TRAP));
        out.push(instruction(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
        Some(out)
    }
}

fn instruction(code: u32, k: u32) -> sock_filter {
    // All opcodes used here are below 256.
    sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt: 0, jf: 0, k }
}

/// The program. `None` would be a table too long for its jumps.
pub(crate) fn program() -> Option<Vec<sock_filter>> {
    let mut asm = Assembler::default();
    let number = |nr: i64| u32::try_from(nr).ok();
    asm.load(ARCH);
    asm.equal(AUDIT_ARCH_X86_64, To::Next, To::Kill);
    asm.load(NR);
    for &nr in INJECTED {
        asm.equal(number(nr)?, To::Allow, To::Next);
    }
    for &nr in VSYSCALL {
        asm.equal(number(nr)?, To::Trap, To::Next);
    }
    // orders.rs: SetName.
    asm.equal(number(libc::SYS_prctl)?, To::Next, To::Kill);
    asm.load(ARG0_LOW);
    asm.equal(libc::PR_SET_NAME.cast_unsigned(), To::Allow, To::Kill);
    asm.finish()
}

/// The program as the bytes that seccomp(2) reads.
pub(crate) fn bytes(program: &[sock_filter]) -> Vec<u8> {
    let mut out = Vec::with_capacity(program.len() * 8);
    for ins in program {
        out.extend_from_slice(&ins.code.to_ne_bytes());
        out.extend_from_slice(&[ins.jt, ins.jf]);
        out.extend_from_slice(&ins.k.to_ne_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BPF interpreter for the three kinds of instruction used.
    fn run(arch: u32, nr: u32, arg0: u32) -> u32 {
        let program = program().unwrap();
        let (mut pc, mut acc) = (0, 0);
        loop {
            let ins = program[pc];
            pc += 1;
            match u32::from(ins.code) {
                c if c == BPF_LD | BPF_W | BPF_ABS => {
                    acc = match ins.k {
                        NR => nr,
                        ARCH => arch,
                        _ => arg0,
                    }
                }
                c if c == BPF_JMP | BPF_JEQ | BPF_K => pc += usize::from(if acc == ins.k { ins.jt } else { ins.jf }),
                _ => return ins.k,
            }
        }
    }

    #[test]
    fn allows_what_the_tracer_injects_and_nothing_else() {
        for nr in 0..600u32 {
            let want = match i64::from(nr) {
                n if INJECTED.contains(&n) => SECCOMP_RET_ALLOW,
                n if VSYSCALL.contains(&n) => SECCOMP_RET_TRAP,
                _ => SECCOMP_RET_KILL_PROCESS,
            };
            assert_eq!(run(AUDIT_ARCH_X86_64, nr, 0), want, "{nr}");
            assert_eq!(run(0x4000_0003, nr, 0), SECCOMP_RET_KILL_PROCESS);
        }
        let prctl = u32::try_from(libc::SYS_prctl).unwrap();
        assert_eq!(run(AUDIT_ARCH_X86_64, prctl, libc::PR_SET_NAME.cast_unsigned()), SECCOMP_RET_ALLOW);
        assert_eq!(run(AUDIT_ARCH_X86_64, 0x4000_0009, 0), SECCOMP_RET_KILL_PROCESS);
    }
}
