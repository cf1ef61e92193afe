//! Classic BPF: checked programs, and their evaluation over whatever they are asked about (a system call, a packet).
//!
//! Source: `bpf_check_classic` and `___bpf_prog_run` in `net/core/filter.c` and `kernel/bpf/core.c`.
//!
//! # Invariants
//! - Jumps only go forward, so every run ends after at most as many steps as there are instructions.
#![forbid(unsafe_code)]

use moat_abi::ptrace::*;
use moat_abi::{Errno, Result};

const SCRATCH: usize = 16;

/// What programs may load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loads {
    /// Aligned words below this length: `struct seccomp_data`.
    Words {
        /// Bytes.
        len: u32,
    },
    /// Bytes, half-words and words at any offset, also an indirect one: packets.
    Packet,
}

/// How much is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Size {
    Byte,
    Half,
    Word,
}

impl Size {
    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Size::Byte => 1,
            Size::Half => 2,
            Size::Word => 4,
        }
    }

    const fn of(code: u16) -> Option<Size> {
        match code & 0x18 {
            BPF_W => Some(Size::Word),
            BPF_H => Some(Size::Half),
            BPF_B => Some(Size::Byte),
            _ => None,
        }
    }
}

/// What a program loads from.
pub trait Input {
    /// Its length (`BPF_LEN`).
    fn length(&self) -> u32;

    /// The value at `offset`; `None` ends the run without a result.
    fn load(&self, offset: u32, size: Size) -> Option<u32>;
}

/// Instructions that have been checked: every run of them ends.
#[derive(Clone, Debug)]
pub struct Program(Vec<SockFilter>);

impl Program {
    /// Checks instructions: all known, jumps inside, an end.
    ///
    /// # Errors
    /// EINVAL.
    pub fn new(instructions: Vec<SockFilter>, loads: Loads) -> Result<Program> {
        check(&instructions, loads)?;
        Ok(Program(instructions))
    }

    /// Its instructions.
    #[must_use]
    pub fn instructions(&self) -> &[SockFilter] {
        &self.0
    }

    /// How many instructions it has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Its result; `None` where a load was not possible.
    pub fn run(&self, input: &impl Input) -> Option<u32> {
        evaluate(&self.0, input)
    }
}

/// A number of an instruction as an index; this machine has 64 bits.
fn index(k: u32) -> usize {
    usize::try_from(k).unwrap_or(usize::MAX)
}

fn check(program: &[SockFilter], loads: Loads) -> Result<()> {
    if program.is_empty() || program.len() > usize::from(BPF_MAXINSNS) {
        return Err(Errno::EINVAL);
    }
    let in_scratch = |k: u32| index(k) < SCRATCH;
    for (i, f) in program.iter().enumerate() {
        let left = program.len().saturating_sub(i).saturating_sub(1);
        // Jumps only go forward, so every program ends.
        let reaches = |by: usize| by < left;
        let fine = match f.code & 7 {
            BPF_LD => match (f.code & 0xe0, loads) {
                (BPF_ABS, Loads::Words { len }) => f.code & 0x18 == BPF_W && f.k < len && f.k % 4 == 0,
                (BPF_ABS | BPF_IND, Loads::Packet) => Size::of(f.code).is_some(),
                (BPF_IMM | BPF_LEN, _) => f.code & 0x18 == BPF_W,
                (BPF_MEM, _) => f.code & 0x18 == BPF_W && in_scratch(f.k),
                _ => false,
            },
            BPF_LDX => match (f.code & 0xe0, loads) {
                (BPF_MSH, Loads::Packet) => f.code & 0x18 == BPF_B,
                (BPF_IMM | BPF_LEN, _) => f.code & 0x18 == BPF_W,
                (BPF_MEM, _) => f.code & 0x18 == BPF_W && in_scratch(f.k),
                _ => false,
            },
            BPF_ST | BPF_STX => f.code & !7 == 0 && in_scratch(f.k),
            BPF_ALU => alu_is_valid(f),
            BPF_JMP => match f.code & 0xf0 {
                BPF_JA => f.code & 8 == 0 && reaches(index(f.k)),
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
    // As jumps only go forward, every path then ends in a return.
    let ends = program.last().is_some_and(|f| f.code & 7 == BPF_RET);
    if ends { Ok(()) } else { Err(Errno::EINVAL) }
}

fn alu_is_valid(f: &SockFilter) -> bool {
    let constant = f.code & BPF_X == 0;
    match f.code & 0xf0 {
        // Constants are checked here, registers at run time.
        BPF_DIV | BPF_MOD => !constant || f.k != 0,
        BPF_LSH | BPF_RSH => !constant || f.k < 32,
        BPF_ADD | BPF_SUB | BPF_MUL | BPF_OR | BPF_AND | BPF_XOR => true,
        BPF_NEG => constant,
        _ => false,
    }
}

/// Runs a checked program.
fn evaluate(program: &[SockFilter], input: &impl Input) -> Option<u32> {
    let (mut a, mut x, mut pc) = (0u32, 0u32, 0usize);
    let mut memory = [0u32; SCRATCH];
    // Checked before; the remainder only keeps this from ever panicking.
    let slot = |k: u32| index(k) % SCRATCH;
    while let Some(f) = program.get(pc) {
        pc = pc.saturating_add(1);
        let operand = if f.code & BPF_X != 0 { x } else { f.k };
        match f.code & 7 {
            BPF_LD => {
                let size = Size::of(f.code).unwrap_or(Size::Word);
                a = match f.code & 0xe0 {
                    BPF_ABS => input.load(f.k, size)?,
                    BPF_IND => input.load(x.checked_add(f.k)?, size)?,
                    BPF_LEN => input.length(),
                    BPF_MEM => memory[slot(f.k)],
                    _ => f.k,
                }
            }
            BPF_LDX => {
                x = match f.code & 0xe0 {
                    // The length of an IPv4 header.
                    BPF_MSH => (input.load(f.k, Size::Byte)? & 15) << 2,
                    BPF_LEN => input.length(),
                    BPF_MEM => memory[slot(f.k)],
                    _ => f.k,
                }
            }
            BPF_ST => memory[slot(f.k)] = a,
            BPF_STX => memory[slot(f.k)] = x,
            BPF_ALU => match alu(f.code & 0xf0, a, operand) {
                Some(value) => a = value,
                // Division by zero ends a filter with 0: kill, or drop.
                None => return Some(0),
            },
            BPF_JMP => {
                let taken = match f.code & 0xf0 {
                    BPF_JA => {
                        pc = pc.saturating_add(index(f.k));
                        continue;
                    }
                    BPF_JEQ => a == operand,
                    BPF_JGT => a > operand,
                    BPF_JGE => a >= operand,
                    _ => a & operand != 0,
                };
                pc = pc.saturating_add(usize::from(if taken { f.jt } else { f.jf }));
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
        // The amount counts modulo 32, as in the instructions that Linux compiles these to.
        BPF_LSH => a.wrapping_shl(b),
        BPF_RSH => a.wrapping_shr(b),
        _ => a.wrapping_neg(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(code: u16, jt: u8, jf: u8, k: u32) -> SockFilter {
        SockFilter { code, jt, jf, k }
    }

    struct Bytes<'a>(&'a [u8]);

    impl Input for Bytes<'_> {
        fn length(&self) -> u32 {
            u32::try_from(self.0.len()).unwrap()
        }

        fn load(&self, offset: u32, size: Size) -> Option<u32> {
            let at = usize::try_from(offset).ok()?;
            let bytes = self.0.get(at..at.checked_add(size.bytes())?)?;
            Some(bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
        }
    }

    const SECCOMP: Loads = Loads::Words { len: 64 };

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
            vec![op(BPF_LDX | BPF_B | BPF_MSH, 0, 0, 0), ret],
            vec![ret, op(BPF_ALU, 0, 0, 0)],
        ] {
            assert!(Program::new(bad.clone(), SECCOMP).is_err(), "{bad:?}");
        }
        for bad in [vec![op(BPF_LD | 0x18 | BPF_ABS, 0, 0, 0), ret], vec![op(BPF_LDX | BPF_H | BPF_MSH, 0, 0, 0), ret]]
        {
            assert!(Program::new(bad.clone(), Loads::Packet).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn division_by_zero_gives_0() {
        let program = vec![op(BPF_ALU | BPF_DIV | BPF_X, 0, 0, 0), op(BPF_RET, 0, 0, 7)];
        assert_eq!(Program::new(program, SECCOMP).unwrap().run(&Bytes(&[])), Some(0));
    }

    #[test]
    fn a_packet_is_judged_by_its_headers() {
        // "udp port 53" over an IPv4 header, as compilers of such expressions write it.
        let program = Program::new(
            vec![
                op(BPF_LD | BPF_B | BPF_ABS, 0, 0, 9),
                op(BPF_JMP | BPF_JEQ, 0, 3, 17),
                op(BPF_LDX | BPF_B | BPF_MSH, 0, 0, 0),
                op(BPF_LD | BPF_H | BPF_IND, 0, 0, 2),
                op(BPF_JMP | BPF_JEQ, 1, 0, 53),
                op(BPF_RET, 0, 0, 0),
                op(BPF_RET, 0, 0, 0xffff),
            ],
            Loads::Packet,
        )
        .unwrap();
        let mut packet = vec![0u8; 24];
        (packet[0], packet[9], packet[23]) = (0x45, 17, 53);
        assert_eq!(program.run(&Bytes(&packet)), Some(0xffff));
        packet[23] = 54;
        assert_eq!(program.run(&Bytes(&packet)), Some(0));
        assert_eq!(program.run(&Bytes(&packet[..22])), None, "a load beyond the end");
    }
}
