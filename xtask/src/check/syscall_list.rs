//! `docs/syscalls.md`: the list of system calls, written from the declarations in `crates/syscalls` and the numbers in
//! `crates/abi`, and compared with the file by `cargo x check`. `cargo x docs` writes it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::paths;

const FILE: &str = "docs/syscalls.md";
const DECLARATIONS: &str = "crates/syscalls/src";
const NUMBERS: &str = "crates/abi/src/nr.rs";

const HEAD: &str = "\
# System calls

Written by `cargo x docs` from the declarations in `crates/syscalls`: change them there. Numbers and names are those of
x86-64. *full* is as Linux; *partial* is all but what the note says; *stub* is accepted or refused without doing
anything, as the note says. A call without a declaration gives `ENOSYS`.

";

/// One declaration.
#[derive(Debug, PartialEq)]
struct Declared {
    name: String,
    arguments: String,
    types: Vec<String>,
    level: String,
    note: String,
}

/// Compares the file with what the declarations give.
///
/// # Errors
/// A difference; a file that can't be read.
pub fn run() -> Result<()> {
    let file = fs::read_to_string(paths::repository().join(FILE)).with_context(|| FILE.to_string())?;
    if file != generate()? {
        bail!("{FILE} is not what the declarations give; run cargo x docs");
    }
    Ok(())
}

/// Writes the file.
///
/// # Errors
/// A file that can't be read or written.
pub fn write() -> Result<()> {
    fs::write(paths::repository().join(FILE), generate()?).with_context(|| FILE.to_string())
}

/// The calls by their numbers, one a line with names and types of its arguments: `NR NAME ARGUMENT:TYPE ...`, a space in a type
/// written as `~`.
///
/// # Errors
/// A file that can't be read.
pub fn lines() -> Result<String> {
    let mut out = String::new();
    for (nr, call) in all()? {
        write!(out, "{nr} {}", call.name)?;
        let arguments = call.arguments.split(", ").zip(&call.types).filter(|(a, _)| !a.is_empty());
        for (argument, kind) in arguments {
            write!(out, " {argument}:{}", kind.replace(' ', "~"))?;
        }
        out.push('\n');
    }
    Ok(out)
}

fn all() -> Result<BTreeMap<u32, Declared>> {
    let mut declared = BTreeMap::new();
    read_declarations(&paths::repository().join(DECLARATIONS), &mut declared)?;
    Ok(declared)
}

fn generate() -> Result<String> {
    let root = paths::repository();
    let declared = all()?;
    let numbers = fs::read_to_string(root.join(NUMBERS)).with_context(|| NUMBERS.to_string())?;
    document(&declared, &known(&numbers))
}

fn read_declarations(directory: &Path, declared: &mut BTreeMap<u32, Declared>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            read_declarations(&path, declared)?;
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        // The one in the documentation of the macro is an example, and begins with a comment sign.
        for block in text.split("\nsyscalls! {").skip(1).filter_map(|rest| rest.split("\n}").next()) {
            for statement in statements(block).iter().filter(|s| s.starts_with(|c: char| c.is_ascii_digit())) {
                let (nr, call) = parse(statement).with_context(|| format!("{}: {statement}", path.display()))?;
                if declared.insert(nr, call).is_some() {
                    bail!("{}: {nr} is declared twice", path.display());
                }
            }
        }
    }
    Ok(())
}

/// What stands between semicolons, in one line each; those of texts and array types, and comments, are left out.
fn statements(block: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let (mut in_text, mut brackets) = (false, 0usize);
    for line in block.lines().map(str::trim).filter(|l| !l.starts_with("//")) {
        for c in line.chars() {
            in_text ^= c == '"';
            match c {
                '[' => brackets += 1,
                ']' => brackets = brackets.saturating_sub(1),
                _ => {}
            }
            match found.last_mut() {
                Some(last) if c != ';' || in_text || brackets > 0 => last.push(c),
                _ => found.push(String::new()),
            }
        }
        if let Some(last) = found.last_mut().filter(|l| !l.is_empty() && !l.ends_with('(')) {
            last.push(' ');
        }
    }
    found.iter().map(|s| s.trim().to_string()).filter(|s| !s.is_empty()).collect()
}

/// Reads `NR NAME(ARGUMENTS) [async] HANDLER, LEVEL[("NOTE")]`.
fn parse(statement: &str) -> Option<(u32, Declared)> {
    let (nr, rest) = statement.split_once(' ')?;
    let (name, rest) = rest.split_once('(')?;
    let (arguments, rest) = rest.split_once(')')?;
    let (_, level) = rest.split_once(", ")?;
    let (level, note) = match level.split_once('(') {
        Some((level, note)) => (level, note.strip_suffix(")").unwrap_or(note).trim_matches('"')),
        None => (level, ""),
    };
    let words = arguments.trim_end_matches([',', ' ']).split(", ").map(|a| a.split_once(':').unwrap_or((a, "")));
    let (arguments, types): (Vec<&str>, Vec<String>) =
        words.map(|(a, t)| (a.trim().trim_start_matches('_'), t.trim().to_string())).unzip();
    let (name, level, note) = (name.to_string(), level.to_string(), note.to_string());
    Some((nr.parse().ok()?, Declared { name, arguments: arguments.join(", "), types, level, note }))
}

/// The numbers and names of all calls that Linux has: lines `READ "read" = 0;`.
fn known(text: &str) -> BTreeMap<u32, String> {
    let lines = text.lines().filter_map(|line| {
        let (left, right) = line.trim().strip_suffix(';')?.split_once(" = ")?;
        Some((right.parse().ok()?, left.split('"').nth(1)?.to_string()))
    });
    lines.collect()
}

fn document(declared: &BTreeMap<u32, Declared>, known: &BTreeMap<u32, String>) -> Result<String> {
    let mut out = HEAD.to_string();
    let count = |level: &str| declared.values().filter(|d| d.level == level).count();
    let (full, partial, stub) = (count("full"), count("partial"), count("stub"));
    writeln!(out, "Of {} calls {full} are full, {partial} partial and {stub} stubs.\n", known.len())?;
    out.push_str("| nr | call | support | note |\n|---|---|---|---|\n");
    for (nr, d) in declared {
        if known.get(nr) != Some(&d.name) {
            bail!("{nr} is declared as {}, which is not its name in {NUMBERS}", d.name);
        }
        writeln!(out, "| {nr} | `{}({})` | {} | {} |", d.name, d.arguments, d.level, d.note.replace('|', "\\|"))?;
    }
    let missing: Vec<String> =
        known.iter().filter(|(nr, _)| !declared.contains_key(nr)).map(|(nr, name)| format!("{name} ({nr})")).collect();
    writeln!(out, "\n## Not there: ENOSYS\n\n{}", missing.join(", "))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declaration_is_read_over_lines() {
        let block = " pub static TABLE;\n // Reason; more.\n 0 read(fd: Fd, _b: UserPtr<u8>) async rw::sys_read, full;\n\
                     9 x(a: UserPtr<[u8; 2]>,\n b: u32) sys_x,\n partial(\"no a; no b (c)\");\n 39 getpid() sys_getpid, full;\n";
        let all = statements(block);
        assert_eq!(all.len(), 4);
        let call = |name: &str, arguments: &str, types: &[&str], level: &str, note: &str| Declared {
            name: name.into(),
            arguments: arguments.into(),
            types: types.iter().map(ToString::to_string).collect(),
            level: level.into(),
            note: note.into(),
        };
        assert_eq!(parse(&all[1]), Some((0, call("read", "fd, b", &["Fd", "UserPtr<u8>"], "full", ""))));
        assert_eq!(
            parse(&all[2]),
            Some((9, call("x", "a, b", &["UserPtr<[u8; 2]>", "u32"], "partial", "no a; no b (c)")))
        );
        assert_eq!(parse(&all[3]), Some((39, call("getpid", "", &[""], "full", ""))));
    }

    #[test]
    fn a_wrong_name_is_an_error_and_missing_calls_are_listed() {
        let known = known("    READ \"read\" = 0;\n    WRITE \"write\" = 1;\n");
        let declared = |name: &str| {
            let (arguments, types, level, note) = (String::new(), Vec::new(), "full".into(), String::new());
            BTreeMap::from([(0, Declared { name: name.into(), arguments, types, level, note })])
        };
        assert!(document(&declared("read"), &known).unwrap().contains("ENOSYS\n\nwrite (1)\n"));
        assert!(document(&declared("open"), &known).is_err());
    }
}
