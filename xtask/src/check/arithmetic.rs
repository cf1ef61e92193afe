//! Arithmetic that may overflow, by Clippy's `arithmetic_side_effects`: the number of places per crate may only go down.
//!
//! A guest chooses most numbers. `checked_*`, `saturating_*`, `wrapping_*` and `abs_diff` say what happens to an extreme one;
//! a plain operator panics in debug builds and wraps in others.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::counts;
use crate::paths;

const FILE: &str = "xtask/ratchets/arithmetic.txt";
const LINT: &str = "clippy::arithmetic_side_effects";

/// Compares the places of every crate with the list.
///
/// # Errors
/// Those crates whose number is not the one that is listed; a build that fails.
pub fn run() -> Result<()> {
    counts::check(FILE, &current()?)
}

/// Lowers the numbers of the list to what is there.
///
/// # Errors
/// A file that can't be read or written; a build that fails.
pub fn lower() -> Result<()> {
    counts::lower(FILE, &current()?)
}

fn current() -> Result<BTreeMap<String, usize>> {
    // Flags of Clippy are part of what it caches: in the directory of the other lints it would start over each time.
    let mut clippy = paths::cargo()
        .args(["clippy", "--quiet", "--workspace", "--message-format=json", "--", "-W", LINT])
        .env("CARGO_TARGET_DIR", paths::target().join("arithmetic"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = BufReader::new(clippy.stdout.take().context("no output")?);
    let mut places = BTreeSet::new();
    for line in output.lines() {
        places.extend(place(&line?));
    }
    if !clippy.wait()?.success() {
        bail!("cargo clippy failed: the step of the lints says why");
    }
    let mut current = BTreeMap::new();
    for Location { krate, .. } in places {
        *current.entry(krate).or_default() += 1;
    }
    Ok(current)
}

/// Where the lint found something.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Location {
    /// The directory of the crate.
    krate: String,
    file: String,
    /// Its first byte.
    start: u64,
}

/// The place in the sources of a crate that a message of cargo is about, if it is the lint's.
fn place(message: &str) -> Option<Location> {
    let message: Value = serde_json::from_str(message).ok()?;
    let message = &message["message"];
    if message["code"]["code"] != LINT {
        return None;
    }
    let span = message["spans"].as_array()?.iter().find(|span| span["is_primary"] == true)?;
    let file = span["file_name"].as_str()?.to_string();
    let (krate, _) = file.split_once("/src/").filter(|(krate, _)| krate.starts_with("crates/"))?;
    Some(Location { krate: krate.to_string(), start: span["byte_start"].as_u64()?, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_the_lint_in_crates_count() {
        let message = |code: &str, file: &str| {
            format!(
                r#"{{"reason":"compiler-message","message":{{"code":{{"code":"{code}"}},
                    "spans":[{{"is_primary":true,"file_name":"{file}","byte_start":7}}]}}}}"#
            )
        };
        let found = place(&message(LINT, "crates/fs/proc/src/text.rs")).expect("a place");
        assert_eq!((found.krate.as_str(), found.start), ("crates/fs/proc", 7));
        assert_eq!(place(&message("clippy::pedantic", "crates/mm/src/a.rs")), None);
        assert_eq!(place(&message(LINT, "xtask/src/main.rs")), None);
        assert_eq!(place("no JSON"), None);
    }
}
