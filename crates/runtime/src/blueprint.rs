//! [`Blueprint`]: a checked container, still with host paths, from which the sandbox spec is made.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use moat_control::spec::{
    Backing, ClockSpec, ContainerSpec, DeviceRule, DeviceSpec, DonatedFds, FdNumber, FileBind, FileOverlay, HostNodes,
    IdView, JailSpec, Lifetime, MountFlags, MountKind, MountSpec, Overlay, PageLoading, ProcessSpec, RestoreSpec,
    RootSpec, SPEC_VERSION, SandboxSpec, SeccompSpec, SharedNamespaces, SharesSpec, Sharing, TreeKind,
};
use moat_host::spawn::Donation;
use moat_image::directory::ImageFiles;
use rustix::fs::{FileType, StatVfsMountFlags};
use rustix::thread::CapabilitySet;

use crate::error::Context;
use crate::host_tree::{Access, HostTree, Layers, MountIds, Opener, Submounts};
use crate::namespaces::Plan;
use crate::overlay::{Changes, OverlayDirectory};
use crate::{Config, ContainerId, Error, Result, host_tree};

/// Whether a container may make nodes of devices in trees of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceNodes {
    /// It may not: EPERM.
    #[default]
    Refused,
    /// As far as the host lets who creates it.
    Allowed,
}

impl DeviceNodes {
    /// What a container gets that has `capabilities`, in a user namespace of its configuration or not.
    pub(crate) fn of(capabilities: u64, own_user_namespace: bool) -> Self {
        let may = CapabilitySet::from_bits_truncate(capabilities).contains(CapabilitySet::MKNOD);
        if may && !own_user_namespace { DeviceNodes::Allowed } else { DeviceNodes::Refused }
    }
}

/// A container to start.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// Its id.
    pub id: ContainerId,
    /// What its pod calls it; empty if it has no such name.
    pub name: String,
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
    /// Whether others may change its root.
    pub root_sharing: Sharing,
    /// Its other mounts, in order.
    pub mounts: Vec<MountBlueprint>,
    /// Nodes that are made when the mounts are there.
    pub devices: Vec<DeviceSpec>,
    /// Which devices it may use, in their order; without any, all.
    pub device_rules: Vec<DeviceRule>,
    /// Whether nodes of devices can be made in its trees of the host.
    pub device_nodes: DeviceNodes,
    /// Whether it may connect to sockets of the host, and open its FIFOs in its trees.
    pub host_nodes: HostNodes,
    /// Guest paths that are hidden.
    pub masked_paths: Vec<String>,
    /// Guest paths that are read-only.
    pub readonly_paths: Vec<String>,
    /// Values of /proc/sys.
    pub sysctls: BTreeMap<String, String>,
    /// What the calls of its processes are checked by.
    pub seccomp: Option<SeccompSpec>,
    /// The host's namespaces of its sandbox; if none are given, those that the mode of the network asks for.
    pub plan: Option<Plan>,
    /// What it is shown of its cgroup.
    pub shares: SharesSpec,
    /// The image that its processes come out of, in place of its init's program.
    pub image: Option<ImageSource>,
    /// Whether it dies with its creator.
    pub lifetime: Lifetime,
    /// What the configuration asked for and is not done, for the user's log.
    pub warnings: Vec<String>,
}

/// Where an image is.
#[derive(Clone, Debug)]
pub enum ImageSource {
    /// In a directory.
    Directory(PathBuf),
    /// In memory: `state` and `pages`.
    Memory(Arc<File>, Arc<File>),
}

impl ImageSource {
    /// Opens its files.
    fn open(&self) -> Result<ImageFiles> {
        let copy = |file: &File| file.try_clone().context(|| "duplicating a descriptor".into());
        match self {
            ImageSource::Directory(directory) => Ok(moat_image::directory::open(directory)?),
            ImageSource::Memory(state, pages) => {
                Ok(ImageFiles { state: copy(state)?, pages: copy(pages)?, bases: Vec::new() })
            }
        }
    }
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
    /// Of what it is made, if it is no place that is there: `path` is its topmost layer.
    pub layers: Option<Layers>,
    /// How ids are shown, if not as they are.
    pub ids: Option<MountIds>,
    /// Where changes go.
    pub changes: Changes,
}

/// The numbers of the descriptors that a container's init starts with.
#[derive(Clone, Debug)]
pub(crate) struct Stdio {
    pub(crate) stdio: [FdNumber; 3],
    pub(crate) preserved: Vec<FdNumber>,
}

/// Descriptors on their way to a sandbox.
pub(crate) trait Descriptors {
    /// Adds one; gives the number by which the spec is to name it.
    fn add(&mut self, fd: OwnedFd) -> FdNumber;

    /// Adds the socket of the process that makes nodes of devices in the trees; a number if the sandbox itself gets it.
    fn add_node_maker(&mut self, socket: OwnedFd) -> Option<FdNumber>;

    /// Adds an O_PATH descriptor of a directory or file that is to be mounted.
    fn add_tree(&mut self, tree: OwnedFd, kind: TreeKind, access: Access) -> Result<Backing>;
}

/// To a new sandbox, which makes a directory for a file itself.
impl Descriptors for Donation {
    fn add(&mut self, fd: OwnedFd) -> FdNumber {
        Donation::add(self, fd)
    }

    fn add_node_maker(&mut self, socket: OwnedFd) -> Option<FdNumber> {
        Some(Donation::add(self, socket))
    }

    fn add_tree(&mut self, tree: OwnedFd, kind: TreeKind, _access: Access) -> Result<Backing> {
        let number = Donation::add(self, tree);
        Ok(match kind {
            TreeKind::Directory => Backing::Directory(number),
            TreeKind::File => Backing::File(FileBind { dir: number, name: String::new() }),
        })
    }
}

/// To a sandbox that runs already, by a message: their numbers are their places in it. There a file needs a directory
/// with nothing else in it.
impl Descriptors for Vec<OwnedFd> {
    fn add(&mut self, fd: OwnedFd) -> FdNumber {
        let number = FdNumber::try_from(self.len()).unwrap_or(FdNumber::MAX);
        self.push(fd);
        number
    }

    fn add_node_maker(&mut self, socket: OwnedFd) -> Option<FdNumber> {
        Some(self.add(socket))
    }

    fn add_tree(&mut self, tree: OwnedFd, kind: TreeKind, _access: Access) -> Result<Backing> {
        Ok(match kind {
            TreeKind::Directory => Backing::Directory(self.add(tree)),
            TreeKind::File => {
                let dir = host_tree::directory_of_file(&tree)?;
                Backing::File(FileBind { dir: self.add(dir), name: host_tree::FILE_NAME.into() })
            }
        })
    }
}

impl HostMount {
    /// What the sandbox may do to the host's files, given how the guest sees the mount.
    fn access(&self, readonly: bool) -> Access {
        if readonly || self.changes != Changes::Reach { Access::ReadOnly } else { Access::ReadWrite }
    }
}

impl Changes {
    /// Opens the directory of the files, if there is one.
    fn into_spec(self, opener: Opener, fds: &mut impl Descriptors) -> Result<Overlay> {
        Ok(match self {
            Changes::Reach => Overlay::None,
            Changes::Memory(limits) => Overlay::Memory(limits),
            Changes::Files(directory, limits) => {
                let tree = opener.open(&directory.path, Submounts::Hide, Access::ReadWrite)?;
                let medium = fds.add_tree(tree.fd, TreeKind::Directory, Access::ReadWrite)?;
                Overlay::Files(FileOverlay { medium, limits, hidden: directory.hidden })
            }
        })
    }
}

impl Blueprint {
    /// The directories of overlays, which are to be made before it is started.
    pub(crate) fn overlay_directories(&self) -> impl Iterator<Item = &OverlayDirectory> {
        let mounts = self.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Host(host) => Some(host),
            MountSource::Kernel(_) => None,
        });
        mounts.chain([&self.root]).filter_map(|host| match &host.changes {
            Changes::Files(directory, _) => Some(directory),
            Changes::Reach | Changes::Memory(_) => None,
        })
    }

    /// Opens the host's files, puts them into `descriptors` and gives the spec that names them; its jail and session are the
    /// caller's to say. `nodes` is the socket of the node maker.
    pub(crate) fn into_spec(
        self,
        config: &Config,
        opener: Opener,
        stdio: Stdio,
        nodes: Option<OwnedFd>,
        fds: DonatedFds,
        descriptors: &mut impl Descriptors,
    ) -> Result<SandboxSpec> {
        let lifetime = self.lifetime;
        Ok(SandboxSpec {
            version: SPEC_VERSION,
            platform: config.platform,
            call_sites: config.call_sites,
            network: config.network,
            files: config.files,
            ids: self.plan.as_ref().map_or(IdView::All, Plan::id_view),
            container: self.into_container_spec(opener, stdio, nodes, SharedNamespaces::default(), descriptors)?,
            lifetime,
            logging: config.log_spec(),
            fds,
            session: None,
            jail: JailSpec::default(),
        })
    }

    /// Whether the container can change anything in a tree of the host.
    pub(crate) fn writes_to_the_host(&self) -> bool {
        let mounts = self.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Host(host) => Some(host.access(mount.flags.readonly)),
            MountSource::Kernel(_) => None,
        });
        mounts.chain([self.root.access(self.root_readonly)]).any(|access| access == Access::ReadWrite)
    }

    /// Opens the host's files, puts them into `fds` and gives the spec that names them.
    pub(crate) fn into_container_spec(
        self,
        opener: Opener,
        stdio: Stdio,
        nodes: Option<OwnedFd>,
        shared: SharedNamespaces,
        fds: &mut impl Descriptors,
    ) -> Result<ContainerSpec> {
        let access = self.root.access(self.root_readonly);
        // The tree is opened with as little as the guest may do with it: read-only then is the host's to enforce.
        let root = opener.open(&self.root.path, self.root.submounts, access)?;
        if root.file_type != FileType::Directory {
            return Err(Error::Invalid(format!("the root {} is not a directory", self.root.path.display())));
        }
        let root = RootSpec {
            backing: fds.add_tree(root.fd, TreeKind::Directory, access)?,
            readonly: self.root_readonly,
            overlay: self.root.changes.into_spec(opener, fds)?,
            sharing: self.root_sharing,
        };
        let mut mounts = Vec::with_capacity(self.mounts.len());
        for mount in self.mounts {
            mounts.push(mount.into_spec(opener, fds)?);
        }
        let restore = match &self.image {
            Some(image) => {
                let ImageFiles { state, pages, bases } = image.open()?;
                let mut loading = PageLoading::Mapped;
                for pages in bases.iter().chain([&pages]) {
                    let medium = rustix::fs::fstatvfs(pages).context(|| "looking at pages".into())?;
                    // Guest memory may be executed, and a mapping of a file on such a medium may not.
                    if medium.f_flag.contains(StatVfsMountFlags::NOEXEC) {
                        loading = PageLoading::Copied;
                    }
                }
                let clocks = moat_image::directory::clocks(&state)?.map(|at| ClockSpec {
                    monotonic_ns: at.monotonic_ns,
                    boottime_ns: at.boottime_ns,
                    booted_ns: at.booted_boottime_ns,
                });
                let mut add = |file: File| fds.add(file.into());
                let bases = bases.into_iter().map(&mut add).collect();
                Some(RestoreSpec { state: add(state), pages: add(pages), bases, loading, clocks })
            }
            None => None,
        };
        Ok(ContainerSpec {
            id: self.id.as_str().to_owned(),
            name: self.name,
            hostname: self.hostname,
            domainname: self.domainname,
            shared,
            process: self.process,
            host_nodes: self.host_nodes,
            stdio: stdio.stdio,
            preserved: stdio.preserved,
            // With a gofer the socket goes to that, which makes the nodes in its trees.
            node_maker: nodes.and_then(|socket| fds.add_node_maker(socket)),
            root,
            mounts,
            devices: self.devices,
            device_rules: self.device_rules,
            masked_paths: self.masked_paths,
            readonly_paths: self.readonly_paths,
            sysctls: self.sysctls,
            seccomp: self.seccomp,
            shares: self.shares,
            restore,
        })
    }
}

impl MountBlueprint {
    fn into_spec(self, opener: Opener, fds: &mut impl Descriptors) -> Result<MountSpec> {
        let kind = match self.source {
            MountSource::Kernel(kind) => kind,
            MountSource::Host(host) => {
                let access = host.access(self.flags.readonly);
                let tree = match &host.layers {
                    Some(layers) => opener.open_layers(layers, access)?,
                    None => opener.open_mapped(&host.path, host.submounts, access, host.ids.as_ref())?,
                };
                let kind = kind_of(&tree, &host)?;
                let backing = fds.add_tree(tree.fd, kind, access)?;
                MountKind::Bind { backing, overlay: host.changes.into_spec(opener, fds)? }
            }
        };
        Ok(MountSpec { destination: self.destination, kind, flags: self.flags })
    }
}

fn kind_of(tree: &HostTree, host: &HostMount) -> Result<TreeKind> {
    match tree.file_type {
        FileType::Directory => Ok(TreeKind::Directory),
        FileType::RegularFile | FileType::Socket | FileType::Fifo => Ok(TreeKind::File),
        other => Err(Error::unsupported(
            format!("a mount of {}", host.path.display()),
            format!("it is a {other:?} that took the place of something else"),
        )),
    }
}
