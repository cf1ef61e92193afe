//! The direction of dependencies: a crate may depend only on crates of a lower layer.
//!
//! [`LAYERS`] is the one table; a crate that it lacks is an error, so a new crate must choose its place.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::paths;

/// The workspace's crates from the bottom up. Crates of one layer may not depend on each other.
const LAYERS: &[&[&str]] = &[
    &["moat-abi", "moat-image", "moat-stub"],
    &["moat-host", "moat-net-stack", "moat-bpf"],
    &["moat-sync", "moat-control"],
    &["moat-platform", "moat-jail", "moat-identity", "moat-monitor", "moat-net-link", "moat-profile"],
    &["moat-platform-ptrace", "moat-platform-systrap", "moat-platform-kvm"],
    &["moat-mm"],
    &["moat-vfs"],
    &["moat-ipc", "moat-loader", "moat-tty"],
    &["moat-kernel"],
    &[
        "moat-fs-anon",
        "moat-fs-dev",
        "moat-fs-devpts",
        "moat-fs-host",
        "moat-fs-mqueue",
        "moat-fs-overlay",
        "moat-fs-proc",
        "moat-fs-sys",
        "moat-fs-tmpfs",
        "moat-net-host",
        "moat-net-inet",
        "moat-net-unix",
    ],
    &["moat-syscalls", "moat-net-netlink", "moat-net-packet"],
    &["moat-sentry", "moat-gofer"],
    &["moat-runtime"],
    &["moat-shim"],
    &["moat", "moat-fuzz"],
    &["xtask"],
];

/// Reads `cargo metadata` and reports every dependency that does not point down.
pub fn run() -> Result<()> {
    let output = paths::cargo()
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let problems = violations(&metadata);
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

fn layer_of(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

/// One line for each dependency, or crate, that breaks the rule.
fn violations(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let mut problems = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(own) = layer_of(name) else {
            problems.push(format!("{name}: has no layer; add it to LAYERS in xtask/src/check/layers.rs"));
            continue;
        };
        let dependencies = package["dependencies"].as_array().map_or(&[][..], Vec::as_slice);
        // Dependencies by path are those inside the workspace. A test may use anything.
        let internal = dependencies.iter().filter(|d| d["path"].is_string() && d["kind"].as_str() != Some("dev"));
        for dependency in internal {
            let used = dependency["name"].as_str().unwrap_or_default();
            if layer_of(used).is_some_and(|layer| layer >= own) {
                problems.push(format!("{name} must not depend on {used}: it is not in a lower layer"));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workspace(name: &str, dependency: &str) -> Value {
        json!({"packages": [{"name": name, "dependencies": [{"name": dependency, "path": "/x", "kind": null}]}]})
    }

    #[test]
    fn a_dependency_must_point_down() {
        assert!(violations(&workspace("moat-kernel", "moat-vfs")).is_empty());
        assert_eq!(violations(&workspace("moat-vfs", "moat-kernel")).len(), 1);
        assert_eq!(violations(&workspace("moat-fs-proc", "moat-fs-tmpfs")).len(), 1);
    }

    #[test]
    fn an_unknown_crate_is_reported() {
        assert_eq!(violations(&workspace("moat-new", "moat-abi")).len(), 1);
    }
}
