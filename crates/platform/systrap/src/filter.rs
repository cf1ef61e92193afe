//! The seccomp filter of guest processes.
//!
//! Application code can jump to any `syscall` instruction of the stub with any registers, so each rule must be
//! safe for any arguments that it lets pass; the instruction pointer only says whether the stub's rules apply at all
//! (they do not for application code, whose every call traps). Three outcomes: ALLOW, for what can harm nobody
//! but the process; NOTIFY, where the sentry compares the arguments with the order that it gave this very thread;
//! TRAP for all the rest, which becomes a guest syscall.
//!
//! Linux itself lets two calls past every filter: uretprobe (335, since 6.11) and uprobe (336). Outside the kernel's own
//! trampolines they do nothing but raise SIGILL or fail with ENXIO in the caller.

use moat_abi::nr;
use moat_abi::siginfo::AUDIT_ARCH_X86_64;
use moat_stub::layout::DOORBELL;

/// `struct sock_filter` as one little-endian word.
pub type Instruction = u64;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const ALLOW: u32 = 0x7fff_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRAP: u32 = 0x0003_0000;

/// Upper half of every address of the stub's text, and of no address below it.
const STUB_HIGH: u32 = 0x7fff;
/// Greatest upper half of an address that ALLOW rules accept. With lengths below 4 GiB every range so accepted
/// ends at or below 0x7fff_0000_0000, where the stub begins.
const GUEST_HIGH: u32 = 0x7ffd;

/// Where a field is in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const IP_HIGH: u32 = 12;
const fn low(arg: u32) -> u32 {
    16 + arg * 8
}
const fn high(arg: u32) -> u32 {
    20 + arg * 8
}

/// Whether user code may set the segment bases by instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentBases {
    /// FSGSBASE is enabled.
    Instructions,
    /// Only by arch_prctl(2).
    Syscalls,
}

/// A condition that a range rule puts on one more 32-bit field.
enum Test<'a> {
    /// One of these values.
    OneOf(&'a [u32]),
    /// No bit outside this mask.
    Within(u32),
}

struct Builder(Vec<Instruction>);

impl Builder {
    fn push(&mut self, code: u16, k: u32, yes: u8, no: u8) {
        self.0.push(u64::from(code) | u64::from(yes) << 16 | u64::from(no) << 24 | u64::from(k) << 32);
    }

    fn load(&mut self, at: u32) {
        self.push(LOAD, at, 0, 0);
    }

    fn ret(&mut self, action: u32) {
        self.push(RETURN, action, 0, 0);
    }

    /// A rule for one number without conditions.
    fn simple(&mut self, nr: u32, action: u32) {
        self.push(EQUAL, nr, 0, 1);
        self.ret(action);
    }

    /// A rule that allows a call if all `tests` hold, and notifies (or traps) otherwise.
    fn tested(&mut self, nr: u32, tests: &[(u32, Test<'_>)], otherwise: u32) {
        let mut body = Builder(Vec::new());
        for (at, test) in tests {
            body.load(*at);
            match test {
                Test::OneOf(values) => {
                    for (i, value) in (1u8..).zip(*values) {
                        let left = u8::try_from(values.len()).expect("few values") - i;
                        // Over the remaining values and the failure return.
                        body.push(EQUAL, *value, left + 1, 0);
                    }
                    body.ret(otherwise);
                }
                Test::Within(mask) => {
                    body.push(ANY_BIT, !mask, 0, 1);
                    body.ret(otherwise);
                }
            }
        }
        body.ret(ALLOW);
        self.push(EQUAL, nr, 0, u8::try_from(body.0.len()).expect("short rules"));
        self.0.extend(body.0);
    }

    /// `(start, len)` in arguments 0 and 1 stay clear of the stub.
    fn below_the_stub(&mut self, nr: u32, more: &[(u32, Test<'_>)]) {
        let mut body = Builder(Vec::new());
        body.load(high(0));
        body.push(GREATER, GUEST_HIGH, 0, 1);
        body.ret(NOTIFY);
        let mut rest = Builder(Vec::new());
        let len = [(high(1), Test::OneOf(&[0]))];
        rest.tested(nr, &len, NOTIFY);
        // The tests without the number's own compare and the final ALLOW.
        body.0.extend(&rest.0[1..rest.0.len() - 1]);
        let mut rest = Builder(Vec::new());
        rest.tested(nr, more, NOTIFY);
        body.0.extend(&rest.0[1..]);
        self.push(EQUAL, nr, 0, u8::try_from(body.0.len()).expect("short rules"));
        self.0.extend(body.0);
    }
}

/// Whether the filter leaves an order's call to the sentry: the same rules as in [`program`].
#[must_use]
pub fn notifies(nr: u32, args: &[u64; 6]) -> bool {
    let below_the_stub = args[0] >> 32 <= u64::from(GUEST_HIGH) && args[1] >> 32 == 0;
    let allowed = match nr {
        nr::MMAP => below_the_stub && args[2] & !3 == 0 && MMAP_FLAGS.iter().any(|flags| u64::from(*flags) == args[3]),
        nr::MUNMAP => below_the_stub,
        nr::MPROTECT => below_the_stub && args[2] & !3 == 0,
        nr::MADVISE => below_the_stub && ADVICE.contains(&(args[2] as u32)),
        nr::PRCTL => args[0] == PR_SET_NAME,
        nr::FUTEX => FUTEX_OPS.iter().any(|op| u64::from(*op) == args[1]),
        _ => nr == nr::CLOSE || nr == nr::RSEQ || nr == nr::FUTEX_WAITV,
    };
    !allowed
}

/// MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED (| MAP_NORESERVE).
const MMAP_FLAGS: [u32; 2] = [0x32, 0x4032];
/// Advice about memory of one's own: NORMAL, RANDOM, SEQUENTIAL, WILLNEED, DONTNEED, FREE, DONTFORK, DOFORK, HUGEPAGE,
/// NOHUGEPAGE, WIPEONFORK, KEEPONFORK. Not REMOVE, which makes holes in files.
const ADVICE: [u32; 12] = [0, 1, 2, 3, 4, 8, 10, 11, 14, 15, 18, 19];

/// FUTEX_WAIT, by which a parked thread waits, and the operations on words of the process's own ([`moat_stub::layout::own_call`]).
const FUTEX_OPS: [u32; 9] = [0, 0x80, 0x81, 0x83, 0x84, 0x85, 0x89, 0x8a, 0x189];

/// The option of prctl(2) that orders use.
const PR_SET_NAME: u64 = 15;

/// The program.
#[must_use]
pub fn program(bases: SegmentBases) -> Vec<Instruction> {
    let mut b = Builder(Vec::new());
    // int 0x80 and every other foreign table.
    b.load(ARCH);
    b.push(EQUAL, AUDIT_ARCH_X86_64, 1, 0);
    b.ret(TRAP);
    // Application code, and the vsyscall page.
    b.load(IP_HIGH);
    b.push(EQUAL, STUB_HIGH, 1, 0);
    b.ret(TRAP);
    b.load(NR);
    // rt_sigreturn, the end of every stop: sets this thread's registers, mask and signal stack, nothing else.
    b.simple(15, ALLOW);
    // The stub waits for the sentry. Never continued; without a listener it fails with ENOSYS.
    b.simple(u32::try_from(DOORBELL).expect("a small number"), NOTIFY);
    // FUTEX_WAIT: a thread that is parked for long waits so. It reads one word of its own memory and wakes nobody. The others concern
    // waiters of the same address space alone, and change no word that the process could not.
    b.tested(nr::FUTEX, &[(low(1), Test::OneOf(&FUTEX_OPS)), (high(1), Test::OneOf(&[0]))], TRAP);
    // It waits for words that the process can read; and how the host goes on with such waits after a stop from outside.
    b.simple(nr::FUTEX_WAITV, ALLOW);
    b.simple(nr::RESTART_SYSCALL, ALLOW);
    // A thread may let others run.
    b.simple(nr::SCHED_YIELD, ALLOW);
    // Orders: anonymous private memory at a fixed place, never executable.
    b.below_the_stub(
        nr::MMAP,
        &[
            (high(2), Test::OneOf(&[0])),
            (low(2), Test::Within(3)), // PROT_READ | PROT_WRITE
            (high(3), Test::OneOf(&[0])),
            (low(3), Test::OneOf(&MMAP_FLAGS)),
        ],
    );
    b.below_the_stub(nr::MUNMAP, &[]);
    b.below_the_stub(nr::MPROTECT, &[(high(2), Test::OneOf(&[0])), (low(2), Test::Within(3))]);
    // Not on areas: MADV_DOFORK there would let a child keep its parent's.
    b.below_the_stub(nr::MADVISE, &[(low(2), Test::OneOf(&ADVICE))]);
    // Orders: verified against what this thread was told.
    for nr in [nr::CLONE, nr::MREMAP, nr::MLOCK2, nr::MUNLOCK, nr::USERFAULTFD] {
        b.simple(nr, NOTIFY);
    }
    // The host writes this thread's CPU into memory that the process can write, or ends it; and may move it to another
    // instruction of its own.
    b.simple(nr::RSEQ, ALLOW);
    // The name that the host shows for a thread is the guest's to choose.
    b.tested(nr::PRCTL, &[(low(0), Test::OneOf(&[PR_SET_NAME as u32])), (high(0), Test::OneOf(&[0]))], NOTIFY);
    // The end of an order that needed a descriptor, and of the template's making. A guest process holds nothing
    // whose closing matters to anyone else.
    b.simple(nr::CLOSE, ALLOW);
    b.simple(436, ALLOW); // close_range
    // The end of a thread that the sentry dropped, and of a process whose stub is overwritten.
    b.simple(60, ALLOW); // exit
    b.simple(231, ALLOW); // exit_group
    if bases == SegmentBases::Syscalls {
        // Segment bases around a stop: ARCH_SET_GS, SET_FS, GET_FS, GET_GS.
        b.tested(158, &[(low(0), Test::OneOf(&[0x1001, 0x1002, 0x1003, 0x1004]))], TRAP);
    }
    b.ret(TRAP);
    b.0
}

#[cfg(test)]
mod tests {
    use super::*;

    use moat_stub::layout::own_call;

    const STUB_IP: u64 = 0x7fff_0000_0100;

    /// A naive interpreter of the instructions used.
    fn verdict(nr: u32, arch: u32, ip: u64, args: [u64; 6]) -> u32 {
        let program = program(SegmentBases::Instructions);
        let mut data = vec![nr, arch, ip as u32, (ip >> 32) as u32];
        data.extend(args.iter().flat_map(|a| [*a as u32, (*a >> 32) as u32]));
        let (mut pc, mut a) = (0, 0);
        loop {
            let i = program[pc];
            let (code, yes, no, k) = (i as u16, (i >> 16) as u8, (i >> 24) as u8, (i >> 32) as u32);
            pc += 1;
            let jump = match code {
                LOAD => {
                    a = data[k as usize / 4];
                    continue;
                }
                RETURN => return k,
                EQUAL => a == k,
                GREATER => a > k,
                ANY_BIT => a & k != 0,
                other => panic!("code {other}"),
            };
            pc += usize::from(if jump { yes } else { no });
        }
    }

    fn stub(nr: u32, args: [u64; 6]) -> u32 {
        verdict(nr, AUDIT_ARCH_X86_64, STUB_IP, args)
    }

    #[test]
    fn application_code_and_foreign_tables_always_trap() {
        for nr in (0..1024).chain([DOORBELL as u32, 0x4000_0009, u32::MAX]) {
            assert_eq!(verdict(nr, AUDIT_ARCH_X86_64, 0x1000_0000, [0; 6]), TRAP);
            assert_eq!(verdict(nr, AUDIT_ARCH_X86_64, 0xffff_ffff_ff60_0000, [0; 6]), TRAP);
            assert_eq!(verdict(nr, 0x4000_0003, STUB_IP, [0; 6]), TRAP);
        }
    }

    #[test]
    fn only_the_listed_numbers_pass_the_stub() {
        let allowed = [15, 11, 3, 334, 436, 60, 231, 28, 10, 202, 219, 449, 24];
        let notified = [9, 56, 25, 325, 150, 157, 323, DOORBELL as u32];
        for nr in (0..1024).chain([DOORBELL as u32, 0x4000_0000 | 9, 0x4000_0000 | 15, u32::MAX]) {
            let want = match nr {
                nr if allowed.contains(&nr) => ALLOW,
                nr if notified.contains(&nr) => NOTIFY,
                _ => TRAP,
            };
            assert_eq!(stub(nr, [0; 6]), want, "{nr}");
        }
    }

    #[test]
    fn notifies_agrees_with_the_program() {
        let values = [
            0,
            1,
            3,
            4,
            9,
            10,
            15,
            0x32,
            0x132,
            0x1000,
            0xffff_ffff,
            1 << 32,
            0x7ffd_ffff_f000,
            0x7ffe_0000_0000,
            u64::MAX,
        ];
        for nr in [
            nr::MMAP,
            nr::MUNMAP,
            nr::MPROTECT,
            nr::MADVISE,
            nr::MREMAP,
            nr::CLONE,
            nr::USERFAULTFD,
            nr::CLOSE,
            nr::RSEQ,
            nr::PRCTL,
            nr::FUTEX_WAITV,
        ] {
            for (a, b) in values.iter().flat_map(|a| values.iter().map(move |b| (*a, *b))) {
                for (c, d) in values.iter().flat_map(|c| [0x32, 0x4032, 0x22, 1 << 33 | 0x32].map(move |d| (*c, d))) {
                    let args = [a, b, c, d, 0, 0];
                    let want = stub(nr, args) == NOTIFY;
                    assert_eq!(notifies(nr, &args), want, "{nr} {args:x?}");
                }
            }
        }
    }

    #[test]
    fn nobody_elses_futex_is_reached() {
        let own = |op: u64| u32::try_from(op).is_ok_and(own_call::is_own);
        // What the stub does by itself, and a wait on any word of the process's.
        assert_eq!(stub(nr::FUTEX, [0x1000, 0, 1, 0, 0, 0]), ALLOW);
        for op in (1..0x400).chain([1 << 32, 1 << 32 | 0x80, 0x8000_0080, u64::from(u32::MAX), u64::MAX]) {
            let want = if own(op) { ALLOW } else { TRAP };
            assert_eq!(stub(nr::FUTEX, [0x1000, op, 1, 0, 0, 0]), want, "{op:#x}");
        }
        // Shared words, and locks.
        for op in [1, 3, 4, 5, 9, 10, 6, 7, 8, 11, 12, 13, 0x86, 0x87, 0x88, 0x8b, 0x8c, 0x8d, 0x180, 0x181] {
            assert!(!own(op), "{op:#x}");
        }
        assert_eq!(FUTEX_OPS.iter().filter(|op| own(u64::from(**op))).count(), FUTEX_OPS.len() - 1);
    }

    #[test]
    fn a_thread_may_be_named_and_nothing_else() {
        assert_eq!(stub(nr::PRCTL, [15, 0x7fff_1000_0000, 0, 0, 0, 0]), ALLOW);
        for option in [0, 1, 4, 22, 35, 38, 1 << 32 | 15] {
            assert_eq!(stub(nr::PRCTL, [option, 0, 0, 0, 0, 0]), NOTIFY, "{option}");
        }
    }

    #[test]
    fn memory_rules_stay_below_the_stub() {
        let at = |addr, len, prot, flags| stub(nr::MMAP, [addr, len, prot, flags, 0, 0]);
        assert_eq!(at(0x1000, 0x1000, 3, 0x32), ALLOW);
        assert_eq!(at(0x7ffd_ffff_f000, 0xffff_ffff, 3, 0x4032), ALLOW);
        for (addr, len, prot, flags) in [
            (0x7ffe_0000_0000, 0x1000, 3, 0x32),
            (0x7fff_0000_0000, 0x1000, 3, 0x32),
            (u64::MAX, 0x1000, 3, 0x32),
            (0x1000, 1 << 32, 3, 0x32),
            (0x1000, u64::MAX, 3, 0x32),
            (0x1000, 0x1000, 7, 0x32),
            (0x1000, 0x1000, 4, 0x32),
            (0x1000, 0x1000, 1 << 32, 0x32),
            (0x1000, 0x1000, 3, 0x22),
            (0x1000, 0x1000, 3, 0x12),
            (0x1000, 0x1000, 3, 0x31),
            (0x1000, 0x1000, 3, 0x132),
            (0x1000, 0x1000, 3, 1 << 40 | 0x32),
        ] {
            assert_eq!(at(addr, len, prot, flags), NOTIFY, "{addr:#x} {len:#x} {prot} {flags:#x}");
        }
        assert_eq!(stub(nr::MUNMAP, [0x1000, u64::from(u32::MAX), 0, 0, 0, 0]), ALLOW);
        assert_eq!(stub(nr::MUNMAP, [0x7ffe_0000_0000, 1, 0, 0, 0, 0]), NOTIFY);
        assert_eq!(stub(nr::MUNMAP, [0x1000, 1 << 47, 0, 0, 0, 0]), NOTIFY);
        assert_eq!(stub(nr::MPROTECT, [0x1000, 0x1000, 4, 0, 0, 0]), NOTIFY);
        assert_eq!(stub(nr::MPROTECT, [0x1000, 0x1000, 0x0100_0001, 0, 0, 0]), NOTIFY);
        assert_eq!(stub(nr::MADVISE, [0x1000, 0x1000, 9, 0, 0, 0]), NOTIFY, "MADV_REMOVE");
        assert_eq!(stub(nr::MADVISE, [0x1000, 0x1000, 10, 0, 0, 0]), ALLOW);
        assert_eq!(stub(nr::MADVISE, [0x7fff_1000_0000, 0x8000, 11, 0, 0, 0]), NOTIFY);
    }
}
