//! [`HostInode`]: a file of the host as the vfs sees it.
//!
//! A file is named by its directory's inode and one component. Directories keep a descriptor while they are among the
//! last used; one that gave it up opens it again from its parent, and checks that it still is the same directory.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use moat_abi::fs::{AccessMode, FileType};
use moat_abi::{Errno, Result};
use moat_sync::{LockClass, Mutex};
use moat_vfs::file::File;
use moat_vfs::inode::{Cache, Inode, InodeKey, Metadata, NewNode, NodeKind, OpenContext, RenameFlags, SetAttr};
use moat_vfs::special;

use crate::file::{HostDirFile, HostFile};
use crate::fs::{Core, Trust};
use crate::tree::{HostAccess, HostRename, HostTree, NewHostNode};

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
    key: InodeKey,
    file_type: FileType,
    place: Mutex<Place<T>>,
    /// What is known of it, where that can be trusted.
    attr: Mutex<Option<Metadata>>,
    /// A directory's descriptor.
    dir: Mutex<Option<Arc<T::Dir>>>,
    /// The descriptor that all read-only opens share.
    reader: Mutex<Weak<OwnedFd>>,
}

impl<T: HostTree> Drop for HostInode<T> {
    fn drop(&mut self) {
        self.core.forget(self.key);
    }
}

impl<T: HostTree> HostInode<T> {
    pub(crate) fn new(core: Arc<Core<T>>, at: Option<(Arc<HostInode<T>>, Vec<u8>)>, meta: &Metadata) -> HostInode<T> {
        let attr = Self::cacheable(&core, meta).then_some(*meta);
        HostInode {
            core,
            key: meta.key(),
            file_type: meta.file_type(),
            place: Mutex::new(LockClass::Inode, Place { at, gone: false }),
            attr: Mutex::new(LockClass::FileData, attr),
            dir: Mutex::new(LockClass::Inode, None),
            reader: Mutex::new(LockClass::FileData, Weak::new()),
        }
    }

    fn cacheable(core: &Core<T>, _meta: &Metadata) -> bool {
        core.trust == Trust::Exclusive
    }

    pub(crate) fn file_type_raw(&self) -> FileType {
        self.file_type
    }

    /// The file was looked up again, perhaps by another of its names.
    pub(crate) fn found_at(&self, parent: &Arc<HostInode<T>>, name: &[u8], meta: &Metadata) {
        {
            let mut p = self.place.lock();
            let same = p.at.as_ref().is_some_and(|(dir, n)| Arc::ptr_eq(dir, parent) && n == name);
            if !same || p.gone {
                *p = Place { at: Some((parent.clone(), name.to_vec())), gone: false };
            }
        }
        if self.core.trust == Trust::Exclusive {
            *self.attr.lock() = Some(*meta);
        }
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
    pub(crate) fn dir(self: &Arc<Self>) -> Result<Arc<T::Dir>> {
        if self.file_type != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if let Some(fd) = self.dir.lock().clone() {
            return Ok(fd);
        }
        let (parent, name) = self.parent_and_name()?;
        // Depth of the recursion: the path's, bounded by PATH_MAX and in practice by the parents' cached descriptors.
        let fd = self.core.tree.open_dir(&*parent.dir()?, &name).map_err(|e| if e == Errno::ENOTDIR { Errno::ESTALE } else { e })?;
        if self.core.translate(self.core.tree.stat_dir(&fd)?).key() != self.key {
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
        if Self::cacheable(&self.core, &meta) {
            *self.attr.lock() = Some(meta);
        }
        meta
    }

    fn ask(self: &Arc<Self>) -> Result<Metadata> {
        let place = { self.place.lock().at.clone() };
        let host = match place {
            Some((parent, name)) => self.core.tree.stat(&*parent.dir()?, &name)?,
            None => self.core.tree.stat_dir(&*self.dir()?)?,
        };
        let meta = self.core.translate(host);
        if meta.key() != self.key {
            return Err(Errno::ESTALE);
        }
        if Self::cacheable(&self.core, &meta) {
            *self.attr.lock() = Some(meta);
        }
        Ok(meta)
    }

    fn open_host(self: &Arc<Self>, mode: AccessMode) -> Result<Arc<OwnedFd>> {
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
    fn find(self: &Arc<Self>, name: &[u8]) -> Result<Arc<HostInode<T>>> {
        let host = self.core.tree.stat(&*self.dir()?, name)?;
        let meta = self.core.translate(host);
        Ok(self.core.inode(self, name, &meta))
    }

    fn entries_changed(&self) {
        self.changed();
    }
}

/// `inode` as one of this kind of tree.
fn own<T: HostTree>(inode: &Arc<dyn Inode>) -> Result<Arc<HostInode<T>>> {
    let any: Arc<dyn Any + Send + Sync> = inode.clone();
    any.downcast().map_err(|_| Errno::EXDEV)
}

/// Most methods of [`Inode`] take `&self`, but an inode here names itself as the parent of others.
pub(crate) struct HostNode<T: HostTree>(pub(crate) Arc<HostInode<T>>);
