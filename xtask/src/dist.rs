//! `cargo x dist`: the program as it is shipped, in packages.
//!
//! `target/dist/moat/` is what is installed, as a tree from `/` on; the archives beside it have the same.

mod packages;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::test::{RootKind, ensure_root};

/// Builds, strips and packs; with `--verify` the package is tried.
///
/// # Errors
/// A tool that fails or is not there, but for dpkg-deb and rpmbuild; a package that does not work.
pub fn run(arguments: &[String]) -> Result<()> {
    let is_verified = match arguments {
        [] => false,
        [flag] if flag == "--verify" => true,
        _ => bail!("cargo x dist takes --verify only"),
    };
    let binary = build()?;
    let directory = paths::target().join("dist");
    let _ = fs::remove_dir_all(&directory);
    let tree = directory.join("moat");
    let program = tree.join("usr/bin/moat");
    make_parent(&program)?;
    strip(&binary, &program, &directory.join("moat.debug"))?;
    // By this name containerd finds it as a shim.
    std::os::unix::fs::symlink("moat", tree.join("usr/bin/containerd-shim-moat-v1"))?;
    documents(&program, &tree)?;
    let archive = directory.join("moat.tar.zst");
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--zstd", "-cf"]).arg(&archive);
    paths::run(tar.arg("-C").arg(&tree).arg("usr"))?;
    println!("{}", archive.display());
    let package = packages::debian(&directory, &tree)?;
    let other = packages::rpm(&directory, &tree)?;
    if is_verified {
        let package = package.context("dpkg-deb is not installed")?;
        verify(&directory, &package, other.as_deref())?;
    }
    println!("{} bytes stripped, {} with symbols", fs::metadata(&program)?.len(), fs::metadata(&binary)?.len());
    Ok(())
}

/// The static program, which says what it was made from.
fn build() -> Result<PathBuf> {
    let git = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(paths::repository()).output();
    let commit = git.ok().filter(|output| output.status.success()).map(|output| output.stdout).unwrap_or_default();
    let commit = String::from_utf8_lossy(&commit);
    let commit = if commit.trim().is_empty() { "unknown" } else { commit.trim() };
    paths::run(paths::cargo().arg("dist").env("MOAT_COMMIT", commit))?;
    Ok(paths::target().join("x86_64-unknown-linux-gnu/release/moat"))
}

fn strip(binary: &Path, program: &Path, symbols: &Path) -> Result<()> {
    paths::run(Command::new("objcopy").arg("--only-keep-debug").arg(binary).arg(symbols))?;
    let link = format!("--add-gnu-debuglink={}", symbols.display());
    paths::run(Command::new("objcopy").args(["--strip-all", &link]).arg(binary).arg(program))
}

/// Manual pages and completions, which the program writes itself, and the license.
fn documents(program: &Path, tree: &Path) -> Result<()> {
    let pages = tree.join("usr/share/man/man1");
    paths::run(Command::new(program).arg("man").arg(&pages))?;
    for page in fs::read_dir(&pages)? {
        paths::run(Command::new("gzip").args(["-9", "-n"]).arg(page?.path()))?;
    }
    for (shell, path) in [
        ("bash", "usr/share/bash-completion/completions/moat"),
        ("zsh", "usr/share/zsh/vendor-completions/_moat"),
        ("fish", "usr/share/fish/vendor_completions.d/moat.fish"),
    ] {
        let output = Command::new(program).args(["completion", shell]).output()?;
        if !output.status.success() {
            bail!("moat completion {shell}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let path = tree.join(path);
        make_parent(&path)?;
        fs::write(&path, output.stdout)?;
    }
    for (source, name) in [("LICENSE", "copyright"), ("README.md", "README.md")] {
        let path = tree.join("usr/share/doc/moat").join(name);
        make_parent(&path)?;
        fs::copy(paths::repository().join(source), path)?;
    }
    // The packages' scripts put it into /etc where AppArmor can read it.
    let profile = tree.join("usr/share/moat/apparmor");
    make_parent(&profile)?;
    fs::copy(packages::source("apparmor"), profile)?;
    Ok(())
}

/// Installs, uses and removes them in a copy of the tests' Debian root (`tests/package.sh`). Takes root.
fn verify(directory: &Path, package: &Path, rpm: Option<&Path>) -> Result<()> {
    let root = ensure_root(RootKind::Base)?;
    let scratch = directory.join("root");
    fs::create_dir_all(&scratch)?;
    let script = paths::repository().join("tests/package.sh");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]);
    paths::run(command.arg(script).args([package, &root, &scratch]).args(rpm))?;
    println!("the package works");
    Ok(fs::remove_dir(scratch)?)
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().context("a path in a directory")?;
    fs::create_dir_all(parent).with_context(|| parent.display().to_string())
}
