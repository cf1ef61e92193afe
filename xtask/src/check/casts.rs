//! Casts with `as`, which may truncate or change the sign without a word: their number per crate may only go down.
//!
//! `From`, `TryFrom`, `cast_signed` and their like say what happens to a value that does not fit.

use std::collections::BTreeMap;

use anyhow::Result;

use super::counts;
use super::sources::{self, Package};

const FILE: &str = "xtask/ratchets/casts.txt";

/// Number types and pointers: what a cast leads to. Names that are imported as another are no casts.
const TARGETS: &[&str] = &[
    "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f32", "f64", "char", "_",
];

/// Compares the casts of every crate with the list.
///
/// # Errors
/// Those crates whose number is not the one that is listed.
pub fn run() -> Result<()> {
    counts::check(FILE, &current()?)
}

/// Lowers the numbers of the list to what is there.
///
/// # Errors
/// A file that can't be read or written.
pub fn lower() -> Result<()> {
    counts::lower(FILE, &current()?)
}

fn current() -> Result<BTreeMap<String, usize>> {
    Ok(sources::packages()?.iter().map(|p| (p.directory.clone(), casts_of(p))).collect())
}

/// Those of tests count less than nothing: they may cast.
fn casts_of(package: &Package) -> usize {
    package.files.iter().filter(|f| f.is_in_src(package)).map(|f| casts(f.without_tests())).sum()
}

fn casts(code: &str) -> usize {
    sources::words(code, "as")
        .filter(|at| {
            let after = code[at + 2..].trim_start();
            let target: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            after.starts_with("*const ") || after.starts_with("*mut ") || is_number(&target, after)
        })
        .count()
}

fn is_number(target: &str, after: &str) -> bool {
    // `use x as _;` is an import.
    TARGETS.contains(&target) && !(target == "_" && after[1..].trim_start().starts_with([';', ',', '}']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_casts_count() {
        assert_eq!(casts("a as u64 + (b as usize) + p as *const u8"), 3);
        assert_eq!(casts("use std::fmt::Write as _;\nuse a as b; <T as Trait>::f()"), 0);
        assert_eq!(casts("x as _)"), 1);
    }
}
