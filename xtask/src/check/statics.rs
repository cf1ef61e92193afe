//! Statics that can change. State of the guest belongs to the kernel object or to a namespace, so that two kernels can
//! live in one process; each static that remains is listed with its reason in [`FILE`].

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};

use super::sources;
use crate::paths;

const FILE: &str = "xtask/ratchets/statics.txt";

/// Parts of the names of types whose values change behind a shared reference.
const MUTABLE: &[&str] = &[
    "Atomic",
    "Mutex",
    "RwLock",
    "OnceLock",
    "OnceCell",
    "LazyLock",
    "LazyCell",
    "Cell<",
    "Counter",
    "WaitQueue",
    "Once",
];

/// Compares the statics of all crates with the list.
///
/// # Errors
/// Those that are not listed, and lines of the list without a static or a reason.
pub fn run() -> Result<()> {
    let text = fs::read_to_string(paths::repository().join(FILE)).with_context(|| FILE.to_string())?;
    let mut found = Vec::new();
    for package in sources::packages()?.iter().filter(|p| p.directory.starts_with("crates/")) {
        for file in package.files.iter().filter(|f| f.is_in_src(package)) {
            found.extend(mutable_statics(file.without_tests()).into_iter().map(|name| format!("{} {name}", file.path)));
        }
    }
    let problems = problems(&found, &text);
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// The names of the statics, also those of threads, whose type can change.
fn mutable_statics(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for at in sources::words(code, "static") {
        // `&'static` is a lifetime.
        if code[..at].ends_with('\'') {
            continue;
        }
        let Some((name, rest)) = code[at + "static".len()..].split_once(':') else { continue };
        let name = name.trim().trim_start_matches("ref ");
        if !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let kind = rest.split(['=', ';']).next().unwrap_or_default();
        if MUTABLE.iter().any(|part| kind.contains(part)) {
            found.push(name.to_string());
        }
    }
    found
}

/// Lines of the list are `PATH NAME REASON`; `#` starts a comment.
fn problems(found: &[String], list: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut listed = BTreeMap::new();
    for line in list.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let mut words = line.splitn(3, ' ');
        let key = format!("{} {}", words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if words.next().is_none_or(|reason| reason.trim().is_empty()) {
            problems.push(format!("{FILE}: {line}: has no reason"));
        }
        listed.insert(key, ());
    }
    for key in found.iter().filter(|key| !listed.contains_key(*key)) {
        problems.push(format!("{key}: a static that changes; make it a field of the object that it belongs to"));
    }
    for key in listed.keys().filter(|key| !found.contains(key)) {
        problems.push(format!("{key}: is gone; remove it from {FILE}"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_change_counts() {
        let code = "static A: AtomicU64 = AtomicU64::new(0);\npub(crate) static TABLE: &[Decl] = &[];\n\
                    fn f() -> &'static Mutex<u8> { x }\nthread_local! { static B: RefCell<u8> = x; }";
        assert_eq!(mutable_statics(code), ["A", "B"]);
    }

    #[test]
    fn the_list_is_exact_and_gives_reasons() {
        let found = ["f A".to_string()];
        assert!(problems(&found, "# c\nf A the host's own\n").is_empty());
        assert_eq!(problems(&found, "").len(), 1);
        assert_eq!(problems(&found, "f A\n").len(), 1);
        assert_eq!(problems(&[], "f A why\n").len(), 1);
    }
}
