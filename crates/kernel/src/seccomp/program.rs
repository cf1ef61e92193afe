//! [`Program`]: a checked program of classic BPF over `struct seccomp_data`.
//!
//! Source: `seccomp_check_filter` and `seccomp_is_const_allow` in `kernel/seccomp.c`.

use moat_abi::Result;
use moat_abi::ptrace::{SeccompData, SockFilter};
use moat_abi::siginfo::AUDIT_ARCH_X86_64;
use moat_bpf::{Input, Loads, Size};
use zerocopy::IntoBytes;

const DATA_LEN: u32 = 64;
/// Offsets in `struct seccomp_data`.
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;

/// A filter's instructions: every run of them ends, and with a result.
pub(super) struct Program(moat_bpf::Program);

/// A call, with all that is known of it.
struct Call<'a>(&'a SeccompData);

impl Input for Call<'_> {
    fn length(&self) -> u32 {
        DATA_LEN
    }

    fn load(&self, offset: u32, _size: Size) -> Option<u32> {
        let at = usize::try_from(offset).ok()?;
        self.0.as_bytes().get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes)
    }
}

/// Any call of one number: its arguments and where it was made are not known.
struct AnyCall(u32);

impl Input for AnyCall {
    fn length(&self) -> u32 {
        DATA_LEN
    }

    fn load(&self, offset: u32, _size: Size) -> Option<u32> {
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
        moat_bpf::Program::new(instructions, Loads::Words { len: DATA_LEN }).map(Program)
    }

    /// Its instructions.
    pub(super) fn instructions(&self) -> &[SockFilter] {
        self.0.instructions()
    }

    /// The number of its instructions.
    pub(super) fn len(&self) -> usize {
        self.0.count()
    }

    /// Its result for a call.
    pub(super) fn run(&self, data: &SeccompData) -> u32 {
        // Every word can be loaded. Should a run yet end without a result: 0 kills.
        self.0.run(&Call(data)).unwrap_or(0)
    }

    /// Its result for calls of this number, if that depends on nothing else.
    pub(super) fn result_by_number(&self, nr: u32) -> Option<u32> {
        self.0.run(&AnyCall(nr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_abi::ptrace::*;

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
}
