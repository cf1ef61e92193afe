//! `cargo x test files`: what only this area has besides the programs of the abi area that are about files.
//!
//! [`sequence`] makes random sequences of calls natively and in the sandbox, on every kind of tree, and compares;
//! [`crash`] kills sandboxes and gofers while programs inside report what they have committed.

mod crash;
mod sequence;
mod shrink;
mod tree;

use std::path::PathBuf;

use anyhow::Result;

use super::{Options, Report, Runner, abi};
use crate::paths;

use tree::Tree;

/// Runs the cases that the options ask for.
pub fn run(options: &Options, runner: &mut Runner, report: &mut Report) -> Result<()> {
    sequence::run(options, runner, report)?;
    if !options.native {
        crash::run(options, runner, report)?;
    }
    Ok(())
}

/// Whether a case is to run. One that is only to be named is named here.
fn is_to_run(options: &Options, name: &str) -> bool {
    let wanted = options.wants_case(name);
    if wanted && options.list {
        println!("files/{name}");
    }
    wanted && !options.list
}

/// The program of the sequences, built.
fn program() -> Result<PathBuf> {
    let directory = paths::target().join("files");
    std::fs::create_dir_all(&directory)?;
    let (source, binary) = (paths::repository().join("tests/files/sequence.c"), directory.join("sequence"));
    let changed = std::fs::metadata(&source)?.modified()?;
    if !std::fs::metadata(&binary).and_then(|m| m.modified()).is_ok_and(|built| built > changed) {
        abi::compile(&source, &binary)?;
    }
    Ok(binary)
}
