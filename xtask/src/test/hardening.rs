//! `tests/hardening`: what an attacker can't do.
//!
//! - [`attacks`]: guests use the sandbox's own code in their processes against it.
//! - [`host_tree`]: another process of the host changes a shared tree under the sandbox's feet.
//! - [`gaps`]: how long a call holds up others.
//! - [`guest`]: application code makes host calls itself.
//! - [`sentry`]: the sentry does what an attacker wants.
//! - [`fuzz`]: random calls, made of their declarations, under the same build as the load.
//! - [`load`]: everything at once, under a build that checks the order of its locks.

mod attacks;
mod fuzz;
mod gaps;
mod guest;
mod host_tree;
mod load;
mod sentry;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

use super::{Options, Platform, Report, Runner, abi};
use crate::paths;

/// Runs the cases that the options ask for.
pub fn run(options: &Options, runner: &mut Runner, report: &mut Report) -> Result<()> {
    host_tree::run(options, runner, report)?;
    guest::run(options, runner, report)?;
    attacks::run(options, runner, report)?;
    gaps::run(options, runner, report)?;
    sentry::run(options, runner, report)?;
    fuzz::run(options, report)?;
    load::run(options, report)
}

/// What became of a case.
enum Verdict {
    Passed,
    Skipped(&'static str),
    Failed(String),
}

impl From<Option<String>> for Verdict {
    /// `None`: nothing went wrong.
    fn from(why: Option<String>) -> Verdict {
        why.map_or(Verdict::Passed, Verdict::Failed)
    }
}

/// Runs one case on each platform, if it is asked for.
fn on_each_platform(
    options: &Options,
    report: &mut Report,
    case: &str,
    mut run: impl FnMut(Platform) -> Result<Verdict>,
) -> Result<()> {
    if !options.wants_case(case) {
        return Ok(());
    }
    if options.list {
        println!("hardening/{case}");
        return Ok(());
    }
    for platform in options.platforms(&Platform::ALL) {
        let name = format!("hardening/{}/{case}", platform.name());
        let start = Instant::now();
        match run(platform)? {
            Verdict::Passed => report.pass(&name, start.elapsed()),
            Verdict::Skipped(why) => report.skip(&name, why),
            Verdict::Failed(why) => report.fail(&name, why),
        }
    }
    Ok(())
}

/// Compiles a guest program of `tests/hardening`.
pub fn build(name: &str) -> Result<PathBuf> {
    let directory = paths::target().join("hardening");
    std::fs::create_dir_all(&directory)?;
    let binary = directory.join(name);
    let source = paths::repository().join("tests/hardening").join(name).with_extension("c");
    abi::compile(&source, &binary)?;
    Ok(binary)
}

/// Builds moat for debugging, with the checks that cost time in a release (the order of locks, overflows) and the feature by which a
/// sentry does what it is asked to; into a directory of its own, so that it can't be taken for another.
fn build_checked() -> Result<PathBuf> {
    let directory = paths::target().join("hardening/attacker");
    let mut build = paths::cargo();
    build.args(["build", "--quiet", "--package", "moat", "--features", "host-calls", "--target-dir"]).arg(&directory);
    paths::run(build.env("CARGO_INCREMENTAL", "0"))?;
    Ok(directory.join("debug/moat"))
}

/// A root directory with nothing in it but `program`, in /bin, and places to mount on.
pub fn make_root(root: &Path, program: &Path, name: &str) -> Result<()> {
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "tree"] {
        std::fs::create_dir_all(root.join(directory))?;
    }
    std::fs::copy(program, root.join("bin").join(name))?;
    Ok(())
}

/// A directory on the host's disk that goes with the case.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Scratch> {
        let path = paths::target().join("hardening").join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path)?;
        Ok(Scratch(std::fs::canonicalize(path)?))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
