//! [`TmpInode`]: attributes, names and the `Inode` trait.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use moat_abi::fs::{FileType, S_IALLUGO, SealFlags, XATTR_CREATE, XATTR_REPLACE};
use moat_abi::stat::DeviceId;
use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_image::Refusal;
use moat_image::state::NodeState;
use moat_sync::{LockClass, Mutex};
use moat_vfs::acl::{Acl, AclKind};
use moat_vfs::clock::now;
use moat_vfs::persist::SaveFiles;
use moat_vfs::{File, Inode, Metadata, NewNode, NodeKind, OpenContext, RenameFlags, SetAttr, SetTime};

use crate::attr::Attr;
use crate::data::Data;
use crate::dir::{self, Entries};
use crate::shared::{BLOCK, Shared};

pub(crate) enum Content {
    File(Mutex<Data>),
    Dir(Mutex<Entries>),
    Symlink(Box<[u8]>),
    /// FIFO, socket, device.
    Special(DeviceId),
}

/// A file of a tmpfs.
pub struct TmpInode {
    pub(crate) shared: Arc<Shared>,
    pub(crate) ino: u64,
    pub(crate) kind: FileType,
    pub(crate) btime: Timespec,
    pub(crate) attr: Mutex<Attr>,
    pub(crate) content: Content,
}

/// Names of one file.
const LINK_MAX: u32 = 65_000;

impl TmpInode {
    fn make(shared: &Arc<Shared>, mode: u32, owner: (u32, u32), nlink: u32, content: Content) -> Result<Arc<TmpInode>> {
        let ino = shared.new_ino()?;
        let t = now();
        let attr = Attr {
            mode: mode & S_IALLUGO,
            uid: owner.0,
            gid: owner.1,
            nlink,
            atime: t,
            mtime: t,
            ctime: t,
            linkable: nlink == 0,
            xattrs: BTreeMap::new(),
            xattr_bytes: 0,
        };
        Ok(Arc::new(TmpInode {
            shared: shared.clone(),
            ino,
            kind: FileType::from_mode(mode).unwrap_or(FileType::Regular),
            btime: t,
            attr: Mutex::new(LockClass::Inode, attr),
            content,
        }))
    }

    pub(crate) fn root(shared: &Arc<Shared>, mode: u32, uid: u32, gid: u32) -> Result<Arc<TmpInode>> {
        let entries = Content::Dir(Mutex::new(LockClass::Inode, Entries::default()));
        TmpInode::make(shared, mode, (uid, gid), 2, entries)
    }

    /// A regular file without a name that can be sealed.
    pub(crate) fn sealable(
        shared: &Arc<Shared>,
        mode: u32,
        uid: u32,
        gid: u32,
        seals: SealFlags,
    ) -> Result<Arc<TmpInode>> {
        let data = Content::File(Mutex::new(LockClass::FileData, Data::new(seals)));
        TmpInode::make(shared, FileType::Regular.mode_bits() | mode, (uid, gid), 0, data)
    }

    pub(crate) fn ino(&self) -> u64 {
        self.ino
    }

    pub(crate) fn kind(&self) -> FileType {
        self.kind
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn attr(&self) -> moat_sync::MutexGuard<'_, Attr> {
        self.attr.lock()
    }

    pub(crate) fn entries(&self) -> Result<&Mutex<Entries>> {
        match &self.content {
            Content::Dir(e) => Ok(e),
            _ => Err(Errno::ENOTDIR),
        }
    }

    pub(crate) fn data(&self) -> Result<&Mutex<Data>> {
        match &self.content {
            Content::File(d) => Ok(d),
            Content::Dir(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    fn own(&self, inode: &Arc<dyn Inode>) -> Result<Arc<TmpInode>> {
        let any: Arc<dyn Any + Send + Sync> = inode.clone();
        let own = any.downcast::<TmpInode>().map_err(|_| Errno::EXDEV)?;
        if Arc::ptr_eq(&own.shared, &self.shared) { Ok(own) } else { Err(Errno::EXDEV) }
    }

    /// The directory's entries have changed.
    pub(crate) fn touch(&self, subdirs: i32) {
        self.shared.note_change();
        let t = now();
        let mut a = self.attr();
        a.mtime = t;
        a.ctime = t;
        a.nlink = a.nlink.saturating_add_signed(subdirs);
    }

    /// One name of this inode has gone.
    pub(crate) fn drop_link(&self) {
        self.shared.note_change();
        let mut a = self.attr();
        // A directory's `.` goes with its name.
        a.nlink = if self.kind == FileType::Directory { 0 } else { a.nlink.saturating_sub(1) };
        a.ctime = now();
    }

    /// When something was stored through a mapping last, if the times do not say so yet.
    pub(crate) fn take_stores(&self) -> Option<Timespec> {
        match &self.content {
            Content::File(data) => data.lock().stored_at(),
            _ => None,
        }
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    fn content_of(kind: &NodeKind<'_>) -> Content {
        match kind {
            NodeKind::File | NodeKind::TmpFile => {
                // Files of a mounted tmpfs take no seals; memfds may.
                Content::File(Mutex::new(LockClass::FileData, Data::new(SealFlags::SEAL)))
            }
            NodeKind::Dir => Content::Dir(Mutex::new(LockClass::Inode, Entries::default())),
            NodeKind::Symlink(target) => Content::Symlink((*target).into()),
            NodeKind::Fifo | NodeKind::Socket | NodeKind::BoundSocket(_) => Content::Special(DeviceId::NONE),
            NodeKind::Device { rdev, .. } => Content::Special(*rdev),
        }
    }
}

impl Inode for TmpInode {
    fn file_type(&self) -> FileType {
        self.kind
    }

    fn metadata(&self) -> Result<Metadata> {
        let mut stored_at = None;
        let (size, blocks, rdev) = match &self.content {
            Content::File(d) => {
                let mut d = d.lock();
                stored_at = d.stored_at();
                (d.size(), d.blocks(&self.shared).saturating_mul(BLOCK / 512), DeviceId::NONE)
            }
            // `BOGO_DIRENT_SIZE`: 20 for each entry, `.` and `..` among them.
            Content::Dir(e) => (40 + 20 * e.lock().len() as u64, 0, DeviceId::NONE),
            Content::Symlink(t) => (t.len() as u64, 0, DeviceId::NONE),
            Content::Special(rdev) => (0, 0, *rdev),
        };
        let mut a = self.attr();
        if let Some(t) = stored_at {
            (a.mtime, a.ctime) = (t, t);
        }
        Ok(Metadata {
            dev: self.shared.dev,
            ino: self.ino,
            mode: self.kind.mode_bits() | a.mode,
            nlink: a.nlink,
            uid: a.uid,
            gid: a.gid,
            rdev,
            size,
            blksize: 4096,
            blocks,
            atime: a.atime,
            mtime: a.mtime,
            ctime: a.ctime,
            btime: Some(self.btime),
        })
    }

    fn name_of(&self, number: u64) -> Option<Vec<u8>> {
        let Content::Dir(entries) = &self.content else { return None };
        let (all, _) = entries.lock().all();
        all.into_iter().find(|entry| entry.inode.ino == number).map(|entry| entry.name)
    }

    fn save_unnamed(&self, saver: &mut dyn SaveFiles) -> std::result::Result<NodeState, Refusal> {
        self.save_nameless(saver.pages())
    }

    fn permission(&self, creds: &moat_vfs::Credentials, access: moat_vfs::Access) -> Result<()> {
        // Sizes do not matter here, and a large file's blocks would cost a host call.
        let (mode, uid, gid) = {
            let a = self.attr();
            (self.kind.mode_bits() | a.mode, a.uid, a.gid)
        };
        let meta = Metadata { mode, uid, gid, ..Metadata::default() };
        moat_vfs::inode::permission_by_acl(&meta, creds, access, || self.get_acl(AclKind::Access))
    }

    fn get_acl(&self, kind: AclKind) -> Result<Option<Arc<Acl>>> {
        Ok(self.attr().acl(kind).map(Arc::new))
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        self.shared.note_change();
        if let Some(len) = change.size {
            self.data()?.lock().set_size(&self.shared, len)?;
        }
        let stored_at = self.take_stores();
        let t = now();
        let mut a = self.attr();
        a.mtime = stored_at.unwrap_or(a.mtime);
        if let Some(mode) = change.mode {
            a.mode = mode & S_IALLUGO;
            // The list and the mode say the same.
            if let Some(acl) = a.acl(AclKind::Access) {
                a.set_acl(AclKind::Access, &acl.with_mode(mode))?;
            }
        }
        if !self.is_dir() && (change.uid.is_some() || change.gid.is_some() || change.size.is_some()) {
            a.drop_capabilities();
        }
        a.uid = change.uid.unwrap_or(a.uid);
        a.gid = change.gid.unwrap_or(a.gid);
        let resolve = |s: SetTime| match s {
            SetTime::Now => t,
            SetTime::At(at) => at,
        };
        if change.size.is_some() {
            a.mtime = t;
        }
        a.atime = change.atime.map_or(a.atime, resolve);
        a.mtime = change.mtime.map_or(a.mtime, resolve);
        a.ctime = t;
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let found = self.entries()?.lock().get(name).cloned();
        found.map(|i| i as Arc<dyn Inode>).ok_or(Errno::ENOENT)
    }

    fn create(&self, name: &[u8], node: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        let entries = self.entries()?;
        let mode = node.kind.file_type().mode_bits() | node.mode;
        let nlink = match node.kind {
            NodeKind::TmpFile => 0,
            NodeKind::Dir => 2,
            _ => 1,
        };
        let inode = TmpInode::make(&self.shared, mode, (node.uid, node.gid), nlink, Self::content_of(&node.kind))?;
        // What is made in a directory takes over its default list; links have no permissions.
        if let Some(default) = self.attr().acl(AclKind::Default)
            && !matches!(node.kind, NodeKind::Symlink(_))
        {
            let mut a = inode.attr.lock();
            a.set_acl(AclKind::Access, &default.with_mode(node.mode))?;
            if matches!(node.kind, NodeKind::Dir) {
                a.set_acl(AclKind::Default, &default)?;
            }
        }
        if !matches!(node.kind, NodeKind::TmpFile) {
            entries.lock().insert(name, inode.clone())?;
            self.touch(i32::from(matches!(node.kind, NodeKind::Dir)));
        }
        Ok(inode)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let target = self.own(target)?;
        if target.is_dir() {
            return Err(Errno::EPERM);
        }
        {
            let a = target.attr();
            // Only a file of O_TMPFILE may get a first name (linkat(2)).
            if a.nlink == 0 && !a.linkable {
                return Err(Errno::ENOENT);
            }
            if a.nlink >= LINK_MAX {
                return Err(Errno::EMLINK);
            }
        }
        self.entries()?.lock().insert(name, target.clone())?;
        let mut a = target.attr();
        a.nlink += 1;
        a.linkable = false;
        a.ctime = now();
        drop(a);
        self.touch(0);
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let gone = {
            let mut e = self.entries()?.lock();
            if e.get(name).ok_or(Errno::ENOENT)?.is_dir() {
                return Err(Errno::EISDIR);
            }
            e.remove(name)
        };
        if let Some(inode) = gone {
            inode.drop_link();
        }
        self.touch(0);
        Ok(())
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        let gone = {
            let mut e = self.entries()?.lock();
            // From here on nothing can be made in it.
            dir::kill_empty(e.get(name).ok_or(Errno::ENOENT)?)?;
            e.remove(name)
        };
        if let Some(inode) = gone {
            inode.drop_link();
        }
        self.touch(-1);
        Ok(())
    }

    fn rename(&self, old: &[u8], new_dir: &Arc<dyn Inode>, new: &[u8], flags: RenameFlags) -> Result<()> {
        let to = self.own(new_dir)?;
        // Made first, so that there is room for it.
        let whiteout = if flags.contains(RenameFlags::WHITEOUT) {
            let mode = FileType::CharDevice.mode_bits();
            Some(TmpInode::make(&self.shared, mode, (0, 0), 1, Content::Special(DeviceId::new(0, 0)))?)
        } else {
            None
        };
        dir::rename(self, old, &to, new, flags)?;
        match whiteout {
            Some(whiteout) => self.entries()?.lock().insert(old, whiteout),
            None => Ok(()),
        }
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        match &self.content {
            Content::Symlink(target) => Ok(target.to_vec()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(self: Arc<Self>, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        match self.content {
            Content::File(_) | Content::Dir(_) => Ok(self),
            _ => moat_vfs::inode::open_special(&Inode::metadata(&*self)?, ctx),
        }
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.attr().xattrs.get(name).cloned().ok_or(Errno::ENODATA)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        self.shared.note_change();
        let mut a = self.attr();
        match (flags, a.xattrs.contains_key(name)) {
            (XATTR_CREATE, true) => return Err(Errno::EEXIST),
            (XATTR_REPLACE, false) => return Err(Errno::ENODATA),
            _ => {}
        }
        match AclKind::of_attribute(name) {
            Some(kind) => {
                let acl = Acl::parse(value)?.ok_or(Errno::EINVAL)?;
                a.set_acl(kind, &acl)?;
            }
            None => a.put_xattr(name, value)?,
        }
        a.ctime = now();
        Ok(())
    }

    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        Ok(self.attr().xattrs.keys().cloned().collect())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.shared.note_change();
        let mut a = self.attr();
        a.remove_xattr(name).ok_or(Errno::ENODATA)?;
        a.ctime = now();
        Ok(())
    }
}

impl Drop for TmpInode {
    fn drop(&mut self) {
        self.shared.free_ino();
        match &mut self.content {
            Content::File(d) => d.get_mut().uncharge(&self.shared),
            Content::Dir(e) => {
                // A loop instead of recursion: directories nest deeper than a stack.
                let mut pending = e.get_mut().drain();
                while let Some(inode) = pending.pop() {
                    if let Some(mut last) = Arc::into_inner(inode)
                        && let Content::Dir(e) = &mut last.content
                    {
                        pending.append(&mut e.get_mut().drain());
                    }
                }
            }
            _ => {}
        }
    }
}
