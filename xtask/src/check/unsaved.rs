//! Kinds of objects that a checkpoint refuses. Whoever adds a file, a file system or something that can be mapped says what an image has
//! of it (`save`, `origin`), or lists it in [`FILE`] with the words by which users are told: it does not go unnoticed.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};

use super::sources;
use crate::paths;

const FILE: &str = "xtask/ratchets/unsaved.txt";

/// Traits whose default refuses, and the method that says otherwise.
const TRAITS: &[(&str, &str)] = &[("File", "fn save("), ("FileSystem", "fn save("), ("Mappable", "fn origin(")];

/// Compares the implementations that lack the method with the list.
///
/// # Errors
/// Those that are not listed, and lines of the list without such an implementation or a reason.
pub fn run() -> Result<()> {
    let text = fs::read_to_string(paths::repository().join(FILE)).with_context(|| FILE.to_string())?;
    let mut found = Vec::new();
    for package in sources::packages()?.iter().filter(|p| p.directory.starts_with("crates/")) {
        for file in package.files.iter().filter(|f| f.is_in_src(package)) {
            found.extend(refusing(file.without_tests()).into_iter().map(|name| format!("{} {name}", file.path)));
        }
    }
    let problems = problems(&found, &text);
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// `TRAIT:TYPE` of each implementation that leaves the refusing default.
fn refusing(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for at in sources::words(code, "impl") {
        let rest = &code[at..];
        let Some((head, body)) = rest.split_once('{') else { continue };
        let Some((before, object)) = head.split_once(" for ") else { continue };
        let name = before.rsplit([' ', ':', '>']).next().unwrap_or_default();
        let Some((name, method)) = TRAITS.iter().find(|(known, _)| *known == name) else { continue };
        // An implementation at the left margin ends with the first brace there.
        let body = body.split("\n}").next().unwrap_or_default();
        if !body.contains(method) {
            let object = object.trim().split(['<', ' ']).next().unwrap_or_default();
            found.push(format!("{name}:{object}"));
        }
    }
    found
}

/// Lines of the list are `PATH TRAIT:TYPE WORDS`; `#` starts a comment.
fn problems(found: &[String], list: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut listed = BTreeMap::new();
    for line in list.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let mut words = line.splitn(3, ' ');
        let key = format!("{} {}", words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if words.next().is_none_or(|reason| reason.trim().is_empty()) {
            problems.push(format!("{FILE}: {line}: does not say what it is"));
        }
        listed.insert(key, ());
    }
    for key in found.iter().filter(|key| !listed.contains_key(*key)) {
        problems.push(format!("{key}: a checkpoint refuses it; save it (docs/checkpoint.md), or list it in {FILE}"));
    }
    for key in listed.keys().filter(|key| !found.contains(key)) {
        problems.push(format!("{key}: is saved, or gone; remove it from {FILE}"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_without_the_method_refuse() {
        let code = "impl File for A {\n    fn save(&self) {\n    }\n}\nimpl<T: Text> File for B<T> {\n}\n\
                    impl moat_mm::Mappable for C {\n    fn save(&self) {}\n}\nimpl Display for D {\n}\n";
        assert_eq!(refusing(code), ["File:B", "Mappable:C"]);
    }

    #[test]
    fn the_list_is_exact_and_gives_words() {
        let found = ["f File:A".to_string()];
        assert!(problems(&found, "# c\nf File:A a pipe\n").is_empty());
        assert_eq!(problems(&found, "").len(), 1);
        assert_eq!(problems(&found, "f File:A\n").len(), 1);
        assert_eq!(problems(&[], "f File:A a pipe\n").len(), 1);
    }
}
