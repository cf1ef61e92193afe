//! [`HostFs`]: a tree of the host as a file system.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use moat_abi::Result;
use moat_abi::fs::FileType;
use moat_abi::stat::{DeviceId, OVERLAYFS_SUPER_MAGIC, Statfs};
use moat_image::Refusal;
use moat_image::state::FileSystemState;
use moat_sync::{LockClass, Mutex};
use moat_vfs::filesystem::FileSystem;
use moat_vfs::inode::{Inode, InodeKey, Metadata};
use moat_vfs::persist::SaveFiles;
use moat_vfs::tables::Tables;

use crate::devices::Devices;
use crate::direct::SpecialNodes;
use crate::inode::{HostInode, Identity};
use crate::kept::Kept;
use crate::tree::HostTree;
use crate::watched::Watched;

/// Who changes the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Only this sandbox: what is known of a file stays true.
    Exclusive,
    /// Others too: everything is asked again.
    Shared,
}

/// Nodes held per file system beyond those that can't be found again: descriptors are limited.
const MAX_NODES: usize = 1024;
/// Entries of directories that are kept in memory per file system, some 100 bytes each.
const MAX_LISTED: usize = 64 << 10;
/// Descriptors kept open for the next reader per file system.
const MAX_READERS: usize = 256;
/// Files that can be between their making and their opening at one time, per file system.
const MAX_FRESH: usize = 64;
/// Nodes looked at for one that can be given back, when there are too many.
const SCAN: usize = 4;

/// What all inodes of a file system share.
pub(crate) struct TreeCore<T: HostTree> {
    pub(crate) tree: Watched<T>,
    pub(crate) trust: Trust,
    pub(crate) special: SpecialNodes,
    /// The device number shown to the guest of the root, and those of whatever the host has mounted below it.
    pub(crate) dev: DeviceId,
    devices: Devices,
    /// A directory of each file system of the host in the tree but the root's.
    mounted: Mutex<HashMap<DeviceId, Weak<HostInode<T>>>>,
    /// The device of the tree's root on the host: inode numbers of others are told apart.
    pub(crate) host_dev: DeviceId,
    /// Whether the host says of the root's file system when a file was made, and never anything else.
    birth_times_stay: bool,
    inodes: Mutex<HashMap<InodeKey, Weak<HostInode<T>>>>,
    /// Those that hold a node, longest first.
    holders: Mutex<VecDeque<Weak<HostInode<T>>>>,
    /// Those that keep a listing, and those that keep a descriptor, where only this sandbox changes the tree.
    pub(crate) listed: Kept<HostInode<T>>,
    pub(crate) readers: Kept<HostInode<T>>,
    /// Files that were made and are about to be opened.
    pub(crate) fresh: Kept<HostInode<T>>,
}

impl<T: HostTree> TreeCore<T> {
    /// The inode that `meta` describes if it is in memory.
    pub(crate) fn known(&self, meta: &Metadata) -> Option<Arc<HostInode<T>>> {
        let known = self.inodes.lock().get(&meta.key()).and_then(Weak::upgrade);
        known.filter(|inode| inode.identity().is(meta))
    }

    /// The inode that `meta` describes. One of the same number that is another file by now gives way.
    pub(crate) fn inode(self: &Arc<Self>, meta: &Metadata) -> Arc<HostInode<T>> {
        let new;
        let other = {
            let mut table = self.inodes.lock();
            let known = table.get(&meta.key()).and_then(Weak::upgrade);
            match known {
                Some(known) if known.identity().is(meta) => {
                    drop(table);
                    known.learn_again(meta);
                    return known;
                }
                other => {
                    new = HostInode::new(self.clone(), meta);
                    table.insert(meta.key(), Arc::downgrade(&new));
                    other
                }
            }
        };
        // Dropped unlocked: it takes itself out of the table.
        drop(other);
        if meta.dev != self.dev && meta.file_type() == FileType::Directory {
            self.note_mounted(&new);
        }
        new
    }

    /// Remembers a directory of another file system than the root's, by which that can be synced.
    fn note_mounted(&self, dir: &Arc<HostInode<T>>) {
        let mut mounted = self.mounted.lock();
        let known = mounted.entry(dir.identity().key.dev).or_default();
        if known.strong_count() == 0 {
            *known = Arc::downgrade(dir);
        }
    }

    pub(crate) fn forget(&self, key: InodeKey) {
        let mut table = self.inodes.lock();
        if table.get(&key).is_some_and(|w| w.strong_count() == 0) {
            table.remove(&key);
        }
    }

    /// Notes that `inode` holds a node, and has one that has done so for long and was not used lately give its own back.
    pub(crate) fn note_holder(&self, inode: &Arc<HostInode<T>>) {
        let mut old = Vec::new();
        {
            let mut holders = self.holders.lock();
            holders.push_back(Arc::downgrade(inode));
            if holders.len() > MAX_NODES {
                old.extend(holders.drain(..SCAN));
            }
        }
        // Unlocked: what is given back is closed.
        let kept: Vec<_> = old.into_iter().filter(|w| w.upgrade().is_some_and(|i| !i.give_node_back())).collect();
        if !kept.is_empty() {
            self.holders.lock().extend(kept);
        }
    }

    /// Whether birth times tell files apart on a file system with this device number of the host.
    fn birth_times_stay_on(&self, dev: DeviceId) -> bool {
        // What is mounted below the root may be an overlay unless it has a block device.
        if dev == self.host_dev { self.birth_times_stay } else { dev.major != 0 }
    }

    /// The guest's view of host metadata.
    pub(crate) fn translate(&self, mut meta: Metadata) -> Metadata {
        if meta.dev != self.host_dev {
            // Another file system mounted below the root on the host: an overlay above shows both as one device.
            let salt = meta.dev.to_raw().wrapping_mul(0x9e37_79b9_7f4a_7c15) & 0x7fff_ff00_0000_0000;
            meta.ino ^= salt;
        }
        if !self.birth_times_stay_on(meta.dev) {
            meta.btime = None;
        }
        meta.dev = self.devices.shown(meta.dev);
        meta
    }
}

/// A mounted tree of the host.
pub struct HostFs<T: HostTree> {
    core: Arc<TreeCore<T>>,
    root: Arc<HostInode<T>>,
}

impl<T: HostTree> HostFs<T> {
    /// Mounts the tree, whose files will have this device number. What goes through its FIFOs stays in the sandbox.
    ///
    /// # Errors
    /// Those of the host for its root.
    pub fn new(dev: DeviceId, tree: T, trust: Trust) -> Result<Arc<HostFs<T>>> {
        HostFs::mount(dev, &Weak::new(), tree, trust, SpecialNodes::default())
    }

    /// As [`HostFs::new`], told whose the sockets and FIFOs are (`tree` has to make and open them), and where device numbers come from
    /// for what the host has mounted below the root.
    ///
    /// # Errors
    /// As there.
    pub fn mount(
        dev: DeviceId,
        tables: &Weak<Tables>,
        tree: T,
        trust: Trust,
        special: SpecialNodes,
    ) -> Result<Arc<HostFs<T>>> {
        let tree = Watched::new(tree);
        let node = tree.root()?;
        let meta = tree.stat(&node)?;
        // A file that overlayfs copies up shows the copy's birth time from then on.
        let birth_times_stay = tree.statfs(&node)?.f_type != OVERLAYFS_SUPER_MAGIC;
        let core = Arc::new(TreeCore {
            tree,
            trust,
            special,
            dev,
            devices: Devices::new(meta.dev, dev, tables.clone()),
            mounted: Mutex::new(LockClass::Table, HashMap::new()),
            host_dev: meta.dev,
            birth_times_stay,
            inodes: Mutex::new(LockClass::Table, HashMap::new()),
            holders: Mutex::new(LockClass::Table, VecDeque::new()),
            listed: Kept::new(MAX_LISTED),
            readers: Kept::new(MAX_READERS),
            fresh: Kept::new(MAX_FRESH),
        });
        let meta = core.translate(meta);
        let root = HostInode::new(core.clone(), &meta);
        root.set_root(node);
        Ok(Arc::new(HostFs { core, root }))
    }
}

impl<T: HostTree> FileSystem for HostFs<T> {
    fn save(&self, _saver: &mut dyn SaveFiles) -> std::result::Result<FileSystemState, Refusal> {
        // Contents are on the host, which keeps them; the tree is mounted by the configuration again.
        Ok(FileSystemState::Made)
    }

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
        self.core.tree.statfs(&*self.root.node()?)
    }

    fn sync(&self) -> Result<()> {
        let mounted: Vec<_> = self.core.mounted.lock().values().filter_map(Weak::upgrade).collect();
        let mut result = self.root.sync_own_fs();
        for dir in mounted {
            result = result.and(dir.sync_own_fs());
        }
        result
    }
}

impl Identity {
    /// What is told apart from a later file of the same inode number.
    pub(crate) fn of(meta: &Metadata) -> Identity {
        Identity { key: meta.key(), file_type: meta.file_type(), born: meta.btime.map(|t| (t.tv_sec, t.tv_nsec)) }
    }

    /// Whether `meta` describes this file.
    pub(crate) fn is(&self, meta: &Metadata) -> bool {
        *self == Identity::of(meta)
    }
}
