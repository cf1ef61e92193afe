//! Reading and writing the files of cgroups.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::error::{Context, Error, Result};

/// The file that lists a cgroup's processes and takes new ones.
pub(super) const PROCS: &str = "cgroup.procs";

/// Writes a value; the error has it, and the file.
pub(super) fn write(dir: &Path, file: &str, value: impl ToString) -> Result<()> {
    let (path, value) = (dir.join(file), value.to_string());
    try_write(dir, file, &value).context(|| format!("writing {value:?} to {}", path.display()))
}

/// Writes a value, in one write(2).
pub(super) fn try_write(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(dir.join(file))?.write_all(value.as_bytes())
}

/// The text of a file, trimmed.
pub(super) fn read(dir: &Path, file: &str) -> Result<String> {
    let path = dir.join(file);
    let text = fs::read_to_string(&path).context(|| format!("reading {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// The text of a file that need not be there.
pub(super) fn read_if_there(dir: &Path, file: &str) -> Option<String> {
    fs::read_to_string(dir.join(file)).ok().map(|text| text.trim().to_owned())
}

/// A number; "max" is `u64::MAX`, and so is a negative one.
pub(super) fn parse_number(text: &str) -> Option<u64> {
    match text {
        "max" => Some(u64::MAX),
        _ if text.starts_with('-') => text.parse::<i64>().ok().map(|_| u64::MAX),
        _ => text.parse().ok(),
    }
}

/// The number in a file.
pub(super) fn read_number(dir: &Path, file: &str) -> Result<u64> {
    let text = read(dir, file)?;
    parse_number(&text).ok_or_else(|| Error::Invalid(format!("{}: {text:?} is not a number", dir.join(file).display())))
}

/// Lines of "key number".
pub(super) fn parse_keyed(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, parse_number(value.trim())?))
    })
}

/// Elements of a list like "0-3,8".
pub(super) fn parse_list(text: &str) -> Vec<u16> {
    let mut all = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            all.extend(first..=last);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lists() {
        assert_eq!(parse_number("max"), Some(u64::MAX));
        assert_eq!(parse_number("-1"), Some(u64::MAX));
        assert_eq!(parse_number("17"), Some(17));
        assert_eq!(parse_number("x"), None);
        assert_eq!(parse_list("0-2,5\n"), [0, 1, 2, 5]);
        assert!(parse_list("").is_empty());
        assert_eq!(parse_keyed("low 0\noom_kill 3\nbad\n").collect::<Vec<_>>(), [("low", 0), ("oom_kill", 3)]);
    }
}
