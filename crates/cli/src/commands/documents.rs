//! `moat completion` and `moat man`: what is made from the definition of the command line.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Arguments;

pub(super) fn completion(shell: Shell) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "moat", &mut script);
    super::print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

/// A page for moat, and one for each command.
pub(super) fn man(directory: &Path) -> anyhow::Result<u8> {
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    // Else the command "help" would get a page as well.
    let whole = Arguments::command().disable_help_subcommand(true);
    // The version that the program shows has several lines, which a page's title can't have.
    let whole = whole.version(env!("CARGO_PKG_VERSION"));
    clap_mangen::generate_to(whole, directory).with_context(|| format!("writing pages to {}", directory.display()))?;
    Ok(0)
}
