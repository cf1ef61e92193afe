//! Profiles against a naive reading of them, by a small interpreter of what they are compiled to.

use moat_abi::ptrace::*;
use moat_abi::siginfo::{AUDIT_ARCH_I386, AUDIT_ARCH_X86_64};
use moat_control::spec::BpfInstruction;
use oci_spec::runtime::LinuxSeccomp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::convert;

const ENOSYS: u32 = SECCOMP_RET_ERRNO | 38;
const EPERM: u32 = SECCOMP_RET_ERRNO | 1;

fn profile(json: Value) -> LinuxSeccomp {
    serde_json::from_value(json).unwrap()
}

fn compile(json: Value) -> Vec<BpfInstruction> {
    convert(&profile(json), &mut Vec::new()).unwrap().program
}

fn refused(json: Value) -> String {
    convert(&profile(json), &mut Vec::new()).unwrap_err().to_string()
}

fn run(program: &[BpfInstruction], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
    let halves = |word: u64| [(word & 0xffff_ffff) as u32, (word >> 32) as u32];
    let mut data = vec![nr, arch, 0, 0];
    data.extend(args.into_iter().flat_map(halves));
    let (mut a, mut pc) = (0, 0);
    loop {
        let BpfInstruction(code, jt, jf, k) = program[pc];
        pc += 1;
        let taken = match code {
            0x20 => {
                a = data[usize::try_from(k).unwrap() / 4];
                continue;
            }
            0x54 => {
                a &= k;
                continue;
            }
            0x05 => {
                pc += usize::try_from(k).unwrap();
                continue;
            }
            0x06 => return k,
            0x15 => a == k,
            0x25 => a > k,
            0x35 => a >= k,
            other => panic!("{other:#x}"),
        };
        pc += usize::from(if taken { jt } else { jf });
    }
}

fn native(program: &[BpfInstruction], nr: u32) -> u32 {
    run(program, AUDIT_ARCH_X86_64, nr, [0; 6])
}

#[test]
fn numbers_without_a_rule() {
    let syscalls = json!([
        {"names": ["read", "no_such_call", "openat2"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
    ]);
    let program = compile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": syscalls}));
    // openat2 is the newest call that is named: what is newer might be known to no one.
    for (nr, expected) in [(0, SECCOMP_RET_ALLOW), (1, EPERM), (437, SECCOMP_RET_ALLOW), (436, EPERM), (438, ENOSYS)] {
        assert_eq!(native(&program, nr), expected, "{nr}");
    }
    assert_eq!(native(&program, 0x4000_0000), SECCOMP_RET_KILL_THREAD);
    assert_eq!(native(&program, u32::MAX), EPERM);
    assert_eq!(run(&program, AUDIT_ARCH_I386, 3, [0; 6]), SECCOMP_RET_KILL_THREAD);

    let architectures = ["SCMP_ARCH_X86", "SCMP_ARCH_X32"];
    let program =
        compile(json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures, "syscalls": syscalls}));
    for (nr, expected) in [(0, SECCOMP_RET_ALLOW), (1, EPERM), (437, SECCOMP_RET_ALLOW), (438, ENOSYS)] {
        assert_eq!(native(&program, 0x4000_0000 | nr), expected, "{nr}");
    }
    assert_eq!(run(&program, AUDIT_ARCH_I386, 3, [0; 6]), SECCOMP_RET_ALLOW);
    for permissive in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"] {
        let program = compile(json!({"defaultAction": permissive, "syscalls": syscalls}));
        assert_eq!(native(&program, 438), native(&program, 100), "{permissive}");
    }
}

#[test]
fn actions_and_their_errno() {
    for (action, expected) in [
        (json!({"action": "SCMP_ACT_KILL"}), SECCOMP_RET_KILL_THREAD),
        (json!({"action": "SCMP_ACT_KILL_THREAD", "errnoRet": 3}), SECCOMP_RET_KILL_THREAD),
        (json!({"action": "SCMP_ACT_KILL_PROCESS"}), SECCOMP_RET_KILL_PROCESS),
        (json!({"action": "SCMP_ACT_TRAP"}), SECCOMP_RET_TRAP),
        (json!({"action": "SCMP_ACT_ERRNO"}), EPERM),
        (json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 38}), ENOSYS),
        (json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 0}), SECCOMP_RET_ERRNO),
        (json!({"action": "SCMP_ACT_TRACE", "errnoRet": 7}), SECCOMP_RET_TRACE | 7),
        (json!({"action": "SCMP_ACT_TRACE"}), SECCOMP_RET_TRACE | 1),
        (json!({"action": "SCMP_ACT_LOG"}), SECCOMP_RET_LOG),
    ] {
        let mut rule = action.clone();
        rule["names"] = json!(["getpid"]);
        let program = compile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
        assert_eq!((native(&program, 39), native(&program, 38)), (expected, SECCOMP_RET_ALLOW), "{action}");
    }
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    let rule = |more: Value| {
        let mut rule = json!({"names": ["read"], "action": "SCMP_ACT_ERRNO"});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    };
    assert!(refused(rule(json!({"action": "SCMP_ACT_NOTIFY"}))).contains("SCMP_ACT_NOTIFY"));
    assert!(refused(json!({"defaultAction": "SCMP_ACT_NOTIFY"})).contains("SCMP_ACT_NOTIFY"));
    let index = refused(rule(json!({"args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]})));
    assert!(index.contains("read") && index.contains("index 6"), "{index}");
    let mut many = Vec::new();
    for value in 0..2000 {
        many.push(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]}));
    }
    assert!(refused(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": many})).contains("longer"));
    let arg = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]);
    let contradiction = json!([
        {"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": arg},
        {"names": ["read"], "action": "SCMP_ACT_TRAP", "args": arg},
    ]);
    let error = refused(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": contradiction}));
    assert!(error.contains("contradict"), "{error}");
}

#[test]
fn a_rule_for_all_arguments_stands_for_the_others() {
    let arg = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]);
    let conditional = json!({"names": ["read"], "action": "SCMP_ACT_TRAP", "args": arg});
    let always = json!({"names": ["read"], "action": "SCMP_ACT_ERRNO"});
    for syscalls in [json!([conditional, always]), json!([always, conditional])] {
        let program = compile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls}));
        for first in [0, 1] {
            assert_eq!(run(&program, AUDIT_ARCH_X86_64, 0, [first, 0, 0, 0, 0, 0]), EPERM);
        }
    }
}

#[test]
fn an_argument_that_is_tested_twice_makes_two_rules() {
    let args = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]);
    let rule = json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": args});
    let program = compile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]}));
    for (first, expected) in [(0, EPERM), (1, SECCOMP_RET_ALLOW), (2, SECCOMP_RET_ALLOW)] {
        assert_eq!(run(&program, AUDIT_ARCH_X86_64, 135, [first, 0, 0, 0, 0, 0]), expected);
    }
}

/// Values around which comparisons of halves go wrong.
fn word() -> impl Strategy<Value = u64> {
    let half = prop_oneof![Just(0u32), Just(1), Just(2), Just(0x7fff_ffff), Just(u32::MAX - 1), Just(u32::MAX)];
    (half.clone(), half).prop_map(|(high, low)| u64::from(high) << 32 | u64::from(low))
}

const OPERATORS: [&str; 7] =
    ["SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_GT", "SCMP_CMP_GE", "SCMP_CMP_MASKED_EQ"];

type Arg = (usize, usize, u64, u64);

fn holds(&(index, operator, value, second): &Arg, args: [u64; 6]) -> bool {
    let arg = args[index];
    match operator {
        0 => arg == value,
        1 => arg != value,
        2 => arg < value,
        3 => arg <= value,
        4 => arg > value,
        5 => arg >= value,
        _ => arg & value == second & value,
    }
}

proptest! {
    #[test]
    fn arguments(
        rules in prop::collection::vec(prop::collection::vec((0..3usize, 0..7usize, word(), word()), 1..3), 1..4),
        args in prop::array::uniform6(word()),
    ) {
        let distinct = |rule: &Vec<Arg>| rule.len() < 2 || rule[0].0 != rule[1].0;
        let rules: Vec<_> = rules.into_iter().filter(distinct).collect();
        let syscalls: Vec<Value> = rules.iter().map(|rule| {
            let args: Vec<Value> = rule.iter().map(|&(index, operator, value, second)| {
                json!({"index": index, "value": value, "valueTwo": second, "op": OPERATORS[operator]})
            }).collect();
            json!({"names": ["fcntl", "prctl"], "action": "SCMP_ACT_ALLOW", "args": args})
        }).collect();
        let program = compile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": syscalls}));
        let allowed = rules.iter().any(|rule| rule.iter().all(|arg| holds(arg, args)));
        let expected = if allowed { SECCOMP_RET_ALLOW } else { EPERM };
        for nr in [72, 157] {
            prop_assert_eq!(run(&program, AUDIT_ARCH_X86_64, nr, args), expected);
        }
    }
}
