//! The Debian roots that programs run in: made once, kept in the target directory.
//!
//! `base` is small and quick to make; `full` has everything that the acceptance cases name, `desk` what a developer works
//! with. A root is remade when its package list changes. `MOAT_TEST_ROOT` names a directory that holds them instead
//! (`base/`, `full/`, `desk/`); roots there are used as they are, and what is not there is made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::requirements;
use crate::paths;

/// Which root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// minbase, Python, Perl, and little else.
    Base,
    /// Compilers, interpreters, servers, debuggers.
    Full,
    /// A developer's: sshd, an editor, a terminal multiplexer, cron, at, a compiler with its debugger.
    Desk,
}

impl Kind {
    /// The name in headers, arguments and paths.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Base => "base",
            Kind::Full => "full",
            Kind::Desk => "desk",
        }
    }
}

/// The root's directory, which is made first if need be (minutes, and the network).
pub fn ensure(kind: Kind) -> Result<PathBuf> {
    let given = std::env::var_os("MOAT_TEST_ROOT").map(PathBuf::from);
    if let Some(directory) = given.as_ref().map(|d| d.join(kind.name())).filter(|d| d.is_dir()) {
        return Ok(fs::canonicalize(directory)?);
    }
    let parent = given.unwrap_or_else(|| paths::target().join("roots"));
    fs::create_dir_all(&parent)?;
    let directory = fs::canonicalize(&parent)?.join(kind.name());
    let stamp = parent.join(format!("{}.packages", kind.name()));
    let wanted = package_lists(kind)?;
    if directory.is_dir() && fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(directory);
    }
    make(kind, &directory)?;
    fs::write(&stamp, wanted)?;
    Ok(directory)
}

/// The text that decides whether a root is up to date.
fn package_lists(kind: Kind) -> Result<String> {
    let read = |name| {
        let file = paths::repository().join("tests/roots").join(name);
        fs::read_to_string(&file).with_context(|| file.display().to_string())
    };
    match kind {
        Kind::Base => read("base.packages"),
        Kind::Full => Ok(read("base.packages")? + &read("full.packages")?),
        Kind::Desk => Ok(read("base.packages")? + &read("desk.packages")?),
    }
}

fn make(kind: Kind, directory: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("making the test root '{}' needs root", kind.name());
    }
    if !requirements::is_installed("debootstrap") {
        bail!("making a test root needs debootstrap: cargo x test --install");
    }
    let seed = match kind {
        Kind::Base => None,
        Kind::Full | Kind::Desk => Some(ensure(Kind::Base)?),
    };
    println!("making the test root {} (once, some minutes)", directory.display());
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    let log = directory.with_extension("log");
    let output = fs::File::create(&log)?;
    let status = Command::new(paths::repository().join("tests/roots/make-root.sh"))
        .args([kind.name().as_ref(), directory.as_os_str()])
        .arg(mirror()?)
        .args(seed)
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()?;
    if !status.success() {
        bail!("making the test root failed ({status}); see {}", log.display());
    }
    Ok(())
}

/// The first Debian archive in this machine's apt sources that has bookworm's main component.
pub fn mirror() -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| mirror_in(&text))
        .context("no apt source of this machine has bookworm's main component")
}

/// Understands both formats: one line a source, and deb822 paragraphs (sources.list(5)).
fn mirror_in(text: &str) -> Option<String> {
    one_line_sources(text).or_else(|| text.split("\n\n").find_map(paragraph_source))
}

fn one_line_sources(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let line = line.strip_prefix("deb ")?;
        // Options stand in brackets before the address.
        let line = line.rsplit_once("] ").map_or(line, |(_, rest)| rest);
        let mut words = line.split_whitespace();
        let address = words.next()?;
        let is_it = words.next()? == "bookworm" && words.any(|w| w == "main");
        is_it.then(|| address.to_string())
    })
}

fn paragraph_source(paragraph: &str) -> Option<String> {
    let field = |name: &str| {
        let value = paragraph.lines().find_map(|l| l.strip_prefix(name));
        value.map(|v| v.split_whitespace().collect::<Vec<_>>()).unwrap_or_default()
    };
    let is_it = field("Suites:").contains(&"bookworm") && field("Components:").contains(&"main");
    let address = field("URIs:").first().map(|a| a.to_string());
    address.filter(|_| is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mirror_in_both_formats() {
        let found = Some("http://example.test/debian".to_string());
        let line = "# x\ndeb [signed-by=/k] http://example.test/debian bookworm main contrib\n";
        assert_eq!(mirror_in(line), found);
        let paragraphs = "Types: deb\nURIs: http://example.test/other\nSuites: nodistro\nComponents: main\n\n\
            Types: deb\nURIs: http://example.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\n";
        assert_eq!(mirror_in(paragraphs), found);
        assert_eq!(mirror_in("deb http://example.test/x bookworm-security main\n"), None);
    }
}
