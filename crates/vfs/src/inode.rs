//! What a file system provides: [`FileSystem`] for itself, [`Inode`] for each of its files.

mod new_node;

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bitflags::bitflags;
use moat_abi::cap::Cap;
use moat_abi::fs::{FileType, OpenFlags};
use moat_abi::stat::{DeviceId, Statfs};
use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_host::fanotify::FileHandle;
use moat_image::pages::Pages;
use moat_image::state::{FileSystemState, NodeState, TreeState};
use moat_image::{ImageError, Refusal};

use crate::acl::{Acl, AclKind};
use crate::caller::Caller;
use crate::cred::Credentials;
use crate::file::{File, SaveFiles};
use crate::outside::AsksHost;
use crate::path::Path;

pub use crate::metadata::{Access, InodeKey, Metadata};
pub use crate::permission::{generic_permission, permission_by_acl};
pub use new_node::{BoundSocket, NewNode, NodeKind};

/// A time to set: utimensat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The current time.
    Now,
    /// This time.
    At(Timespec),
}

/// A change of attributes; `None` leaves one as it is.
///
/// Permissions are checked by the caller (`ops`), and the derived changes (suid clearing) are spelt out in it.
/// The file system sets ctime.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "as in Metadata")]
pub struct SetAttr {
    /// Permission bits only (07777).
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Truncates or extends a regular file; sets mtime.
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

impl SetAttr {
    /// A change of the size alone.
    #[must_use]
    pub fn size(len: u64) -> SetAttr {
        SetAttr { size: Some(len), ..SetAttr::default() }
    }
}

bitflags! {
    /// Variants of rename, as renameat2(2); the rules about existing targets are checked by `ops`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct RenameFlags: u32 {
        /// EEXIST if the target exists.
        const NOREPLACE = 1;
        /// The two names change places.
        const EXCHANGE = 2;
        /// Leaves a whiteout at the old name.
        const WHITEOUT = 4;
    }
}

/// How far the dentry cache may trust what it knows of a directory's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Entries change only through this kernel: known names, and known absences, are final.
    Keep,
    /// Known names are asked about with [`Inode::revalidate`] at each use; absences are not remembered.
    Revalidate,
    /// Each use asks [`Inode::lookup`] (as in /proc).
    None,
}

/// How a file is being opened.
pub struct OpenContext<'a> {
    /// The flags of open(2); CREAT, EXCL and TRUNC have been dealt with.
    pub flags: OpenFlags,
    /// Who opens it. Permissions have been checked.
    pub caller: &'a dyn Caller,
    /// The name it was opened by.
    pub path: &'a Path,
}

/// A mounted file system (Linux's super block).
pub trait FileSystem: Send + Sync + 'static {
    /// The type's name, as in /proc/filesystems.
    fn name(&self) -> &'static str;

    /// The root directory (or the one file of a file mount); the same inode each time.
    fn root(&self) -> Arc<dyn Inode>;

    /// The device number that stat(2) reports.
    fn dev(&self) -> DeviceId;

    /// statfs(2), without the mount's flags.
    ///
    /// # Errors
    /// EIO.
    fn statfs(&self) -> Result<Statfs>;

    /// Writes everything out: sync(2), syncfs(2), umount(2).
    ///
    /// # Errors
    /// EIO.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// Changes the options: mount(2) with MS_REMOUNT. The mount's own flags are not its business.
    ///
    /// # Errors
    /// EINVAL for an option that is unknown or can't change.
    fn remount(&self, _options: &[u8]) -> Result<()> {
        Ok(())
    }

    /// What is there comes from the configuration; what changes from here on is the guest's.
    fn made(&self) {}

    /// What of it is in an image, beside what the configuration makes anew.
    ///
    /// # Errors
    /// By default, its type: it can't be saved.
    fn save(&self, _saver: &mut dyn SaveFiles) -> std::result::Result<FileSystemState, Refusal> {
        Err(Refusal::new(format!("a file system of type {}", self.name())))
    }

    /// Puts back what [`FileSystem::save`] has saved. Nothing has been opened in it; some of its directories may be mounted on.
    ///
    /// # Errors
    /// What is wrong with it; by default everything is.
    fn restore(&self, _tree: &TreeState, _pages: &Pages) -> std::result::Result<(), ImageError> {
        Err(ImageError::state(format!("files of a {}, which keeps none", self.name())))
    }

    /// Puts back a file that had no name any more.
    ///
    /// # Errors
    /// As above.
    fn restore_unnamed(&self, _node: &NodeState, _pages: &Pages) -> std::result::Result<Arc<dyn Inode>, ImageError> {
        Err(ImageError::state(format!("a file of a {}, which keeps none", self.name())))
    }

    /// The options for /proc/mounts after the flags: `,size=4k`, or nothing.
    fn show_options(&self) -> String {
        String::new()
    }
}

/// What opens FIFOs and device nodes, on whatever file system the node is: [`crate::Registry`].
pub trait SpecialFiles: Send + Sync {
    /// Opens what `meta` says.
    ///
    /// # Errors
    /// ENXIO for sockets, block devices and devices without a driver; ELOOP for a symbolic link; EIO for other types, whose
    /// file systems open them themselves.
    fn open_special(&self, meta: &Metadata, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>>;
}

/// Opens a FIFO or device node by what it stands for.
///
/// # Errors
/// Those of [`SpecialFiles::open_special`].
pub fn open_special(meta: &Metadata, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
    ctx.path.mount.tables().special.open_special(meta, ctx)
}

/// Keeps a file reachable until it is dropped.
pub type Hold = Box<dyn Send + Sync>;

/// A file, as its file system sees it.
///
/// The defaults give the errno that Linux gives where a file system lacks the operation. Methods never wait for a
/// guest; one that may sleep on the host does so in `moat_sync::block_in_place`. Names are single components:
/// not empty, no `/`, not `.` or `..`, at most NAME_MAX bytes. Permissions, read-only mounts, sticky bits and file types of
/// the operands have been checked by [`crate::ops`]; what can change meanwhile (existence, emptiness) the file system checks
/// itself. `create`, `link`, `unlink`, `rmdir` and `rename` run under the vfs's lock of the directories' entries, the rest under
/// no vfs lock but possibly that one.
pub trait Inode: Send + Sync + Any {
    /// The attributes.
    ///
    /// # Errors
    /// EIO, ESTALE where the file is not in memory.
    fn metadata(&self) -> Result<Metadata>;

    /// As [`Inode::metadata`], for mode and owner alone: all else may be as it was before entries came and went.
    ///
    /// # Errors
    /// As there.
    fn ownership(&self) -> Result<Metadata> {
        self.metadata()
    }

    /// A name of the file is about to go, and nobody has the file by it: if it is the last one, nothing need be done so that it can still
    /// be reached.
    fn abandon(&self) {}

    /// The type; never changes, and is asked often.
    fn file_type(&self) -> FileType;

    /// What names the file if its inode is made anew at each lookup, as in /proc; `None` where all lookups give one object.
    fn fleeting_key(&self) -> Option<InodeKey> {
        None
    }

    /// Whether others than this kernel change the file, and the host may say what they do.
    fn is_changed_outside(&self) -> bool {
        false
    }

    /// What an O_PATH descriptor has of the file beside its name, so that it stays reachable whatever others do with that; `None` where
    /// only this kernel changes names.
    ///
    /// # Errors
    /// ESTALE where others were faster.
    fn hold(self: Arc<Self>) -> Result<Option<Hold>> {
        Ok(None)
    }

    /// Has the file marked, as [`AsksHost::mark`] has it; `None` where [`Inode::is_changed_outside`] says no, or it can't be.
    fn watch_outside(&self, _by: &dyn AsksHost, _what: u64) -> Option<(FileHandle, u64)> {
        None
    }

    /// Takes that back.
    fn unwatch_outside(&self, _by: &dyn AsksHost, _what: u64) {}

    /// The id of the mount namespace that this is the file of, if it is one's.
    fn mount_namespace(&self) -> Option<u64> {
        None
    }

    /// A name in this directory that leads to the file `number` of its file system, for a checkpoint that has met it by a name that
    /// is gone. By default none is known.
    fn name_of(&self, _number: u64) -> Option<Vec<u8>> {
        None
    }

    /// The file as data, once no name leads to it any more.
    ///
    /// # Errors
    /// By default, that it can't be saved.
    fn save_unnamed(&self, _saver: &mut dyn SaveFiles) -> std::result::Result<NodeState, Refusal> {
        Err(Refusal::new("a file whose name is gone"))
    }

    /// statfs(2) of the file system that the file is on, where one mount shows several, as a tree of the host does that has mounts of the
    /// host in it. `None` is the mount's own.
    ///
    /// # Errors
    /// Those of the host.
    fn statfs(&self) -> Option<Result<Statfs>> {
        None
    }

    /// Writes out that file system, as syncfs(2). `None` is the mount's own.
    ///
    /// # Errors
    /// EIO, ENOSPC, EDQUOT.
    fn sync_fs(&self) -> Option<Result<()>> {
        None
    }

    /// Changes attributes; all or nothing.
    ///
    /// # Errors
    /// EPERM by default; ENOSPC, EFBIG, EINVAL (size of what is no regular file), EROFS.
    fn set_attr(&self, _change: &SetAttr) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Finds an entry of this directory.
    ///
    /// # Errors
    /// ENOENT; ENOTDIR by default.
    fn lookup(&self, _name: &[u8]) -> Result<Arc<dyn Inode>> {
        Err(Errno::ENOTDIR)
    }

    /// Whether `name` still is `child`: asked under [`Cache::Revalidate`] before a cached entry is used.
    fn revalidate(&self, _name: &[u8], _child: &Arc<dyn Inode>) -> Result<bool> {
        Ok(true)
    }

    /// How far this directory's entries may be cached.
    fn cache_policy(&self) -> Cache {
        Cache::Keep
    }

    /// Makes an entry.
    ///
    /// # Errors
    /// EEXIST, ENOSPC, EROFS; ENOENT if this directory has been removed; EPERM by default, EACCES for a File; EOPNOTSUPP for a TmpFile
    /// that can't be made.
    fn create(&self, _name: &[u8], node: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        Err(match node.kind {
            NodeKind::TmpFile => Errno::EOPNOTSUPP,
            NodeKind::File => Errno::EACCES,
            _ => Errno::EPERM,
        })
    }

    /// Makes `name` another name of `target`, an inode of the same file system.
    ///
    /// # Errors
    /// EEXIST, EMLINK, ENOSPC, ENOENT (a target without names that is no O_TMPFILE one); EPERM by default.
    fn link(&self, _name: &[u8], _target: &Arc<dyn Inode>) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Removes the name of what is no directory.
    ///
    /// # Errors
    /// ENOENT, EISDIR; EPERM by default.
    fn unlink(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ENOTEMPTY; EPERM by default.
    fn rmdir(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Moves the entry `old` to the name `new` of `new_dir`, a directory of the same file system, maybe this one.
    ///
    /// An existing target of a fitting type is replaced (a directory only if empty), or with EXCHANGE put in the other place.
    ///
    /// # Errors
    /// ENOENT, EEXIST (NOREPLACE), ENOTEMPTY, ENOSPC, EMLINK; EINVAL for flags that it lacks; EPERM by default.
    fn rename(&self, _old: &[u8], _new_dir: &Arc<dyn Inode>, _new: &[u8], _flags: RenameFlags) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// A socket of the host that is connected to this one, of the host as well: nobody in the sandbox listens at it.
    ///
    /// # Errors
    /// ECONNREFUSED by default; those of connect(2) on the host.
    fn connect_socket(&self, _socket_type: u32) -> Result<OwnedFd> {
        Err(Errno::ECONNREFUSED)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// EINVAL by default.
    fn read_link(&self) -> Result<Vec<u8>> {
        Err(Errno::EINVAL)
    }

    /// The target as `caller` sees it: `/proc/self` differs from task to task.
    ///
    /// # Errors
    /// As [`Inode::read_link`].
    fn read_link_for(&self, _caller: &dyn Caller) -> Result<Vec<u8>> {
        self.read_link()
    }

    /// Where a magic link of /proc leads, regardless of names; `None` for a link that is followed by its text.
    ///
    /// # Errors
    /// ENOENT, EACCES.
    fn follow(&self, _caller: &dyn Caller) -> Result<Option<Path>> {
        Ok(None)
    }

    /// Opens the file: gives what serves reads and writes of this opening.
    ///
    /// The default serves FIFOs and device nodes through [`open_special`].
    ///
    /// # Errors
    /// ENXIO for sockets and absent devices, ELOOP for links; others by file system.
    fn open(self: Arc<Self>, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        let meta = self.metadata()?;
        open_special(&meta, ctx)
    }

    /// Whether `creds` may do `access`; by mode bits and capabilities unless a file system has rules of its own.
    ///
    /// # Errors
    /// EACCES, EPERM.
    fn permission(&self, creds: &Credentials, access: Access) -> Result<()> {
        // The commonest check by far: root searches a directory. It needs no attributes.
        if creds.has_root_cap(Cap::DAC_OVERRIDE) && self.file_type() == FileType::Directory {
            return Ok(());
        }
        permission_by_acl(&self.metadata()?, creds, access, || self.get_acl(AclKind::Access))
    }

    /// As [`Inode::permission`], where it matters which task asks: /proc grants a process its own files.
    ///
    /// # Errors
    /// EACCES, EPERM.
    fn permission_for(&self, caller: &dyn Caller, access: Access) -> Result<()> {
        self.permission(caller.creds(), access)
    }

    /// An access control list of the file.
    ///
    /// # Errors
    /// Those of reading it. A file system without lists has none.
    fn get_acl(&self, _kind: AclKind) -> Result<Option<Arc<Acl>>> {
        Ok(None)
    }

    /// Reads an extended attribute.
    ///
    /// # Errors
    /// ENODATA; EOPNOTSUPP by default.
    fn get_xattr(&self, _name: &[u8]) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Sets an extended attribute. `flags` is 0, XATTR_CREATE or XATTR_REPLACE.
    ///
    /// # Errors
    /// EEXIST, ENODATA, ENOSPC; EOPNOTSUPP by default.
    fn set_xattr(&self, _name: &[u8], _value: &[u8], _flags: u32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// The names of the extended attributes.
    ///
    /// # Errors
    /// EOPNOTSUPP by default.
    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// ENODATA; EOPNOTSUPP by default.
    fn remove_xattr(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
}

/// Whether two objects stand for one file.
pub(crate) fn same_inode(a: &Arc<dyn Inode>, b: &Arc<dyn Inode>) -> bool {
    // The usual case, and free of a call to the host.
    if Arc::ptr_eq(a, b) {
        return true;
    }
    match (a.metadata(), b.metadata()) {
        // A number is given again after a file is gone, also to one of another type.
        (Ok(a), Ok(b)) => a.key() == b.key() && a.file_type() == b.file_type() && a.btime == b.btime,
        _ => false,
    }
}
