//! The workspace's Rust sources as the checks read them: by crate, with comments blanked and unit tests cut off.
//!
//! This is text, not a syntax tree: it is enough for names and paths, and needs nothing but the standard library.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::paths;

/// One package of the workspace.
pub struct Package {
    /// As in its Cargo.toml.
    pub name: String,
    /// From the repository's root: `crates/vfs`.
    pub directory: String,
    /// Sorted by name.
    pub files: Vec<Source>,
}

/// One Rust file.
pub struct Source {
    /// From the repository's root.
    pub path: String,
    /// As it is in the file.
    pub text: String,
    /// The text with comments and string literals blanked.
    pub code: String,
}

impl Source {
    /// The code without the unit tests: a file of tests has none.
    pub fn without_tests(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let is_test = name == "tests.rs" || name.ends_with("_tests.rs") || self.path.contains("/tests/");
        if is_test {
            return "";
        }
        // By the rule of the house the test module is the last item of a file.
        self.code.find("#[cfg(test)]\nmod tests {").map_or(&*self.code, |end| &self.code[..end])
    }

    /// The lines as they are in the file, without the unit tests.
    pub fn lines_without_tests(&self) -> impl Iterator<Item = &str> {
        // Blanking keeps lines, not positions: a character of two bytes becomes a space of one.
        self.text.lines().take(self.without_tests().lines().count())
    }

    /// Whether the file is compiled into the library or program itself, not a test, example or benchmark of its own.
    pub fn is_in_src(&self, package: &Package) -> bool {
        self.path.strip_prefix(&package.directory).is_some_and(|rest| rest.starts_with("/src/"))
    }
}

/// Reads every package below `crates` and `xtask`.
///
/// # Errors
/// A file that can't be read.
pub fn packages() -> Result<Vec<Package>> {
    let root = paths::repository();
    let mut manifests = Vec::new();
    for top in ["crates", "xtask"] {
        find(&root.join(top), &mut |path| {
            if path.ends_with("Cargo.toml") {
                manifests.push(path.to_path_buf());
            }
        })?;
    }
    manifests.sort();
    manifests.iter().map(|m| package(root, m)).collect()
}

fn package(root: &Path, manifest: &Path) -> Result<Package> {
    let text = fs::read_to_string(manifest).with_context(|| manifest.display().to_string())?;
    let name = text.lines().find_map(|l| l.strip_prefix("name = ")).context("a package without a name")?;
    let directory = manifest.parent().unwrap_or(root);
    let mut files = Vec::new();
    for part in ["src", "tests", "examples", "benches"] {
        let below = directory.join(part);
        if below.is_dir() {
            let mut found = Vec::<PathBuf>::new();
            find(&below, &mut |path| {
                if path.extension().is_some_and(|e| e == "rs") {
                    found.push(path.to_path_buf());
                }
            })?;
            found.sort();
            for path in found {
                let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                let code = blank(&text);
                files.push(Source { path: relative(root, &path), text, code });
            }
        }
    }
    Ok(Package { name: name.trim_matches('"').to_string(), directory: relative(root, directory), files })
}

/// Calls `each` for every file below `directory`.
fn find(directory: &Path, each: &mut dyn FnMut(&Path)) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            find(&path, each)?;
        } else {
            each(&path);
        }
    }
    Ok(())
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

/// What the scanner of [`blank`] is inside of.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Code,
    LineComment,
    BlockComment(usize),
    /// A string; raw strings have so many `#`.
    Text(Option<usize>),
}

/// Replaces comments and the contents of string literals by spaces; lines stay where they are.
pub fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    let mut inside = Inside::Code;
    let mut i = 0;
    while i < chars.len() {
        let (c, next) = (at(i), at(i + 1));
        let (mut taken, mut shown) = (1, false);
        match inside {
            Inside::Code => match (c, next) {
                ('/', '/') => inside = Inside::LineComment,
                ('/', '*') => (inside, taken) = (Inside::BlockComment(1), 2),
                ('"', _) => (inside, shown) = (Inside::Text(raw_hashes(&chars, i)), true),
                // A character literal may hold a quote; a lifetime has no second quote.
                ('\'', '\\') if at(i + 3) == '\'' => taken = 4,
                ('\'', _) if at(i + 2) == '\'' => taken = 3,
                _ => shown = true,
            },
            Inside::LineComment => {
                if c == '\n' {
                    inside = Inside::Code;
                }
            }
            Inside::BlockComment(depth) => match (c, next) {
                ('*', '/') => {
                    inside = if depth == 1 { Inside::Code } else { Inside::BlockComment(depth - 1) };
                    taken = 2;
                }
                ('/', '*') => (inside, taken) = (Inside::BlockComment(depth + 1), 2),
                _ => {}
            },
            Inside::Text(None) => match c {
                '\\' => taken = 2,
                '"' => (inside, shown) = (Inside::Code, true),
                _ => {}
            },
            Inside::Text(Some(hashes)) => {
                if c == '"' && (1..=hashes).all(|k| at(i + k) == '#') {
                    (inside, shown) = (Inside::Code, true);
                }
            }
        }
        for k in 0..taken {
            let c = at(i + k);
            if i + k < chars.len() {
                out.push(if shown || c == '\n' { c } else { ' ' });
            }
        }
        i += taken;
    }
    out
}

/// For the quote at `quote` that opens a raw string, its number of `#`.
fn raw_hashes(chars: &[char], quote: usize) -> Option<usize> {
    let before = chars.get(..quote).unwrap_or_default();
    let hashes = before.iter().rev().take_while(|c| **c == '#').count();
    let mut rest = before.iter().rev().skip(hashes);
    let is_raw = rest.next() == Some(&'r');
    let starts_word = rest.next().is_none_or(|c| *c == 'b' || *c == 'c' || !c.is_alphanumeric());
    (is_raw && starts_word).then_some(hashes)
}

/// Positions at which `word` is a whole word of `text`.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = text[..*at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_blanked() {
        assert_eq!(blank("a // b\nc"), "a     \nc");
        assert_eq!(blank("a /* b /* c */ d */ e"), "a                   e");
        assert_eq!(blank(r#"f("x // \" y") + 1"#), r#"f("         ") + 1"#);
        assert_eq!(blank("r#\"a \" b\"# c"), "r#\"     \"# c");
        assert_eq!(blank("'\"' x '\\'' y"), "    x      y");
        assert_eq!(blank("fn f<'a>(x: &'a str)"), "fn f<'a>(x: &'a str)");
    }

    #[test]
    fn a_word_is_whole() {
        assert_eq!(words("ab a abc b_a a", "a").collect::<Vec<_>>(), [3, 13]);
    }

    #[test]
    fn tests_are_cut_off() {
        let text = "// é\nfn f() {}\n#[cfg(test)]\nmod tests {\n use x;\n}\n".to_string();
        let source = |path: &str| Source { path: path.into(), text: text.clone(), code: blank(&text) };
        assert_eq!(source("crates/a/src/b.rs").without_tests(), "    \nfn f() {}\n");
        assert_eq!(source("crates/a/src/b.rs").lines_without_tests().collect::<Vec<_>>(), ["// é", "fn f() {}"]);
        assert_eq!(source("crates/a/src/b/tests.rs").without_tests(), "");
    }
}
