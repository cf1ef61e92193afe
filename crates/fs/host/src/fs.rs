//! [`HostFs`]: a tree of the host as a file system.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use moat_abi::Result;
use moat_abi::stat::{DeviceId, Statfs};
use moat_sync::{LockClass, Mutex};
use moat_vfs::filesystem::FileSystem;
use moat_vfs::inode::{Inode, InodeKey, Metadata};

use crate::inode::HostInode;
use crate::tree::HostTree;

/// Who changes the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Only this sandbox: what is known of a file stays true.
    Exclusive,
    /// Others too: everything is asked again.
    Shared,
}

/// Directory descriptors kept open per file system; the sentry's descriptors are limited.
const MAX_OPEN_DIRS: usize = 512;

/// What all inodes of a file system share.
pub(crate) struct Core<T: HostTree> {
    pub(crate) tree: T,
    pub(crate) trust: Trust,
    /// The device number shown to the guest.
    pub(crate) dev: DeviceId,
    /// The device of the tree's root on the host: inode numbers of others are told apart.
    pub(crate) host_dev: DeviceId,
    inodes: Mutex<HashMap<InodeKey, Weak<HostInode<T>>>>,
    open_dirs: Mutex<VecDeque<Weak<HostInode<T>>>>,
}

impl<T: HostTree> Core<T> {
    /// The inode that `meta` describes, found as `name` in `parent`.
    pub(crate) fn inode(
        self: &Arc<Self>,
        parent: &Arc<HostInode<T>>,
        name: &[u8],
        meta: &Metadata,
    ) -> Arc<HostInode<T>> {
        let key = meta.key();
        let mut table = self.inodes.lock();
        if let Some(known) = table.get(&key).and_then(Weak::upgrade)
            && known.file_type_raw() == meta.file_type()
        {
            drop(table);
            known.found_at(parent, name, meta);
            return known;
        }
        let new = HostInode::new(self.clone(), Some((parent.clone(), name.to_vec())), meta);
        table.insert(key, Arc::downgrade(&new));
        new
    }

    pub(crate) fn forget(&self, key: InodeKey) {
        let mut table = self.inodes.lock();
        if table.get(&key).is_some_and(|w| w.strong_count() == 0) {
            table.remove(&key);
        }
    }

    /// Notes that `dir` holds a descriptor, and makes the one that has done so for longest give its own back.
    pub(crate) fn note_open_dir(&self, dir: &Arc<HostInode<T>>) {
        let oldest = {
            let mut q = self.open_dirs.lock();
            q.push_back(Arc::downgrade(dir));
            if q.len() > MAX_OPEN_DIRS { q.pop_front() } else { None }
        };
        if let Some(dir) = oldest.and_then(|w| w.upgrade()) {
            dir.close_dir();
        }
    }

    /// The guest's view of host metadata.
    pub(crate) fn translate(&self, mut meta: Metadata) -> Metadata {
        if meta.dev != self.host_dev {
            // Another file system mounted below the root on the host: keep its numbers apart from the root's.
            let salt = meta.dev.to_raw().wrapping_mul(0x9e37_79b9_7f4a_7c15) & 0x7fff_ff00_0000_0000;
            meta.ino ^= salt;
        }
        meta.dev = self.dev;
        meta
    }
}

/// A mounted tree of the host.
pub struct HostFs<T: HostTree> {
    core: Arc<Core<T>>,
    root: Arc<HostInode<T>>,
}

impl<T: HostTree> HostFs<T> {
    /// Mounts the tree, whose files will have this device number.
    ///
    /// # Errors
    /// Those of the host for its root.
    pub fn new(dev: DeviceId, tree: T, trust: Trust) -> Result<Arc<HostFs<T>>> {
        let dir = tree.open_root()?;
        let meta = tree.stat_dir(&dir)?;
        let core = Arc::new(Core {
            tree,
            trust,
            dev,
            host_dev: meta.dev,
            inodes: Mutex::new(LockClass::Table, HashMap::new()),
            open_dirs: Mutex::new(LockClass::Table, VecDeque::new()),
        });
        let meta = core.translate(meta);
        let root = HostInode::new(core.clone(), None, &meta);
        root.set_dir(dir);
        Ok(Arc::new(HostFs { core, root }))
    }
}

impl<T: HostTree> FileSystem for HostFs<T> {
    fn name(&self) -> &'static str {
        "host"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn dev(&self) -> DeviceId {
        self.core.dev
    }

    fn statfs(&self) -> Result<Statfs> {
        self.core.tree.statfs(&*self.root.dir()?)
    }
}
