//! The guest's mount namespace, built from the sandbox spec.

pub(crate) mod layout;
mod nodes;
mod overlay;

use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::{Errno, Result};
use moat_control::BootError;
use moat_control::spec::{
    Backing, ContainerSpec, DevptsOptions, FdNumber, FileOverlay, HostUse, MountFlags as SpecFlags, MountKind,
    MountSpec, Overlay, Sharing, SocketUse, TmpfsOptions,
};
use moat_fs_host::{DirectTree, Fifos, GoferTree, HostFs, NodeMaker, Sockets, SpecialNodes, Trust};
use moat_fs_mqueue::NamespaceQueues;
use moat_fs_overlay::OverlayFs;
use moat_fs_proc::ProcFs;
use moat_fs_tmpfs::Medium;
use moat_kernel::Kernel;
use moat_kernel::spawn::ContainerPlace;
use moat_vfs::Vfs;
use moat_vfs::caller::KernelCaller;
use moat_vfs::filesystem::{FileSystem, MountRequest};
use moat_vfs::mount::{Mount, MountFlags, MountNamespace};
use moat_vfs::ops;
use moat_vfs::path::Path;
use moat_vfs::walk::{LookupFlags, View, resolve};

use moat_jail::DonatedFiles;

use overlay::{HostDirectory, UpperPlace};

/// Builds the namespace: root, mounts in their order, masked and read-only paths.
///
/// # Errors
/// The mount that failed, by name.
pub(crate) fn build(
    kernel: &Arc<Kernel>,
    spec: &ContainerSpec,
    place: &ContainerPlace,
    files: &mut DonatedFiles,
) -> Result<Arc<MountNamespace>, BootError> {
    let root_error = |e| failed("the root file system", e);
    let trust = match spec.root.sharing {
        Sharing::Exclusive => Trust::Exclusive,
        Sharing::Shared => Trust::Shared,
    };
    let nodes = match spec.node_maker {
        Some(fd) => Some(Arc::new(NodeMaker::new(files.take(fd)?))),
        None => None,
    };
    let sockets = match spec.host_nodes.sockets {
        SocketUse::None => Sockets::Refuse,
        SocketUse::Open => Sockets::Connect,
        SocketUse::Create => Sockets::Create,
        SocketUse::All => Sockets::All,
    };
    let fifos = match spec.host_nodes.fifos {
        HostUse::None => Fifos::Own,
        HostUse::Open => Fifos::Host,
    };
    let mut trees = Trees { vfs: &kernel.vfs, nodes, special: SpecialNodes { sockets, fifos }, files };
    let root = trees.mount(&spec.root.backing, &spec.root.overlay, trust).map_err(root_error)?;
    let namespace = MountNamespace::new(root.clone(), kernel.root_user_ns.clone());
    let builder = Builder {
        kernel: kernel.clone(),
        namespace: namespace.clone(),
        place: place.clone(),
        caller: kernel.vfs.kernel_caller(),
    };
    for mount in &spec.mounts {
        builder.mount(mount, &mut trees).map_err(|e| failed(&mount.destination, e))?;
    }
    for device in &spec.devices {
        builder.add_device(device).map_err(|e| failed_to("making the device", &device.path, e))?;
    }
    builder.make_dirs(spec.process.cwd.as_bytes()).map_err(|e| failed(&spec.process.cwd, e))?;
    // After all mounts, in which these paths may lie.
    for path in &spec.readonly_paths {
        builder.make_readonly(path.as_bytes()).map_err(|e| failed(path, e))?;
    }
    for path in &spec.masked_paths {
        builder.mask(path.as_bytes()).map_err(|e| failed(path, e))?;
    }
    // Last, as places for mounts had to be made in it.
    if spec.root.readonly {
        root.set_flags(root.flags() | MountFlags::RDONLY);
    }
    Ok(namespace)
}

fn failed(what: &str, errno: Errno) -> BootError {
    failed_to("mounting", what, errno)
}

fn failed_to(act: &str, what: &str, errno: Errno) -> BootError {
    BootError { errno: Some(errno.raw()), ..BootError::new(format!("{act} {what}")) }
}

fn new_fs(vfs: &Vfs, fs_type: &str, options: &str) -> Result<Arc<dyn FileSystem>> {
    let (caller, tables) = (&vfs.kernel_caller(), vfs.tables());
    let (source, options) = (fs_type.as_bytes(), options.as_bytes());
    let request = MountRequest { source, source_path: None, options, caller, tables };
    vfs.registry.make_filesystem(fs_type.as_bytes(), &request)
}

/// The host's trees, and who makes nodes of devices in them.
struct Trees<'a> {
    vfs: &'a Vfs,
    nodes: Option<Arc<NodeMaker>>,
    special: SpecialNodes,
    files: &'a mut DonatedFiles,
}

impl Trees<'_> {
    fn direct(&mut self, fd: FdNumber, trust: Trust) -> Result<Arc<dyn FileSystem>> {
        let tree = DirectTree::new(self.files.take(fd).map_err(|_| Errno::EBADF)?)
            .with_nodes(self.nodes.clone())
            .with_special(self.special);
        Ok(HostFs::mount(self.vfs.new_device(), &Arc::downgrade(self.vfs.tables()), tree, trust, self.special)?)
    }

    fn served(&mut self, fd: FdNumber, trust: Trust) -> Result<Arc<dyn FileSystem>> {
        let tree = GoferTree::new(self.files.take(fd).map_err(|_| Errno::EBADF)?);
        Ok(HostFs::mount(self.vfs.new_device(), &Arc::downgrade(self.vfs.tables()), tree, trust, self.special)?)
    }

    /// The directory in which an overlay has its files.
    fn place(&mut self, files: &FileOverlay) -> Result<UpperPlace> {
        let mut take = |fd| self.files.take(fd).map_err(|_| Errno::EBADF);
        let medium: Arc<dyn Medium> = match &files.medium {
            Backing::Directory(fd) => Arc::new(HostDirectory::new(DirectTree::new(take(*fd)?))?),
            Backing::Gofer(bind) => Arc::new(HostDirectory::new(GoferTree::new(take(bind.socket)?))?),
            Backing::File(_) => return Err(Errno::ENOTDIR),
        };
        Ok(UpperPlace { medium, hidden: files.hidden.clone() })
    }

    /// A mount of a tree or file of the host, below an overlay if there is to be one.
    fn mount(&mut self, backing: &Backing, overlay: &Overlay, trust: Trust) -> Result<Arc<Mount>> {
        let (lower, name) = match backing {
            Backing::Directory(fd) => (self.direct(*fd, trust)?, None),
            Backing::File(bind) => (self.direct(bind.dir, trust)?, Some(&bind.name)),
            Backing::Gofer(bind) => (self.served(bind.socket, trust)?, bind.name.as_ref()),
        };
        let fs = match overlay {
            Overlay::None => lower,
            Overlay::Memory(limits) => overlay::over(self.vfs, &lower, *limits, None)?,
            Overlay::Files(files) => {
                let place = self.place(files)?;
                overlay::over(self.vfs, &lower, files.limits, Some(place))?
            }
        };
        // A file is shown by a bind mount out of its directory, which nobody else sees.
        let whole = Mount::new(self.vfs.tables(), fs, MountFlags::RELATIME, b"none");
        match name {
            None => Ok(whole),
            Some(name) => {
                let dentry = whole.root().lookup(name.as_bytes())?;
                Ok(Mount::bind(&Path { mount: whole, dentry }))
            }
        }
    }
}

/// `tmpfs` with the contents of the directory `at`. The guest can no longer change that, so nothing need be copied before it is
/// written to.
fn covering(tmpfs: &Arc<Mount>, at: &Path, source: &[u8]) -> Result<Arc<Mount>> {
    let upper = tmpfs.fs().clone();
    let union =
        OverlayFs::new(tmpfs.tables(), vec![at.inode().clone()], Some(upper.root()), Some(upper), String::new())?;
    Ok(Mount::new(tmpfs.tables(), union, MountFlags::RELATIME, source))
}

fn flags(f: SpecFlags) -> MountFlags {
    let mut m = if f.noatime { MountFlags::NOATIME } else { MountFlags::RELATIME };
    m.set(MountFlags::RDONLY, f.readonly);
    m.set(MountFlags::NOSUID, f.nosuid);
    m.set(MountFlags::NODEV, f.nodev);
    m.set(MountFlags::NOEXEC, f.noexec);
    m
}

fn tmpfs_options(o: &TmpfsOptions) -> String {
    let mut text = format!("mode={:o},uid={},gid={}", o.mode, o.uid, o.gid);
    if let Some(size) = o.size_bytes {
        text += &format!(",size={size}");
    }
    if let Some(n) = o.nr_inodes {
        text += &format!(",nr_inodes={n}");
    }
    text
}

fn devpts_options(o: &DevptsOptions) -> String {
    let mut text = format!("newinstance,mode={:o},ptmxmode={:o}", o.mode, o.ptmx_mode);
    if let Some(gid) = o.gid {
        text += &format!(",gid={gid}");
    }
    text
}

struct Builder {
    kernel: Arc<Kernel>,
    namespace: Arc<MountNamespace>,
    place: ContainerPlace,
    caller: KernelCaller,
}

impl Builder {
    fn with_view<R>(&self, f: impl FnOnce(&View<'_>) -> R) -> R {
        let root = self.namespace.root();
        f(&View { caller: &self.caller, root: &root, base: &root, umask: 0o022 })
    }

    fn find(&self, path: &[u8]) -> Result<Path> {
        self.with_view(|view| resolve(view, path, LookupFlags::FOLLOW))
    }

    /// The directory `path`, made with its parents where it is missing.
    fn make_dirs(&self, path: &[u8]) -> Result<Path> {
        if let Ok(found) = self.find(path) {
            return Ok(found);
        }
        for (at, _) in path.iter().enumerate().skip(1).filter(|(_, b)| **b == b'/').chain([(path.len(), &0)]) {
            let made = self.with_view(|view| ops::mkdir(view, &path[..at], 0o755));
            if let Err(e) = made
                && e != Errno::EEXIST
                // A read-only tree may hold the directories already.
                && e != Errno::EROFS
            {
                return Err(e);
            }
        }
        self.find(path)
    }

    /// The file `path`, made empty where it is missing: the place for a file's mount.
    fn make_file(&self, path: &[u8]) -> Result<Path> {
        if let Ok(found) = self.find(path) {
            return Ok(found);
        }
        if let Some(slash) = path.iter().rposition(|b| *b == b'/').filter(|at| *at > 0) {
            self.make_dirs(&path[..slash])?;
        }
        self.with_view(|view| ops::mknod(view, path, 0o644, moat_vfs::inode::NodeKind::File))
    }

    fn mount(&self, spec: &MountSpec, trees: &mut Trees<'_>) -> Result<()> {
        let new = match &spec.kind {
            MountKind::Proc => Ok(Mount::new(
                self.kernel.vfs.tables(),
                ProcFs::new(self.kernel.clone(), self.place.pid_ns.clone(), self.place.namespaces.clone()),
                MountFlags::RELATIME,
                b"proc",
            )),
            MountKind::Sysfs => {
                self.mounted(moat_fs_sys::sysfs::mount(&self.kernel, &self.place.namespaces)?, b"sysfs")
            }
            MountKind::Mqueue => {
                let queues = NamespaceQueues::of(self.kernel.vfs.tables(), &self.place.namespaces.ipc);
                Ok(Mount::new(self.kernel.vfs.tables(), queues.fs.clone(), MountFlags::RELATIME, b"mqueue"))
            }
            MountKind::Cgroup => {
                let cgroup = &self.place.namespaces.cgroup;
                self.mounted(moat_fs_sys::cgroup::mount(&self.kernel, cgroup)?, b"cgroup2")
            }
            MountKind::Devpts(o) => self.of_type("devpts", &devpts_options(o)),
            MountKind::Tmpfs(o) => {
                let fs = new_fs(&self.kernel.vfs, "tmpfs", &tmpfs_options(o))?;
                self.mounted(fs, o.source.as_bytes())
            }
            MountKind::Dev => {
                let dev = self.of_type("tmpfs", "mode=755,size=65536k")?;
                moat_fs_dev::tree::populate(dev.root().inode().as_ref())?;
                Ok(dev)
            }
            MountKind::Node(node) => self.node_mount(node),
            MountKind::Bind { backing, overlay } => trees.mount(backing, overlay, Trust::Shared),
        }?;
        new.set_flags(flags(spec.flags));
        let path = spec.destination.as_bytes();
        // What is missing of the mount point is made, of the kind that is mounted on it.
        let at = if new.root().inode().file_type() == FileType::Directory {
            self.make_dirs(path)
        } else {
            self.make_file(path)
        }?;
        match &spec.kind {
            MountKind::Tmpfs(o) if o.copy_up => {
                // The tmpfs begins with what it covers, which has to be copied before it is covered.
                let new = covering(&new, &at, o.source.as_bytes())?;
                new.set_flags(flags(spec.flags));
                self.namespace.attach(&new, &at)
            }
            _ => self.namespace.attach(&new, &at),
        }
    }

    fn mounted(&self, fs: Arc<dyn FileSystem>, source: &[u8]) -> Result<Arc<Mount>> {
        Ok(Mount::new(self.kernel.vfs.tables(), fs, MountFlags::RELATIME, source))
    }

    fn of_type(&self, fs_type: &str, options: &str) -> Result<Arc<Mount>> {
        let vfs = &self.kernel.vfs;
        Ok(Mount::new(vfs.tables(), new_fs(vfs, fs_type, options)?, MountFlags::RELATIME, fs_type.as_bytes()))
    }

    fn make_readonly(&self, path: &[u8]) -> Result<()> {
        let at = match self.find(path) {
            // What is not there needs no protection.
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            found => found?,
        };
        let mount = Mount::bind(&at);
        mount.set_flags(mount.flags() | MountFlags::RDONLY);
        self.namespace.attach(&mount, &at)
    }

    fn mask(&self, path: &[u8]) -> Result<()> {
        let at = match self.find(path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            found => found?,
        };
        // As runc covers them.
        let cover = if at.inode().file_type() == FileType::Directory {
            self.of_type("tmpfs", "")?
        } else {
            Mount::bind(&self.find(b"/dev/null")?)
        };
        cover.set_flags(cover.flags() | MountFlags::RDONLY);
        self.namespace.attach(&cover, &at)
    }
}
