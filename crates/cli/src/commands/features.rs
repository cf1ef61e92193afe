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

/// All of the specification's but SCMP_ACT_NOTIFY.
const SECCOMP_ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

const SECCOMP_OPERATORS: &[&str] =
    &["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];

const SECCOMP_FLAGS: &[&str] = &[
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

pub(super) fn run() -> anyhow::Result<u8> {
    super::print_json(&json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": moat_runtime::container::OCI_VERSION,
        "hooks": moat_runtime::hooks::HookKind::ALL.map(|kind| kind.name()),
        "mountOptions": MOUNT_OPTIONS,
        "linux": {
            // What config.json may name, whether the guest gets a new one or sees the sandbox's (docs/architecture.md).
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": capabilities(),
            "cgroup": {
                "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": false,
            },
            "seccomp": {
                "enabled": true,
                "actions": SECCOMP_ACTIONS,
                "operators": SECCOMP_OPERATORS,
                // Profiles for other machines are read and have no effect on these.
                "archs": ["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
                "knownFlags": SECCOMP_FLAGS,
                "supportedFlags": SECCOMP_FLAGS,
            },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": false } },
            "netDevices": { "enabled": false },
        },
        "annotations": {
            "dev.moat.version": env!("CARGO_PKG_VERSION"),
            "dev.moat.checkpoint": "containers, and pods by their root container",
            "dev.moat.restore": "containers, and pods by their root container",
            "dev.moat.profile": "cpu,heap,tasks,block,mutex,trace",
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
