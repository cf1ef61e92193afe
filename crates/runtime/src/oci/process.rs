//! config.json's `process`.

use moat_control::spec::{CapabilitySpec, InitSignals, ProcessSpec, RlimitSpec};
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, PosixRlimit, PosixRlimitType, Process};

use crate::adhoc::clean_absolute;
use crate::error::{Error, Result};

/// Names of the capabilities that a configuration may give, in the order of capabilities(7).
pub const CAPABILITY_NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Checks and converts the container's init.
pub(super) fn convert(process: &Process, warnings: &mut Vec<String>) -> Result<ProcessSpec> {
    refuse(process, warnings)?;
    let args = process.args().clone().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return Err(Error::Invalid("process.args is empty".into()));
    }
    let cwd = process.cwd().to_str().and_then(clean_absolute);
    let cwd = cwd.ok_or_else(|| Error::Invalid("process.cwd must be an absolute path".into()))?;
    let user = process.user();
    let umask = user.umask();
    if umask.is_some_and(|mask| mask > 0o777) {
        return Err(Error::Invalid("process.user.umask is larger than 0777".into()));
    }
    // As a number of an id it means "leave it as it is" to the calls that set ids.
    let groups = user.additional_gids().iter().flatten();
    if let Some(field) = [("uid", user.uid()), ("gid", user.gid())]
        .into_iter()
        .chain(groups.map(|g| ("additionalGids", *g)))
        .find_map(|(field, id)| (id == u32::MAX).then_some(field))
    {
        return Err(Error::Invalid(format!("process.user.{field}: {} is no id", u32::MAX)));
    }
    let env = process.env().clone().unwrap_or_default();
    // To execve(2) the string would end there.
    if let Some(bad) = args.iter().chain(&env).find(|text| text.contains('\0')) {
        return Err(Error::Invalid(format!("process: {bad:?} has a NUL byte")));
    }
    Ok(ProcessSpec {
        args,
        env,
        cwd,
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: user.additional_gids().clone().unwrap_or_default(),
        umask,
        capabilities: process.capabilities().as_ref().map(capabilities).transpose()?.unwrap_or_default(),
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
        no_new_privs: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: oom_score_adj(process.oom_score_adj())?,
        init: InitSignals::Protected,
        terminal: process.terminal().unwrap_or(false),
        console_size: process.console_size().map(|size| {
            (u16::try_from(size.height()).unwrap_or(u16::MAX), u16::try_from(size.width()).unwrap_or(u16::MAX))
        }),
    })
}

fn refuse(process: &Process, warnings: &mut Vec<String>) -> Result<()> {
    if process.user().username().is_some() {
        return Err(Error::unsupported("process.user.username", "it is for Windows"));
    }
    // A real-time policy is asked for because something depends on it.
    if process.scheduler().is_some() {
        return Err(Error::unsupported("process.scheduler", "moat can't honour it"));
    }
    let labels = [
        ("process.apparmorProfile", process.apparmor_profile().as_deref()),
        ("process.selinuxLabel", process.selinux_label().as_deref()),
    ];
    for (field, _) in labels.into_iter().filter(|(_, label)| label.is_some_and(|label| !label.is_empty())) {
        warnings.push(format!("{field} is ignored: guest code never runs with the host's files"));
    }
    for (field, present) in [
        ("process.ioPriority", process.io_priority().is_some()),
        ("process.execCPUAffinity", process.exec_cpu_affinity().is_some()),
    ] {
        if present {
            warnings.push(format!("{field} is ignored"));
        }
    }
    Ok(())
}

fn oom_score_adj(score: Option<i32>) -> Result<Option<i32>> {
    match score {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(Error::Invalid(format!("process.oomScoreAdj {score} is not between -1000 and 1000")))
        }
        score => Ok(score),
    }
}

fn capabilities(caps: &LinuxCapabilities) -> Result<CapabilitySpec> {
    let spec = CapabilitySpec {
        effective: mask(caps.effective().as_ref()),
        permitted: mask(caps.permitted().as_ref()),
        inheritable: mask(caps.inheritable().as_ref()),
        bounding: mask(caps.bounding().as_ref()),
        ambient: mask(caps.ambient().as_ref()),
    };
    // capset(2) would answer EPERM in the container.
    if spec.effective & !spec.permitted != 0 {
        return Err(Error::Invalid("process.capabilities.effective has capabilities that are not permitted".into()));
    }
    // capset(2) could not reach this state, but runtimes drop such ambient capabilities without a word.
    Ok(CapabilitySpec { ambient: spec.ambient & spec.permitted & spec.inheritable, ..spec })
}

/// The bits of a set.
pub(crate) fn mask(set: Option<&Capabilities>) -> u64 {
    set.into_iter().flatten().fold(0, |mask, &capability| mask | 1 << number(capability))
}

/// The number in capabilities(7).
fn number(capability: Capability) -> u32 {
    match capability {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

fn rlimits(limits: &[PosixRlimit]) -> Result<Vec<RlimitSpec>> {
    let mut specs: Vec<RlimitSpec> = Vec::with_capacity(limits.len());
    for limit in limits {
        let resource = resource(limit.typ());
        // setrlimit(2) would answer EINVAL in the container.
        if limit.soft() > limit.hard() {
            return Err(Error::Invalid(format!("process.rlimits: {}: soft is larger than hard", limit.typ())));
        }
        // The OCI specification wants an error.
        if specs.iter().any(|spec| spec.resource == resource) {
            return Err(Error::Invalid(format!("process.rlimits: {} is given twice", limit.typ())));
        }
        specs.push(RlimitSpec { resource, soft: limit.soft(), hard: limit.hard() });
    }
    Ok(specs)
}

/// RLIMIT_* of getrlimit(2) on x86-64.
fn resource(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}
