//! The rules of one call, and which of them comes first.

use std::cmp::{Ordering, Reverse};

use oci_spec::runtime::{LinuxSeccompOperator, LinuxSyscall};

const ARGUMENTS: usize = 6;

/// One test of an argument, as a whole of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) argument: u32,
    pub(super) test: Test,
}

/// How an argument compares; all comparisons are unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    /// The bits of `mask` are those of `value`, which has no others.
    Masked {
        mask: u64,
        value: u64,
    },
}

/// What a call gets if all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// By argument.
    pub(super) conditions: Vec<Condition>,
    /// `SECCOMP_RET_*`, with data.
    pub(super) result: u32,
}

impl Rule {
    /// The rules that an entry of a profile stands for: one with all of its conditions, or one for each of them if an argument
    /// is tested twice (as runc has done since before one rule could have several).
    ///
    /// # Errors
    /// An argument that calls do not have.
    pub(super) fn of(call: &LinuxSyscall, result: u32) -> Result<Vec<Rule>, String> {
        let mut conditions = Vec::new();
        for arg in call.args().iter().flatten() {
            let argument = arg.index();
            if argument >= ARGUMENTS {
                return Err(format!("calls have {ARGUMENTS} arguments, there is no index {argument}"));
            }
            let value = arg.value();
            let test = match arg.op() {
                LinuxSeccompOperator::ScmpCmpEq => Test::Equal(value),
                LinuxSeccompOperator::ScmpCmpNe => Test::NotEqual(value),
                LinuxSeccompOperator::ScmpCmpLt => Test::Less(value),
                LinuxSeccompOperator::ScmpCmpLe => Test::LessOrEqual(value),
                LinuxSeccompOperator::ScmpCmpGt => Test::Greater(value),
                LinuxSeccompOperator::ScmpCmpGe => Test::GreaterOrEqual(value),
                LinuxSeccompOperator::ScmpCmpMaskedEq => {
                    Test::Masked { mask: value, value: arg.value_two().unwrap_or(0) & value }
                }
            };
            let argument = u32::try_from(argument).unwrap_or(u32::MAX);
            conditions.push(Condition { argument, test });
        }
        let tested_twice = |c: &Condition| conditions.iter().filter(|d| d.argument == c.argument).count() > 1;
        if conditions.iter().any(tested_twice) {
            return Ok(conditions.into_iter().map(|c| Rule::new(vec![c], result)).collect());
        }
        Ok(vec![Rule::new(conditions, result)])
    }

    fn new(mut conditions: Vec<Condition>, result: u32) -> Rule {
        // No bit is tested: it always holds.
        conditions.retain(|c| !matches!(c.test, Test::Masked { mask: 0, .. }));
        conditions.sort_by_key(|c| c.argument);
        Rule { conditions, result }
    }

    /// Whether it is looked at before another, where both could hold: higher arguments first, tests for one value before
    /// those for many, higher values first (`_db_chain_lt`).
    fn order(&self, other: &Rule) -> Ordering {
        self.conditions.iter().map(Condition::rank).cmp(other.conditions.iter().map(Condition::rank))
    }
}

impl Condition {
    fn rank(&self) -> (Reverse<u32>, u32, Reverse<u64>) {
        let (kind, value) = match self.test {
            Test::Equal(value) | Test::NotEqual(value) | Test::Masked { value, .. } => (0, value),
            Test::Less(value) | Test::LessOrEqual(value) => (1, !value),
            Test::Greater(value) | Test::GreaterOrEqual(value) => (2, value),
        };
        (Reverse(self.argument), kind, Reverse(value))
    }
}

/// The rules of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallRules {
    /// It always gets this.
    Always(u32),
    /// The first that holds, else the profile's default.
    When(Vec<Rule>),
}

impl Default for CallRules {
    fn default() -> CallRules {
        CallRules::When(Vec::new())
    }
}

impl CallRules {
    /// Adds a rule. One without conditions stands for all others, and the first such stands for those after it.
    ///
    /// # Errors
    /// It takes in what another rule answers differently.
    pub(super) fn add(&mut self, rule: Rule) -> Result<(), &'static str> {
        let CallRules::When(rules) = self else { return Ok(()) };
        if rule.conditions.is_empty() {
            *self = CallRules::Always(rule.result);
            return Ok(());
        }
        if rules.iter().any(|r| r.conditions.starts_with(&rule.conditions) && r.result != rule.result) {
            return Err("two rules contradict each other");
        }
        rules.push(rule);
        rules.sort_by(Rule::order);
        Ok(())
    }
}
