//! The unit tests: `cargo test --workspace`, its results counted into the report.

use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::{Report, leftovers};
use crate::paths;

/// How long a test program may say nothing, not even that a test has been running for long.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs all unit tests; a failure to build counts as one failed test.
pub fn run(report: &mut Report) -> Result<()> {
    let start = Instant::now();
    // Built first, which says nothing for any time.
    let built = paths::cargo().args(["test", "--workspace", "--no-run"]).status().context("cannot run cargo test")?;
    if !built.success() {
        report.fail("unit", "cargo test failed; see its output above");
        return Ok(());
    }
    let mut child = paths::cargo()
        .args(["test", "--workspace", "--no-fail-fast"])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo test")?;
    let lines = lines_of(child.stdout.take().context("cargo test has no stdout")?);
    let mut counts = Counts::default();
    let mut crate_results = 0;
    loop {
        let line = match lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                report.fail(
                    "unit",
                    format!("nothing for {PATIENCE:?}; ended: {}", end_the_tests(Pid::from_child(&child))),
                );
                continue;
            }
        };
        if let Some(name) = failed_test(&line) {
            report.fail(&format!("unit/{name}"), "see its output above");
        } else if let Some(more) = summary(&line) {
            counts.add(&more);
            crate_results += 1;
        } else if line.contains(" has been running for over ")
            || !line.starts_with("test ") && !line.is_empty() && !line.starts_with("running ")
        {
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

fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_string()).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

/// Kills what `cargo` runs, so that it goes on with the next program, and names it.
fn end_the_tests(cargo: Pid) -> String {
    let tests: Vec<_> = leftovers::living().into_iter().filter(|(pid, _)| *pid != cargo).collect();
    for (pid, _) in &tests {
        // It may have ended since.
        let _ = kill_process(*pid, Signal::KILL);
    }
    tests.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(", ")
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
