//! [`Program`]: a checked program of classic BPF over `struct seccomp_data`.
//!
//! Source: `bpf_check_classic` in `net/core/filter.c`; `seccomp_check_filter` and `seccomp_is_const_allow` in `kernel/seccomp.c`.

use moat_abi::ptrace::*;
use moat_abi::siginfo::AUDIT_ARCH_X86_64;
use moat_abi::{Errno, Result};

const SCRATCH: usize = 16;
const DATA_LEN: u32 = 64;
/// Offsets in `struct seccomp_data`.
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;

/// Instructions that have been checked: every run of them ends, and with a result.
pub(super) struct Program(Vec<SockFilter>);

/// What a program loads from.
trait Input {
    /// The word at `offset`, a multiple of 4 below 64; `None` ends the run without a result.
    fn word(&self, offset: u32) -> Option<u32>;
}

impl Input for SeccompData {
    fn word(&self, offset: u32) -> Option<u32> {
        use zerocopy::IntoBytes;
        let at = usize::try_from(offset).ok()?;
        self.as_bytes().get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes)
    }
}

/// Any call of one number: its arguments and where it was made are not known.
struct AnyCall(u32);

impl Input for AnyCall {
    fn word(&self, offset: u32) -> Option<u32> {
        match offset {
            OFFSET_NR => Some(self.0),
            OFFSET_ARCH => Some(AUDIT_ARCH_X86_64),
            _ => None,
        }
    }
}

impl Program {
    /// Checks instructions: all known, jumps inside, an end.
    ///
    /// # Errors
    /// EINVAL.
    pub(super) fn new(instructions: Vec<SockFilter>) -> Result<Program> {
        check(&instructions)?;
        Ok(Program(instructions))
    }

    /// The number of its instructions.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Its result for a call.
    pub(super) fn run(&self, data: &SeccompData) -> u32 {
        // Every word can be loaded. Should a run yet end without a result: 0 kills.
        evaluate(&self.0, data).unwrap_or(0)
    }

    /// Its result for calls of this number, if that depends on nothing else.
    pub(super) fn result_by_number(&self, nr: u32) -> Option<u32> {
        evaluate(&self.0, &AnyCall(nr))
    }
}

fn check(program: &[SockFilter]) -> Result<()> {
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

/// Runs a checked program. Jumps go forward only, so it ends.
fn evaluate(program: &[SockFilter], input: &impl Input) -> Option<u32> {
    let (mut a, mut x, mut pc) = (0u32, 0u32, 0usize);
    let mut memory = [0u32; SCRATCH];
    let slot = |k: u32| (k as usize) % SCRATCH;
    while let Some(f) = program.get(pc) {
        pc += 1;
        let operand = if f.code & BPF_X != 0 { x } else { f.k };
        match f.code & 7 {
            BPF_LD => {
                a = match f.code & !7 {
                    BPF_ABS => input.word(f.k)?,
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
                None => return Some(0),
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
            BPF_RET => return Some(if f.code & !7 == BPF_A { a } else { f.k }),
            _ if f.code & !7 == BPF_TXA => a = x,
            _ => x = a,
        }
    }
    None
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
    use super::*;

    fn op(code: u16, jt: u8, jf: u8, k: u32) -> SockFilter {
        SockFilter { code, jt, jf, k }
    }

    fn data(nr: i32) -> SeccompData {
        SeccompData { nr, arch: AUDIT_ARCH_X86_64, ..SeccompData::default() }
    }

    #[test]
    fn a_filter_decides_by_number() {
        let program = Program::new(vec![
            op(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0),
            op(BPF_JMP | BPF_JEQ, 0, 1, 39),
            op(BPF_RET, 0, 0, SECCOMP_RET_ERRNO | 1),
            op(BPF_RET, 0, 0, SECCOMP_RET_ALLOW),
        ])
        .unwrap();
        for (nr, expected) in [(39, SECCOMP_RET_ERRNO | 1), (40, SECCOMP_RET_ALLOW)] {
            assert_eq!(program.run(&data(nr)), expected);
            assert_eq!(program.result_by_number(nr.cast_unsigned()), Some(expected));
        }
    }

    #[test]
    fn a_result_by_argument_is_not_one_by_number() {
        let program = Program::new(vec![
            op(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0),
            op(BPF_JMP | BPF_JEQ, 1, 0, 39),
            op(BPF_RET, 0, 0, SECCOMP_RET_ALLOW),
            op(BPF_LD | BPF_W | BPF_ABS, 0, 0, 16),
            op(BPF_RET | BPF_A, 0, 0, 0),
        ])
        .unwrap();
        assert_eq!(program.result_by_number(39), None);
        assert_eq!(program.result_by_number(40), Some(SECCOMP_RET_ALLOW));
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
    fn division_by_zero_kills() {
        let program = [op(BPF_ALU | BPF_DIV | BPF_X, 0, 0, 0), op(BPF_RET, 0, 0, SECCOMP_RET_ALLOW)];
        assert_eq!(Program::new(program.to_vec()).unwrap().run(&data(0)), 0);
    }
}
