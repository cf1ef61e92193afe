//! Packages of a tree for dpkg and RPM, with the scripts in `packages/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::make_parent;
use crate::paths;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const SUMMARY: &str = "application kernel for containers";
const DESCRIPTION: &str = "An OCI runtime that gives every pod a Linux kernel of its own.";

/// A file of `packages/`.
pub(super) fn source(name: &str) -> PathBuf {
    paths::repository().join("packages").join(name)
}

/// Where dpkg-deb is installed.
pub(super) fn debian(directory: &Path, tree: &Path) -> Result<Option<PathBuf>> {
    if !is_there("dpkg-deb") {
        println!("no moat.deb: dpkg-deb is not installed");
        return Ok(None);
    }
    let root = directory.join("deb");
    paths::run(Command::new("cp").arg("-a").arg(tree).arg(&root))?;
    let control = format!(
        "Package: moat\nVersion: {VERSION}\nArchitecture: amd64\nMaintainer: the moat project <moat@localhost>\n\
         Section: admin\nPriority: optional\nSuggests: uidmap\nDescription: {SUMMARY}\n {DESCRIPTION}\n"
    );
    let path = root.join("DEBIAN/control");
    make_parent(&path)?;
    fs::write(path, control)?;
    for (script, name) in [("after-install", "postinst"), ("before-removal", "prerm")] {
        fs::copy(source(script), root.join("DEBIAN").join(name))?;
    }
    let package = directory.join("moat.deb");
    paths::run(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&root).arg(&package))?;
    fs::remove_dir_all(root)?;
    println!("{}", package.display());
    Ok(Some(package))
}

/// Where rpmbuild is installed.
pub(super) fn rpm(directory: &Path, tree: &Path) -> Result<Option<PathBuf>> {
    if !is_there("rpmbuild") {
        println!("no moat.rpm: rpmbuild is not installed");
        return Ok(None);
    }
    let work = directory.join("rpm");
    fs::create_dir_all(&work)?;
    let script = |name: &str| fs::read_to_string(source(name));
    // The files are ready: nothing is compiled, stripped again or looked at for what it needs.
    let text = format!(
        "Name: moat\nVersion: {VERSION}\nRelease: 1\nSummary: {SUMMARY}\nLicense: Apache-2.0\nAutoReqProv: no\n\
         %global debug_package %{{nil}}\n%global __os_install_post %{{nil}}\n%global _build_id_links none\n\
         %description\n{DESCRIPTION}\n\
         %install\ncp -a '{}/.' '%{{buildroot}}/'\n\
         %files\n%defattr(-,root,root)\n{}\n%post\n{}\n%preun\n{}\n",
        tree.display(),
        files(tree)?,
        script("after-install")?,
        script("before-removal")?,
    );
    let recipe = work.join("moat.spec");
    fs::write(&recipe, text)?;
    let mut command = Command::new("rpmbuild");
    command.args(["-bb", "--quiet", "--target", "x86_64", "--define"]).arg(format!("_topdir {}", work.display()));
    paths::run(command.arg(&recipe))?;
    let package = directory.join("moat.rpm");
    fs::rename(work.join(format!("RPMS/x86_64/moat-{VERSION}-1.x86_64.rpm")), &package)?;
    fs::remove_dir_all(work)?;
    println!("{}", package.display());
    Ok(Some(package))
}

/// The files of a tree, a line for each; its directories are other packages', too, but for those with the program's name.
fn files(tree: &Path) -> Result<String> {
    let mut lines = Vec::new();
    let mut directories = vec![tree.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let name = Path::new("/").join(path.strip_prefix(tree)?);
            if !path.is_dir() {
                lines.push(name.display().to_string());
            } else if path.file_name().is_some_and(|name| name == "moat") {
                lines.push(format!("%dir {}", name.display()));
                directories.push(path);
            } else {
                directories.push(path);
            }
        }
    }
    lines.sort();
    Ok(lines.join("\n"))
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}
