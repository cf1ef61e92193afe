//! `cargo x test`: unit tests, `tests/abi` and `tests/programs`, with one summary line over all.
//!
//! Abi and programs follow one rule: Linux is the specification. The same thing runs on the host
//! first, in a chroot, and then in the sandbox, and both must give the same.

mod abi;
mod checkpoint;
mod dispositions;
mod files;
mod hardening;
mod hosts;
mod job;
mod kernels;
pub mod leftovers;
pub mod oci;
mod options;
mod programs;
mod report;
mod requirements;
mod roots;
mod unit;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::paths;
pub use hardening::{build as guest_program, make_root};
pub use job::{
    ENTER_ROOT, Ending, FileServer, Files, Job, Network, Outcome, Place, Platform, Prepared, Runner, Writable, bundle,
    enter_root, tail, wait,
};
pub use options::{Area, Options};
pub use report::Report;
pub use roots::{Kind as RootKind, ensure as ensure_root};

/// The profile of the `moat` under test: as fast as a release, quicker to build.
pub const PROFILE: &str = "release-ci";

/// Runs what the arguments ask for; any failed test is an error.
pub fn run(arguments: &[String]) -> Result<()> {
    dispositions::reset()?;
    let options = Options::parse(arguments)?;
    if options.install {
        requirements::install()?;
    }
    let mut report = Report::default();
    if options.wants(Area::Unit) && options.cases.is_empty() && !options.list {
        unit::run(&mut report)?;
    }
    if [Area::Abi, Area::Checkpoint, Area::Files, Area::Programs, Area::Hardening, Area::Oci]
        .into_iter()
        .any(|area| options.wants(area))
    {
        sandboxed(&options, &mut report)?;
    }
    if options.wants_machines() {
        hosts::run(&options, &mut report)?;
    }
    if options.list {
        return Ok(());
    }
    report.print_summary();
    if report.failed() > 0 {
        bail!("some tests failed");
    }
    Ok(())
}

/// The areas that need root, a binary and a place to run in.
fn sandboxed(options: &Options, report: &mut Report) -> Result<()> {
    if !rustix::process::geteuid().is_root() && !options.list {
        let reason = "needs root: the runs on the host use chroot and namespaces";
        report.skip("abi", reason);
        report.skip("checkpoint", reason);
        report.skip("files", reason);
        report.skip("programs", reason);
        report.skip("hardening", reason);
        report.skip("oci", reason);
        return Ok(());
    }
    let moat = if options.native || options.list { PathBuf::new() } else { options.moat()? };
    let mut runner = Runner::new(moat.clone())?;
    if options.wants(Area::Abi) {
        abi::run(options, &mut runner, report)?;
    }
    if options.wants(Area::Checkpoint) {
        checkpoint::run(options, &mut runner, report)?;
    }
    if options.wants(Area::Files) {
        files::run(options, &mut runner, report)?;
    }
    if options.wants(Area::Programs) {
        programs::run(options, &mut runner, report)?;
    }
    if options.wants(Area::Hardening) {
        hardening::run(options, &mut runner, report)?;
    }
    if options.wants(Area::Oci) {
        oci::run(options, &moat, report)?;
    }
    Ok(())
}

/// `cargo x roots`: makes the roots ahead of time and prints their directories.
pub fn make_roots(arguments: &[String]) -> Result<()> {
    let kinds = match arguments.first().map(String::as_str) {
        None => vec![RootKind::Base, RootKind::Full, RootKind::Desk],
        Some("base") => vec![RootKind::Base],
        Some("full") => vec![RootKind::Full],
        Some("desk") => vec![RootKind::Desk],
        Some(other) => bail!("no root '{other}': base, full or desk"),
    };
    for kind in kinds {
        println!("{}", roots::ensure(kind)?.display());
    }
    Ok(())
}

impl Options {
    /// The binary under test: the one named, or one built for the occasion.
    pub fn moat(&self) -> Result<PathBuf> {
        match &self.moat {
            Some(path) => Ok(std::fs::canonicalize(path)?),
            None => paths::build_moat(PROFILE),
        }
    }
}
