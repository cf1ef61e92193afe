//! Counts results, prints one line for each and the summary.

use std::time::Duration;

/// The results so far.
#[derive(Default)]
pub struct Report {
    passed: usize,
    failures: Vec<(String, String)>,
    skips: Vec<(String, String)>,
}

impl Report {
    /// A test that did what it should.
    pub fn pass(&mut self, name: &str, elapsed: Duration) {
        println!("ok    {name} ({:.2} s)", elapsed.as_secs_f32());
        self.passed += 1;
    }

    /// Many small tests that did what they should, as one line.
    pub fn pass_many(&mut self, name: &str, count: usize, elapsed: Duration) {
        println!("ok    {name}: {count} passed ({:.2} s)", elapsed.as_secs_f32());
        self.passed += count;
    }

    /// A test that failed, and why.
    pub fn fail(&mut self, name: &str, why: impl Into<String>) {
        let why = why.into();
        println!("FAIL  {name}: {why}");
        self.failures.push((name.to_string(), why));
    }

    /// A test that was not run, and why.
    pub fn skip(&mut self, name: &str, why: &str) {
        println!("skip  {name}: {why}");
        self.skips.push((name.to_string(), why.to_string()));
    }

    /// How many tests failed.
    pub fn failed(&self) -> usize {
        self.failures.len()
    }

    /// Repeats failures and skips, then counts, on a last line of a fixed form.
    pub fn print_summary(&self) {
        println!();
        for (name, why) in &self.skips {
            println!("skipped: {name}: {}", first_line(why));
        }
        for (name, why) in &self.failures {
            println!("failed: {name}: {}", first_line(why));
        }
        println!("{} passed, {} failed, {} skipped", self.passed, self.failures.len(), self.skips.len());
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
