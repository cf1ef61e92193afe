//! What the tests need on the host, and its installation with apt.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::paths;

/// A program that the tests run, and the Debian package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    ("cc", "gcc"),
    ("make", "make"),
    ("debootstrap", "debootstrap"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
];

/// The static C library, which the guest programs link.
const LIBC_ARCHIVES: &[&str] = &["/usr/lib/x86_64-linux-gnu/libc.a", "/usr/lib64/libc.a"];

/// Installs what is missing; does nothing if all is there.
pub fn install() -> Result<()> {
    let missing = missing_packages();
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!("missing packages: {}; install them, or run this as root", missing.join(" "));
    }
    println!("installing {}", missing.join(" "));
    paths::run(apt().arg("update"))?;
    paths::run(apt().args(["install", "--no-install-recommends"]).args(&missing))
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-y"]);
    command
}

fn missing_packages() -> Vec<&'static str> {
    let mut missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| !is_installed(program)).map(|(_, package)| *package).collect();
    if !LIBC_ARCHIVES.iter().any(|a| Path::new(a).exists()) {
        missing.push("libc6-dev");
    }
    missing
}

/// Whether the program is in PATH or in one of root's directories.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let directories = path.split(':').chain(["/usr/sbin", "/sbin"]);
    directories.into_iter().any(|directory| Path::new(directory).join(program).is_file())
}
