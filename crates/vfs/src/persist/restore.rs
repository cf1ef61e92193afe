//! [`Restorer`]: see [`super`].

use std::sync::{Arc, OnceLock};

use moat_abi::Errno;
use moat_abi::fs::{FileType, OpenFlags};
use moat_identity::{Credentials, UserNamespace};
use moat_image::pages::Pages;
use moat_image::state::{
    ContainerIndex, CredentialsState, FdTableState, FileIdentityState, FileSystemState, FsContextState, MappableKind,
    MountState, OpenFileState, PathState, SandboxState, UnnamedFileState, UserNamespaceState, of_container,
};
use moat_image::{ImageError, Ref, refs::find};
use moat_mm::{Mappable, MmIds, SharedAnon};

use super::save::identity;
use super::users::{Bounds, Users};
use crate::fd::Fd;
use crate::fd_table::{FdTable, NR_OPEN, OnExec};
use crate::file::Compare;
use crate::fs_context::FsContext;
use crate::inode::{FileSystem, OpenContext};
use crate::mount::{Mount, MountNamespace};
use crate::open_file::OpenFile;
use crate::ops::Executable;
use crate::path::Path;
use crate::vfs::Vfs;

/// Where contents of files come from and go to.
pub struct Contents<'a> {
    /// The image's pages.
    pub pages: &'a Pages,
    /// The file system of memfds.
    pub memfds: Arc<dyn FileSystem>,
}

/// A container that the processes of an image come into.
pub struct ContainerBounds<'a> {
    /// Its mounts, which the configuration has made.
    pub namespace: Arc<MountNamespace>,
    /// What its configuration lets processes be.
    pub bounds: Bounds<'a>,
}

/// Files of an image in a new kernel.
pub struct Restorer<'a> {
    state: &'a SandboxState,
    vfs: &'a Vfs,
    /// Of each container.
    namespaces: Vec<Arc<MountNamespace>>,
    /// By the numbers of the image.
    mounts: Vec<Arc<Mount>>,
    users: Users,
    credentials: Vec<Arc<Credentials>>,
    /// Where files without a name are.
    unnamed: Vec<Path>,
    /// System V shared memory, once that is there.
    segments: OnceLock<Vec<Arc<dyn Mappable>>>,
}

fn unfit(what: impl Into<String>) -> ImageError {
    ImageError::Unfit(what.into())
}

impl<'a> Restorer<'a> {
    /// The files of `state` on the mounts of `containers`, which are the image's in its order.
    ///
    /// # Errors
    /// A mount that is not there, or another one than it was; credentials beyond the configuration; contents of file systems that
    /// are wrong.
    pub fn new(
        state: &'a SandboxState,
        vfs: &'a Vfs,
        containers: &[ContainerBounds<'_>],
        contents: &Contents<'_>,
    ) -> Result<Restorer<'a>, ImageError> {
        let first = containers.first().ok_or_else(|| unfit("an image without a container"))?;
        if containers.len() > 1 && has_made_namespaces(state) {
            return Err(ImageError::state("namespaces of the guest's own, in a pod"));
        }
        let namespaces: Vec<_> = containers.iter().map(|container| container.namespace.clone()).collect();
        let mounts = find_mounts(state, &namespaces.iter().map(|ns| ns.mounts()).collect::<Vec<_>>())?;
        super::trees::restore(state, &mounts, contents.pages)?;
        let unnamed = |file| super::trees::restore_unnamed(file, vfs, &mounts, contents);
        let unnamed = state.unnamed_files.iter().map(unnamed).collect::<Result<_, _>>()?;
        let users = Users::restore(state, first.namespace.user_ns(), &first.bounds)?;
        let bounded = |c: &CredentialsState| of_container(containers, c.container)?.bounds.credentials(c, &users);
        let credentials = state.credentials.iter().map(bounded).collect::<Result<_, _>>()?;
        Ok(Restorer { state, vfs, namespaces, mounts, users, credentials, unnamed, segments: OnceLock::new() })
    }

    /// The credentials of this name.
    ///
    /// # Errors
    /// [`ImageError::Dangling`].
    pub fn credentials(&self, name: Ref<CredentialsState>) -> Result<Arc<Credentials>, ImageError> {
        find(&self.credentials, name).cloned()
    }

    /// The credentials of a process in this container.
    ///
    /// # Errors
    /// [`ImageError::Dangling`]; those of another container, whose configuration may allow more.
    pub fn credentials_in(
        &self,
        container: ContainerIndex,
        name: Ref<CredentialsState>,
    ) -> Result<Arc<Credentials>, ImageError> {
        if self.state.credentials.get(name)?.container != container {
            return Err(ImageError::state("a process with the credentials of another container"));
        }
        self.credentials(name)
    }

    /// The mount namespace of a container.
    ///
    /// # Errors
    /// [`ImageError::Dangling`].
    pub fn namespace(&self, container: ContainerIndex) -> Result<&Arc<MountNamespace>, ImageError> {
        of_container(&self.namespaces, container)
    }

    /// The container whose mount a root directory is on, and so the context's.
    ///
    /// # Errors
    /// [`ImageError::Dangling`].
    pub fn container_of(&self, context: &FsContextState) -> Result<ContainerIndex, ImageError> {
        Ok(self.state.mounts.get(context.root.mount)?.container)
    }

    /// A user namespace.
    ///
    /// # Errors
    /// [`ImageError::Dangling`].
    pub fn user_namespace(&self, name: Option<Ref<UserNamespaceState>>) -> Result<Arc<UserNamespace>, ImageError> {
        self.users.get(name)
    }

    /// The owner of a namespace of another kind that a process had made.
    ///
    /// # Errors
    /// [`ImageError::Dangling`]; one that no process could make here.
    pub fn owner(&self, name: Option<Ref<UserNamespaceState>>) -> Result<Arc<UserNamespace>, ImageError> {
        self.users.owner(name)
    }

    /// The place of this description.
    ///
    /// # Errors
    /// A name that does not exist here.
    pub fn path(&self, path: &PathState) -> Result<Path, ImageError> {
        let mount = find(&self.mounts, path.mount)?;
        let mut dentry = mount.root().clone();
        for name in path.names.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            dentry = dentry.lookup(name).map_err(|errno| {
                let place = Path::root_of(mount.clone()).text(None);
                let text = [place.strip_suffix(b"/").unwrap_or(&place), &path.names].concat();
                unfit(format!("{}: {errno}", String::from_utf8_lossy(&text)))
            })?;
        }
        Ok(Path { mount: mount.clone(), dentry })
    }

    /// Root, working directory and umask.
    ///
    /// # Errors
    /// As [`Restorer::path`].
    pub fn fs_context(&self, context: &FsContextState) -> Result<FsContext, ImageError> {
        let (root, cwd) = (self.path(&context.root)?, self.path(&context.cwd)?);
        for dir in [&root, &cwd] {
            if dir.inode().file_type() != FileType::Directory {
                return Err(unfit(format!("{dir:?} is no directory any more")));
            }
        }
        let namespace = self.namespace(self.container_of(context)?)?.clone();
        Ok(FsContext { cwd, root, umask: context.umask & 0o777, namespace })
    }

    /// Opens what was opened by its path.
    ///
    /// # Errors
    /// Another file than it was; those of opening it.
    pub fn open(
        &self,
        file: &OpenFileState,
        path: &PathState,
        found: &FileIdentityState,
    ) -> Result<Arc<OpenFile>, ImageError> {
        let creds = self.credentials(file.credentials)?;
        let path = self.path(path)?;
        let flags = OpenFlags::from_bits_truncate(file.flags).difference(OpenFlags::OPEN_ONLY);
        compare(&path, found)?;
        if flags.contains(OpenFlags::PATH) {
            return OpenFile::path_only(path, flags, creds).map_err(|errno| unfit(errno.to_string()));
        }
        let open = self.open_at(path, flags, creds)?;
        open.set_pos(file.pos);
        Ok(open)
    }

    fn open_at(&self, path: Path, flags: OpenFlags, creds: Arc<Credentials>) -> Result<Arc<OpenFile>, ImageError> {
        let failed = |errno: Errno| unfit(format!("opening {path:?}: {errno}"));
        let writes = flags.access_mode().can_write();
        let regular = path.inode().file_type() == FileType::Regular;
        if writes && regular {
            path.mount.check_writable().map_err(failed)?;
        }
        let writing = if writes && regular { Some(path.write_access().map_err(failed)?) } else { None };
        // What it takes to open it has been checked when it was opened first: permissions may have changed since.
        let caller = self.vfs.kernel_caller();
        let file = path.inode().clone().open(&OpenContext { flags, caller: &caller, path: &path }).map_err(failed)?;
        Ok(OpenFile::writing(file, path, flags, creds, writing))
    }

    /// Opens what is at a path, for the kernel.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn open_as_kernel(&self, path: Path, flags: OpenFlags) -> Result<Arc<OpenFile>, ImageError> {
        let kernel = self.vfs.kernel_caller();
        self.open_at(path, flags, crate::Caller::creds(&kernel).clone())
    }

    /// Opens a file without a name.
    ///
    /// # Errors
    /// A file that is not there; those of opening it.
    pub fn open_unnamed(&self, file: &OpenFileState, name: Ref<UnnamedFileState>) -> Result<Arc<OpenFile>, ImageError> {
        let flags = OpenFlags::from_bits_truncate(file.flags).difference(OpenFlags::OPEN_ONLY | OpenFlags::PATH);
        let open = self.open_at(find(&self.unnamed, name)?.clone(), flags, self.credentials(file.credentials)?)?;
        open.set_pos(file.pos);
        Ok(open)
    }

    /// Says what the segments of System V shared memory are, by their places.
    pub fn set_segments(&self, segments: Vec<Arc<dyn Mappable>>) {
        // Once: a restore makes them once.
        let _ = self.segments.set(segments);
    }

    /// The file systems of the image, each once, with the root of a mount of it.
    pub fn file_systems(&self) -> impl Iterator<Item = (&'a FileSystemState, Path)> {
        let mut seen = std::collections::HashSet::new();
        let mounts = self.state.mounts.iter().zip(&self.mounts);
        // Several mounts may show one.
        let once = mounts.filter(move |(saved, _)| seen.insert(saved.file_system));
        once.filter_map(|(saved, mount)| {
            Some((self.state.file_systems.get(saved.file_system).ok()?, Path::root_of(mount.clone())))
        })
    }

    /// What mappings show.
    ///
    /// # Errors
    /// Another file than it was; those of opening it; of the host.
    pub fn mappable(&self, kind: &MappableKind, ids: &MmIds, pages: &Pages) -> Result<Arc<dyn Mappable>, ImageError> {
        match kind {
            MappableKind::File { path, writable, found } => {
                let path = self.path(path)?;
                compare(&path, found)?;
                self.mapped(path, *writable)
            }
            MappableKind::Unnamed { file, writable } => self.mapped(find(&self.unnamed, *file)?.clone(), *writable),
            MappableKind::Segment(index) => {
                // Known to the kernel's IPC alone, which has set them before.
                let at = usize::try_from(*index).unwrap_or(usize::MAX);
                let found = self.segments.get().and_then(|segments| segments.get(at)).cloned();
                found.ok_or(ImageError::Dangling { what: "System V segment", index: *index })
            }
            MappableKind::SharedAnonymous { len, segments } => {
                let memory = SharedAnon::new(ids, *len).map_err(|errno| unfit(format!("shared memory: {errno}")))?;
                super::restore_memory(memory.memory().fd(), *len, segments, pages)?;
                Ok(Arc::new(memory))
            }
        }
    }

    /// What a mapping of the file at `path` shows.
    fn mapped(&self, path: Path, writable: bool) -> Result<Arc<dyn Mappable>, ImageError> {
        let failed = format!("mapping {path:?}");
        let open = self.open_as_kernel(path, if writable { OpenFlags::RDWR } else { OpenFlags::empty() })?;
        let mappable = open.file().clone().mappable(&open);
        mappable.map_err(|errno| unfit(format!("{failed}: {errno}")))
    }

    /// A program that processes execute.
    ///
    /// # Errors
    /// As [`Restorer::path`]; ETXTBSY.
    pub fn executable(&self, path: &PathState) -> Result<Arc<Executable>, ImageError> {
        let path = self.path(path)?;
        let failed = format!("executing {path:?}");
        Executable::new(path).map_err(|errno| unfit(format!("{failed}: {errno}")))
    }

    /// Fills an empty descriptor table with the open files, which are given by the numbers of the image.
    ///
    /// # Errors
    /// Numbers that no descriptor can have; files that are not there.
    pub fn fill_fd_table(
        &self,
        table: &FdTable,
        saved: &FdTableState,
        files: &[Arc<OpenFile>],
    ) -> Result<(), ImageError> {
        for descriptor in &saved.descriptors {
            let file = find(files, descriptor.file)?.clone();
            let on_exec = if descriptor.close_on_exec { OnExec::Close } else { OnExec::Keep };
            let installed = table.replace(Fd(descriptor.fd), file, u64::from(NR_OPEN), on_exec);
            installed.map_err(|_| ImageError::state(format!("descriptor {} can't be", descriptor.fd)))?;
        }
        super::locks::hold_again_by_table(table, &saved.locks)
    }

    /// Everything of the image.
    #[must_use]
    pub fn state(&self) -> &'a SandboxState {
        self.state
    }
}

/// Whether processes have made namespaces besides those of their containers.
fn has_made_namespaces(state: &SandboxState) -> bool {
    !(state.user_namespaces.is_empty()
        && state.uts_namespaces.is_empty()
        && state.pid_namespaces.is_empty()
        && state.ipc_namespaces.is_empty()
        && state.net_namespaces.is_empty()
        && state.cgroup_namespaces.is_empty())
}

/// The mounts of the new namespaces, `all` of each container, that are those of the image: by where they are and what they are, as clients
/// write them in any order; those that lie on top of each other by their order.
fn find_mounts(state: &SandboxState, all: &[Vec<Arc<Mount>>]) -> Result<Vec<Arc<Mount>>, ImageError> {
    // Before each is compared with all others.
    for (container, all) in (0..).zip(all) {
        let (has, here) = (state.mounts.iter().filter(|mount| mount.container == container).count(), all.len());
        if has > here {
            return Err(unfit(format!("the image has {has} mounts, and this configuration makes {here}")));
        }
    }
    let place = |mount: &Arc<Mount>| Path::root_of(mount.clone()).text(None);
    let places: Vec<Vec<_>> = all.iter().map(|mounts| mounts.iter().map(place).collect()).collect();
    let find = |mount: &MountState| {
        let (all, places) = (of_container(all, mount.container)?, of_container(&places, mount.container)?);
        let alike = |other: &&MountState| {
            (other.container, &other.mountpoint, &other.fs_type) == (mount.container, &mount.mountpoint, &mount.fs_type)
        };
        let below = state.mounts.iter().filter(|other| other.index < mount.index).filter(alike).count();
        let at_place = || all.iter().zip(places).filter(|(_, place)| **place == mount.mountpoint).map(|(here, _)| here);
        let found = at_place().filter(|here| here.fs().name() == mount.fs_type).nth(below);
        found.cloned().ok_or_else(|| {
            let (place, kind) = (String::from_utf8_lossy(&mount.mountpoint), &mount.fs_type);
            unfit(match at_place().next() {
                Some(_) => format!("the configuration has another mount than the {kind} at {place} of the image"),
                None => format!("there is no mount at {place} in this configuration"),
            })
        })
    };
    state.mounts.iter().map(find).collect()
}

/// Whether the file at `path` is the one that was found.
fn compare(path: &Path, found: &FileIdentityState) -> Result<(), ImageError> {
    let meta = path.inode().metadata().map_err(|errno| unfit(format!("{path:?}: {errno}")))?;
    let compared = if found.contents.is_some() { Compare::Contents } else { Compare::Type };
    let now = identity(&meta, compared);
    if now.file_type != found.file_type {
        return Err(unfit(format!("{path:?} has become a file of another type since the checkpoint")));
    }
    if !are_alike(now.contents, found.contents) {
        return Err(unfit(format!("{path:?} has been changed since the checkpoint")));
    }
    Ok(())
}

/// Whether size and times are those that were found. A copy that has come through an archive has whole seconds: Podman's have no more.
fn are_alike(now: Option<(u64, i64, i64)>, found: Option<(u64, i64, i64)>) -> bool {
    match (now, found) {
        (Some((size, s, 0)), Some((old_size, old_s, _))) => (size, s) == (old_size, old_s),
        (now, found) => now == found,
    }
}
