//! OCI bundles: config.json becomes a [`Blueprint`], or is refused by name.
//!
//! What moat can't honour is an error if it changes what the container may do or see, and a warning if only resource
//! use on the host depends on it.

#[cfg(test)]
mod clients;
mod devices;
mod linux;
mod mounts;
mod parse;
mod process;
mod seccomp;

use std::fs;
use std::path::{Path, PathBuf};

use moat_control::spec::{Lifetime, OverlayLimits, ProcessSpec, Sharing};
use oci_spec::runtime::Spec;

use crate::blueprint::{Blueprint, DeviceNodes, HostMount};
use crate::error::{Context, Error, Result};
use crate::host_tree::Submounts;
use crate::namespaces::{self, Plan, Role};
use crate::overlay::{Changes, Scope};
use crate::{Config, ContainerId, hooks};

pub use oci_spec::runtime::Process;
pub use parse::parse;
pub use process::CAPABILITY_NAMES;
pub(crate) use process::mask as capability_mask;

/// Bytes of the largest config.json that is read.
const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// What the name of an annotation begins with that gives a flag a value.
pub const FLAG_ANNOTATION: &str = "dev.moat.flag.";

/// A directory with a config.json that has been read.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Its canonical path.
    pub path: PathBuf,
    /// Its config.json.
    pub spec: Spec,
}

impl Bundle {
    /// Reads the config.json of the bundle in `path`.
    ///
    /// # Errors
    /// An unreadable or malformed file.
    pub fn open(path: &Path) -> Result<Self> {
        let path = fs::canonicalize(path).context(|| format!("bundle {}", path.display()))?;
        let spec = load(&path.join("config.json"))?;
        Ok(Bundle { path, spec })
    }

    /// Its root file system on the host.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.spec.root().as_ref().map_or_else(|| self.path.clone(), |root| self.path.join(root.path()))
    }

    /// Checks it as a container to make.
    ///
    /// # Errors
    /// A field that is not supported.
    pub fn blueprint(&self, config: &Config, id: ContainerId, lifetime: Lifetime) -> Result<Blueprint> {
        from_spec(config, id, &self.path, &self.spec, lifetime)
    }
}

/// Checks and converts a process to run in a container, as clients give it to `exec`.
///
/// # Errors
/// A field that is not supported.
pub fn process(process: &Process) -> Result<(ProcessSpec, Vec<String>)> {
    let mut warnings = Vec::new();
    Ok((process::convert(process, &mut warnings)?, warnings))
}

fn load(path: &Path) -> Result<Spec> {
    let shown = path.display();
    let length = fs::metadata(path).context(|| format!("reading {shown}"))?.len();
    if length > MAX_CONFIG_BYTES {
        return Err(Error::Invalid(format!("{shown} is larger than {MAX_CONFIG_BYTES} bytes")));
    }
    let bytes = fs::read(path).context(|| format!("reading {shown}"))?;
    parse(&bytes, &shown.to_string())
}

fn from_spec(config: &Config, id: ContainerId, bundle: &Path, spec: &Spec, lifetime: Lifetime) -> Result<Blueprint> {
    check_version(spec.version())?;
    refuse_other_systems(spec)?;
    spec.hooks().as_ref().map_or(Ok(()), hooks::check)?;
    refuse_annotations(spec, config)?;
    let mut warnings = Vec::new();
    let root = spec.root().as_ref().ok_or_else(|| Error::Invalid("config.json has no root".into()))?;
    let process = spec.process().as_ref().ok_or_else(|| Error::Invalid("config.json has no process".into()))?;
    let linux = linux::check(spec, config, &mut warnings)?;
    let plan = match Role::of(spec) {
        Role::Root => Some(Plan::from_spec(spec, config)?),
        // Its sandbox is there already.
        Role::Member => None,
    };
    let process = process::convert(process, &mut warnings)?;
    let device_nodes = DeviceNodes::of(process.capabilities.bounding, namespaces::has_user_namespace(spec));
    let root_readonly = root.readonly().unwrap_or(false);
    let root_path = bundle.join(root.path());
    let changes = match &config.overlay {
        Some(flag) => {
            warnings.push(format!("what the container writes is lost when it ends: --overlay2={flag}"));
            // Only mount points are made there, if the guest can't write to it.
            if root_readonly { Changes::Memory(OverlayLimits::default()) } else { flag.changes(&root_path, &id) }
        }
        // The mount points that a root lacks are made in memory where the guest can't write to it; others see them in a shared one.
        None if root_readonly && config.root_sharing == Sharing::Exclusive => Changes::Memory(OverlayLimits::default()),
        None => Changes::Reach,
    };
    let mut mounts =
        mounts::convert(spec.mounts().as_deref().unwrap_or_default(), bundle, spec.linux().as_ref(), &mut warnings)?;
    if let Some(flag) = config.overlay.as_ref().filter(|flag| flag.scope == Scope::All) {
        mounts::cover(&mut mounts, flag, &id);
    }
    Ok(Blueprint {
        name: container_name(spec),
        id,
        hostname: checked_name("hostname", spec.hostname())?.unwrap_or_else(crate::hardware::hostname),
        domainname: checked_name("domainname", spec.domainname())?.unwrap_or_else(|| "(none)".into()),
        process,
        root: HostMount { path: root_path, submounts: Submounts::Show, layers: None, ids: None, changes },
        root_readonly,
        root_sharing: config.root_sharing,
        mounts,
        devices: linux.devices,
        device_rules: linux.device_rules,
        device_nodes,
        host_nodes: config.host_nodes,
        masked_paths: linux.masked_paths,
        readonly_paths: linux.readonly_paths,
        sysctls: linux.sysctls,
        seccomp: linux.seccomp,
        plan,
        shares: crate::cgroup::shares_of_host(),
        image: None,
        lifetime,
        warnings,
    })
}

/// What its pod calls a container, by the annotations of containerd's CRI plugin and CRI-O.
fn container_name(spec: &Spec) -> String {
    let says = |key: &str| spec.annotations().as_ref().and_then(|all| all.get(key));
    let name = says("io.kubernetes.cri.container-name").or_else(|| says("io.kubernetes.container.name"));
    name.cloned().unwrap_or_default()
}

/// A name that sethostname(2) and setdomainname(2) would take.
fn checked_name(field: &str, name: &Option<String>) -> Result<Option<String>> {
    const MAX_BYTES: usize = 64;
    match name {
        Some(name) if name.len() > MAX_BYTES => {
            let length = name.len();
            Err(Error::Invalid(format!("{field}: {name:?} has {length} bytes, and Linux takes {MAX_BYTES} at most")))
        }
        name => Ok(name.clone()),
    }
}

/// Annotations that set a flag, which they may not.
fn refuse_annotations(spec: &Spec, config: &Config) -> Result<()> {
    let mut flags = spec.annotations().iter().flatten().filter_map(|(key, _)| key.strip_prefix(FLAG_ANNOTATION));
    match flags.find(|name| !config.annotated_flags.contains(*name)) {
        Some(name) => Err(Error::unsupported(
            format!("the annotation {FLAG_ANNOTATION}{name}"),
            "annotations.allowed in /etc/moat/config.toml does not list this flag",
        )),
        None => Ok(()),
    }
}

fn check_version(version: &str) -> Result<()> {
    if version == "1" || version.starts_with("1.") {
        return Ok(());
    }
    Err(Error::unsupported("ociVersion", format!("{version:?} is not 1.x")))
}

fn refuse_other_systems(spec: &Spec) -> Result<()> {
    let refused =
        [("solaris", spec.solaris().is_some()), ("windows", spec.windows().is_some()), ("vm", spec.vm().is_some())];
    match refused.into_iter().find(|&(_, present)| present) {
        Some((field, _)) => Err(Error::unsupported(field, "moat can't honour it")),
        None => Ok(()),
    }
}
