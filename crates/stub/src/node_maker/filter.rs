//! The seccomp filter of the node maker: six calls, and anything else kills it.

use super::sys::{CLOSE, EXIT_GROUP, FSTATFS, MKNODAT, RECVMSG, SECCOMP, SENDTO, address, call};
use super::{S_IFBLK, S_IFCHR, S_IFMT, SOCKET};

const SET_MODE_FILTER: u64 = 1;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AT_FDCWD: u32 = 0xffff_ff9c;
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;

/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// struct sock_filter.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

const fn load(offset: u32) -> Instruction {
    Instruction { code: 0x20, if_true: 0, if_false: 0, value: offset }
}

const fn and(mask: u32) -> Instruction {
    Instruction { code: 0x54, if_true: 0, if_false: 0, value: mask }
}

/// Skips as many instructions as the outcome says.
const fn equal(value: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code: 0x15, if_true, if_false, value }
}

/// As [`equal`], of the low half of a number or an argument.
const fn equal_low(value: u64, if_true: u8, if_false: u8) -> Instruction {
    equal(value as u32, if_true, if_false)
}

const fn give(verdict: u32) -> Instruction {
    Instruction { code: 0x06, if_true: 0, if_false: 0, value: verdict }
}

const LENGTH: u16 = 20;

const PROGRAM: [Instruction; LENGTH as usize] = [
    load(ARCH),
    equal(AUDIT_ARCH_X86_64, 0, 16),
    load(NUMBER),
    equal_low(CLOSE, 15, 0),
    equal_low(FSTATFS, 14, 0),
    equal_low(EXIT_GROUP, 13, 0),
    equal_low(RECVMSG, 3, 0),
    equal_low(SENDTO, 2, 0),
    equal_low(MKNODAT, 3, 0),
    give(RET_KILL_PROCESS),
    // Messages on the socket alone.
    load(argument(0)),
    equal_low(SOCKET, 7, 6),
    // Nodes of devices below an open directory.
    load(argument(0)),
    equal(AT_FDCWD, 4, 0),
    load(argument(2)),
    and(S_IFMT),
    equal(S_IFCHR, 2, 0),
    equal(S_IFBLK, 1, 0),
    give(RET_KILL_PROCESS),
    give(RET_ALLOW),
];

/// struct sock_fprog.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// Puts the process under the filter.
pub fn install() -> Option<()> {
    let program = Program { length: LENGTH, instructions: PROGRAM.as_ptr() };
    if call(SECCOMP, [SET_MODE_FILTER, 0, address(&raw const program), 0, 0, 0]) == 0 { Some(()) } else { None }
}
