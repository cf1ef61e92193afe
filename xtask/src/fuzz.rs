//! `cargo x fuzz`: random input for what a guest can reach, for as long as one likes.
//!
//! [`guest`]: random system calls of a program in a sandbox, made of the declarations in `crates/syscalls`.

pub mod guest;
mod ring;
mod watch;

use anyhow::{Result, bail};

/// Runs what the arguments after `cargo x fuzz` ask for; a finding is an error.
pub fn run(arguments: &[String]) -> Result<()> {
    match arguments.split_first() {
        Some((first, rest)) if first == "guest" => guest::run(rest),
        _ => bail!("cargo x fuzz guest [--minutes N] [--platform P] [--seed S] [--moat PATH]"),
    }
}
