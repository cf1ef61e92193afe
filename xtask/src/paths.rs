//! Where things are: the repository, the target directory, the binaries built in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The repository's root directory.
pub fn repository() -> &'static Path {
    // xtask/ lies directly below the root.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Cargo's target directory, which also holds everything that tests make.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => repository().join("target"),
    }
}

/// A `cargo` command in the repository, by the same cargo that started this program.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.current_dir(repository());
    command
}

/// Builds `moat` with the profile that tests and CI use and returns its path.
pub fn build_moat(profile: &str) -> Result<PathBuf> {
    run(cargo().args(["build", "--package", "moat", "--profile", profile]))?;
    // What the profile `dev` makes is in a directory of another name.
    let directory = if profile == "dev" { "debug" } else { profile };
    let binary = target().join(directory).join("moat");
    if !binary.exists() {
        bail!("cargo built no {}", binary.display());
    }
    Ok(binary)
}

/// Runs a command with inherited stdio; anything but success is an error that names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
