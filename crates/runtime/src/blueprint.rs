//! [`Blueprint`]: a checked container, still with host paths, from which the sandbox spec is made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use moat_control::spec::{
    Backing, ContainerSpec, DonatedFds, FdNumber, FileAccess, FileBind, Lifetime, LogSpec, MountFlags, MountKind,
    MountSpec, Overlay, ProcessSpec, RootSpec, SPEC_VERSION, SandboxSpec, SharedNamespaces,
};
use moat_host::spawn::Donation;
use rustix::fs::FileType;

use crate::host_tree::{Access, HostTree, Opener, Submounts};
use crate::namespaces::Plan;
use crate::{Config, ContainerId, Error, Result, hardware};

/// A container to start.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// Its id.
    pub id: ContainerId,
    /// uname's nodename.
    pub hostname: String,
    /// uname's domainname.
    pub domainname: String,
    /// Its init.
    pub process: ProcessSpec,
    /// Its root directory on the host.
    pub root: HostMount,
    /// The guest sees its root read-only.
    pub root_readonly: bool,
    /// Its other mounts, in order.
    pub mounts: Vec<MountBlueprint>,
    /// Guest paths that are hidden.
    pub masked_paths: Vec<String>,
    /// Guest paths that are read-only.
    pub readonly_paths: Vec<String>,
    /// Values of /proc/sys.
    pub sysctls: BTreeMap<String, String>,
    /// The host's namespaces of its sandbox; if none are given, those that the mode of the network asks for.
    pub plan: Option<Plan>,
    /// Whether it dies with its creator.
    pub lifetime: Lifetime,
    /// What the configuration asked for and is not done, for the user's log.
    pub warnings: Vec<String>,
}

/// A mount to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountBlueprint {
    /// Absolute, clean guest path.
    pub destination: String,
    /// What is mounted.
    pub source: MountSource,
    /// Mount attributes.
    pub flags: MountFlags,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A file system of the guest's kernel; never [`MountKind::Bind`].
    Kernel(MountKind),
    /// A part of the host's tree.
    Host(HostMount),
}

/// A part of the host's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostMount {
    /// Host path.
    pub path: PathBuf,
    /// Whether mounts below it are shown.
    pub submounts: Submounts,
    /// Where changes go.
    pub overlay: Overlay,
}

impl HostMount {
    /// What the sandbox may do to the host's files, given how the guest sees the mount.
    fn access(&self, readonly: bool) -> Access {
        if readonly || self.overlay != Overlay::None { Access::ReadOnly } else { Access::ReadWrite }
    }
}

impl Blueprint {
    /// Opens the host's files, adds them to `donation` and gives the spec that names them.
    pub(crate) fn into_spec(
        self,
        config: &Config,
        opener: Opener,
        stdio: [FdNumber; 3],
        fds: DonatedFds,
        donation: &mut Donation,
    ) -> Result<SandboxSpec> {
        let root = opener.open(&self.root.path, self.root.submounts, self.root.access(self.root_readonly))?;
        if root.file_type != FileType::Directory {
            return Err(Error::Invalid(format!("the root {} is not a directory", self.root.path.display())));
        }
        let root = RootSpec {
            backing: Backing::Directory(donation.add(root.fd)),
            readonly: self.root_readonly,
            overlay: self.root.overlay,
        };
        let mut mounts = Vec::with_capacity(self.mounts.len());
        for mount in self.mounts {
            mounts.push(mount.into_spec(opener, donation)?);
        }
        let container = ContainerSpec {
            id: self.id.as_str().to_owned(),
            hostname: self.hostname,
            domainname: self.domainname,
            shared: SharedNamespaces::default(),
            process: self.process,
            stdio,
            preserved: Vec::new(),
            root,
            mounts,
            masked_paths: self.masked_paths,
            readonly_paths: self.readonly_paths,
            sysctls: self.sysctls,
        };
        Ok(SandboxSpec {
            version: SPEC_VERSION,
            platform: config.platform,
            network: config.network,
            files: FileAccess::Direct,
            container,
            cpu_count: hardware::cpu_count(),
            total_memory_bytes: hardware::total_memory_bytes(),
            lifetime: self.lifetime,
            logging: LogSpec {
                debug: config.debug,
                json: config.log_json,
                strace: config.strace,
                strace_syscalls: config.strace_syscalls.clone(),
                strace_log_size: config.strace_log_size,
            },
            fds,
        })
    }
}

impl MountBlueprint {
    fn into_spec(self, opener: Opener, donation: &mut Donation) -> Result<MountSpec> {
        let kind = match self.source {
            MountSource::Kernel(kind) => kind,
            MountSource::Host(host) => {
                let tree = opener.open(&host.path, host.submounts, host.access(self.flags.readonly))?;
                MountKind::Bind { backing: backing(tree, &host, donation)?, overlay: host.overlay }
            }
        };
        Ok(MountSpec { destination: self.destination, kind, flags: self.flags })
    }
}

fn backing(tree: HostTree, host: &HostMount, donation: &mut Donation) -> Result<Backing> {
    match tree.file_type {
        FileType::Directory => Ok(Backing::Directory(donation.add(tree.fd))),
        FileType::RegularFile | FileType::Socket | FileType::Fifo => {
            Ok(Backing::File(FileBind { dir: donation.add(tree.fd), name: String::new() }))
        }
        other => Err(Error::unsupported(
            format!("a mount of {}", host.path.display()),
            format!("it is a {other:?}; guests have device nodes of their own"),
        )),
    }
}
