//! `cargo x fuzz`: random input for what a guest can reach, for as long as one likes.
//!
//! - [`guest`]: random system calls of a program in a sandbox, made of the declarations in `crates/syscalls`.
//! - [`target`]: the parsers of what is hostile, each by itself (`crates/fuzz`).

pub mod guest;
mod ring;
mod target;
mod watch;

use anyhow::{Result, bail};

/// Runs what the arguments after `cargo x fuzz` ask for; a finding is an error.
pub fn run(arguments: &[String]) -> Result<()> {
    let names = target::names()?;
    match arguments.split_first() {
        Some((first, rest)) if first == "guest" => guest::run(rest),
        Some((first, rest)) if first == "all" => target::run(&names, rest),
        Some((first, rest)) if names.contains(first) => target::run(std::slice::from_ref(first), rest),
        _ => bail!(
            "cargo x fuzz guest [--minutes N] [--platform P] [--seed S] [--moat PATH]\n\
             cargo x fuzz TARGET|all [--minutes N] [--seed S], with a TARGET of {}",
            names.join(", ")
        ),
    }
}
