//! The OCI bundle of a job: a config.json over the root directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Job, Network};

/// The whole environment of a job, in the sandbox and on the host.
pub const ENVIRONMENT: [&str; 5] = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LC_ALL=C.UTF-8",
    "TERM=dumb",
    "USER=root",
];

/// All but the newest, which runsc refuses: on the host root has them all, and the runs should not differ.
const CAPABILITIES: [&str; 38] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// Writes `config.json` into the directory, which thereby becomes a bundle.
pub fn write(directory: &Path, job: &Job) -> Result<()> {
    let file = directory.join("config.json");
    fs::write(file, serde_json::to_string_pretty(&config(job))?)?;
    Ok(())
}

/// Makes /tmp and /root of a bundle bind mounts of directories that lie in it.
pub fn bind_homes(directory: &Path) -> Result<()> {
    for (destination, mode) in [("/tmp", 0o1777), ("/root", 0o755)] {
        let source = directory.join("homes").join(&destination[1..]);
        fs::create_dir_all(&source)?;
        fs::set_permissions(&source, fs::Permissions::from_mode(mode))?;
        bind(directory, &source, destination)?;
    }
    Ok(())
}

/// Adds a bind mount to a bundle, in the place of what is mounted there.
pub fn bind(directory: &Path, source: &Path, destination: &str) -> Result<()> {
    let file = directory.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
    let mounts = config["mounts"].as_array_mut().context("no mounts")?;
    mounts.retain(|mount| mount["destination"] != destination);
    mounts.push(json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind", "rw"]}));
    fs::write(file, serde_json::to_string_pretty(&config)?)?;
    Ok(())
}

/// Limits the memory of a bundle's container, sandbox included, to so many bytes.
pub fn limit_memory(directory: &Path, bytes: u64) -> Result<()> {
    let file = directory.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
    config["linux"]["resources"] = json!({"memory": {"limit": bytes, "swap": bytes}});
    fs::write(file, serde_json::to_string_pretty(&config)?)?;
    Ok(())
}

/// The mounts and limits match those of `tests/roots/in-root.sh`.
fn config(job: &Job) -> Value {
    let caps = json!(CAPABILITIES.as_slice());
    let mut namespaces = vec!["pid", "ipc", "uts", "mount"];
    if job.network == Network::Sandbox {
        namespaces.push("network");
    }
    let namespaces: Vec<Value> = namespaces.iter().map(|name| json!({"type": name})).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": job.arguments,
            "env": ENVIRONMENT,
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 1024}],
        },
        "root": {"path": job.root, "readonly": false},
        "hostname": "moat",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=1g"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "mode=1777"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {"namespaces": namespaces},
    })
}
