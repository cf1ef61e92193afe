//! `moat do`: a container made up from the host's own root file system.

use std::fs;
use std::path::{Path, PathBuf};

use moat_control::spec::{
    CapabilitySpec, DevptsOptions, HostNodes, InitSignals, Lifetime, MountFlags, MountKind, OverlayLimits, ProcessSpec,
    Sharing,
};

use crate::blueprint::{Blueprint, DeviceNodes, HostMount, MountBlueprint, MountSource};
use crate::error::{Context, Result};
use crate::host_tree::Submounts;
use crate::overlay::Changes;
use crate::{ContainerId, Error, hardware};

/// What `moat do` was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// argv; not empty.
    pub args: Vec<String>,
    /// The environment.
    pub env: Vec<String>,
    /// The directory to start in; the current one if none.
    pub cwd: Option<PathBuf>,
    /// The root directory on the host.
    pub root: PathBuf,
    /// uid and gid in the guest.
    pub uid: u32,
    /// gid in the guest.
    pub gid: u32,
    /// Host directories and files to mount.
    pub volumes: Vec<Volume>,
    /// Stdin is a terminal.
    pub terminal: bool,
    /// Whether it may connect to sockets of the host, and open its FIFOs.
    pub host_nodes: HostNodes,
}

/// `SRC[:DST][:ro]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Absolute host path.
    pub source: PathBuf,
    /// Absolute, clean guest path.
    pub destination: String,
    /// Mounted read-only.
    pub readonly: bool,
}

impl std::str::FromStr for Volume {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::Invalid(format!("volume {text:?} is not of the form SRC[:DST][:ro|rw]"));
        let mut parts: Vec<&str> = text.split(':').collect();
        let readonly = match parts.last() {
            Some(&"ro") => true,
            Some(&"rw") => false,
            _ => {
                parts.push("rw");
                false
            }
        };
        parts.pop();
        let (source, destination) = match parts[..] {
            [both] => (both, both),
            [source, destination] => (source, destination),
            _ => return Err(invalid()),
        };
        // It is opened later, by a process whose working directory may be another.
        let source = fs::canonicalize(source).context(|| format!("volume {source:?}"))?;
        // One path for both is the place where the host has it, links resolved; a place in the guest is taken as it is
        // written, because only its own tree says what its links mean.
        let destination = if parts.len() == 1 {
            source.to_str().ok_or_else(invalid)?.to_owned()
        } else {
            clean_absolute(destination).ok_or_else(invalid)?
        };
        Ok(Volume { source, destination, readonly })
    }
}

/// `path` without empty, `.` and `..` components, if it is absolute and `..` does not lead above its root.
pub(crate) fn clean_absolute(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.strip_prefix('/')?.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                // Above the root is refused rather than taken for the root: it can only be a mistake.
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

/// File systems of the host that the guest has of its own or must not see.
const NOT_SHOWN: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "pstore",
    "ramfs",
    "rpc_pipefs",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// Submounts of the host's root that are shown, at most.
const MAX_SUBMOUNTS: usize = 64;

/// Describes the container.
///
/// # Errors
/// An unusable root, working directory or volume.
pub fn blueprint(request: Request) -> Result<Blueprint> {
    if request.args.is_empty() {
        return Err(Error::Invalid("no command given".into()));
    }
    let root = fs::canonicalize(&request.root).context(|| format!("root {}", request.root.display()))?;
    let id = format!("do-{}", std::process::id()).parse::<ContainerId>()?;
    // A copy of the root mount shows nothing of what is mounted on it: each is shown by a mount of its own.
    let mut mounts = if root == Path::new("/") { host_submounts()? } else { Vec::new() };
    mounts.extend(standard_mounts());
    mounts.extend(request.volumes.into_iter().map(|volume| MountBlueprint {
        destination: volume.destination,
        source: MountSource::Host(HostMount {
            path: volume.source,
            submounts: Submounts::Show,
            layers: None,
            ids: None,
            changes: Changes::Reach,
        }),
        flags: MountFlags { readonly: volume.readonly, ..MountFlags::default() },
    }));
    // With the host's root the command is to find itself where it was typed.
    let cwd = match request.cwd {
        Some(cwd) => cwd,
        None if root == Path::new("/") => std::env::current_dir().context(|| "finding the current directory".into())?,
        None => PathBuf::from("/"),
    };
    let cwd = cwd.to_str().and_then(clean_absolute);
    let cwd = cwd.ok_or_else(|| Error::Invalid("the working directory must be an absolute path in UTF-8".into()))?;
    Ok(Blueprint {
        name: String::new(),
        id,
        hostname: hardware::hostname(),
        domainname: "(none)".into(),
        process: ProcessSpec {
            args: request.args,
            env: request.env,
            cwd,
            uid: request.uid,
            gid: request.gid,
            // As on the host: whoever is not root has none.
            capabilities: if request.uid == 0 { CapabilitySpec::full() } else { CapabilitySpec::default() },
            // A command of one's own expects that ^C ends it, which it would not as an init without handlers.
            init: InitSignals::Ordinary,
            terminal: request.terminal,
            ..ProcessSpec::default()
        },
        root: HostMount {
            path: root,
            submounts: Submounts::Hide,
            layers: None,
            ids: None,
            changes: Changes::Memory(OverlayLimits::default()),
        },
        root_readonly: false,
        root_sharing: Sharing::Exclusive,
        mounts,
        devices: Vec::new(),
        device_rules: Vec::new(),
        device_nodes: if request.uid == 0 { DeviceNodes::Allowed } else { DeviceNodes::Refused },
        host_nodes: request.host_nodes,
        masked_paths: Vec::new(),
        readonly_paths: Vec::new(),
        sysctls: Default::default(),
        seccomp: None,
        plan: None,
        shares: crate::cgroup::shares_of_host(),
        image: None,
        lifetime: Lifetime::Attached,
        warnings: Vec::new(),
    })
}

/// The kernel's own file systems, at their usual places.
pub(crate) fn standard_mounts() -> Vec<MountBlueprint> {
    let kernel = |destination: &str, kind| MountBlueprint {
        destination: destination.into(),
        source: MountSource::Kernel(kind),
        flags: MountFlags { nosuid: true, noexec: true, ..MountFlags::default() },
    };
    vec![
        kernel("/proc", MountKind::Proc),
        kernel("/sys", MountKind::Sysfs),
        kernel("/dev", MountKind::Dev),
        kernel("/dev/pts", MountKind::Devpts(DevptsOptions::default())),
        kernel("/dev/shm", MountKind::Tmpfs(Default::default())),
        kernel("/dev/mqueue", MountKind::Mqueue),
    ]
}

/// The other disks that the host has mounted, so that its /home is there too if it is a file system of its own.
fn host_submounts() -> Result<Vec<MountBlueprint>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context(|| "reading the host's mounts".into())?;
    let mut mounts = parse_submounts(&text);
    mounts.truncate(MAX_SUBMOUNTS);
    Ok(mounts)
}

fn parse_submounts(mountinfo: &str) -> Vec<MountBlueprint> {
    let mut mounts: Vec<MountBlueprint> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (Some(point), Some(kind)) = (left.split(' ').nth(4), right.split(' ').next()) else { continue };
        // Octal escapes stand for white space; such a mount is not worth the trouble.
        let hidden = NOT_SHOWN.contains(&kind)
            || point == "/"
            || point.contains('\\')
            || ["/proc", "/sys", "/dev"].iter().any(|top| Path::new(point).starts_with(top));
        if hidden || mounts.iter().any(|m| m.destination == point) {
            continue;
        }
        mounts.push(MountBlueprint {
            destination: point.to_owned(),
            source: MountSource::Host(HostMount {
                path: PathBuf::from(point),
                submounts: Submounts::Hide,
                layers: None,
                ids: None,
                changes: Changes::Memory(OverlayLimits::default()),
            }),
            flags: MountFlags::default(),
        });
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let volume = |text: &str| text.parse::<Volume>();
        assert_eq!(
            volume("/usr/../usr:/mnt/./x/:ro").unwrap(),
            Volume { source: "/usr".into(), destination: "/mnt/x".into(), readonly: true }
        );
        assert_eq!(
            volume("/usr").unwrap(),
            Volume { source: "/usr".into(), destination: "/usr".into(), readonly: false }
        );
        assert!(!volume("/usr:/x:rw").unwrap().readonly);
        assert!(volume("/usr:relative").is_err());
        assert!(volume("/usr:/a:/b:ro").is_err());
        assert!(volume("/does/not/exist").is_err());
        assert!(volume("/usr:/../x").is_err());
    }

    #[test]
    fn submounts_of_the_host() {
        let mounts = parse_submounts(
            "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
             23 22 0:5 / /proc rw shared:3 - proc proc rw\n\
             24 22 8:2 / /home rw shared:4 master:1 - ext4 /dev/sda2 rw\n\
             25 22 0:9 / /tmp rw - tmpfs tmpfs rw\n\
             26 22 0:10 / /dev/shm rw - tmpfs tmpfs rw\n\
             garbage\n",
        );
        let points: Vec<&str> = mounts.iter().map(|m| m.destination.as_str()).collect();
        assert_eq!(points, ["/home", "/tmp"]);
    }

    #[test]
    fn a_command_is_needed() {
        let request = Request {
            args: vec![],
            env: vec![],
            cwd: None,
            root: "/".into(),
            uid: 0,
            gid: 0,
            volumes: vec![],
            terminal: false,
            host_nodes: HostNodes::default(),
        };
        assert!(matches!(blueprint(request), Err(Error::Invalid(_))));
    }
}
