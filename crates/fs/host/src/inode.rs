//! [`HostInode`]: a file of the host as the vfs sees it.
//!
//! A file is named by its directory's inode and one component. Directories keep a descriptor while they are among the
//! last used; one that gave it up opens it again from its parent, and checks that it still is the same directory.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, Weak};

use moat_abi::fs::{AccessMode, FileType};
use moat_abi::{Errno, Result};
use moat_sync::{LockClass, Mutex};
use moat_vfs::file::File;
use moat_vfs::inode::{Cache, Inode, InodeKey, Metadata, NewNode, NodeKind, OpenContext, RenameFlags, SetAttr};

use crate::file::{HostDirFile, HostFile};
use crate::fs::{Core, Trust};
use crate::tree::{HostAccess, HostRename, HostTree, NewHostNode};

/// How far below the root a directory can be and still be found again when its descriptor was given back.
const MAX_DEPTH: usize = 1 << 16;

/// Where a file was last found.
struct Place<T: HostTree> {
    /// `None` for the root.
    at: Option<(Arc<HostInode<T>>, Vec<u8>)>,
    /// The name was removed through this kernel.
    gone: bool,
}

/// A file of the host.
pub struct HostInode<T: HostTree> {
    core: Arc<Core<T>>,
    me: Weak<HostInode<T>>,
    key: InodeKey,
    file_type: FileType,
    place: Mutex<Place<T>>,
    /// What is known of it, where that can be trusted.
    attr: Mutex<Option<Metadata>>,
    /// A directory's descriptor.
    dir: Mutex<Option<Arc<T::Dir>>>,
    /// The descriptor that all read-only opens share.
    reader: Mutex<Weak<OwnedFd>>,
    /// A symbolic link's target, where what is known can be trusted: it never changes.
    target: OnceLock<Box<[u8]>>,
}

impl<T: HostTree> Drop for HostInode<T> {
    fn drop(&mut self) {
        self.core.forget(self.key);
        // Each inode keeps its parent: a chain of any length is taken apart here, without recursion.
        let mut next = self.place.get_mut().at.take();
        while let Some((parent, _)) = next {
            next = Arc::into_inner(parent).and_then(|mut last| last.place.get_mut().at.take());
        }
    }
}

impl<T: HostTree> HostInode<T> {
    pub(crate) fn new(
        core: Arc<Core<T>>,
        at: Option<(Arc<HostInode<T>>, Vec<u8>)>,
        meta: &Metadata,
    ) -> Arc<HostInode<T>> {
        let attr = (core.trust == Trust::Exclusive).then_some(*meta);
        Arc::new_cyclic(|me| HostInode {
            core,
            me: me.clone(),
            key: meta.key(),
            file_type: meta.file_type(),
            place: Mutex::new(LockClass::Inode, Place { at, gone: false }),
            attr: Mutex::new(LockClass::FileData, attr),
            dir: Mutex::new(LockClass::Inode, None),
            reader: Mutex::new(LockClass::FileData, Weak::new()),
            target: OnceLock::new(),
        })
    }

    /// The reference that the borrowed inode is behind.
    fn arc(&self) -> Result<Arc<HostInode<T>>> {
        self.me.upgrade().ok_or(Errno::ESTALE)
    }

    pub(crate) fn file_type_raw(&self) -> FileType {
        self.file_type
    }

    /// The file was looked up again, perhaps by another of its names.
    pub(crate) fn found_at(&self, parent: &Arc<HostInode<T>>, name: &[u8], meta: &Metadata) {
        let known = {
            let p = self.place.lock();
            !p.gone && p.at.as_ref().is_some_and(|(dir, n)| Arc::ptr_eq(dir, parent) && n == name)
        };
        if !known {
            self.found_place(parent.clone(), name);
        }
        if self.core.trust == Trust::Exclusive {
            *self.attr.lock() = Some(*meta);
        }
    }

    /// Notes a name of this file.
    ///
    /// A directory is never noted as its own ancestor: that is what it looks like when it is mounted below itself, or
    /// when it was moved on the host and what is known of the others is from before.
    fn found_place(&self, parent: Arc<HostInode<T>>, name: &[u8]) {
        if self.file_type != FileType::Directory || !parent.is_below(self) {
            let place = Place { at: Some((parent, name.to_vec())), gone: false };
            let before = std::mem::replace(&mut *self.place.lock(), place);
            drop(before);
        }
    }

    /// Whether this directory is `other`, or below it as far as is known.
    fn is_below(self: &Arc<Self>, other: &HostInode<T>) -> bool {
        let mut at = self.clone();
        for _ in 0..MAX_DEPTH {
            if std::ptr::eq(&raw const *at, other) {
                return true;
            }
            let up = at.place.lock().at.as_ref().map(|(parent, _)| parent.clone());
            match up {
                Some(parent) => at = parent,
                None => return false,
            }
        }
        true
    }

    pub(crate) fn set_dir(&self, dir: T::Dir) {
        *self.dir.lock() = Some(Arc::new(dir));
    }

    /// Gives the directory's descriptor back, but for the root, which could not be found again.
    pub(crate) fn close_dir(&self) {
        if self.place.lock().at.is_some() {
            let fd = self.dir.lock().take();
            drop(fd);
        }
    }

    fn parent_and_name(&self) -> Result<(Arc<HostInode<T>>, Vec<u8>)> {
        let p = self.place.lock();
        if p.gone {
            return Err(Errno::ENOENT);
        }
        p.at.clone().ok_or(Errno::EBUSY)
    }

    /// This directory's descriptor.
    pub(crate) fn dir(&self) -> Result<Arc<T::Dir>> {
        if self.file_type != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if let Some(fd) = self.dir.lock().clone() {
            return Ok(fd);
        }
        // Up to the nearest ancestor that has one, and down again.
        let mut closed = vec![self.arc()?];
        let mut names = Vec::new();
        let mut dir = loop {
            let (parent, name) = closed.last().ok_or(Errno::ESTALE)?.parent_and_name()?;
            names.push(name);
            if let Some(fd) = parent.dir.lock().clone() {
                break fd;
            }
            if closed.len() >= MAX_DEPTH {
                return Err(Errno::ESTALE);
            }
            closed.push(parent);
        };
        while let (Some(inode), Some(name)) = (closed.pop(), names.pop()) {
            dir = inode.open_again(&dir, &name)?;
        }
        Ok(dir)
    }

    /// Opens this directory, which was found in `parent`, and checks that it still is the same.
    fn open_again(self: &Arc<Self>, parent: &T::Dir, name: &[u8]) -> Result<Arc<T::Dir>> {
        let tree = &self.core.tree;
        let fd = tree.open_dir(parent, name).map_err(|e| if e == Errno::ENOTDIR { Errno::ESTALE } else { e })?;
        if self.core.translate(tree.stat_dir(&fd)?).key() != self.key {
            return Err(Errno::ESTALE);
        }
        let fd = Arc::new(fd);
        *self.dir.lock() = Some(fd.clone());
        self.core.note_open_dir(self);
        Ok(fd)
    }

    /// What is known must be asked again: the file was changed.
    pub(crate) fn changed(&self) {
        *self.attr.lock() = None;
    }

    /// What is known without asking.
    pub(crate) fn known(&self) -> Option<Metadata> {
        *self.attr.lock()
    }

    /// Notes fresh host metadata and gives the guest's view of it.
    pub(crate) fn learn(&self, host: Metadata) -> Metadata {
        let meta = self.core.translate(host);
        if self.core.trust == Trust::Exclusive {
            *self.attr.lock() = Some(meta);
        }
        meta
    }

    fn ask(&self) -> Result<Metadata> {
        let tree = &self.core.tree;
        // A directory that is open is the same one wherever others have moved it.
        let (place, open) = (self.place.lock().at.clone(), self.dir.lock().clone());
        let host = match (open, place) {
            (Some(dir), _) => tree.stat_dir(&dir)?,
            (None, Some((parent, name))) => tree.stat(&*parent.dir()?, &name)?,
            (None, None) => tree.stat_dir(&*self.dir()?)?,
        };
        let meta = self.core.translate(host);
        if meta.key() != self.key {
            return Err(Errno::ESTALE);
        }
        if self.core.trust == Trust::Exclusive {
            *self.attr.lock() = Some(meta);
        }
        Ok(meta)
    }

    fn open_host(&self, mode: AccessMode) -> Result<Arc<OwnedFd>> {
        let access = match (mode.can_read(), mode.can_write()) {
            (_, false) => HostAccess::Read,
            (false, true) => HostAccess::Write,
            (true, true) => HostAccess::ReadWrite,
        };
        if access == HostAccess::Read
            && let Some(fd) = self.reader.lock().upgrade()
        {
            return Ok(fd);
        }
        let (parent, name) = self.parent_and_name()?;
        let open = |access| self.core.tree.open(&*parent.dir()?, &name, access);
        // A mapping needs a readable descriptor even of a file that is open for writing only.
        let fd = match access {
            HostAccess::Write => open(HostAccess::ReadWrite).or_else(|_| open(HostAccess::Write))?,
            access => open(access)?,
        };
        let host = rustix::fs::fstat(&fd).map_err(|e| Errno::from_raw(e.raw_os_error()))?;
        if self.core.translate(crate::direct::metadata(&host)).key() != self.key {
            return Err(Errno::ESTALE);
        }
        let fd = Arc::new(fd);
        if access == HostAccess::Read {
            *self.reader.lock() = Arc::downgrade(&fd);
        }
        Ok(fd)
    }

    /// The entry `name` of this directory, as the host has it.
    fn find(&self, name: &[u8]) -> Result<Arc<HostInode<T>>> {
        let host = self.core.tree.stat(&*self.dir()?, name)?;
        let meta = self.core.translate(host);
        Ok(self.core.inode(&self.arc()?, name, &meta))
    }

    /// This kernel has given the file another name.
    fn moved(&self, dir: Arc<HostInode<T>>, name: &[u8]) {
        self.found_place(dir, name);
        self.changed();
    }

    /// The entries of `dir`, which is this directory.
    pub(crate) fn entries(&self, dir: &T::Dir) -> Result<Vec<crate::tree::HostEntry>> {
        moat_sync::block_in_place(|| self.core.tree.list(dir))
    }

    /// Attributes of `dir`, which is this directory.
    pub(crate) fn dir_metadata(&self, dir: &T::Dir) -> Result<Metadata> {
        match self.known() {
            Some(meta) => Ok(meta),
            None => Ok(self.learn(self.core.tree.stat_dir(dir)?)),
        }
    }

    /// The name of this file was removed or given to another file.
    fn lost_name(&self, dir: &HostInode<T>, name: &[u8]) {
        let mut p = self.place.lock();
        if p.at.as_ref().is_some_and(|(d, n)| std::ptr::eq(&raw const **d, dir) && n == name) {
            p.gone = true;
        }
        drop(p);
        self.changed();
    }

    /// The inode of entry `name` if it is in memory.
    fn known_entry(&self, name: &[u8]) -> Option<Arc<HostInode<T>>> {
        self.find(name).ok()
    }
}

/// `inode` as one of this kind of tree.
fn own<T: HostTree>(inode: &Arc<dyn Inode>) -> Result<Arc<HostInode<T>>> {
    let any: Arc<dyn Any + Send + Sync> = inode.clone();
    any.downcast().map_err(|_| Errno::EXDEV)
}

impl<T: HostTree> Inode for HostInode<T> {
    fn metadata(&self) -> Result<Metadata> {
        match self.known() {
            Some(meta) => Ok(meta),
            None => self.ask(),
        }
    }

    fn file_type(&self) -> FileType {
        self.file_type
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        self.changed();
        let place = { self.place.lock().at.clone() };
        match place {
            Some((parent, name)) if self.file_type != FileType::Directory => {
                self.core.tree.set_attr(&*parent.dir()?, Some(&name), change)
            }
            _ => self.core.tree.set_attr(&*self.dir()?, None, change),
        }
    }

    fn cache_policy(&self) -> Cache {
        match self.core.trust {
            Trust::Exclusive => Cache::Keep,
            Trust::Shared => Cache::Revalidate,
        }
    }

    fn revalidate(&self, name: &[u8], child: &Arc<dyn Inode>) -> Result<bool> {
        match self.find(name) {
            Ok(now) => {
                let now: Arc<dyn Inode> = now;
                Ok(Arc::ptr_eq(&now, child))
            }
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        Ok(self.find(name)?)
    }

    fn create(&self, name: &[u8], node: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        let new = NewHostNode { mode: node.mode, uid: node.uid, gid: node.gid };
        let dir = self.dir()?;
        let tree = &self.core.tree;
        match node.kind {
            NodeKind::File => drop(tree.create(&dir, name, new)?),
            NodeKind::Dir => tree.mkdir(&dir, name, new)?,
            NodeKind::Symlink(target) => tree.symlink(&dir, name, target, new)?,
            NodeKind::Fifo => tree.mkfifo(&dir, name, new)?,
            NodeKind::TmpFile => return Err(Errno::EOPNOTSUPP),
            // A socket or device node on the host would reach beyond the sandbox.
            NodeKind::Socket | NodeKind::Device { .. } => return Err(Errno::EPERM),
        }
        self.changed();
        Ok(self.find(name)?)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let target = own::<T>(target)?;
        let (parent, old) = target.parent_and_name()?;
        self.core.tree.link(&*parent.dir()?, &old, &*self.dir()?, name)?;
        target.changed();
        self.changed();
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let victim = self.known_entry(name);
        self.core.tree.unlink(&*self.dir()?, name)?;
        if let Some(v) = victim {
            v.lost_name(self, name);
        }
        self.changed();
        Ok(())
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        let victim = self.known_entry(name);
        self.core.tree.rmdir(&*self.dir()?, name)?;
        if let Some(v) = victim {
            v.lost_name(self, name);
        }
        self.changed();
        Ok(())
    }

    fn rename(&self, old: &[u8], new_dir: &Arc<dyn Inode>, new: &[u8], flags: RenameFlags) -> Result<()> {
        let how = match flags {
            f if f.is_empty() => HostRename::Replace,
            RenameFlags::NOREPLACE => HostRename::NoReplace,
            RenameFlags::EXCHANGE => HostRename::Exchange,
            _ => return Err(Errno::EINVAL),
        };
        let new_dir = own::<T>(new_dir)?;
        let moved = self.known_entry(old);
        let target = new_dir.known_entry(new);
        self.core.tree.rename(&*self.dir()?, old, &*new_dir.dir()?, new, how)?;
        if let Some(t) = &target {
            match how {
                HostRename::Exchange => t.moved(self.arc()?, old),
                _ => t.lost_name(&new_dir, new),
            }
        }
        if let Some(m) = moved {
            m.moved(new_dir.clone(), new);
        }
        self.changed();
        new_dir.changed();
        Ok(())
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        if self.file_type != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        if let Some(target) = self.target.get() {
            return Ok(target.to_vec());
        }
        let (parent, name) = self.parent_and_name()?;
        let target = self.core.tree.read_link(&*parent.dir()?, &name)?;
        if self.core.trust == Trust::Exclusive {
            let _ = self.target.set(target.clone().into());
        }
        Ok(target)
    }

    fn open(self: Arc<Self>, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        match self.file_type {
            FileType::Regular => {
                let fd = self.open_host(ctx.flags.access_mode())?;
                Ok(Arc::new(HostFile::new(self, fd)))
            }
            FileType::Directory => {
                let dir = self.dir()?;
                Ok(Arc::new(HostDirFile::new(self, dir)))
            }
            _ => ctx.path.mount.tables().registry.open_special(&self.metadata()?, ctx),
        }
    }
}

#[cfg(test)]
mod tests;
