//! Lists of numbers that may only go down, or only up: lines `NUMBER NAME` in a file; `#` starts a comment.
//!
//! A number that is lower than the list says has to be lowered there too (`cargo x ratchet`), so that what was won is
//! kept. A higher one is never written: whoever has a reason changes the file by hand, where a review sees it.
//!
//! Of a list of least numbers only what falls below fails: each comment would change the list otherwise.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, bail};

use crate::paths;

/// Compares what is there with the list.
///
/// # Errors
/// One line for each name whose number is not the listed one.
pub fn check(file: &str, current: &BTreeMap<String, usize>) -> Result<()> {
    let problems = problems(file, current, &read(file)?);
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// Writes the list anew with what is lower, or new, or gone; what is higher stays as it was and fails the check.
///
/// # Errors
/// A file that can't be read or written.
pub fn lower(file: &str, current: &BTreeMap<String, usize>) -> Result<()> {
    let path = paths::repository().join(file);
    let text = fs::read_to_string(&path).with_context(|| file.to_string())?;
    fs::write(&path, lowered(&text, current, &parse(&text)?)).with_context(|| file.to_string())
}

/// Compares what is there with a list of least numbers.
///
/// # Errors
/// One line for each name whose number is below the listed one.
pub fn check_least(file: &str, current: &BTreeMap<String, usize>) -> Result<()> {
    let problems = shortfalls(file, current, &read(file)?);
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// As [`check_least`], of some of the names.
///
/// # Errors
/// One line for each of them whose number is below the listed one.
pub fn check_these(file: &str, current: &BTreeMap<String, usize>) -> Result<()> {
    let mut listed = read(file)?;
    listed.retain(|name, _| current.contains_key(name));
    let problems = shortfalls(file, current, &listed);
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// Writes a list of least numbers anew with what is higher, or new, or gone; what is lower stays as it was and fails.
///
/// # Errors
/// A file that can't be read or written.
pub fn raise(file: &str, current: &BTreeMap<String, usize>) -> Result<()> {
    let path = paths::repository().join(file);
    let text = fs::read_to_string(&path).with_context(|| file.to_string())?;
    fs::write(&path, raised(&text, current, &parse(&text)?)).with_context(|| file.to_string())
}

fn lowered(text: &str, current: &BTreeMap<String, usize>, listed: &BTreeMap<String, usize>) -> String {
    rewritten(text, current, |name, number| listed.get(name).map_or(number, |&old| old.min(number)))
}

fn raised(text: &str, current: &BTreeMap<String, usize>, listed: &BTreeMap<String, usize>) -> String {
    rewritten(text, current, |name, number| listed.get(name).map_or(number, |&old| old.max(number)))
}

/// The comments at the head of `text`, and a line with the chosen number for each name that has any.
fn rewritten(text: &str, current: &BTreeMap<String, usize>, choose: impl Fn(&String, usize) -> usize) -> String {
    let mut out = String::new();
    for comment in text.lines().take_while(|l| l.starts_with('#')) {
        let _ = writeln!(out, "{comment}");
    }
    let chosen = current.iter().map(|(name, &number)| (name, choose(name, number)));
    for (name, number) in chosen.filter(|&(_, number)| number > 0) {
        let _ = writeln!(out, "{number} {name}");
    }
    out
}

fn read(file: &str) -> Result<BTreeMap<String, usize>> {
    parse(&fs::read_to_string(paths::repository().join(file)).with_context(|| file.to_string())?)
}

fn parse(text: &str) -> Result<BTreeMap<String, usize>> {
    let mut listed = BTreeMap::new();
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (number, name) = line.split_once(' ').context("want: NUMBER NAME")?;
        listed.insert(name.to_string(), number.parse()?);
    }
    Ok(listed)
}

fn problems(file: &str, current: &BTreeMap<String, usize>, listed: &BTreeMap<String, usize>) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = current.keys().chain(listed.keys()).collect();
    let mut problems = Vec::new();
    for name in names {
        let is = current.get(name).copied().unwrap_or_default();
        let may = listed.get(name).copied().unwrap_or_default();
        if is > may {
            problems.push(format!("{name}: {is}, and {file} allows {may}"));
        } else if is < may {
            problems.push(format!("{name}: {is} is less than the {may} in {file}; run cargo x ratchet"));
        }
    }
    problems
}

fn shortfalls(file: &str, current: &BTreeMap<String, usize>, listed: &BTreeMap<String, usize>) -> Vec<String> {
    let is_below = |(name, least): (&String, &usize)| match current.get(name) {
        Some(is) if is < least => Some(format!("{name}: {is}, and {file} wants {least}")),
        Some(_) => None,
        None => Some(format!("{name}: in {file} but gone; run cargo x ratchet")),
    };
    listed.iter().filter_map(is_below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(number: usize) -> BTreeMap<String, usize> {
        BTreeMap::from([("a".to_string(), number)])
    }

    #[test]
    fn a_number_has_to_be_the_listed_one() {
        assert!(problems("f", &list(3), &list(3)).is_empty());
        assert!(problems("f", &list(4), &list(3))[0].contains("allows 3"));
        assert!(problems("f", &list(2), &list(3))[0].contains("cargo x ratchet"));
        assert_eq!(problems("f", &list(1), &BTreeMap::new()).len(), 1);
        assert_eq!(problems("f", &BTreeMap::new(), &list(1)).len(), 1);
        assert!(problems("f", &list(0), &BTreeMap::new()).is_empty());
    }

    #[test]
    fn a_list_is_never_raised() {
        assert_eq!(lowered("# c\n3 a\n", &list(2), &list(3)), "# c\n2 a\n");
        assert_eq!(lowered("# c\n3 a\n", &list(4), &list(3)), "# c\n3 a\n");
        assert_eq!(lowered("# c\n3 a\n", &list(0), &list(3)), "# c\n");
    }

    #[test]
    fn a_least_number_may_be_passed_but_not_missed() {
        assert!(shortfalls("f", &list(3), &list(3)).is_empty());
        assert!(shortfalls("f", &list(4), &list(3)).is_empty());
        assert!(shortfalls("f", &list(2), &list(3))[0].contains("wants 3"));
        assert!(shortfalls("f", &list(2), &BTreeMap::new()).is_empty());
        assert!(shortfalls("f", &BTreeMap::new(), &list(3))[0].contains("gone"));
    }

    #[test]
    fn a_list_of_least_numbers_is_never_lowered() {
        assert_eq!(raised("# c\n3 a\n", &list(4), &list(3)), "# c\n4 a\n");
        assert_eq!(raised("# c\n3 a\n", &list(2), &list(3)), "# c\n3 a\n");
        assert_eq!(raised("# c\n3 a\n", &BTreeMap::new(), &list(3)), "# c\n");
    }
}
