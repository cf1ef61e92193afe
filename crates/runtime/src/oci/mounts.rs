//! config.json's `mounts`.

mod ids;
mod options;

use std::fs;
use std::path::Path;

use moat_control::spec::{DevptsOptions, MountFlags, MountKind};
use oci_spec::runtime::{Linux, Mount};

use super::devices;
use crate::ContainerId;
use crate::adhoc::{clean_absolute, standard_mounts};
use crate::blueprint::{HostMount, MountBlueprint, MountSource};
use crate::error::{Context, Error, Result};
use crate::host_tree::{Layers, MountIds, Submounts};
use crate::overlay::{Changes, OverlayFlag};
use options::Options;

/// Mount types that a configuration may name.
const SUPPORTED: &str = "supported are proc, sysfs, tmpfs, devpts, mqueue, cgroup, cgroup2, overlay and bind";

/// File systems that every guest has, whether its configuration names them or not.
const MANDATORY: &[&str] = &["/proc", "/sys", "/dev", "/dev/pts"];

/// Checks and converts the mounts; adds those that every guest has.
pub(super) fn convert(
    mounts: &[Mount],
    bundle: &Path,
    linux: Option<&Linux>,
    warnings: &mut Vec<String>,
) -> Result<Vec<MountBlueprint>> {
    let mut converted = Vec::with_capacity(mounts.len() + MANDATORY.len());
    for mount in mounts {
        converted.push(convert_one(mount, bundle, linux, warnings)?);
    }
    // Where the configuration has one of its own it stays.
    add_mandatory(&mut converted);
    Ok(converted)
}

fn convert_one(
    mount: &Mount,
    bundle: &Path,
    linux: Option<&Linux>,
    warnings: &mut Vec<String>,
) -> Result<MountBlueprint> {
    let shown = mount.destination().display();
    // runc takes a relative destination as one below the root, with a warning in its specification.
    let destination = mount.destination().to_str().and_then(|path| clean_absolute(&format!("/{path}")));
    let destination = destination.ok_or_else(|| Error::Invalid(format!("mounts: destination {shown} is unusable")))?;
    let unsupported = |why| Error::unsupported(format!("mounts: {shown}: options"), why);
    let (options, others) = Options::parse(mount.options().as_deref().unwrap_or_default());
    let kind = if options.bind.is_some() { "bind" } else { mount.typ().as_deref().unwrap_or("none") };
    if let ([other, ..], true) = (&others[..], kind != "overlay") {
        return Err(unsupported(format!("{other:?} is not one that moat can honour")));
    }
    let ids = ids::of(mount, options.id_mapped, linux)?;
    if ids.is_some() && kind != "bind" {
        let field = format!("mounts: {shown}: uidMappings");
        return Err(Error::unsupported(field, "only bind mounts can be id-mapped"));
    }
    let source = match kind {
        "bind" => bind(mount, bundle, &options, ids)?,
        "overlay" => overlay(Layers::parse(others, bundle).map_err(unsupported)?, &shown.to_string())?,
        "proc" => MountSource::Kernel(MountKind::Proc),
        "sysfs" => MountSource::Kernel(MountKind::Sysfs),
        "mqueue" => MountSource::Kernel(MountKind::Mqueue),
        "cgroup" | "cgroup2" => MountSource::Kernel(MountKind::Cgroup),
        "devpts" => MountSource::Kernel(MountKind::Devpts(options.devpts())),
        // The runtime is to fill /dev with device nodes: the guest's kernel has a file system for that.
        "tmpfs" if destination == "/dev" => MountSource::Kernel(MountKind::Dev),
        "tmpfs" => MountSource::Kernel(MountKind::Tmpfs(options.tmpfs(mount.source().as_deref()))),
        other => return Err(Error::unsupported(format!("mounts: {shown}: type {other:?}"), SUPPORTED)),
    };
    if options.follows_host {
        warnings.push(format!("mounts: {shown}: what the host mounts below it later is not shown"));
    }
    let mut flags = options.flags;
    flags.readonly |= matches!(&source, MountSource::Host(HostMount { layers: Some(layers), .. }) if layers.readonly());
    if matches!(source, MountSource::Kernel(MountKind::Cgroup)) && !flags.readonly {
        warnings.push(format!("mounts: {shown}: the guest's view of its cgroup is read-only"));
        flags.readonly = true;
    }
    Ok(MountBlueprint { destination, source, flags })
}

fn bind(mount: &Mount, bundle: &Path, options: &Options, ids: Option<MountIds>) -> Result<MountSource> {
    let shown = mount.destination().display();
    let source = mount.source().as_ref();
    let source = source.ok_or_else(|| Error::Invalid(format!("mounts: {shown}: a bind mount needs a source")))?;
    // A relative source is relative to the bundle; `join` leaves an absolute one alone.
    let path = bundle.join(source);
    let path = fs::canonicalize(&path).context(|| format!("mounts: {shown}: source {}", path.display()))?;
    // The host's own would say more about the host than a guest may know.
    let guests_own = [
        ("/proc", MountKind::Proc),
        ("/sys", MountKind::Sysfs),
        ("/dev", MountKind::Dev),
        ("/dev/pts", MountKind::Devpts(DevptsOptions::default())),
        ("/dev/mqueue", MountKind::Mqueue),
    ];
    if let Some((_, kind)) = guests_own.into_iter().find(|(place, _)| path == Path::new(place)) {
        return Ok(MountSource::Kernel(kind));
    }
    refuse_kernels_own(&path, &shown.to_string())?;
    let metadata = fs::metadata(&path).context(|| format!("mounts: {shown}: source {}", path.display()))?;
    // The number is the guest's, the driver is the sentry's.
    if let Some(node) = devices::of_host(&metadata) {
        return Ok(MountSource::Kernel(MountKind::Node(node)));
    }
    let submounts = options.bind.unwrap_or(Submounts::Show);
    Ok(MountSource::Host(HostMount { path, submounts, layers: None, ids, changes: Changes::Reach }))
}

/// An overlayfs of the host's; it is made when the container is.
fn overlay(layers: Layers, shown: &str) -> Result<MountSource> {
    for layer in layers.places() {
        let path = fs::canonicalize(layer).context(|| format!("mounts: {shown}: layer {}", layer.display()))?;
        refuse_kernels_own(&path, shown)?;
    }
    let path = layers.top().to_owned();
    Ok(MountSource::Host(HostMount {
        path,
        submounts: Submounts::Hide,
        layers: Some(layers),
        ids: None,
        changes: Changes::Reach,
    }))
}

/// Refuses files by which the host's kernel would talk to a guest.
fn refuse_kernels_own(path: &Path, shown: &str) -> Result<()> {
    match ["/proc", "/sys", "/dev/pts", "/dev/mqueue"].into_iter().find(|place| path.starts_with(place)) {
        Some(place) => Err(Error::unsupported(
            format!("mounts: {shown}: source {}", path.display()),
            format!("the host's {place} can't be shown to a guest"),
        )),
        None => Ok(()),
    }
}

/// Has changes to trees of the host go where `flag` says, where the guest can make any.
pub(super) fn cover(mounts: &mut [MountBlueprint], flag: &OverlayFlag, id: &ContainerId) {
    for mount in mounts.iter_mut().filter(|mount| !mount.flags.readonly) {
        if let MountSource::Host(host) = &mut mount.source {
            host.changes = flag.changes(&host.path, id);
        }
    }
}

/// Adds what is missing: before all others, but /dev/pts after /dev.
fn add_mandatory(mounts: &mut Vec<MountBlueprint>) {
    let position = |mounts: &[MountBlueprint], path: &str| mounts.iter().position(|m| m.destination == path);
    for mandatory in standard_mounts().into_iter().rev() {
        let path = mandatory.destination.clone();
        if MANDATORY.contains(&path.as_str()) && path != "/dev/pts" && position(mounts, &path).is_none() {
            // Before all others, which may lie below them; from the last on, so that they keep their order.
            mounts.insert(0, mandatory);
        }
    }
    if let (None, Some(dev)) = (position(mounts, "/dev/pts"), position(mounts, "/dev")) {
        let pts = MountBlueprint {
            destination: "/dev/pts".into(),
            source: MountSource::Kernel(MountKind::Devpts(DevptsOptions::default())),
            flags: MountFlags { nosuid: true, noexec: true, ..MountFlags::default() },
        };
        // Behind the /dev that it is in, which a configuration may have anywhere.
        mounts.insert(dev + 1, pts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert_json(json: &str) -> Result<Vec<MountBlueprint>> {
        let mounts: Vec<Mount> = serde_json::from_str(json).unwrap();
        convert(&mounts, Path::new("/usr"), None, &mut Vec::new())
    }

    fn destinations(mounts: &[MountBlueprint]) -> Vec<&str> {
        mounts.iter().map(|m| m.destination.as_str()).collect()
    }

    #[test]
    fn mandatory_mounts_are_added_in_order() {
        assert_eq!(destinations(&convert_json("[]").unwrap()), ["/proc", "/sys", "/dev", "/dev/pts"]);
        let mounts = convert_json(
            r#"[{"destination":"/dev","type":"tmpfs","options":["nosuid","mode=755","size=65536k"]},
                {"destination":"/dev/shm","type":"tmpfs","options":["size=1m"]}]"#,
        )
        .unwrap();
        assert_eq!(destinations(&mounts), ["/proc", "/sys", "/dev", "/dev/pts", "/dev/shm"]);
        assert_eq!(mounts[2].source, MountSource::Kernel(MountKind::Dev));
        assert!(mounts[2].flags.nosuid);
    }

    #[test]
    fn binds() {
        let mounts = convert_json(
            r#"[{"destination":"/mnt","type":"bind","source":"lib","options":["rbind","ro"]},
                {"destination":"/one","source":"/usr/lib","options":["bind"]},
                {"destination":"/sys","type":"none","source":"/sys","options":["rbind","ro"]}]"#,
        )
        .unwrap();
        let mnt = mounts.iter().find(|m| m.destination == "/mnt").unwrap();
        let host = |submounts| {
            MountSource::Host(HostMount {
                path: fs::canonicalize("/usr/lib").unwrap(),
                submounts,
                layers: None,
                ids: None,
                changes: Changes::Reach,
            })
        };
        assert!(mnt.flags.readonly);
        assert_eq!(mnt.source, host(Submounts::Show));
        assert_eq!(mounts.iter().find(|m| m.destination == "/one").unwrap().source, host(Submounts::Hide));
        let sys = mounts.iter().find(|m| m.destination == "/sys").unwrap();
        assert_eq!(sys.source, MountSource::Kernel(MountKind::Sysfs));
    }

    #[test]
    fn refusals_name_the_field() {
        for (json, part) in [
            (r#"[{"destination":"/x","type":"nfs"}]"#, "type \"nfs\""),
            (r#"[{"destination":"/x","type":"tmpfs","options":["frob"]}]"#, "frob"),
            (r#"[{"destination":"/x","type":"bind","source":"/proc/sys","options":["rbind"]}]"#, "/proc"),
            (r#"[{"destination":"/x","type":"bind","source":"/usr","options":["rbind","rshared"]}]"#, "rshared"),
            (r#"[{"destination":"/x","type":"bind","source":"/does/not/exist","options":["rbind"]}]"#, "/does/not"),
            (r#"[{"destination":"/x","type":"bind","source":"/usr","options":["rbind","idmap"]}]"#, "uidMappings"),
            (r#"[{"destination":"/x","type":"overlay","options":["lowerdir=/usr:/proc/sys"]}]"#, "/proc/sys"),
            (r#"[{"destination":"/x","type":"overlay","options":["lowerdir=/usr:/does/not"]}]"#, "layer /does/not"),
            (r#"[{"destination":"/x","type":"overlay","options":["upperdir=/usr"]}]"#, "lowerdir"),
            (r#"[{"destination":"/../x","type":"tmpfs"}]"#, "unusable"),
        ] {
            let error = convert_json(json).unwrap_err().to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
