//! Finds where two runs differ, and leaves out of a sequence what is not needed for that.

use std::time::{Duration, Instant};

use anyhow::Result;

/// What is run: sequences from a seed on, all of their steps or some.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) sequences: u64,
    pub(super) steps: usize,
    /// Only these, if it is not empty.
    pub(super) only: Vec<usize>,
}

/// Runs a plan natively and in the sandbox.
pub(super) trait Compare {
    /// The sequences that are not the same in both places.
    fn differences(&mut self, plan: &Plan) -> Result<Vec<Difference>>;

    /// The steps with their native results.
    fn transcript(&mut self, plan: &Plan) -> Result<String>;
}

/// Shortening may take so long.
const PATIENCE: Duration = Duration::from_secs(90);

/// So many of the other sequences that differ are named.
const MOST_OTHERS: usize = 12;

/// Where two runs of a sequence differ first.
pub(super) struct Difference {
    /// The sequence.
    pub(super) seed: Option<u64>,
    /// The step, if it is one and not the tree at the end.
    step: Option<usize>,
    native: String,
    sandboxed: String,
}

/// The first difference of each sequence; what comes before the first and after the last counts to these.
pub(super) fn differences(native: &str, sandboxed: &str) -> Vec<Difference> {
    let (native, sandboxed) = (by_sequence(native), by_sequence(sandboxed));
    let longer = native.len().max(sandboxed.len());
    (0..longer).filter_map(|i| first_difference(native.get(i), sandboxed.get(i))).collect()
}

fn by_sequence(text: &str) -> Vec<Vec<&str>> {
    let mut all = vec![Vec::new()];
    for line in text.lines() {
        if line.starts_with("sequence ") {
            all.push(Vec::new());
        }
        if let Some(last) = all.last_mut() {
            last.push(line);
        }
    }
    all
}

fn first_difference(native: Option<&Vec<&str>>, sandboxed: Option<&Vec<&str>>) -> Option<Difference> {
    let lines = |all: Option<&Vec<&str>>, at: usize| all.and_then(|lines| lines.get(at).copied()).map(String::from);
    let longer = native.map_or(0, Vec::len).max(sandboxed.map_or(0, Vec::len));
    let at = (0..longer).find(|at| lines(native, *at) != lines(sandboxed, *at))?;
    let (x, y) = (lines(native, at), lines(sandboxed, at));
    let first = |line: &Option<String>| line.as_ref().and_then(|l| l.split(' ').next()?.parse::<usize>().ok());
    let head = lines(native, 0).or(lines(sandboxed, 0)).unwrap_or_default();
    Some(Difference {
        seed: head.strip_prefix("sequence ").and_then(|number| number.parse().ok()),
        step: first(&x).max(first(&y)),
        native: x.unwrap_or("(the end)".into()),
        sandboxed: y.unwrap_or("(the end)".into()),
    })
}

/// A text about the difference: the steps that it takes, with their results in both places.
pub(super) fn report(setup: &mut impl Compare, plan: &Plan, found: &[Difference]) -> Result<String> {
    let Some((first, others)) = found.split_first() else {
        return Ok(String::new());
    };
    let mut text = shrink(setup, plan, first)?;
    for other in others.iter().take(MOST_OTHERS) {
        let seed = other.seed.unwrap_or_default();
        text.push_str(&format!("\n        also {seed}: {}\n             not {}", other.sandboxed, other.native));
    }
    Ok(text)
}

fn shrink(setup: &mut impl Compare, plan: &Plan, found: &Difference) -> Result<String> {
    let Some(seed) = found.seed else {
        return Ok(format!("natively: {}\n        in the sandbox: {}", found.native, found.sandboxed));
    };
    let last = found.step.map_or(plan.steps, |step| step + 1);
    let mut kept: Vec<usize> = (0..last).collect();
    let mut shown = None;
    let deadline = Instant::now() + PATIENCE;
    let mut size = kept.len().div_ceil(2);
    loop {
        let mut at = 0;
        while at < kept.len() && Instant::now() < deadline {
            let mut fewer = kept.clone();
            fewer.drain(at..(at + size).min(kept.len()));
            if fewer.is_empty() {
                break;
            }
            let trial = Plan { seed, sequences: 1, steps: plan.steps, only: fewer.clone() };
            match setup.differences(&trial)?.into_iter().next() {
                Some(difference) => {
                    shown = Some(difference);
                    kept = fewer;
                }
                None => at += size,
            }
        }
        if size == 1 || Instant::now() >= deadline {
            break;
        }
        size = size.div_ceil(2);
    }
    let trial = Plan { seed, sequences: 1, steps: plan.steps, only: kept.clone() };
    let calls = setup.transcript(&trial)?;
    let (native, sandboxed) = match &shown {
        Some(difference) => (&difference.native, &difference.sandboxed),
        None => (&found.native, &found.sandboxed),
    };
    let is_step = |line: &&str| line.starts_with(|c: char| c.is_ascii_digit());
    let calls: String = calls.lines().filter(is_step).map(|line| format!("\n        | {line}")).collect();
    Ok(format!(
        "sequence {seed} of {} steps, natively:{calls}\n        natively:       {native}\n        in the sandbox: {sandboxed}",
        plan.steps
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_sequence_and_step() {
        let native = "sequence 3\n0 root open = 0\nsequence 4\n0 root open = 0\n7 user close = 0\n";
        assert!(differences(native, native).is_empty());
        let other = native.replace("close = 0", "close = EBADF");
        let found = differences(native, &other);
        assert_eq!((found[0].seed, found[0].step), (Some(4), Some(7)));
        assert_eq!(found[0].sandboxed, "7 user close = EBADF");
    }

    #[test]
    fn an_early_end_is_a_difference() {
        let found = differences("sequence 1\n0 a\n1 b\n", "sequence 1\n0 a\n");
        assert_eq!((found[0].seed, found[0].step), (Some(1), Some(1)));
    }
}
