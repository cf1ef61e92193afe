//! Circles of imports inside a crate: the number of files in the largest set of modules that all reach each other by
//! what they import, per crate. It may only shrink; a crate whose modules form layers has none.
//!
//! A module imports another if its code, unit tests aside, has a path by `crate::`, `super::` or `self::` that leads
//! there. A name that a module only passes on (`pub use`) leads to where it comes from, so that a crate's root, which
//! lists what the crate offers, holds nothing together.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::counts;
use super::sources::{self, Package};

const FILE: &str = "xtask/ratchets/circles.txt";

/// Compares the largest circle of every crate with the list.
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
    Ok(sources::packages()?.iter().map(|p| (p.directory.clone(), largest_circle(&Modules::of(p).imports()))).collect())
}

/// A module by its names from the crate's root, which is the empty path.
type ModulePath = Vec<String>;

/// The modules of a crate and their code.
struct Modules<'a> {
    code: BTreeMap<ModulePath, &'a str>,
}

impl<'a> Modules<'a> {
    fn of(package: &'a Package) -> Modules<'a> {
        let source = format!("{}/src/", package.directory);
        let mut code = BTreeMap::new();
        for file in &package.files {
            let Some(name) = file.path.strip_prefix(&source) else { continue };
            let mut path: ModulePath = name.trim_end_matches(".rs").split('/').map(String::from).collect();
            if path == ["lib"] || path == ["main"] {
                path.clear();
            }
            code.insert(path, file.without_tests());
        }
        Modules { code }
    }

    /// Which module imports which; none imports itself.
    fn imports(&self) -> BTreeMap<&ModulePath, BTreeSet<&ModulePath>> {
        self.code
            .iter()
            .map(|(module, code)| {
                let targets = paths(code).filter_map(|p| self.resolve(module, &p, 0)).filter(|t| *t != module);
                (module, targets.collect())
            })
            .collect()
    }

    /// The module that a path in the code of `from` leads to.
    fn resolve(&self, from: &ModulePath, path: &[String], depth: usize) -> Option<&ModulePath> {
        let mut at = match path.first()?.as_str() {
            "crate" => ModulePath::new(),
            _ => from.clone(),
        };
        let mut rest = path.iter().skip(usize::from(path[0] != "super"));
        let mut name = rest.next();
        while let Some(word) = name {
            if word == "super" {
                at.pop()?;
            } else {
                at.push(word.clone());
                if !self.code.contains_key(&at) {
                    at.pop();
                    break;
                }
            }
            name = rest.next();
        }
        let (module, code) = self.code.get_key_value(&at)?;
        // A name that the module itself imports comes from there; import chains of names are short.
        let passed_on = name.filter(|_| depth < 8).and_then(|name| {
            uses(code).into_iter().find(|u| u.last() == Some(name) && u.len() > 1).and_then(|u| {
                let known = ["crate", "super", "self"].contains(&u[0].as_str());
                let relative: Vec<String> = if known { u } else { [vec!["self".to_string()], u].concat() };
                self.resolve(module, &relative, depth + 1).filter(|found| *found != module)
            })
        });
        Some(passed_on.unwrap_or(module))
    }
}

/// All paths of the code that begin with `crate`, `super` or `self`, with the trees of `use` taken apart.
fn paths(code: &str) -> impl Iterator<Item = Vec<String>> {
    let starts = ["crate", "super", "self"].into_iter().flat_map(|word| {
        sources::words(code, word).filter(move |at| {
            code[at + word.len()..].starts_with("::") && !code[..*at].ends_with("::") && !passes_on(&code[..*at])
        })
    });
    let mut found = Vec::new();
    for at in starts {
        tree(&code[at..], &mut Vec::new(), &mut found);
    }
    found.into_iter()
}

/// Whether the path that follows `before` is one of `pub use`: it offers names and needs none.
fn passes_on(before: &str) -> bool {
    let statement = before.rsplit([';', '}', '{']).next().unwrap_or_default().trim();
    statement.starts_with("pub") && statement.ends_with("use")
}

/// The full paths of all `use` declarations.
fn uses(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for at in sources::words(code, "use") {
        tree(code[at + 3..].trim_start(), &mut Vec::new(), &mut found);
    }
    found
}

/// Reads a path or a tree of paths at the start of `text` into `found`; gives what follows it.
fn tree<'t>(text: &'t str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'t str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            let before = rest.len();
            rest = tree(rest, &mut prefix.clone(), found).trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest);
            if rest.len() == before {
                return rest;
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (word, mut rest) = text.split_at(end);
    if !(word.is_empty() || word == "self" && !prefix.is_empty()) {
        prefix.push(word.to_string());
    }
    if let Some(after) = rest.strip_prefix("::") {
        return tree(after, prefix, found);
    }
    rest = rest.strip_prefix('*').unwrap_or(rest);
    // The new name of `x as y` is the one that others use, but its origin is what counts here.
    if let Some(renamed) = rest.strip_prefix(" as ") {
        let end = renamed.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(renamed.len());
        rest = &renamed[end..];
    }
    found.push(prefix.clone());
    rest
}

/// The size of the largest set of modules that all reach each other; 0 if there is none of more than one.
fn largest_circle<T: Ord>(imports: &BTreeMap<&T, BTreeSet<&T>>) -> usize {
    let reach: BTreeMap<&T, BTreeSet<&T>> = imports.keys().map(|from| (*from, reachable(imports, from))).collect();
    let circle = |a: &T| reach.iter().filter(|(b, back)| back.contains(a) && reach[a].contains(*b)).count();
    reach.keys().map(|a| circle(a)).max().unwrap_or_default()
}

fn reachable<'a, T: Ord>(imports: &BTreeMap<&'a T, BTreeSet<&'a T>>, from: &T) -> BTreeSet<&'a T> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&T> = imports.get(from).into_iter().flatten().copied().collect();
    while let Some(next) = open.pop() {
        if let Some((next, targets)) = imports.get_key_value(next)
            && seen.insert(*next)
        {
            open.extend(targets);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::super::sources::Source;
    use super::*;

    fn circle(files: &[(&str, &str)]) -> usize {
        let source = |(name, code): &(&str, &str)| Source {
            path: format!("c/src/{name}"),
            text: String::new(),
            code: (*code).to_string(),
        };
        let package = Package { name: "c".into(), directory: "c".into(), files: files.iter().map(source).collect() };
        largest_circle(&Modules::of(&package).imports())
    }

    #[test]
    fn layers_have_no_circle() {
        assert_eq!(circle(&[("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::B;"), ("b.rs", "")]), 0);
    }

    #[test]
    fn a_circle_is_found_in_every_form_of_path() {
        let a = ("a.rs", "use crate::{x::Y, b::{self, B as C}};");
        assert_eq!(circle(&[a, ("b.rs", "fn f() -> crate::a::A {}")]), 2);
        assert_eq!(circle(&[a, ("b.rs", "use super::a::A;")]), 2);
        assert_eq!(circle(&[a, ("b.rs", "use crate::d::D;"), ("d.rs", "use crate::a::*;")]), 3);
        assert_eq!(circle(&[("a.rs", "use self::b::B;"), ("a/b.rs", "use super::Own;")]), 2);
    }

    #[test]
    fn what_is_passed_on_leads_to_its_origin() {
        let root = ("lib.rs", "mod a; mod b; pub use a::A; pub use self::b::B;");
        assert_eq!(circle(&[root, ("a.rs", "use crate::B;"), ("b.rs", "")]), 0);
        assert_eq!(circle(&[root, ("a.rs", "use crate::B;"), ("b.rs", "use crate::A;")]), 2);
    }

    #[test]
    fn unit_tests_do_not_count() {
        let b = "#[cfg(test)]\nmod tests {\n use crate::a::A;\n}\n";
        assert_eq!(circle(&[("a.rs", "use crate::b::B;"), ("b.rs", b)]), 0);
    }
}
