//! [`HostInode`]: a file of the host as the vfs sees it.
//!
//! A file is what it is, not what it is called: it is reached by a node or an open descriptor of its own ([`reach`]). Its
//! names ([`names`]) only serve to find it again when its node was given back, and what they lead to is compared with
//! what the file is ([`Identity`]) each time.

mod known;
mod names;
mod opening;
mod operations;
mod reach;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use moat_abi::fs::{FileType, S_IALLUGO, S_ISGID, S_ISUID};
use moat_abi::{Errno, Result};
use moat_sync::{LockClass, Mutex, MutexGuard, block_in_place};
use moat_vfs::inode::{Inode, InodeKey, Metadata};
use moat_vfs::locks::LockOwner;

use crate::fs::{TreeCore, Trust};
use crate::tree::{HostTree, NewHostNode};

use known::Known;
pub(crate) use known::MappedStores;
use names::Names;
pub(crate) use opening::Opening;
use reach::Held;

/// What makes a file the same file, whatever its name: number, type, and when it was made where the host knows that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) key: InodeKey,
    pub(crate) file_type: FileType,
    pub(crate) born: Option<(i64, i64)>,
}

/// The descriptors of those who have locks on a file.
pub(crate) type Owners = Mutex<HashMap<LockOwner, Arc<OwnedFd>>>;

/// A file of the host.
pub struct HostInode<T: HostTree> {
    core: Arc<TreeCore<T>>,
    me: Weak<HostInode<T>>,
    identity: Identity,
    names: Mutex<Names<T>>,
    known: Mutex<Known>,
    /// A read would change the access time that is known.
    read_shows: AtomicBool,
    /// Permission bits as last seen, for the rules about set-id bits.
    mode: AtomicU32,
    held: Mutex<Held<T>>,
    /// Used since the holders were last looked through.
    recent: AtomicBool,
    /// Nobody has it by the name that is about to go.
    abandoned: AtomicBool,
    /// Open file descriptions of it.
    openings: AtomicUsize,
    /// The descriptor that all read-only opens share.
    reader: Mutex<Weak<OwnedFd>>,
    /// It, after the last of them where only this sandbox changes the tree.
    kept_reader: Mutex<Option<Arc<OwnedFd>>>,
    /// The descriptor that made it, until it is opened.
    fresh: Mutex<Option<Arc<OwnedFd>>>,
    /// The descriptors opened for reading and writing, closed ones among them.
    writers: Mutex<Vec<Weak<OwnedFd>>>,
    /// Held by who appends where the host does not see to it that only one does.
    appending: Mutex<()>,
    /// Who has locks on the host, in a shared tree.
    lock_owners: Owners,
    /// A symbolic link's target, which never changes.
    target: OnceLock<Box<[u8]>>,
}

impl<T: HostTree> Drop for HostInode<T> {
    fn drop(&mut self) {
        self.core.forget(self.identity.key);
        self.names.get_mut().leave(self.me.as_ptr());
    }
}

impl<T: HostTree> HostInode<T> {
    pub(crate) fn new(core: Arc<TreeCore<T>>, meta: &Metadata) -> Arc<HostInode<T>> {
        let known = Known::new(core.trust, meta);
        Arc::new_cyclic(|me| HostInode {
            core,
            me: me.clone(),
            identity: Identity::of(meta),
            names: Mutex::new(LockClass::Inode, Names::default()),
            known: Mutex::new(LockClass::FileData, known),
            read_shows: AtomicBool::new(known::read_shows(meta)),
            mode: AtomicU32::new(meta.mode),
            held: Mutex::new(LockClass::Inode, Held::default()),
            recent: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            openings: AtomicUsize::new(0),
            reader: Mutex::new(LockClass::FileData, Weak::new()),
            kept_reader: Mutex::new(LockClass::FileData, None),
            fresh: Mutex::new(LockClass::FileData, None),
            writers: Mutex::new(LockClass::FileData, Vec::new()),
            appending: Mutex::new(LockClass::FileData, ()),
            lock_owners: Mutex::new(LockClass::FileData, HashMap::new()),
            target: OnceLock::new(),
        })
    }

    /// Keeps others from appending.
    pub(crate) fn appending(&self) -> MutexGuard<'_, ()> {
        self.appending.lock()
    }

    /// The reference that the borrowed inode is behind.
    fn arc(&self) -> Result<Arc<HostInode<T>>> {
        self.me.upgrade().ok_or(Errno::ESTALE)
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The mode before a write or truncation, where it has set-id bits that these may take.
    pub(crate) fn set_id_mode(&self) -> Option<u32> {
        if self.mode.load(Ordering::Relaxed) & (S_ISUID | S_ISGID) == 0 {
            return None;
        }
        Inode::metadata(self).ok().map(|meta| meta.mode)
    }

    /// The permission bits were changed.
    fn note_permissions(&self, bits: u32) {
        let old = self.mode.load(Ordering::Relaxed);
        self.mode.store(old & !S_IALLUGO | bits & S_IALLUGO, Ordering::Relaxed);
    }

    pub(crate) fn lock_owners(&self) -> &Owners {
        &self.lock_owners
    }

    /// Whether others than this sandbox use the tree.
    pub(crate) fn is_shared(&self) -> bool {
        self.core.trust == Trust::Shared
    }

    /// The entry `name` of this directory, as the host has it.
    fn find(&self, name: &[u8]) -> Result<Arc<HostInode<T>>> {
        let dir = self.node()?;
        let tree = &self.core.tree;
        // A file that is known need not be held to be found.
        let meta = self.core.translate(tree.stat_at(&dir, name)?);
        let known = self.core.known(&meta);
        // A directory that others may move at any time is held from here on. A file is not: its space would stay taken when they
        // remove it.
        let directory = meta.file_type() == FileType::Directory;
        if directory && self.is_shared() && known.as_ref().is_none_or(|inode| !inode.is_held()) {
            let (node, host) = tree.lookup(&dir, name)?;
            let meta = self.core.translate(host);
            let inode = self.core.inode(&meta);
            inode.set_node(node);
            self.name_child(name, &inode);
            return Ok(inode);
        }
        let inode = match known {
            Some(inode) => {
                inode.learn_again(&meta);
                inode
            }
            None => self.core.inode(&meta),
        };
        self.name_child(name, &inode);
        Ok(inode)
    }

    fn create_file(&self, dir: &T::Node, name: &[u8], new: NewHostNode) -> Result<Arc<HostInode<T>>> {
        let fd = self.core.tree.create(dir, name, new)?;
        let meta = self.core.translate(crate::direct::metadata_of(&fd)?);
        let inode = self.core.inode(&meta);
        self.name_child(name, &inode);
        inode.keep_fresh(fd);
        Ok(inode)
    }

    fn create_unnamed(&self, dir: &T::Node, new: NewHostNode) -> Result<Arc<HostInode<T>>> {
        let (node, fd) = self.core.tree.unnamed(dir, new)?;
        let meta = self.core.translate(crate::direct::metadata_of(&fd)?);
        let inode = self.core.inode(&meta);
        inode.keep_node(node);
        inode.keep_fresh(fd);
        Ok(inode)
    }

    /// Carries out what wants a node that may have to be more than a path.
    fn with_node<R>(&self, act: impl Fn(&T::Node) -> Result<R>) -> Result<R> {
        match act(&*self.node()?) {
            Err(Errno::ENOSYS) => {
                // Older kernels take these by a descriptor that is more than a path.
                let real = self.real_node().map_err(|_| Errno::EOPNOTSUPP)?;
                act(&real).map_err(|e| if e == Errno::ENOSYS { Errno::EOPNOTSUPP } else { e })
            }
            done => done,
        }
    }

    /// Whether it is on another file system of the host than the tree's root.
    fn is_elsewhere(&self) -> bool {
        self.identity.key.dev != self.core.dev
    }

    /// Writes out the file system that it is on; for what is no directory, that of its directory.
    pub(crate) fn sync_own_fs(&self) -> Result<()> {
        let node = match self.last_place() {
            Some((dir, _)) if self.identity.file_type != FileType::Directory => dir.node()?,
            _ => self.node()?,
        };
        block_in_place(|| self.core.tree.sync_fs(&node))
    }

    /// Writes out the directory that `dir` holds.
    pub(crate) fn sync_dir(&self, dir: &T::Node, kind: moat_vfs::SyncKind) -> Result<()> {
        block_in_place(|| self.core.tree.sync(dir, kind))
    }
}

#[cfg(test)]
mod tests;
