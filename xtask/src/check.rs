//! `cargo x check`: what can be said about the source without running it.
//!
//! The steps go from the fastest to the slowest, and all of them run even if one fails, so that one
//! run shows everything there is to mend.

mod arithmetic;
mod casts;
mod circles;
mod comments;
mod counts;
mod dependencies;
mod layers;
mod listed;
mod ratchets;
mod sources;
mod statics;
mod syscall_list;
mod unsaved;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::paths;

pub use syscall_list::lines as syscall_lines;

/// A name for people, and what it does.
type Step = (&'static str, fn() -> Result<()>);

/// Runs every step; an error names those that failed.
pub fn run() -> Result<()> {
    let steps: [Step; 13] = [
        ("format", format),
        ("ratchets", ratchets::run),
        ("layers", layers::run),
        ("dependencies", dependencies::run),
        ("circles", circles::run),
        ("statics", statics::run),
        ("what is not saved", unsaved::run),
        ("casts", casts::run),
        ("comments", comments::run),
        ("list of system calls", syscall_list::run),
        ("lints", lints),
        ("arithmetic", arithmetic::run),
        ("documentation", documentation),
    ];
    let mut failed = Vec::new();
    for (name, step) in steps {
        let start = Instant::now();
        let outcome = step();
        let seconds = start.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => println!("ok    {name} ({seconds:.1} s)"),
            Err(error) => {
                println!("FAIL  {name} ({seconds:.1} s)\n{error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("check failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Brings the lists of numbers to what the sources have: `cargo x ratchet`.
///
/// # Errors
/// A file that can't be read or written.
pub fn tighten_ratchets() -> Result<()> {
    circles::lower()?;
    casts::lower()?;
    comments::raise()?;
    arithmetic::lower()
}

/// Writes the documents that are made from the sources: `cargo x docs`.
///
/// # Errors
/// A file that can't be read or written.
pub fn write_documents() -> Result<()> {
    syscall_list::write()?;
    // The test that compares the list writes it.
    let mut test = paths::cargo();
    test.args(["test", "--quiet", "--package", "moat-sentry", "--lib", "the_list_of_host_calls_is_that_of_the_filter"]);
    paths::run(test.env("MOAT_WRITE_HOST_CALLS", "1"))
}

/// Compares the part of the mutants that tests have noticed, in percent, with the least that is wanted.
pub fn check_mutants(current: &BTreeMap<String, usize>) -> Result<()> {
    counts::check_these("xtask/ratchets/mutants.txt", current)
}

fn format() -> Result<()> {
    let output = paths::cargo().args(["fmt", "--all", "--check", "--", "-l"]).output()?;
    if !output.status.success() {
        let files = String::from_utf8_lossy(&output.stdout);
        bail!("run cargo fmt --all; not formatted:\n{}{}", files.trim_end(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn lints() -> Result<()> {
    let arguments = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    paths::run(paths::cargo().args(arguments))
}

fn documentation() -> Result<()> {
    let arguments = ["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"];
    // Module documentation may name what is private to the crate: its readers read the source.
    let flags = "-D warnings -A rustdoc::private_intra_doc_links";
    paths::run(paths::cargo().args(arguments).env("RUSTDOCFLAGS", flags))
}
