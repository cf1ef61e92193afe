//! config.json's `linux`.

use std::collections::BTreeMap;

use moat_control::spec::{DeviceRule, DeviceSpec, SeccompSpec};
use oci_spec::runtime::{Linux, LinuxPersonalityDomain, Spec};

use super::{devices, seccomp};
use crate::Config;
use crate::config::Profiles;
use crate::error::{Error, Result};
use crate::namespaces::{self, Role};

/// What is taken from it.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) devices: Vec<DeviceSpec>,
    pub(super) device_rules: Vec<DeviceRule>,
    pub(super) masked_paths: Vec<String>,
    pub(super) readonly_paths: Vec<String>,
    pub(super) sysctls: BTreeMap<String, String>,
    pub(super) seccomp: Option<SeccompSpec>,
}

/// Checks the section and takes what the sentry needs.
pub(super) fn check(spec: &Spec, config: &Config, warnings: &mut Vec<String>) -> Result<Settings> {
    let Some(linux) = spec.linux() else { return Ok(Settings::default()) };
    // What would change the container's meaning is refused, what only the host could have done is ignored with a word.
    refuse(linux)?;
    namespaces::check(spec, Role::of(spec), config.network, warnings)?;
    if linux.mount_label().as_deref().is_some_and(|label| !label.is_empty()) {
        warnings.push("linux.mountLabel is ignored: no label of SELinux's reaches into a sandbox".into());
    }
    let seccomp = match (linux.seccomp(), config.profiles) {
        (Some(profile), Profiles::Apply) => Some(seccomp::convert(profile, warnings)?),
        (Some(_), Profiles::Ignore) => {
            warnings.push("linux.seccomp is ignored: --oci-seccomp=false".into());
            None
        }
        (None, _) => None,
    };
    Ok(Settings {
        device_rules: devices::rules(
            linux.resources().as_ref().and_then(|r| r.devices().as_deref()).unwrap_or_default(),
        ),
        devices: devices::convert(linux.devices().as_deref().unwrap_or_default())?,
        masked_paths: absolute("linux.maskedPaths", linux.masked_paths().as_deref())?,
        readonly_paths: absolute("linux.readonlyPaths", linux.readonly_paths().as_deref())?,
        sysctls: linux.sysctl().iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect(),
        seccomp,
    })
}

fn refuse(linux: &Linux) -> Result<()> {
    let propagation = linux.rootfs_propagation().as_deref();
    let foreign = linux.personality().as_ref().is_some_and(|p| p.domain() != LinuxPersonalityDomain::PerLinux);
    // Each would let the guest see or use something else than it was promised.
    let refused = [
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

fn absolute(field: &str, paths: Option<&[String]>) -> Result<Vec<String>> {
    let paths = paths.unwrap_or_default().iter();
    paths
        .map(|path| {
            crate::adhoc::clean_absolute(path)
                .ok_or_else(|| Error::Invalid(format!("{field}: {path:?} is not an absolute path")))
        })
        .collect()
}
