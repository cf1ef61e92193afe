//! [`Saver`]: see [`super`].

use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_identity::{Credentials, NetNamespace, Pid};
use moat_image::pages::PagesWriter;
use moat_image::state::{
    ContainerIndex, CredentialsState, FdTableState, FileIdentityState, FileSystemState, FsContextState,
    HostTerminalState, MappableState, MountState, MqueueState, NetlinkSocketState, OpenFileKind, OpenFileState,
    PacketSocketState, PathState, PipeState, PtyState, RawSocketState, SandboxState, TcpEndState, TcpSocketState,
    UdpSocketState, UnixEndpointState, UnixSocketState, UnnamedFileState,
};
use moat_image::{ImageError, Interner, Met, Ref, Refusal};

use crate::file::{Compare, SaveFiles, SaveLater};
use crate::inode::{FileSystem, Inode, Metadata};
use crate::mount::{Mount, MountNamespace};
use crate::open_file::OpenFile;
use crate::path::Path;
use crate::saved_namespaces::SavedNamespaces;
use crate::tables::Tables;

/// A container whose processes are saved.
pub struct SavedContainer {
    /// Its mounts.
    pub namespace: Arc<MountNamespace>,
    /// What its init was started with.
    pub donated: Vec<(u32, Arc<OpenFile>)>,
}

/// Collects what is saved of files. Nothing of the guest runs meanwhile, unless this is a survey, of which only the refusals count.
pub struct Saver {
    containers: Vec<SavedContainer>,
    namespaces: SavedNamespaces,
    /// The mounts of each container, parents first.
    mounts: Vec<Vec<Arc<Mount>>>,
    /// Where contents go; none in a survey.
    pub(super) pages: Option<PagesWriter>,
    credentials: Interner<CredentialsState>,
    open_files: Interner<OpenFileState>,
    pub(super) fd_tables: Interner<FdTableState>,
    pub(super) fs_contexts: Interner<FsContextState>,
    mount_states: Interner<MountState>,
    file_systems: Interner<FileSystemState>,
    pub(super) mappables: Interner<MappableState>,
    unnamed_files: Interner<UnnamedFileState>,
    pipes: Interner<PipeState>,
    unix_sockets: Interner<UnixSocketState>,
    unix_endpoints: Interner<UnixEndpointState>,
    tcp_sockets: Interner<TcpSocketState>,
    tcp_ends: Interner<TcpEndState>,
    udp_sockets: Interner<UdpSocketState>,
    raw_sockets: Interner<RawSocketState>,
    netlink_sockets: Interner<NetlinkSocketState>,
    packet_sockets: Interner<PacketSocketState>,
    mqueues: Interner<MqueueState>,
    ptys: Interner<PtyState>,
    host_terminals: Interner<HostTerminalState>,
    /// Locks and leases that were met.
    pub(super) locks: usize,
    leases: usize,
    /// Processes that something remembers.
    remembered: Vec<Arc<Pid>>,
    /// What has a name, and is yet to be saved.
    rest: Vec<SaveLater>,
    /// What is known by its address stays alive.
    kept: Vec<Arc<OpenFile>>,
    kept_inodes: Vec<Arc<dyn Inode>>,
}

pub(super) fn address<T: ?Sized>(object: &Arc<T>) -> usize {
    Arc::as_ptr(object).addr()
}

impl Saver {
    /// A saver for processes of `containers` in the namespaces that `namespaces` knows. Contents go to `pages`; without it, this is a survey.
    #[must_use]
    pub fn new(containers: Vec<SavedContainer>, namespaces: SavedNamespaces, pages: Option<PagesWriter>) -> Saver {
        Saver {
            mounts: containers.iter().map(|container| container.namespace.mounts()).collect(),
            containers,
            namespaces,
            pages,
            credentials: Interner::default(),
            open_files: Interner::default(),
            fd_tables: Interner::default(),
            fs_contexts: Interner::default(),
            mount_states: Interner::default(),
            file_systems: Interner::default(),
            mappables: Interner::default(),
            unnamed_files: Interner::default(),
            pipes: Interner::default(),
            unix_sockets: Interner::default(),
            unix_endpoints: Interner::default(),
            tcp_sockets: Interner::default(),
            tcp_ends: Interner::default(),
            udp_sockets: Interner::default(),
            packet_sockets: Interner::default(),
            raw_sockets: Interner::default(),
            netlink_sockets: Interner::default(),
            mqueues: Interner::default(),
            ptys: Interner::default(),
            host_terminals: Interner::default(),
            locks: 0,
            leases: 0,
            remembered: Vec::new(),
            rest: Vec::new(),
            kept: Vec::new(),
            kept_inodes: Vec::new(),
        }
    }

    /// Saves all mounts and their file systems, whether anything refers to them or not.
    ///
    /// # Errors
    /// The file system that can't be saved, with its mount point.
    pub fn mounts(&mut self) -> Result<(), Refusal> {
        for (container, mounts) in (0..).zip(self.mounts.clone()) {
            self.namespaces.enter(container);
            mounts.iter().try_for_each(|mount| self.mount(mount).map(|_| ()))?;
        }
        Ok(())
    }

    /// Whether a mount namespace is that of the container whose processes are being saved.
    pub(super) fn is_own(&self, namespace: &Arc<MountNamespace>) -> bool {
        let entered = usize::try_from(self.namespaces.container()).ok().and_then(|at| self.containers.get(at));
        entered.is_some_and(|entered| Arc::ptr_eq(&entered.namespace, namespace))
    }

    /// Saves what objects have left for later.
    ///
    /// # Errors
    /// What of it can't be saved.
    pub fn rest(&mut self) -> Result<(), Refusal> {
        // Taken out one by one: each may add more.
        while let Some(save) = self.rest.pop() {
            save(self)?;
        }
        Ok(())
    }

    /// Whether every lock and lease was met at the open file or process that holds it. For when nothing runs.
    ///
    /// # Errors
    /// One of something that nobody has open.
    pub fn all_locks_met(&self, tables: &Tables) -> Result<(), Refusal> {
        // By their number: which one is missing, nobody could say by an inode's.
        if tables.locks.all().len() == self.locks && tables.leases.count() == self.leases {
            return Ok(());
        }
        Err(Refusal::new("a lock or lease of a file that no process has open"))
    }

    /// The processes that saved objects remember.
    pub fn take_remembered(&mut self) -> Vec<Arc<Pid>> {
        std::mem::take(&mut self.remembered)
    }

    /// Who a task or the opener of a file is.
    ///
    /// # Errors
    /// A user namespace that is not below the container's.
    pub fn credentials(&mut self, creds: &Arc<Credentials>) -> Result<Ref<CredentialsState>, Refusal> {
        let user = self.namespaces.user(&creds.user_ns)?;
        let container = self.namespaces.container();
        let c = &**creds;
        self.credentials.save(address(creds), || {
            Ok(CredentialsState {
                uid: c.uid,
                euid: c.euid,
                suid: c.suid,
                fsuid: c.fsuid,
                gid: c.gid,
                egid: c.egid,
                sgid: c.sgid,
                fsgid: c.fsgid,
                groups: c.groups.to_vec(),
                effective: c.effective.0,
                permitted: c.permitted.0,
                inheritable: c.inheritable.0,
                bounding: c.bounding.0,
                ambient: c.ambient.0,
                securebits: c.securebits,
                no_new_privs: c.no_new_privs,
                user,
                container,
            })
        })
    }

    /// Another name beside the one that is gone: a file gets its final name by link(2), and loses the first (sem_open(3)).
    pub(super) fn other_name(path: &Path) -> Option<Path> {
        if !path.dentry.is_deleted() || path.dentry.is_anonymous() {
            return None;
        }
        let directory = path.dentry.parent()?;
        let name = directory.inode().name_of(path.inode().metadata().ok()?.ino)?;
        Some(Path { mount: path.mount.clone(), dentry: directory.lookup(&name).ok()? })
    }

    /// The file at a path that has no name any more.
    pub(super) fn unnamed(&mut self, path: &Path) -> Result<Ref<UnnamedFileState>, Refusal> {
        let inode = path.inode().clone();
        let file = match self.unnamed_files.meet(address(&inode)) {
            Met::Before(file) => return Ok(file),
            Met::First(file) => file,
        };
        self.kept_inodes.push(inode.clone());
        let mut mount = None;
        let mut name = path.dentry.name().to_vec();
        if !path.dentry.is_anonymous() {
            mount = Some(self.mount(&path.mount).map_err(|refusal| refusal.at(text(path)))?);
            let mut above = path.dentry.parent();
            while let Some(dir) = above.filter(|dir| !Arc::ptr_eq(dir, path.mount.root())) {
                let (dir_name, parent) = dir.name_and_parent();
                name = [&dir_name, &b"/"[..], &name].concat();
                above = parent;
            }
        }
        let node = inode.save_unnamed(self).map_err(|refusal| refusal.at(text(path)))?;
        self.unnamed_files.fill(file, UnnamedFileState { mount, name, node });
        Ok(file)
    }

    fn mount(&mut self, mount: &Arc<Mount>) -> Result<Ref<MountState>, Refusal> {
        let place = |mounts: &Vec<Arc<Mount>>| mounts.iter().position(|m| Arc::ptr_eq(m, mount));
        let place = (0..).zip(&self.mounts).find_map(|(container, mounts)| Some((container, place(mounts)?)));
        let Some((container, Ok(index))) = place.map(|(container, at)| (container, u32::try_from(at))) else {
            return Err(Refusal::new(format!("a mount outside of the container's ({})", mount.fs().name())));
        };
        let name = match self.mount_states.meet(address(mount)) {
            Met::Before(name) => return Ok(name),
            Met::First(name) => name,
        };
        let mountpoint = Path::root_of(mount.clone()).text(None);
        let place = format!("the mount at {}", String::from_utf8_lossy(&mountpoint));
        let file_system = self.file_system(mount.fs()).map_err(|refusal| refusal.at(place))?;
        let fs_type = mount.fs().name().to_owned();
        self.mount_states.fill(name, MountState { index, fs_type, mountpoint, file_system, container });
        Ok(name)
    }

    fn file_system(&mut self, fs: &Arc<dyn FileSystem>) -> Result<Ref<FileSystemState>, Refusal> {
        match self.file_systems.meet(address(fs)) {
            Met::Before(name) => Ok(name),
            Met::First(name) => {
                let state = fs.save(self)?;
                self.file_systems.fill(name, state);
                Ok(name)
            }
        }
    }

    /// Puts everything into `state`; gives back where pages go.
    ///
    /// # Errors
    /// An object that was met and not saved.
    pub fn finish(self, state: &mut SandboxState) -> Result<Option<PagesWriter>, ImageError> {
        self.namespaces.finish(state)?;
        state.credentials = self.credentials.finish()?;
        state.open_files = self.open_files.finish()?;
        state.fd_tables = self.fd_tables.finish()?;
        state.fs_contexts = self.fs_contexts.finish()?;
        state.mounts = self.mount_states.finish()?;
        state.file_systems = self.file_systems.finish()?;
        state.mappables = self.mappables.finish()?;
        state.unnamed_files = self.unnamed_files.finish()?;
        state.pipes = self.pipes.finish()?;
        state.unix_sockets = self.unix_sockets.finish()?;
        state.unix_endpoints = self.unix_endpoints.finish()?;
        state.tcp_sockets = self.tcp_sockets.finish()?;
        state.tcp_ends = self.tcp_ends.finish()?;
        state.udp_sockets = self.udp_sockets.finish()?;
        state.packet_sockets = self.packet_sockets.finish()?;
        state.raw_sockets = self.raw_sockets.finish()?;
        state.netlink_sockets = self.netlink_sockets.finish()?;
        state.mqueues = self.mqueues.finish()?;
        state.ptys = self.ptys.finish()?;
        state.host_terminals = self.host_terminals.finish()?;
        Ok(self.pages)
    }
}

impl SaveFiles for Saver {
    fn open_file(&mut self, f: &Arc<OpenFile>) -> Result<Ref<OpenFileState>, Refusal> {
        let name = match self.open_files.meet(address(f)) {
            Met::Before(name) => return Ok(name),
            Met::First(name) => name,
        };
        self.kept.push(f.clone());
        let donated = |to: &SavedContainer| Some(to.donated.iter().find(|(_, d)| Arc::ptr_eq(d, f))?.0);
        let kind = match (0..).zip(&self.containers).find_map(|(container, to)| Some((container, donated(to)?))) {
            Some((0, number)) => OpenFileKind::Donated(number),
            Some((container, number)) => OpenFileKind::DonatedTo { container, number },
            None if f.is_path() => self.by_path(f, Compare::Type)?,
            None => f.file().save(f, self)?,
        };
        let (owner, signal) = f.owner();
        let held = super::locks::held(f)?;
        let taken = held.records.len().saturating_add(usize::from(held.flock.is_some()));
        self.locks = self.locks.saturating_add(taken);
        self.leases = self.leases.saturating_add(usize::from(held.lease.is_some()));
        let state = OpenFileState {
            flags: f.flags().bits(),
            pos: f.pos(),
            credentials: self.credentials(f.creds())?,
            signal,
            owner: super::locks::owner(&owner, self),
            async_fd: f.async_fd(),
            held,
            kind,
        };
        self.open_files.fill(name, state);
        Ok(name)
    }

    fn by_path(&mut self, f: &OpenFile, compare: Compare) -> Result<OpenFileKind, Refusal> {
        let path = self.path(f.path())?;
        let found = identity(&f.metadata().map_err(|_| unknown(f.path()))?, compare);
        Ok(OpenFileKind::Path { path, found })
    }

    fn in_memory(&mut self, f: &OpenFile) -> Result<OpenFileKind, Refusal> {
        if let Some(other) = Saver::other_name(f.path()) {
            let found = identity(&f.metadata().map_err(|_| unknown(f.path()))?, Compare::Type);
            return Ok(OpenFileKind::Path { path: self.path(&other)?, found });
        }
        match is_unnamed(f.path()) {
            true => Ok(OpenFileKind::Unnamed(self.unnamed(f.path())?)),
            false => self.by_path(f, Compare::Type),
        }
    }

    fn path(&mut self, path: &Path) -> Result<PathState, Refusal> {
        let mount = self.mount(&path.mount).map_err(|refusal| refusal.at(text(path)))?;
        let mut names = Vec::new();
        let mut at = path.dentry.clone();
        while !Arc::ptr_eq(&at, path.mount.root()) {
            if at.is_deleted() || at.is_anonymous() {
                return Err(Refusal::new(format!("{}, which has no name any more,", text(path))));
            }
            let (name, parent) = at.name_and_parent();
            names.push(name);
            at = parent.ok_or_else(|| unknown(path))?;
        }
        // What a restore will do: the file of a process that is gone has a name that leads nowhere.
        let mut at = path.mount.root().clone();
        for name in names.iter().rev() {
            at = at.lookup(name).map_err(|_| Refusal::new(format!("{}, which is gone,", text(path))))?;
        }
        let names = names.iter().rev().flat_map(|name| [b"/", &**name].concat()).collect();
        Ok(PathState { mount, names })
    }

    fn container(&self) -> ContainerIndex {
        self.namespaces.container()
    }

    fn pages(&mut self) -> Option<&mut PagesWriter> {
        self.pages.as_mut()
    }

    fn pipes(&mut self) -> &mut Interner<PipeState> {
        &mut self.pipes
    }

    fn unix_sockets(&mut self) -> &mut Interner<UnixSocketState> {
        &mut self.unix_sockets
    }

    fn unix_endpoints(&mut self) -> &mut Interner<UnixEndpointState> {
        &mut self.unix_endpoints
    }

    fn tcp_sockets(&mut self) -> &mut Interner<TcpSocketState> {
        &mut self.tcp_sockets
    }

    fn tcp_ends(&mut self) -> &mut Interner<TcpEndState> {
        &mut self.tcp_ends
    }

    fn udp_sockets(&mut self) -> &mut Interner<UdpSocketState> {
        &mut self.udp_sockets
    }

    fn packet_sockets(&mut self) -> &mut Interner<PacketSocketState> {
        &mut self.packet_sockets
    }

    fn raw_sockets(&mut self) -> &mut Interner<RawSocketState> {
        &mut self.raw_sockets
    }

    fn netlink_sockets(&mut self) -> &mut Interner<NetlinkSocketState> {
        &mut self.netlink_sockets
    }

    fn mqueues(&mut self) -> &mut Interner<MqueueState> {
        &mut self.mqueues
    }

    fn ptys(&mut self) -> &mut Interner<PtyState> {
        &mut self.ptys
    }

    fn host_terminals(&mut self) -> &mut Interner<HostTerminalState> {
        &mut self.host_terminals
    }

    fn network(&self, net: &NetNamespace) -> Result<(), Refusal> {
        match self.namespaces.net(net)? {
            None => Ok(()),
            Some(_) => Err(Refusal::new("a socket of a network namespace of the guest's own")),
        }
    }

    fn namespaces(&mut self) -> &mut SavedNamespaces {
        &mut self.namespaces
    }

    fn process(&mut self, pid: &Arc<Pid>) -> i32 {
        self.remembered.push(pid.clone());
        pid.number_in(self.namespaces.numbers())
    }

    fn later(&mut self, save: SaveLater) {
        self.rest.push(save);
    }
}

/// Whether no path leads there any more, or ever did.
pub(super) fn is_unnamed(path: &Path) -> bool {
    path.dentry.is_deleted() || path.dentry.is_anonymous()
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&path.text(None)).into_owned()
}

pub(super) fn unknown(path: &Path) -> Refusal {
    Refusal::new(format!("{}, of which nothing is known any more,", text(path)))
}

pub(super) fn identity(meta: &Metadata, compare: Compare) -> FileIdentityState {
    let file_type = FileType::from_mode(meta.mode).map_or(0, FileType::mode_bits);
    let compared = compare == Compare::Contents && file_type == FileType::Regular.mode_bits();
    let contents = compared.then_some((meta.size, meta.mtime.tv_sec, meta.mtime.tv_nsec));
    FileIdentityState { file_type, contents }
}
