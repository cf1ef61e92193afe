//! What the tests need on the host, and its installation with apt.

use std::fs;
use std::os::unix::fs::PermissionsExt;
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

/// The clients of `tests/oci` and what they need. Where they can't be installed, the cases are skipped.
const CLIENTS: &[(&str, &str)] = &[
    ("docker", "docker.io"),
    ("dockerd", "docker.io"),
    ("docker-compose", "docker-compose"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("podman", "podman"),
    ("conmon", "conmon"),
    ("iptables", "iptables"),
    // Neither is a program in PATH.
    ("/usr/lib/cni/portmap", "containernetworking-plugins"),
    ("/usr/lib/python3/dist-packages/grpc/__init__.py", "python3-grpcio"),
    ("newuidmap", "uidmap"),
    ("python3", "python3"),
    ("setpriv", "util-linux"),
];

/// What invoke-rc.d(8) asks whether a service may be started.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// The static C library, which the guest programs link.
const LIBC_ARCHIVES: &[&str] = &["/usr/lib/x86_64-linux-gnu/libc.a", "/usr/lib64/libc.a"];

/// Installs what is missing; does nothing if all is there.
pub fn install() -> Result<()> {
    let (missing, clients) = (missing_packages(), packages_of(CLIENTS));
    if missing.is_empty() && clients.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!("missing packages: {} {}; install them, or run this as root", missing.join(" "), clients.join(" "));
    }
    println!("installing {} {}", missing.join(" "), clients.join(" "));
    let _services = NoServices::begin()?;
    paths::run(apt().arg("update"))?;
    paths::run(apt().args(["install", "--no-install-recommends"]).args(&missing))?;
    if let Err(error) = paths::run(apt().args(["install", "--no-install-recommends"]).args(&clients)) {
        println!("going on without: {error:#}");
    }
    Ok(())
}

/// Installs packages that only an area needs which is run by its name.
pub fn install_packages(packages: &[&str]) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("missing packages: {}; install them, or run this as root", packages.join(" "));
    }
    println!("installing {}", packages.join(" "));
    let _services = NoServices::begin()?;
    paths::run(apt().arg("update"))?;
    paths::run(apt().args(["install", "--no-install-recommends"]).args(packages))
}

/// While it lives, packages that are installed start no service: daemons are the tests' own.
struct NoServices {
    is_ours: bool,
}

impl NoServices {
    fn begin() -> Result<NoServices> {
        let is_ours = !Path::new(POLICY).exists();
        if is_ours {
            fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        }
        Ok(NoServices { is_ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.is_ours {
            // Nothing to do about an error, and the next installation shows it.
            let _ = fs::remove_file(POLICY);
        }
    }
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-y"]);
    command
}

fn missing_packages() -> Vec<&'static str> {
    let mut missing = packages_of(PROGRAMS);
    if !LIBC_ARCHIVES.iter().any(|a| Path::new(a).exists()) {
        missing.push("libc6-dev");
    }
    missing
}

/// The packages of the programs that are not there.
fn packages_of(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let mut packages: Vec<&str> =
        programs.iter().filter(|(p, _)| !is_installed(p)).map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

/// Whether the program is in PATH or in one of root's directories.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let directories = path.split(':').chain(["/usr/sbin", "/sbin"]);
    directories.into_iter().any(|directory| Path::new(directory).join(program).is_file())
}
