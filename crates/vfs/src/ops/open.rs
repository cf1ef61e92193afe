//! open(2): flags, creation, permission, truncation; [`Executable`].

use std::sync::Arc;

use moat_abi::fs::{AccessMode, FileType, InotifyMask, OpenFlags, S_IALLUGO};
use moat_abi::{Errno, Result};

use super::{attr, check_create, check_device, created, is_stored, new_node};
use crate::dentry::Dentry;
use crate::device_rules::DeviceAccess;
use crate::inode::{Access, InodeKey, NodeKind, OpenContext};
use crate::leases::{Breaker, FileLeases};
use crate::mount::{Mount, MountFlags};
use crate::open_file::OpenFile;
use crate::path::Path;
use crate::walk::{Last, LookupFlags, Trailing, View, Walker, again_while_stale, resolve};

/// How to open: flags as open(2), the mode of a new file, restrictions of openat2(2).
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct OpenHow {
    pub flags: OpenFlags,
    pub mode: u32,
    pub resolve: LookupFlags,
}

impl OpenHow {
    /// Flags and mode with no restriction.
    #[must_use]
    pub fn new(flags: OpenFlags, mode: u32) -> OpenHow {
        OpenHow { flags, mode, resolve: LookupFlags::empty() }
    }

    /// Whether the flags go together (`build_open_flags`).
    ///
    /// # Errors
    /// EINVAL.
    pub fn check(&self) -> Result<()> {
        let f = self.flags;
        // O_PATH drops whatever does not concern it.
        if f.contains(OpenFlags::PATH) {
            return Ok(());
        }
        // open(2) makes no directories; older kernels made a file.
        if f.contains(OpenFlags::CREAT | OpenFlags::DIRECTORY) {
            return Err(Errno::EINVAL);
        }
        // O_TMPFILE includes O_DIRECTORY, so that kernels without it refuse instead of opening the directory.
        if f.contains(OpenFlags::TMPFILE_BIT) && !(f.contains(OpenFlags::TMPFILE) && f.access_mode().can_write()) {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    fn access(&self) -> Access {
        let mut a = match self.flags.access_mode() {
            AccessMode::ReadOnly => Access::READ,
            AccessMode::WriteOnly => Access::WRITE,
            AccessMode::ReadWrite | AccessMode::Neither => Access::READ | Access::WRITE,
        };
        if self.flags.contains(OpenFlags::TRUNC) {
            a |= Access::WRITE;
        }
        a
    }
}

/// Opens a file, making it if the flags say so.
///
/// A FIFO's opening may not be complete yet: see [`crate::File::finish_open`].
///
/// # Errors
/// Those of open(2), except EMFILE, ENFILE and EINTR.
pub fn open(view: &View<'_>, path: &[u8], how: &OpenHow) -> Result<Arc<OpenFile>> {
    let mut how = *how;
    how.check()?;
    if how.flags.contains(OpenFlags::PATH) {
        how.flags &= OpenFlags::PATH_MASK;
    } else {
        // Programs of 64 bits see O_LARGEFILE set by F_GETFL.
        how.flags |= OpenFlags::LARGEFILE;
    }
    let mut lookup = how.resolve;
    lookup.set(LookupFlags::DIRECTORY, how.flags.contains(OpenFlags::DIRECTORY));
    lookup.set(LookupFlags::FOLLOW, !how.flags.contains(OpenFlags::NOFOLLOW));
    // The name may be given to another file while it is looked at.
    again_while_stale(|| open_once(view, path, &how, lookup), |done| matches!(done, Err(Errno::ESTALE)))
}

fn open_once(view: &View<'_>, path: &[u8], how: &OpenHow, lookup: LookupFlags) -> Result<Arc<OpenFile>> {
    if how.flags.contains(OpenFlags::PATH) {
        return OpenFile::path_only(resolve(view, path, lookup)?, how.flags, view.creds().clone());
    }
    if how.flags.contains(OpenFlags::TMPFILE) {
        return open_unnamed(view, &resolve(view, path, lookup)?, how);
    }
    if how.flags.contains(OpenFlags::CREAT) {
        return open_or_create(view, path, how, lookup);
    }
    open_path(view, resolve(view, path, lookup)?, how)
}

/// Whether device nodes can be opened through `mount` (`may_open_dev`): what was mounted in a less privileged user namespace
/// has no other devices than terminals.
fn shows_devices(mount: &Mount) -> bool {
    !mount.flags().contains(MountFlags::NODEV) && (mount.user_ns().is_root() || mount.fs().name() == "devpts")
}

/// Opens a file that has been found (`do_open`): permission, truncation, then the file system's own part.
///
/// # Errors
/// EACCES, EISDIR, ELOOP, EROFS, ENXIO, EPERM, ENOTDIR; those of the file system.
pub fn open_path(view: &View<'_>, path: Path, how: &OpenHow) -> Result<Arc<OpenFile>> {
    let inode = path.inode();
    let access = how.access();
    let file_type = inode.file_type();
    let mut truncate = how.flags.contains(OpenFlags::TRUNC);
    if how.flags.contains(OpenFlags::DIRECTORY) && file_type != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    // The type first: these errors come whatever the permissions are.
    match file_type {
        FileType::Symlink => return Err(Errno::ELOOP),
        FileType::Directory if access.contains(Access::WRITE) => return Err(Errno::EISDIR),
        FileType::CharDevice | FileType::BlockDevice if !shows_devices(&path.mount) => {
            return Err(Errno::EACCES);
        }
        FileType::Regular => {}
        // O_TRUNC means nothing to what has no size.
        _ => truncate = false,
    }
    inode.permission_for(view.caller, access)?;
    // After the permissions: the node may be the caller's, and its device still not be the container's.
    if matches!(file_type, FileType::CharDevice | FileType::BlockDevice) {
        let mut wanted = DeviceAccess::empty();
        wanted.set(DeviceAccess::READ, access.contains(Access::READ));
        wanted.set(DeviceAccess::WRITE, access.contains(Access::WRITE));
        check_device(view, file_type, inode.metadata()?.rdev, wanted)?;
    }
    // It would hide the reading from the file's owner.
    if how.flags.contains(OpenFlags::NOATIME) && !super::is_owner(view.creds(), &inode.metadata()?) {
        return Err(Errno::EPERM);
    }
    // Devices and FIFOs are no part of what the mount protects.
    if access.contains(Access::WRITE) && is_stored(file_type) {
        path.mount.check_writable()?;
    }
    // The system call waits for the lease's end, and opens again.
    if lease_in_the_way(&path, how, Leases::Break)?.is_some() {
        return Err(Errno::EWOULDBLOCK);
    }
    // Opened before it is truncated: a refusal by the file system (ETXTBSY, EBUSY) must leave the contents alone.
    let file = start(view, path, how)?;
    if truncate {
        attr::set_size(view.creds(), file.path(), 0)?;
    }
    Ok(file)
}

/// What becomes of the leases that are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leases {
    Break,
    Keep,
}

fn lease_in_the_way(path: &Path, how: &OpenHow, what: Leases) -> Result<Option<Arc<FileLeases>>> {
    let table = &path.mount.tables().leases;
    // Nearly always empty: no attributes are read for it.
    if table.is_empty() || path.inode().file_type() != FileType::Regular {
        return Ok(None);
    }
    let key = path.inode().metadata()?.key();
    let breaker = if how.flags.access_mode() == AccessMode::ReadOnly { Breaker::Reader } else { Breaker::Writer };
    Ok(match what {
        Leases::Break => table.break_for(key, breaker),
        Leases::Keep => table.in_the_way(key, breaker),
    })
}

/// The leases that made [`open`] give EWOULDBLOCK, to wait for; `None` if it was not that, or they are gone.
///
/// # Errors
/// Those of path resolution.
pub fn lease_that_blocks(view: &View<'_>, path: &[u8], how: &OpenHow) -> Result<Option<Arc<FileLeases>>> {
    let mut lookup = how.resolve;
    lookup.set(LookupFlags::FOLLOW, !how.flags.contains(OpenFlags::NOFOLLOW));
    lease_in_the_way(&resolve(view, path, lookup)?, how, Leases::Keep)
}

fn start(view: &View<'_>, path: Path, how: &OpenHow) -> Result<Arc<OpenFile>> {
    let writes = path.inode().file_type() == FileType::Regular && how.access().contains(Access::WRITE);
    // Counted before the file is opened: execution and writing exclude one another from here on.
    let writing = if writes { Some(path.write_access()?) } else { None };
    let file = path.inode().clone().open(&OpenContext { flags: how.flags, caller: view.caller, path: &path })?;
    let file = OpenFile::writing(file, path, how.flags, view.creds().clone(), writing);
    // Last (`do_dentry_open`): what was made for it stays.
    if how.flags.contains(OpenFlags::DIRECT) && file.file().direct_block(&file).is_none() {
        return Err(Errno::EINVAL);
    }
    file.notify(InotifyMask::OPEN);
    Ok(file)
}

fn open_or_create(view: &View<'_>, path: &[u8], how: &OpenHow, lookup: LookupFlags) -> Result<Arc<OpenFile>> {
    let exclusive = how.flags.contains(OpenFlags::EXCL);
    let mut walker = Walker::new(*view, path, lookup)?;
    loop {
        // Once more for each link that is the last component: its target may have to be made.
        let (last, trailing) = walker.to_last()?;
        let Last::Name(name) = last else {
            return Err(if exclusive { Errno::EEXIST } else { Errno::EISDIR });
        };
        // `open("new/", O_CREAT)`: it would have to be a directory, which open(2) does not make.
        if trailing == Trailing::Slash {
            return Err(Errno::EISDIR);
        }
        let found = match walker.entry(&name) {
            Ok(found) => found,
            Err(Errno::ENOENT) => match create(view, walker.place(), &name, how) {
                // Somebody was faster: open what they made.
                Err(Errno::EEXIST) if !exclusive => walker.entry(&name)?,
                done => return done,
            },
            Err(e) => return Err(e),
        };
        // O_EXCL does not follow a link either: the name itself has to be new.
        if exclusive {
            return Err(Errno::EEXIST);
        }
        if found.inode().file_type() == FileType::Symlink && lookup.contains(LookupFlags::FOLLOW) {
            walker.follow(&found)?;
            // A magic link leads to a file, with no text to go.
            if walker.is_done() {
                let place = walker.place().clone();
                return if is_dir(&place) { Err(Errno::EISDIR) } else { open_path(view, place, how) };
            }
            continue;
        }
        // Writing is what O_CREAT is for; no directory can be opened so.
        if is_dir(&found) {
            return Err(Errno::EISDIR);
        }
        // Only now: a file that had to be made is never on another mount.
        if lookup.contains(LookupFlags::NO_XDEV) && !Arc::ptr_eq(&found.mount, &walker.place().mount) {
            return Err(Errno::EXDEV);
        }
        return open_path(view, found, how);
    }
}

fn is_dir(p: &Path) -> bool {
    p.inode().file_type() == FileType::Directory
}

fn create(view: &View<'_>, dir: &Path, name: &[u8], how: &OpenHow) -> Result<Arc<OpenFile>> {
    dir.mount.check_writable()?;
    check_create(dir, view.creds())?;
    let node = new_node(view, dir.inode().as_ref(), how.mode & S_IALLUGO, NodeKind::File)?;
    let dentry = {
        let _entries = dir.dentry.lock_entries();
        // Under the lock of the entries: rmdir(2) can't come between.
        if dir.dentry.is_dead() {
            return Err(Errno::ENOENT);
        }
        let inode = dir.inode().create(name, &node)?;
        let dentry = dir.dentry.add_child(name, inode);
        created(dir, name, dentry.inode());
        dentry
    };
    // No permission check: the maker of a file may use it as asked, whatever its mode.
    start(view, Path { mount: dir.mount.clone(), dentry }, how)
}

fn open_unnamed(view: &View<'_>, dir: &Path, how: &OpenHow) -> Result<Arc<OpenFile>> {
    // A file is made, even without a name.
    dir.mount.check_writable()?;
    dir.inode().permission(view.creds(), Access::WRITE | Access::EXEC)?;
    let node = new_node(view, dir.inode().as_ref(), how.mode & S_IALLUGO, NodeKind::TmpFile)?;
    let inode = dir.inode().create(b"", &node)?;
    let ino = inode.metadata()?.ino;
    // Deleted from the start: /proc shows it as such, and linkat(2) may name it.
    let dentry = Dentry::unnamed(&dir.dentry, inode, ino);
    start(view, Path { mount: dir.mount.clone(), dentry }, how)
}

/// A file that processes execute.
pub struct Executable {
    path: Path,
    key: InodeKey,
}

impl Executable {
    /// Takes note that the file at `path` is about to be executed.
    ///
    /// # Errors
    /// ETXTBSY while it is open for writing; those of [`crate::Inode::metadata`].
    pub fn new(path: Path) -> Result<Arc<Executable>> {
        let key = path.inode().metadata()?.key();
        // Down by one: an execution (`deny_write_access`).
        path.mount.tables().text_uses.change(key, -1)?;
        Ok(Arc::new(Executable { path, key }))
    }

    /// The file: /proc/PID/exe.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        self.path.mount.tables().text_uses.undo(self.key, -1);
    }
}
