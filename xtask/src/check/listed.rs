//! Lists of things in the sources that are each there for a reason: lines `PATH NAME REASON` in a file; `#` starts a comment.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail};

use super::sources;
use crate::paths;

/// A list, and what is said of what does not agree with it.
pub(super) struct List {
    /// The file, in the repository.
    pub file: &'static str,
    /// Of a line without a reason.
    pub unexplained: &'static str,
    /// Of what is there and not listed.
    pub unlisted: &'static str,
    /// Of what is listed and not there.
    pub gone: &'static str,
}

impl List {
    /// Compares what `find` finds in the sources of all crates, tests left out, with the list.
    ///
    /// # Errors
    /// What is not listed, and lines of the list without such a thing or a reason.
    pub fn check(&self, find: impl Fn(&str) -> Vec<String>) -> Result<()> {
        let text = fs::read_to_string(paths::repository().join(self.file)).with_context(|| self.file.to_string())?;
        let mut found = Vec::new();
        for package in sources::packages()?.iter().filter(|p| p.directory.starts_with("crates/")) {
            for file in package.files.iter().filter(|f| f.is_in_src(package)) {
                found.extend(find(file.without_tests()).into_iter().map(|name| format!("{} {name}", file.path)));
            }
        }
        let problems = self.problems(&found, &text);
        if !problems.is_empty() {
            bail!("{}", problems.join("\n"));
        }
        Ok(())
    }

    fn problems(&self, found: &[String], text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let mut listed = BTreeSet::new();
        for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let mut words = line.splitn(3, ' ');
            let key = format!("{} {}", words.next().unwrap_or_default(), words.next().unwrap_or_default());
            if words.next().is_none_or(|reason| reason.trim().is_empty()) {
                problems.push(format!("{}: {line}: {}", self.file, self.unexplained));
            }
            listed.insert(key);
        }
        let unlisted = found.iter().filter(|key| !listed.contains(*key));
        problems.extend(unlisted.map(|key| format!("{key}: {}", self.unlisted)));
        let gone = listed.iter().filter(|key| !found.contains(key));
        problems.extend(gone.map(|key| format!("{key}: {}; remove it from {}", self.gone, self.file)));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_exact_and_gives_reasons() {
        let list = List { file: "list", unexplained: "has no reason", unlisted: "is not listed", gone: "is gone" };
        let found = ["f A".to_string()];
        assert!(list.problems(&found, "# c\nf A the host's own\n").is_empty());
        assert_eq!(list.problems(&found, ""), ["f A: is not listed"]);
        assert_eq!(list.problems(&found, "f A\n"), ["list: f A: has no reason"]);
        assert_eq!(list.problems(&[], "f A why\n"), ["f A: is gone; remove it from list"]);
    }
}
