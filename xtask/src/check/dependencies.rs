//! Dependencies that nothing uses: each one that a Cargo.toml names must be named by the sources that may use it.
//!
//! `[dependencies]` are for `src`, `[dev-dependencies]` for unit tests, `tests`, `examples` and `benches` too. A
//! dependency that only its effect is wanted of (a feature of a crate further down) is listed in [`FOR_EFFECT`].

use std::fs;

use anyhow::{Context, Result, bail};

use super::sources::{self, Package};
use crate::paths;

/// Dependencies that no source names: PACKAGE, DEPENDENCY and the reason.
const FOR_EFFECT: &[(&str, &str, &str)] = &[];

/// The section of a Cargo.toml that a dependency is in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Section {
    Normal,
    Dev,
}

/// Checks every package.
///
/// # Errors
/// The unused dependencies, one a line; a file that can't be read.
pub fn run() -> Result<()> {
    let mut problems = Vec::new();
    for package in sources::packages()? {
        let manifest = paths::repository().join(&package.directory).join("Cargo.toml");
        let text = fs::read_to_string(&manifest).with_context(|| manifest.display().to_string())?;
        problems.extend(unused(&package, &text));
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

fn unused(package: &Package, manifest: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (section, name) in declared(manifest) {
        let for_effect = FOR_EFFECT.iter().any(|(p, d, _)| *p == package.name && *d == name);
        let used = package.files.iter().any(|file| {
            let may_use = section == Section::Dev || file.is_in_src(package);
            may_use && names(&file.code, &name.replace('-', "_"))
        });
        if !used && !for_effect {
            problems.push(format!("{}/Cargo.toml: nothing uses {name}; remove it", package.directory));
        }
    }
    problems
}

/// The dependencies of a Cargo.toml, by the name that sources use; build dependencies are left out.
fn declared(manifest: &str) -> Vec<(Section, String)> {
    let mut section = None;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end().trim_end_matches(']');
            section = match header.rsplit('.').next() {
                Some("dependencies") => Some(Section::Normal),
                Some("dev-dependencies") => Some(Section::Dev),
                _ => None,
            };
            continue;
        }
        let name: String = line.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
        if let Some(section) = section.filter(|_| !name.is_empty() && line.contains('=')) {
            found.push((section, name));
        }
    }
    found
}

/// Whether `code` has a path that begins with `krate`, or imports it whole.
fn names(code: &str, krate: &str) -> bool {
    sources::words(code, krate).any(|at| {
        let before = code[..at].trim_end();
        let after = code[at + krate.len()..].trim_start();
        let imported = before.ends_with("use") || before.ends_with("crate");
        !before.ends_with("crate::") && (after.starts_with("::") || imported)
    })
}

#[cfg(test)]
mod tests {
    use super::super::sources::Source;
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"p\"\n\n[dependencies]\nserde_json.workspace = true\nmoat-abi = { path = \"x\" }\n\n\
         [dev-dependencies]\nproptest = \"1\"\n\n[features]\na = []\n";

    fn package(path: &str, code: &str) -> Package {
        let files = vec![Source { path: path.into(), text: String::new(), code: code.into() }];
        Package { name: "p".into(), directory: "crates/p".into(), files }
    }

    #[test]
    fn a_dependency_has_to_be_named() {
        let used = "use moat_abi::Errno;\nfn f() { serde_json::to_string(); proptest::proptest!() }";
        assert!(unused(&package("crates/p/src/lib.rs", used), MANIFEST).is_empty());
        let found = unused(&package("crates/p/src/lib.rs", "use proptest as p; let moat_abi = serde_json;"), MANIFEST);
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_test_does_not_justify_a_dependency_of_the_library() {
        let found = unused(
            &package("crates/p/tests/t.rs", "use serde_json as j; use moat_abi as a; use proptest as p;"),
            MANIFEST,
        );
        assert_eq!(found.len(), 2);
    }
}
