//! Comments in the code, which say the reasons: their number per 1,000 lines of a crate may only go up.
//!
//! Documentation does not count, neither as a comment nor as a line of code: it says what, not why.

use std::collections::BTreeMap;

use anyhow::Result;

use super::counts;
use super::sources::{self, Package};

const FILE: &str = "xtask/ratchets/comments.txt";

/// Listed are multiples of this, which leaves room for code that needs no comment.
const STEP: usize = 5;

/// Compares the comments of every crate with the list.
///
/// # Errors
/// Those crates that have fewer per 1,000 lines than is listed.
pub fn run() -> Result<()> {
    counts::check_least(FILE, &current()?)
}

/// Raises the numbers of the list to what is there.
///
/// # Errors
/// A file that can't be read or written.
pub fn raise() -> Result<()> {
    let shares = current()?.into_iter().map(|(name, share)| (name, (share / STEP).saturating_mul(STEP)));
    counts::raise(FILE, &shares.collect())
}

fn current() -> Result<BTreeMap<String, usize>> {
    Ok(sources::packages()?.iter().map(|p| (p.directory.clone(), share_of(p))).collect())
}

fn share_of(package: &Package) -> usize {
    let files = package.files.iter().filter(|f| f.is_in_src(package));
    let (lines, comments) = count(files.flat_map(|f| f.lines_without_tests()));
    // A package may have no line of code.
    comments.saturating_mul(1000).checked_div(lines).unwrap_or_default()
}

/// The lines that are neither empty nor documentation, and how many of them have a comment.
fn count<'a>(lines: impl Iterator<Item = &'a str>) -> (usize, usize) {
    let is_counted = |l: &&str| !l.is_empty() && !l.starts_with("///") && !l.starts_with("//!");
    lines.map(str::trim).filter(is_counted).fold((0, 0), |(lines, comments), line| {
        let has_comment = line.starts_with("//") || line.contains(" // ");
        (lines.saturating_add(1), comments.saturating_add(usize::from(has_comment)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_comments_in_the_code_count() {
        let text = "//! doc\n\n/// doc\nfn f() {\n    // A reason.\n    g(); // Another.\n}\n";
        assert_eq!(count(text.lines()), (4, 2));
    }
}
