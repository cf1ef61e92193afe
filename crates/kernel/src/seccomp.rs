//! The guest's own seccomp filters: classic BPF over `struct seccomp_data`.
//!
//! Source: seccomp(2), `kernel/seccomp.c`, `bpf_check_classic` in `net/core/filter.c`. Not to be confused with the filters
//! that confine the sentry and the guest processes on the host.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::cap::Cap;
use moat_abi::ptrace::*;
use moat_abi::siginfo::{AUDIT_ARCH_X86_64, SigInfo};
use moat_abi::{Errno, Result};

use crate::task::CurrentTask;

/// Instructions of all filters of a task together (`MAX_INSNS_PER_PATH`), each filter counting 4 more.
const MAX_PER_PATH: usize = 32_768;
const SCRATCH: usize = 16;
const DATA_LEN: u32 = 64;

/// What a task's calls are checked by.
#[derive(Clone)]
pub enum Mode {
    /// read, write, exit and rt_sigreturn only.
    Strict,
    /// Filters, the newest first.
    Filter(Arc<Filter>),
}

/// A checked program, and those installed before it.
pub struct Filter {
    program: Vec<SockFilter>,
    previous: Option<Arc<Filter>>,
}

impl Filter {
    fn is_ancestor_of(self: &Arc<Filter>, other: &Arc<Filter>) -> bool {
        let mut at = Some(other);
        while let Some(f) = at {
            if Arc::ptr_eq(f, self) {
                return true;
            }
            at = f.previous.as_ref();
        }
        false
    }

    /// The result of highest precedence of all filters (`seccomp_run_filters`).
    fn run(&self, data: &SeccompData) -> u32 {
        let precedence = |r: u32| (r & SECCOMP_RET_ACTION_FULL).cast_signed();
        let mut result = evaluate(&self.program, data);
        let mut at = self.previous.as_ref();
        while let Some(f) = at {
            let other = evaluate(&f.program, data);
            if precedence(other) < precedence(result) {
                result = other;
            }
            at = f.previous.as_ref();
        }
        result
    }
}

/// Whether the other threads get the filter too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// The caller alone.
    No,
    /// `SECCOMP_FILTER_FLAG_TSYNC`.
    AllThreads,
}

/// Checks a program: known instructions, jumps inside, an end (`seccomp_check_filter`).
///
/// # Errors
/// EINVAL.
pub fn check(program: &[SockFilter]) -> Result<()> {
    if program.is_empty() || program.len() > usize::from(BPF_MAXINSNS) {
        return Err(Errno::EINVAL);
    }
    for (i, f) in program.iter().enumerate() {
        let left = program.len() - i - 1;
        // Jumps only go forward, so every program ends.
        let reaches = |by: usize| by < left;
        let fine = match f.code & 7 {
            BPF_LD => match f.code & !7 {
                BPF_ABS => f.k < DATA_LEN && f.k % 4 == 0,
                BPF_IMM | BPF_LEN => true,
                BPF_MEM => (f.k as usize) < SCRATCH,
                _ => false,
            },
            BPF_LDX => match f.code & !7 {
                BPF_IMM | BPF_LEN => true,
                BPF_MEM => (f.k as usize) < SCRATCH,
                _ => false,
            },
            BPF_ST | BPF_STX => f.code & !7 == 0 && (f.k as usize) < SCRATCH,
            BPF_ALU => alu_is_valid(f),
            BPF_JMP => match f.code & 0xf0 {
                BPF_JA => f.code & 8 == 0 && reaches(f.k as usize),
                BPF_JEQ | BPF_JGT | BPF_JGE | BPF_JSET => reaches(f.jt.into()) && reaches(f.jf.into()),
                _ => false,
            },
            BPF_RET => matches!(f.code & !7, BPF_K | BPF_A),
            _ => matches!(f.code & !7, BPF_TAX | BPF_TXA),
        };
        if !fine {
            return Err(Errno::EINVAL);
        }
    }
    let ends = program.last().is_some_and(|f| f.code & 7 == BPF_RET);
    if ends { Ok(()) } else { Err(Errno::EINVAL) }
}

fn alu_is_valid(f: &SockFilter) -> bool {
    let constant = f.code & BPF_X == 0;
    match f.code & 0xf0 {
        BPF_DIV | BPF_MOD => !constant || f.k != 0,
        BPF_LSH | BPF_RSH => !constant || f.k < 32,
        BPF_ADD | BPF_SUB | BPF_MUL | BPF_OR | BPF_AND | BPF_XOR => true,
        BPF_NEG => constant,
        _ => false,
    }
}

fn load(data: &SeccompData, at: u32) -> u32 {
    use zerocopy::IntoBytes;
    let at = at as usize;
    data.as_bytes().get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// Runs a checked program. Jumps go forward only, so it ends.
fn evaluate(program: &[SockFilter], data: &SeccompData) -> u32 {
    let (mut a, mut x, mut pc) = (0u32, 0u32, 0usize);
    let mut memory = [0u32; SCRATCH];
    let slot = |k: u32| (k as usize) % SCRATCH;
    while let Some(f) = program.get(pc) {
        pc += 1;
        let operand = if f.code & BPF_X != 0 { x } else { f.k };
        match f.code & 7 {
            BPF_LD => {
                a = match f.code & !7 {
                    BPF_ABS => load(data, f.k),
                    BPF_LEN => DATA_LEN,
                    BPF_MEM => memory[slot(f.k)],
                    _ => f.k,
                }
            }
            BPF_LDX => {
                x = match f.code & !7 {
                    BPF_LEN => DATA_LEN,
                    BPF_MEM => memory[slot(f.k)],
                    _ => f.k,
                }
            }
            BPF_ST => memory[slot(f.k)] = a,
            BPF_STX => memory[slot(f.k)] = x,
            BPF_ALU => match alu(f.code & 0xf0, a, operand) {
                Some(value) => a = value,
                // Division by zero ends a filter with 0: kill.
                None => return 0,
            },
            BPF_JMP => {
                let taken = match f.code & 0xf0 {
                    BPF_JA => {
                        pc += f.k as usize;
                        continue;
                    }
                    BPF_JEQ => a == operand,
                    BPF_JGT => a > operand,
                    BPF_JGE => a >= operand,
                    _ => a & operand != 0,
                };
                pc += usize::from(if taken { f.jt } else { f.jf });
            }
            BPF_RET => return if f.code & !7 == BPF_A { a } else { f.k },
            _ if f.code & !7 == BPF_TXA => a = x,
            _ => x = a,
        }
    }
    0
}

fn alu(operation: u16, a: u32, b: u32) -> Option<u32> {
    Some(match operation {
        BPF_ADD => a.wrapping_add(b),
        BPF_SUB => a.wrapping_sub(b),
        BPF_MUL => a.wrapping_mul(b),
        BPF_DIV => a.checked_div(b)?,
        BPF_MOD => a.checked_rem(b)?,
        BPF_OR => a | b,
        BPF_AND => a & b,
        BPF_XOR => a ^ b,
        BPF_LSH => a.checked_shl(b).unwrap_or(0),
        BPF_RSH => a.checked_shr(b).unwrap_or(0),
        _ => a.wrapping_neg(),
    })
}

/// Installs strict mode.
///
/// # Errors
/// EINVAL if a filter is installed.
pub fn set_strict(t: &CurrentTask) -> Result<()> {
    let mut s = t.state();
    if matches!(s.seccomp, Some(Mode::Filter(_))) {
        return Err(Errno::EINVAL);
    }
    s.seccomp = Some(Mode::Strict);
    drop(s);
    t.filtered.store(true, Ordering::Relaxed);
    Ok(())
}

/// Installs a filter; gives the id of a thread that could not be given it too, or 0.
///
/// # Errors
/// EACCES without no_new_privs or CAP_SYS_ADMIN; EINVAL for a bad program or strict mode; ENOMEM for too many instructions.
pub fn install(t: &CurrentTask, program: Vec<SockFilter>, sync: Sync) -> Result<i32> {
    if !t.creds().no_new_privs && !t.creds().has_cap(Cap::SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    check(&program)?;
    let previous = match t.state().seccomp.clone() {
        None => None,
        Some(Mode::Filter(f)) => Some(f),
        Some(Mode::Strict) => return Err(Errno::EINVAL),
    };
    let mut total = program.len() + 4;
    let mut at = previous.as_ref();
    while let Some(f) = at {
        total += f.program.len() + 4;
        at = f.previous.as_ref();
    }
    if total > MAX_PER_PATH {
        return Err(Errno::ENOMEM);
    }
    let others: Vec<_> = match sync {
        Sync::No => Vec::new(),
        Sync::AllThreads => t.group.threads().into_iter().filter(|x| x.id != t.id).collect(),
    };
    // All or none: a thread with a filter that the caller has not would lose it.
    for other in &others {
        let fits = match (&other.state().seccomp, &previous) {
            (None, _) => true,
            (Some(Mode::Filter(theirs)), Some(own)) => theirs.is_ancestor_of(own),
            (Some(_), _) => false,
        };
        if !fits {
            return Ok(other.tid_in(&t.pid_ns()));
        }
    }
    let mode = Mode::Filter(Arc::new(Filter { program, previous }));
    for task in others.iter().chain([t.task()]) {
        task.state().seccomp = Some(mode.clone());
        task.filtered.store(true, Ordering::Relaxed);
    }
    Ok(0)
}

/// What becomes of a call.
pub(crate) enum Verdict {
    /// It is made.
    Allow,
    /// It is not made; `rax` and signals are as they are to be.
    Skip,
}

/// Checks a call (`__secure_computing`).
pub(crate) async fn check_call(t: &mut CurrentTask, nr: u64, args: [u64; 6]) -> Verdict {
    let Some(mode) = t.state().seccomp.clone() else { return Verdict::Allow };
    let number = u32::try_from(nr).unwrap_or(u32::MAX);
    let filter = match mode {
        Mode::Strict => {
            use moat_abi::nr::{EXIT, READ, RT_SIGRETURN, WRITE};
            if [READ, WRITE, EXIT, RT_SIGRETURN].contains(&number) {
                return Verdict::Allow;
            }
            kill(t, 9);
            return Verdict::Skip;
        }
        Mode::Filter(f) => f,
    };
    let ip = t.thread().regs().rip;
    let data = SeccompData { nr: number.cast_signed(), arch: AUDIT_ARCH_X86_64, instruction_pointer: ip, args };
    let result = filter.run(&data);
    let value = (result & SECCOMP_RET_DATA) as u16;
    match result & SECCOMP_RET_ACTION_FULL {
        SECCOMP_RET_ALLOW | SECCOMP_RET_LOG => Verdict::Allow,
        SECCOMP_RET_ERRNO => {
            let code = i64::from(value.min(4095));
            t.thread().set_ret((-code).cast_unsigned());
            Verdict::Skip
        }
        SECCOMP_RET_TRAP => {
            t.thread().set_ret(nr);
            t.force_signal(SigInfo::seccomp(value, ip, number.cast_signed()));
            Verdict::Skip
        }
        SECCOMP_RET_TRACE => {
            if crate::ptrace::stop::wants_event(t, PTRACE_EVENT_SECCOMP) {
                crate::ptrace::stop::event(t, PTRACE_EVENT_SECCOMP, u64::from(value)).await;
                return Verdict::Allow;
            }
            t.thread().set_ret(Errno::ENOSYS.to_ret());
            Verdict::Skip
        }
        // Nobody can listen.
        SECCOMP_RET_USER_NOTIF => {
            t.thread().set_ret(Errno::ENOSYS.to_ret());
            Verdict::Skip
        }
        SECCOMP_RET_KILL_THREAD if t.group.thread_count() > 1 => {
            t.exit_status =
                Some(moat_abi::clone::WaitStatus::Signaled { signal: 31, core: moat_abi::clone::CoreDump::NotDumped });
            Verdict::Skip
        }
        _ => {
            kill(t, 31);
            Verdict::Skip
        }
    }
}

/// Ends the process as if by `signal`, whatever its action.
fn kill(t: &mut CurrentTask, signal: u8) {
    use moat_abi::clone::{CoreDump, WaitStatus};
    let status = WaitStatus::Signaled { signal, core: CoreDump::NotDumped };
    t.group.signals.lock().start_exit(status);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(code: u16, jt: u8, jf: u8, k: u32) -> SockFilter {
        SockFilter { code, jt, jf, k }
    }

    fn data(nr: i32) -> SeccompData {
        SeccompData { nr, arch: AUDIT_ARCH_X86_64, ..SeccompData::default() }
    }

    #[test]
    fn a_filter_decides_by_number() {
        let program = [
            op(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0),
            op(BPF_JMP | BPF_JEQ, 0, 1, 39),
            op(BPF_RET, 0, 0, SECCOMP_RET_ERRNO | 1),
            op(BPF_RET, 0, 0, SECCOMP_RET_ALLOW),
        ];
        assert_eq!(check(&program), Ok(()));
        assert_eq!(evaluate(&program, &data(39)), SECCOMP_RET_ERRNO | 1);
        assert_eq!(evaluate(&program, &data(40)), SECCOMP_RET_ALLOW);
    }

    #[test]
    fn bad_programs_are_refused() {
        let ret = op(BPF_RET, 0, 0, 0);
        for bad in [
            vec![],
            vec![op(BPF_LD | BPF_ABS, 0, 0, 64), ret],
            vec![op(BPF_LD | BPF_ABS, 0, 0, 2), ret],
            vec![op(BPF_LD | BPF_MEM, 0, 0, 16), ret],
            vec![op(BPF_JMP | BPF_JA, 0, 0, 1), ret],
            vec![op(BPF_JMP | BPF_JA, 0, 0, u32::MAX), ret],
            vec![op(BPF_JMP | BPF_JEQ, 1, 0, 0), ret],
            vec![op(BPF_ALU | BPF_DIV, 0, 0, 0), ret],
            vec![op(BPF_ALU | BPF_LSH, 0, 0, 32), ret],
            vec![op(BPF_LD | BPF_B | BPF_ABS, 0, 0, 0), ret],
            vec![ret, op(BPF_ALU, 0, 0, 0)],
        ] {
            assert_eq!(check(&bad), Err(Errno::EINVAL), "{bad:?}");
        }
    }

    #[test]
    fn the_strictest_of_several_filters_wins() {
        let with = |k, previous| Arc::new(Filter { program: vec![op(BPF_RET, 0, 0, k)], previous });
        let chain = with(SECCOMP_RET_ALLOW, Some(with(SECCOMP_RET_KILL_PROCESS, Some(with(SECCOMP_RET_ERRNO, None)))));
        assert_eq!(chain.run(&data(0)), SECCOMP_RET_KILL_PROCESS);
        // Division by zero at run time kills.
        let program = [op(BPF_ALU | BPF_DIV | BPF_X, 0, 0, 0), op(BPF_RET, 0, 0, SECCOMP_RET_ALLOW)];
        assert_eq!(check(&program), Ok(()));
        assert_eq!(evaluate(&program, &data(0)), 0);
    }
}
