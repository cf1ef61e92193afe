//! Rules that may only get stricter.
//!
//! - A Rust file is at most [`LINE_LIMIT`] lines long, except those in `xtask/ratchets/long-files.txt`,
//!   each with the length that it may not exceed. A file that got shorter leaves the list.
//! - Every crate outside [`UNSAFE_CRATES`] says `#![forbid(unsafe_code)]` in its root.
//! - No `todo!`, `unimplemented!` or `static mut` under `crates/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::paths;

const LINE_LIMIT: usize = 500;
const LONG_FILES: &str = "xtask/ratchets/long-files.txt";

/// The crates whose purpose needs unsafe code, by directory.
const UNSAFE_CRATES: &[&str] = &["crates/host", "crates/stub", "crates/sync", "crates/platform"];

/// Text that must not appear in the sandbox's own sources, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    ("todo!(", "a guest could reach it"),
    ("unimplemented!(", "a guest could reach it"),
    ("static mut ", "needs unsafe for every use; take a lock, an atomic or a OnceLock"),
];

/// Checks all rules and reports every breach with its file.
pub fn run() -> Result<()> {
    let root = paths::repository();
    let mut files = Vec::new();
    for top in ["crates", "xtask"] {
        rust_files(&root.join(top), &mut files)?;
    }
    files.sort();
    let allowed = read_allow_list(&root.join(LONG_FILES))?;
    let mut problems = Vec::new();
    let mut lengths = BTreeMap::new();
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let name = relative(root, file);
        lengths.insert(name.clone(), text.lines().count());
        if name.starts_with("crates/") {
            problems.extend(forbidden_text(&name, &text));
        }
        if is_crate_root(file) && has_code(&text) && !may_be_unsafe(&name) && !text.contains("#![forbid(unsafe_code)]")
        {
            problems.push(format!("{name}: lacks #![forbid(unsafe_code)]"));
        }
    }
    problems.extend(length_problems(&lengths, &allowed));
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

fn relative(root: &Path, file: &Path) -> String {
    file.strip_prefix(root).unwrap_or(file).display().to_string()
}

fn rust_files(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn is_crate_root(file: &Path) -> bool {
    let in_src = file.parent().is_some_and(|p| p.ends_with("src"));
    in_src && (file.ends_with("lib.rs") || file.ends_with("main.rs"))
}

fn may_be_unsafe(name: &str) -> bool {
    UNSAFE_CRATES.iter().any(|c| name.strip_prefix(c).is_some_and(|rest| rest.starts_with('/')))
}

/// Whether there is more than comments and an empty main.
fn has_code(text: &str) -> bool {
    text.lines().any(|line| !line.is_empty() && !line.starts_with("//") && line != "fn main() {}")
}

fn forbidden_text(name: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for (word, why) in FORBIDDEN {
            if code.contains(word) {
                problems.push(format!("{name}:{}: '{}': {why}", number + 1, word.trim()));
            }
        }
    }
    problems
}

/// Lines are `LENGTH PATH`; `#` starts a comment.
fn read_allow_list(file: &Path) -> Result<BTreeMap<String, usize>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut allowed = BTreeMap::new();
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (length, path) = line.split_once(' ').context("want: LENGTH PATH")?;
        allowed.insert(path.to_string(), length.parse()?);
    }
    Ok(allowed)
}

fn length_problems(lengths: &BTreeMap<String, usize>, allowed: &BTreeMap<String, usize>) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, &length) in lengths {
        match allowed.get(name) {
            None if length > LINE_LIMIT => {
                problems.push(format!("{name}: {length} lines; split it, the limit is {LINE_LIMIT}"));
            }
            Some(&limit) if length > limit => {
                problems.push(format!("{name}: grew from {limit} to {length} lines; split it"));
            }
            Some(_) if length <= LINE_LIMIT => {
                problems.push(format!("{name}: is short enough; remove it from {LONG_FILES}"));
            }
            _ => {}
        }
    }
    for name in allowed.keys().filter(|n| !lengths.contains_key(*n)) {
        problems.push(format!("{name}: is gone; remove it from {LONG_FILES}"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(name: &str, length: usize) -> BTreeMap<String, usize> {
        BTreeMap::from([(name.to_string(), length)])
    }

    #[test]
    fn the_list_of_long_files_only_shrinks() {
        let none = BTreeMap::new();
        assert!(length_problems(&map("a", 500), &none).is_empty());
        assert_eq!(length_problems(&map("a", 501), &none).len(), 1);
        assert!(length_problems(&map("a", 600), &map("a", 600)).is_empty());
        assert_eq!(length_problems(&map("a", 601), &map("a", 600)).len(), 1);
        assert_eq!(length_problems(&map("a", 400), &map("a", 600)).len(), 1);
        assert_eq!(length_problems(&none, &map("a", 600)).len(), 1);
    }

    #[test]
    fn forbidden_text_in_a_comment_is_allowed() {
        assert!(forbidden_text("f", "// no todo!() here").is_empty());
        assert_eq!(forbidden_text("f", "    todo!()").len(), 1);
    }

    #[test]
    fn only_whole_directories_may_be_unsafe() {
        assert!(may_be_unsafe("crates/platform/ptrace/src/lib.rs"));
        assert!(!may_be_unsafe("crates/hostile/src/lib.rs"));
    }
}
