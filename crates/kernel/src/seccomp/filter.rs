//! Filter programs: their check, their interpreter, and the chain of those that a task has.

use std::sync::Arc;

use moat_abi::ptrace::*;
use moat_abi::{Errno, Result};

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
    pub(super) program: Vec<SockFilter>,
    pub(super) previous: Option<Arc<Filter>>,
}

impl Filter {
    pub(super) fn is_ancestor_of(self: &Arc<Filter>, other: &Arc<Filter>) -> bool {
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
    pub(super) fn run(&self, data: &SeccompData) -> u32 {
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

#[cfg(test)]
mod tests {
    use moat_abi::siginfo::AUDIT_ARCH_X86_64;

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
