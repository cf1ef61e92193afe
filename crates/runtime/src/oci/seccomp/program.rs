//! Classic BPF for a profile: a binary search for the number, then the tests of that call's arguments.

use std::collections::BTreeMap;

use moat_abi::ptrace::*;
use moat_abi::siginfo::{AUDIT_ARCH_I386, AUDIT_ARCH_X86_64};
use moat_control::spec::BpfInstruction;

use super::rules::{CallRules, Condition, Rule, Test};

const LOAD: u16 = BPF_LD | BPF_W | BPF_ABS;
const JUMP_EQUAL: u16 = BPF_JMP | BPF_JEQ | BPF_K;
const JUMP_GREATER: u16 = BPF_JMP | BPF_JGT | BPF_K;
const JUMP_GREATER_OR_EQUAL: u16 = BPF_JMP | BPF_JGE | BPF_K;
const JUMP: u16 = BPF_JMP | BPF_JA;
const AND: u16 = BPF_ALU | BPF_AND | BPF_K;
const RETURN: u16 = BPF_RET | BPF_K;

const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

/// Numbers from `first` to the next range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) first: u32,
    pub(super) result: u32,
}

/// What calls get that no rule holds for.
#[derive(Clone, Debug)]
pub(super) struct Background {
    /// Calls that have rules.
    pub(super) default: u32,
    /// Calls that have none, from 0 on and in order.
    pub(super) ranges: Vec<Range>,
}

/// What numbers from `first` on get.
struct Segment {
    first: u32,
    rules: CallRules,
}

/// The program; calls of the i386 table get `foreign`. `None` if it is too long.
pub(super) fn assemble(
    background: &Background,
    calls: BTreeMap<u32, CallRules>,
    foreign: u32,
) -> Option<Vec<BpfInstruction>> {
    let segments = segments(background, calls);
    let mut program = vec![
        BpfInstruction(LOAD, 0, 0, OFFSET_ARCH),
        BpfInstruction(JUMP_EQUAL, 3, 0, AUDIT_ARCH_X86_64),
        BpfInstruction(JUMP_EQUAL, 0, 1, AUDIT_ARCH_I386),
        BpfInstruction(RETURN, 0, 0, foreign),
        // Neither table: this kernel runs no such program, and libseccomp kills it.
        BpfInstruction(RETURN, 0, 0, SECCOMP_RET_KILL_THREAD),
        BpfInstruction(LOAD, 0, 0, OFFSET_NR),
    ];
    program.extend(search(&segments, background.default)?);
    (program.len() <= usize::from(BPF_MAXINSNS)).then_some(program)
}

/// All numbers, neighbours with the same answer in one.
fn segments(background: &Background, calls: BTreeMap<u32, CallRules>) -> Vec<Segment> {
    let without_rule = |nr: u32| {
        let range = background.ranges.iter().rev().find(|range| range.first <= nr);
        CallRules::Always(range.map_or(background.default, |range| range.result))
    };
    let mut by_first: BTreeMap<u32, CallRules> = BTreeMap::new();
    for range in &background.ranges {
        by_first.insert(range.first, CallRules::Always(range.result));
    }
    // Behind each call with rules the answer for the others goes on.
    for nr in calls.keys().filter_map(|nr| nr.checked_add(1)) {
        by_first.insert(nr, without_rule(nr));
    }
    // Last: a call's own rules replace what its range and its neighbour have put there.
    by_first.extend(calls);
    let mut segments: Vec<Segment> = Vec::with_capacity(by_first.len());
    for (first, rules) in by_first {
        if segments.last().is_none_or(|last| last.rules != rules) {
            segments.push(Segment { first, rules });
        }
    }
    segments
}

/// Finds the segment of the number in the accumulator. Its depth is the logarithm of their number.
fn search(segments: &[Segment], default: u32) -> Option<Vec<BpfInstruction>> {
    let [first, rest @ ..] = segments else { return Some(Vec::new()) };
    if rest.is_empty() {
        return match &first.rules {
            CallRules::Always(result) => Some(vec![BpfInstruction(RETURN, 0, 0, *result)]),
            CallRules::When(rules) => chain(rules, default),
        };
    }
    let (lower, upper) = segments.split_at(segments.len() / 2);
    let boundary = upper.first()?.first;
    let (lower, upper) = (search(lower, default)?, search(upper, default)?);
    let mut code = match u8::try_from(lower.len()) {
        Ok(distance) => vec![BpfInstruction(JUMP_GREATER_OR_EQUAL, distance, 0, boundary)],
        // A conditional jump reaches 255 instructions, the other one all.
        Err(_) => vec![
            BpfInstruction(JUMP_GREATER_OR_EQUAL, 0, 1, boundary),
            BpfInstruction(JUMP, 0, 0, u32::try_from(lower.len()).ok()?),
        ],
    };
    code.extend(lower);
    code.extend(upper);
    Some(code)
}

/// One rule after the other, then the default.
fn chain(rules: &[Rule], default: u32) -> Option<Vec<BpfInstruction>> {
    let mut code = Vec::new();
    for rule in rules {
        code.extend(rule_code(rule)?);
    }
    code.push(BpfInstruction(RETURN, 0, 0, default));
    Some(code)
}

/// Where a test leads.
#[derive(Clone, Copy)]
enum Target {
    /// The next instruction.
    Next,
    /// The condition holds: the one after it.
    Holds,
    /// The rule does not hold: the next rule.
    Fails,
}

/// An instruction whose jumps are not resolved yet.
struct Step {
    code: u16,
    taken: Target,
    not_taken: Target,
    k: u32,
}

fn rule_code(rule: &Rule) -> Option<Vec<BpfInstruction>> {
    let conditions: Vec<Vec<Step>> = rule.conditions.iter().map(steps).collect();
    // Behind the last condition is the rule's result, behind that the next rule.
    let end = conditions.iter().map(Vec::len).sum::<usize>().saturating_add(1);
    let (mut code, mut condition_end) = (Vec::with_capacity(end), 0_usize);
    for condition in conditions {
        condition_end = condition_end.saturating_add(condition.len());
        for step in condition {
            let following = code.len().saturating_add(1);
            let distance = |target| match target {
                Target::Next => Some(0),
                Target::Holds => u8::try_from(condition_end.checked_sub(following)?).ok(),
                Target::Fails => u8::try_from(end.checked_sub(following)?).ok(),
            };
            code.push(BpfInstruction(step.code, distance(step.taken)?, distance(step.not_taken)?, step.k));
        }
    }
    code.push(BpfInstruction(RETURN, 0, 0, rule.result));
    Some(code)
}

/// A test of 64 bits: the high half first, the low half where that decides.
fn steps(condition: &Condition) -> Vec<Step> {
    use Target::{Fails, Holds, Next};
    let offset = OFFSET_ARGS + 8 * condition.argument;
    let step = |code, taken, not_taken, k| Step { code, taken, not_taken, k };
    let load_high = || step(LOAD, Next, Next, offset + 4);
    let load_low = || step(LOAD, Next, Next, offset);
    let equal = |high_differs, low_equal, low_differs, value: u64| {
        vec![
            load_high(),
            step(JUMP_EQUAL, Next, high_differs, high(value)),
            load_low(),
            step(JUMP_EQUAL, low_equal, low_differs, low(value)),
        ]
    };
    let above = |comparison, yes, no, value: u64| {
        vec![
            load_high(),
            step(JUMP_GREATER, yes, Next, high(value)),
            step(JUMP_EQUAL, Next, no, high(value)),
            load_low(),
            step(comparison, yes, no, low(value)),
        ]
    };
    match condition.test {
        Test::Equal(value) => equal(Fails, Next, Fails, value),
        Test::NotEqual(value) => equal(Holds, Fails, Next, value),
        Test::Greater(value) => above(JUMP_GREATER, Holds, Fails, value),
        Test::GreaterOrEqual(value) => above(JUMP_GREATER_OR_EQUAL, Holds, Fails, value),
        Test::Less(value) => above(JUMP_GREATER_OR_EQUAL, Fails, Holds, value),
        Test::LessOrEqual(value) => above(JUMP_GREATER, Fails, Holds, value),
        Test::Masked { mask, value } => vec![
            load_high(),
            step(AND, Next, Next, high(mask)),
            step(JUMP_EQUAL, Next, Fails, high(value)),
            load_low(),
            step(AND, Next, Next, low(mask)),
            step(JUMP_EQUAL, Next, Fails, low(value)),
        ],
    }
}

fn high(value: u64) -> u32 {
    halves(value).1
}

fn low(value: u64) -> u32 {
    halves(value).0
}

fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}
