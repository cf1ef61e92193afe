//! config.json's `linux`.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    Linux, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, LinuxPersonalityDomain, LinuxResources, Spec,
};

use crate::error::{Error, Result};

/// What is taken from it.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) masked_paths: Vec<String>,
    pub(super) readonly_paths: Vec<String>,
    pub(super) sysctls: BTreeMap<String, String>,
}

/// Device nodes that every guest has; a configuration may name them.
const GUEST_DEVICES: &[&str] =
    &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/console", "/dev/ptmx"];

/// Checks the section and takes what the sentry needs.
pub(super) fn check(spec: &Spec, warnings: &mut Vec<String>) -> Result<Settings> {
    let Some(linux) = spec.linux() else { return Ok(Settings::default()) };
    refuse(linux)?;
    check_namespaces(linux.namespaces().as_deref().unwrap_or_default(), warnings)?;
    check_id_mappings("linux.uidMappings", linux.uid_mappings().as_deref(), rustix::process::geteuid().as_raw())?;
    check_id_mappings("linux.gidMappings", linux.gid_mappings().as_deref(), rustix::process::getegid().as_raw())?;
    for device in linux.devices().iter().flatten() {
        let path = device.path().to_string_lossy();
        if !GUEST_DEVICES.contains(&path.as_ref()) {
            return Err(Error::unsupported(format!("linux.devices: {path}"), "guests have no such device"));
        }
    }
    if linux.seccomp().is_some() {
        warnings.push("linux.seccomp is ignored: guest system calls never reach the host".into());
    }
    if let Some(resources) = linux.resources() {
        note_resources(resources, warnings);
    }
    Ok(Settings {
        masked_paths: absolute("linux.maskedPaths", linux.masked_paths().as_deref())?,
        readonly_paths: absolute("linux.readonlyPaths", linux.readonly_paths().as_deref())?,
        sysctls: linux.sysctl().iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect(),
    })
}

fn refuse(linux: &Linux) -> Result<()> {
    let propagation = linux.rootfs_propagation().as_deref();
    let foreign = linux.personality().as_ref().is_some_and(|p| p.domain() != LinuxPersonalityDomain::PerLinux);
    let refused = [
        ("linux.mountLabel", linux.mount_label().as_deref().is_some_and(|label| !label.is_empty())),
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        ("linux.personality", foreign),
        ("linux.timeOffsets", linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty())),
        ("linux.netDevices", linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty())),
        ("linux.rootfsPropagation", propagation.is_some_and(|p| p.ends_with("shared"))),
    ];
    match refused.into_iter().find(|&(_, present)| present) {
        Some((field, _)) => Err(Error::unsupported(field, "moat can't honour it")),
        None => Ok(()),
    }
}

fn check_namespaces(namespaces: &[LinuxNamespace], warnings: &mut Vec<String>) -> Result<()> {
    for namespace in namespaces {
        let kind = namespace.typ();
        if kind == LinuxNamespaceType::Time {
            return Err(Error::unsupported("linux.namespaces: time", "guests see the host's clocks"));
        }
        if let Some(path) = namespace.path() {
            return Err(Error::unsupported(
                format!("linux.namespaces: {kind} with path {}", path.display()),
                "the guest's namespaces are always new ones",
            ));
        }
    }
    let has = |kind| namespaces.iter().any(|namespace| namespace.typ() == kind);
    if !has(LinuxNamespaceType::Pid) {
        return Err(Error::unsupported(
            "linux.namespaces without pid",
            "the host's processes can't be shown to a guest",
        ));
    }
    if !has(LinuxNamespaceType::Network) {
        warnings.push("linux.namespaces has no network: the guest still has a loopback device only".into());
    }
    if !has(LinuxNamespaceType::Ipc) {
        warnings.push("linux.namespaces has no ipc: the guest still has IPC objects of its own".into());
    }
    Ok(())
}

/// The sandbox's user namespace maps root's ids to themselves, or an ordinary user to root; nothing else can be had.
fn check_id_mappings(field: &str, mappings: Option<&[LinuxIdMapping]>, own: u32) -> Result<()> {
    let fits = |m: &LinuxIdMapping| {
        if own == 0 {
            m.host_id() == m.container_id()
        } else {
            m.container_id() == 0 && m.host_id() == own && m.size() == 1
        }
    };
    match mappings.unwrap_or_default().iter().find(|mapping| !fits(mapping)) {
        Some(m) => Err(Error::unsupported(
            field,
            format!("{} -> {} ({}) is not the mapping that the sandbox has", m.container_id(), m.host_id(), m.size()),
        )),
        None => Ok(()),
    }
}

fn note_resources(resources: &LinuxResources, warnings: &mut Vec<String>) {
    let noted = [
        ("memory", resources.memory().is_some()),
        ("cpu", resources.cpu().is_some()),
        ("pids", resources.pids().is_some()),
        ("blockIO", resources.block_io().is_some()),
        ("hugepageLimits", resources.hugepage_limits().as_ref().is_some_and(|limits| !limits.is_empty())),
        ("network", resources.network().is_some()),
        ("rdma", resources.rdma().is_some()),
        ("unified", resources.unified().as_ref().is_some_and(|unified| !unified.is_empty())),
    ];
    for (name, _) in noted.into_iter().filter(|&(_, present)| present) {
        warnings.push(format!("linux.resources.{name} is not applied: the sandbox stays in its creator's cgroup"));
    }
}

fn absolute(field: &str, paths: Option<&[String]>) -> Result<Vec<String>> {
    let paths = paths.unwrap_or_default().iter();
    paths
        .map(|path| {
            crate::adhoc::clean_absolute(path)
                .ok_or_else(|| Error::Invalid(format!("{field}: {path:?} is not an absolute path")))
        })
        .collect()
}
