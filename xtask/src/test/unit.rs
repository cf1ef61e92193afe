//! The unit tests: `cargo test --workspace`, its results counted into the report.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result};

use super::Report;
use crate::paths;

/// Runs all unit tests; a failure to build counts as one failed test.
pub fn run(report: &mut Report) -> Result<()> {
    let start = Instant::now();
    let mut child = paths::cargo()
        .args(["test", "--workspace", "--no-fail-fast"])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no stdout")?;
    let mut counts = Counts::default();
    let mut crate_results = 0;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        if let Some(name) = failed_test(&line) {
            report.fail(&format!("unit/{name}"), "see its output above");
        } else if let Some(more) = summary(&line) {
            counts.add(&more);
            crate_results += 1;
        } else if !line.starts_with("test ") && !line.is_empty() && !line.starts_with("running ") {
            println!("      {line}");
        }
    }
    let status = child.wait()?;
    for _ in 0..counts.ignored {
        report.skip("unit", "marked #[ignore] in the source");
    }
    if crate_results > 0 {
        report.pass_many("unit", counts.passed, start.elapsed());
    }
    if !status.success() && report.failed() == 0 {
        report.fail("unit", "cargo test failed; see its output above");
    }
    Ok(())
}

#[derive(Default, Debug, PartialEq)]
struct Counts {
    passed: usize,
    ignored: usize,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.passed += other.passed;
        self.ignored += other.ignored;
    }
}

/// `test NAME ... FAILED`.
fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
fn summary(line: &str) -> Option<Counts> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = Counts::default();
    for part in numbers.split("; ") {
        let (number, what) = part.split_once(' ')?;
        match what {
            "passed" => counts.passed = number.parse().ok()?,
            "ignored" => counts.ignored = number.parse().ok()?,
            _ => {}
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_cargo_prints() {
        let line = "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(summary(line), Some(Counts { passed: 12, ignored: 2 }));
        assert_eq!(failed_test("test a::b ... FAILED"), Some("a::b"));
        assert_eq!(failed_test("test a::b ... ok"), None);
    }
}
