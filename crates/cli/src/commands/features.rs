//! `moat features`: what this runtime can do, in the format of the OCI runtime specification.

use serde_json::json;

/// Mount options that config.json may use; `oci/mounts/options.rs` of the runtime parses them.
const MOUNT_OPTIONS: &[&str] = &[
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "private",
    "rbind",
    "relatime",
    "ro",
    "rprivate",
    "rslave",
    "rw",
    "slave",
    "strictatime",
    "suid",
    "sync",
];

pub(super) fn run() -> anyhow::Result<u8> {
    super::print_json(&json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": moat_runtime::container::OCI_VERSION,
        "hooks": moat_runtime::hooks::HookKind::ALL.map(|kind| kind.name()),
        "mountOptions": MOUNT_OPTIONS,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": capabilities(),
            "cgroup": {
                "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": false,
            },
            "seccomp": { "enabled": false },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": false } },
            "netDevices": { "enabled": false },
        },
        "annotations": {
            "dev.moat.version": env!("CARGO_PKG_VERSION"),
            "dev.moat.checkpoint": "not supported yet",
            "dev.moat.restore": "not supported yet",
            "dev.moat.profile": "not supported yet",
            "dev.moat.platforms": "systrap,ptrace",
            "dev.moat.network": "none,sandbox,host",
        },
        "potentiallyUnsafeConfigAnnotations": [],
    }))?;
    Ok(0)
}

fn capabilities() -> Vec<&'static str> {
    moat_runtime::oci::CAPABILITY_NAMES.to_vec()
}
