//! Putting classic BPF programs together.
//!
//! seccompiler compares call numbers one after the other. The kernel runs the whole program for every number there is
//! when a filter is installed, which takes longer than all else that boot does, and again for each call with
//! conditions; so the calls are split into parts, which a binary search finds.

use seccompiler::{BpfProgram, sock_filter};

/// `offsetof(struct seccomp_data, nr)`.
const NR: u32 = 0;
/// `offsetof(struct seccomp_data, args[0])`, its lower half.
const FIRST_ARGUMENT: u32 = 16;
/// BPF_LD | BPF_W | BPF_ABS.
const LOAD: u16 = 0x20;
/// BPF_JMP | BPF_JEQ | BPF_K.
const JUMP_EQUAL: u16 = 0x15;
/// BPF_JMP | BPF_JGE | BPF_K.
const JUMP_GREATER_EQUAL: u16 = 0x35;
/// BPF_JMP | BPF_JA.
const JUMP: u16 = 0x05;
/// BPF_RET | BPF_K.
const RETURN: u16 = 0x06;

/// A program for the calls from `first` to the next part.
pub(super) struct Part {
    pub(super) first: i64,
    /// Ends in a return on every path.
    pub(super) program: BpfProgram,
}

/// A program that goes to the part that the call belongs to. There must be one.
pub(super) fn dispatch(parts: &[Part]) -> BpfProgram {
    let (low, high) = parts.split_at(parts.len() / 2);
    let Some(boundary) = high.first() else { return BpfProgram::new() };
    if low.is_empty() {
        return boundary.program.clone();
    }
    let (low, high) = (dispatch(low), dispatch(high));
    let mut program = vec![
        load_number(),
        instruction(JUMP_GREATER_EQUAL, 0, 1, u32::try_from(boundary.first).unwrap_or(u32::MAX)),
        // Conditional jumps reach 255 instructions, this one any number.
        instruction(JUMP, 0, 0, u32::try_from(low.len()).unwrap_or(u32::MAX)),
    ];
    program.extend(low);
    program.extend(high);
    program
}

/// A beginning that answers the call `number` with `errno` and lets others go on.
pub(super) fn errno_for(number: u32, errno: i32) -> BpfProgram {
    let answer = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
    vec![load_number(), instruction(JUMP_EQUAL, 0, 1, number), instruction(RETURN, 0, 0, answer)]
}

/// A beginning that answers the call `number` with `errno` if its first argument, an int, is `first`, and lets others go on.
pub(super) fn errno_for_argument(number: u32, first: u32, errno: i32) -> BpfProgram {
    let answer = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
    vec![
        load_number(),
        instruction(JUMP_EQUAL, 0, 3, number),
        instruction(LOAD, 0, 0, FIRST_ARGUMENT),
        instruction(JUMP_EQUAL, 0, 1, first),
        instruction(RETURN, 0, 0, answer),
    ]
}

fn load_number() -> sock_filter {
    instruction(LOAD, 0, 0, NR)
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program of the instructions used here on a call number; gives the returned value.
    fn run(program: &[sock_filter], number: u32) -> u32 {
        run_with(program, number, 0)
    }

    fn run_with(program: &[sock_filter], call: u32, first: u32) -> u32 {
        let mut at = 0usize;
        let mut number = 0;
        loop {
            let i = &program[at];
            at += 1 + match i.code {
                LOAD => {
                    number = if i.k == NR { call } else { first };
                    0
                }
                JUMP => usize::try_from(i.k).unwrap(),
                JUMP_EQUAL => usize::from(if number == i.k { i.jt } else { i.jf }),
                JUMP_GREATER_EQUAL => usize::from(if number >= i.k { i.jt } else { i.jf }),
                RETURN => return i.k,
                other => panic!("unknown instruction {other:#x}"),
            };
        }
    }

    #[test]
    fn each_number_reaches_its_part() {
        let firsts = [3, 10, 11, 40, 400, 401, 500];
        let parts: Vec<Part> = firsts
            .iter()
            .map(|&first| Part { first, program: vec![instruction(RETURN, 0, 0, u32::try_from(first).unwrap())] })
            .collect();
        for count in 1..=parts.len() {
            let program = dispatch(&parts[..count]);
            for number in 0..600u32 {
                let part = firsts[..count].iter().rev().find(|&&first| first <= i64::from(number)).unwrap_or(&3);
                assert_eq!(i64::from(run(&program, number)), *part, "{number} of {count} parts");
            }
        }
    }

    #[test]
    fn one_call_is_answered_with_an_errno() {
        let mut program = errno_for(435, libc::ENOSYS);
        program.push(instruction(RETURN, 0, 0, 1));
        assert_eq!(run(&program, 435), libc::SECCOMP_RET_ERRNO | 38);
        assert_eq!(run(&program, 434), 1);
        let mut program = errno_for_argument(257, 100, libc::EACCES);
        program.push(instruction(RETURN, 0, 0, 1));
        assert_eq!(run_with(&program, 257, 100), libc::SECCOMP_RET_ERRNO | 13);
        assert_eq!((run_with(&program, 257, 99), run_with(&program, 256, 100)), (1, 1));
    }
}
