//! `moat spec`: a config.json to begin with, much like runc's.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::args::Spec;

const CAPABILITIES: &[&str] = &["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

/// Parts of /proc and /sys that tell of the host where the kernel is the host's; clients expect them in a config.json.
const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];

const READONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub(super) fn run(flags: &Spec) -> anyhow::Result<u8> {
    let path = flags.bundle.as_deref().unwrap_or(Path::new(".")).join("config.json");
    // Never over one that somebody has written; the words are runc's.
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("File {} exists. Remove it first", path.display());
        }
        other => other.with_context(|| format!("creating {}", path.display()))?,
    };
    let text = serde_json::to_string_pretty(&config(flags))? + "\n";
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
    Ok(0)
}

fn config(flags: &Spec) -> Value {
    let args = if flags.command.is_empty() { vec!["sh".to_owned()] } else { flags.command.clone() };
    let mut network = json!({ "type": "network" });
    if let Some(path) = &flags.netns {
        network["path"] = json!(path);
    }
    let mut config = json!({
        "ociVersion": moat_runtime::container::OCI_VERSION,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": flags.cwd,
            "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "moat",
        "mounts": mounts(flags.rootless),
        "linux": {
            // As runc's: nothing but the devices that every container may use.
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, network, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "cgroup" },
            ],
            "maskedPaths": MASKED_PATHS,
            "readonlyPaths": READONLY_PATHS,
        },
    });
    if flags.rootless {
        make_rootless(&mut config["linux"]);
    }
    config
}

/// The caller's user is the container's root, and nobody else exists.
fn make_rootless(linux: &mut Value) {
    let map = |host: u32| json!([{ "containerID": 0, "hostID": host, "size": 1 }]);
    linux["uidMappings"] = map(rustix::process::getuid().as_raw());
    linux["gidMappings"] = map(rustix::process::getgid().as_raw());
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.push(json!({ "type": "user" }));
    }
    if let Some(linux) = linux.as_object_mut() {
        // An ordinary user has no right to the devices cgroup.
        linux.remove("resources");
    }
}

fn mounts(rootless: bool) -> Value {
    // gid 5, "tty", is not mapped in an ordinary user's namespace.
    let pts = if rootless {
        json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"])
    } else {
        json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"])
    };
    json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
          "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts },
        { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
          "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
        { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
        { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
        { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
          "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_control::spec::Lifetime;
    use moat_runtime::Config;
    use moat_runtime::oci::Bundle;

    #[test]
    fn moat_runs_what_it_writes() {
        for rootless in [false, true] {
            let flags = Spec { bundle: None, rootless, cwd: "/".into(), netns: None, command: Vec::new() };
            let spec = serde_json::from_value(config(&flags)).unwrap();
            let bundle = Bundle { path: "/".into(), spec };
            let blueprint = bundle.blueprint(&Config::default(), "c".parse().unwrap(), Lifetime::Detached).unwrap();
            assert_eq!(blueprint.process.args, ["sh"]);
        }
    }
}
