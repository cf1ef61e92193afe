//! `cargo x mutants CRATE`: do the tests notice when the code is wrong? cargo-mutants changes it, one place at a time, and runs the
//! crate's unit tests; what those let through is tried with the checks of `tests/abi` in the crate's [`AREAS`].
//!
//! The part of the mutants that was noticed is compared with `xtask/ratchets/mutants.txt`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{check, paths};

/// Crates with the areas of `tests/abi` that are about them; others get all.
const AREAS: [(&str, &[&str]); 6] = [
    ("moat-mm", &["memory/", "faults/", "denials/", "places/"]),
    ("moat-vfs", &["names/", "files/", "permissions/", "objects/", "denials/", "places/"]),
    ("moat-kernel", &["process/", "signals/", "wait/", "exec/", "threads/", "powers/", "namespaces/", "userns/"]),
    ("moat-ipc", &["ipc/", "mqueue/", "powers/"]),
    ("moat-fs-tmpfs", &["tmpfs/", "files/", "names/", "denials/"]),
    ("moat-fs-proc", &["proc/", "powers/"]),
];

/// What became of a mutant.
#[derive(Debug, Default)]
struct Tally {
    caught: usize,
    /// Name and difference.
    missed: Vec<(String, PathBuf)>,
    /// Those that no compiler takes.
    unviable: usize,
}

/// Runs what the arguments after `cargo x mutants` ask for: a crate, and perhaps a part of its mutants.
pub fn run(arguments: &[String]) -> Result<()> {
    let (name, shard) = match arguments {
        [name] => (name, None),
        [name, flag, shard] if flag == "--shard" => (name, Some(shard.as_str())),
        _ => bail!("cargo x mutants CRATE [--shard K/N]"),
    };
    let output = paths::target().join("mutants").join(name);
    fs::create_dir_all(&output)?;
    let mut mutants = paths::cargo();
    mutants.args(["mutants", "--package", name, "--no-shuffle", "--output"]).arg(&output);
    mutants.args(shard.map(|shard| format!("--shard={shard}")));
    // 2: some were missed; 3: some ran into the time limit, which counts as noticed.
    let status = mutants.status().context("cannot run cargo mutants")?;
    if !matches!(status.code(), Some(0 | 2 | 3)) {
        bail!("cargo mutants: {status}; it comes with cargo install cargo-mutants");
    }
    let outcomes = output.join("mutants.out/outcomes.json");
    let outcomes = fs::read_to_string(&outcomes).with_context(|| outcomes.display().to_string())?;
    let mut tally = tally(&serde_json::from_str(&outcomes)?, &output.join("mutants.out"));
    let by_units = tally.caught;
    let missed = std::mem::take(&mut tally.missed);
    let total = by_units + missed.len();
    let tree = Tree::make()?;
    for (mutant, difference) in missed {
        match tree.notices(name, &difference)? {
            Some(check) => {
                println!("noticed by {check}: {mutant}");
                tally.caught += 1;
            }
            None => {
                println!("SURVIVES: {mutant}");
                tally.missed.push((mutant, difference));
            }
        }
    }
    let percent = (tally.caught * 100).checked_div(total).unwrap_or(100);
    println!(
        "{name}: {} of {total} noticed, {by_units} by unit tests: {percent}%; {} do not compile",
        tally.caught, tally.unviable
    );
    check::check_mutants(&BTreeMap::from([(name.clone(), percent)]))
}

/// Counts what cargo-mutants says in its `outcomes.json`.
fn tally(outcomes: &Value, directory: &Path) -> Tally {
    let mut tally = Tally::default();
    for outcome in outcomes["outcomes"].as_array().map_or(&[][..], Vec::as_slice) {
        let Some(name) = outcome["scenario"]["Mutant"]["name"].as_str() else { continue };
        match outcome["summary"].as_str() {
            Some("CaughtMutant" | "Timeout") => tally.caught += 1,
            Some("MissedMutant") => {
                let difference = directory.join(outcome["diff_path"].as_str().unwrap_or_default());
                tally.missed.push((name.to_owned(), difference));
            }
            _ => tally.unviable += 1,
        }
    }
    tally
}

/// A copy of the sources, so that a run that is ended leaves nothing changed.
struct Tree(PathBuf);

impl Tree {
    fn make() -> Result<Tree> {
        let tree = paths::target().join("mutants/tree");
        let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(paths::repository()).output()?;
        for name in listed.stdout.split(|b| *b == 0).filter(|name| !name.is_empty()) {
            let name = std::str::from_utf8(name)?;
            let (from, to) = (paths::repository().join(name), tree.join(name));
            // What is the same keeps its time: it need not be built again. What is gone from the work tree is left out.
            let Ok(contents) = fs::read(&from) else { continue };
            if fs::read(&to).ok().as_ref() != Some(&contents) {
                fs::create_dir_all(to.parent().context("a file in a directory")?)?;
                fs::write(&to, contents)?;
            }
        }
        Ok(Tree(fs::canonicalize(tree)?))
    }

    /// The first check that fails with this difference, if any does: also one that does not come to an end.
    fn notices(&self, name: &str, difference: &Path) -> Result<Option<String>> {
        self.patch(difference, &[])?;
        let found = self.failing_check(name);
        self.patch(difference, &["-R"])?;
        found
    }

    fn failing_check(&self, name: &str) -> Result<Option<String>> {
        let build = self.0.join("target");
        let mut cargo = paths::cargo();
        cargo.current_dir(&self.0).args(["build", "--quiet", "--package", "moat", "--target-dir"]).arg(&build);
        if !cargo.status()?.success() {
            return Ok(Some("the build".to_owned()));
        }
        let mut test = Command::new(std::env::current_exe()?);
        test.args(["test", "abi", "--moat"]).arg(build.join("debug/moat"));
        let areas = AREAS.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, areas)| areas);
        test.args(areas.iter().flat_map(|area| ["--case", area]));
        let output = test.stderr(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let failed = text.lines().find_map(|line| line.strip_prefix("FAIL")).map(|line| line.trim().to_owned());
        Ok(failed.or_else(|| (!output.status.success()).then(|| "the run".to_owned())))
    }

    fn patch(&self, difference: &Path, more: &[&str]) -> Result<()> {
        let file = fs::File::open(difference).with_context(|| difference.display().to_string())?;
        let mut patch = Command::new("patch");
        paths::run(patch.args(["-s", "-p1"]).args(more).current_dir(&self.0).stdin(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted() {
        let mutant = |summary: &str| serde_json::json!({"scenario": {"Mutant": {"name": "m"}}, "summary": summary, "diff_path": "diff/m.diff"});
        let all = ["CaughtMutant", "Timeout", "MissedMutant", "Unviable"].map(mutant);
        let baseline = serde_json::json!({"scenario": "Baseline", "summary": "Success"});
        let outcomes: Vec<_> = [baseline].into_iter().chain(all).collect();
        let tally = tally(&serde_json::json!({"outcomes": outcomes}), Path::new("/d"));
        assert_eq!((tally.caught, tally.unviable), (2, 1));
        assert_eq!(tally.missed, [("m".to_owned(), PathBuf::from("/d/diff/m.diff"))]);
    }
}
