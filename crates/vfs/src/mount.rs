//! [`Mount`]: a file system attached somewhere; [`MountNamespace`]: the tree of them that a task sees.
//!
//! # Invariants
//! - A mount holds its parent, and its parent holds it, until it is unmounted: then neither.
//! - Changes of the tree run under the namespace's `change` lock; readers take only one mount's links at a time.

mod namespace;
mod teardown;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use bitflags::bitflags;
use moat_abi::{Errno, Result};
use moat_sync::{LockClass, RwLock};

use crate::cred::UserNamespace;
use crate::dentry::Dentry;
use crate::inode::FileSystem;
use crate::path::Path;
use crate::tables::Tables;

pub use namespace::{MountNamespace, Subtree, Unmount};

bitflags! {
    /// A mount's own flags; the values are those of mount(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct MountFlags: u32 {
        /// Nothing can be changed through it.
        const RDONLY = 1;
        /// Set-id bits have no effect.
        const NOSUID = 2;
        /// Device nodes can't be opened.
        const NODEV = 4;
        /// Nothing can be executed.
        const NOEXEC = 8;
        /// Symbolic links are not followed.
        const NOSYMFOLLOW = 256;
        /// Access times are not updated.
        const NOATIME = 1024;
        /// Access times of directories are not updated.
        const NODIRATIME = 2048;
        /// Access times are updated if older than the last change or a day (the default).
        const RELATIME = 1 << 21;
        /// Access times are always updated.
        const STRICTATIME = 1 << 24;
        /// Part of a tree that was taken over from a more privileged namespace: it is not removed or moved alone, so that what
        /// it covers stays covered. This and the locks below are not in mount(2).
        const LOCKED = 1 << 31;
        /// RDONLY stays.
        const LOCK_RDONLY = 1 << 30;
        /// NODEV stays.
        const LOCK_NODEV = 1 << 29;
        /// NOSUID stays.
        const LOCK_NOSUID = 1 << 28;
        /// NOEXEC stays.
        const LOCK_NOEXEC = 1 << 27;
        /// How access times are updated stays.
        const LOCK_ATIME = 1 << 26;
    }
}

impl MountFlags {
    /// Those that mount(2) knows nothing of.
    pub const LOCKS: MountFlags = Self::LOCKED
        .union(Self::LOCK_RDONLY)
        .union(Self::LOCK_NODEV)
        .union(Self::LOCK_NOSUID)
        .union(Self::LOCK_NOEXEC)
        .union(Self::LOCK_ATIME);
    /// What is said of access times.
    pub const ATIME: MountFlags = Self::NOATIME.union(Self::NODIRATIME).union(Self::RELATIME).union(Self::STRICTATIME);

    /// These, with a lock on each that restricts (`lock_mnt_tree`).
    #[must_use]
    pub fn locked(self) -> MountFlags {
        let mut all = self | MountFlags::LOCK_ATIME;
        all.set(MountFlags::LOCK_RDONLY, self.intersects(MountFlags::RDONLY | MountFlags::LOCK_RDONLY));
        all.set(MountFlags::LOCK_NODEV, self.intersects(MountFlags::NODEV | MountFlags::LOCK_NODEV));
        all.set(MountFlags::LOCK_NOSUID, self.intersects(MountFlags::NOSUID | MountFlags::LOCK_NOSUID));
        all.set(MountFlags::LOCK_NOEXEC, self.intersects(MountFlags::NOEXEC | MountFlags::LOCK_NOEXEC));
        all
    }

    /// Whether `new` may take their place: nothing that is locked is given up (`can_change_locked_flags`).
    #[must_use]
    pub fn may_become(self, new: MountFlags) -> bool {
        let kept = |lock, flag| !self.contains(lock) || new.contains(flag);
        kept(MountFlags::LOCK_RDONLY, MountFlags::RDONLY)
            && kept(MountFlags::LOCK_NODEV, MountFlags::NODEV)
            && kept(MountFlags::LOCK_NOSUID, MountFlags::NOSUID)
            && kept(MountFlags::LOCK_NOEXEC, MountFlags::NOEXEC)
            && (!self.contains(MountFlags::LOCK_ATIME) || self & MountFlags::ATIME == new & MountFlags::ATIME)
    }
}

/// Where a mount is attached, and how it holds its parent.
enum Parent {
    /// In a namespace: the tree is taken apart when it leaves it.
    Held(Arc<Mount>, Arc<Dentry>),
    /// Out of every namespace with a parent that it covers for good: it goes with that one.
    Covered(Weak<Mount>, Arc<Dentry>),
}

impl Parent {
    fn get(&self) -> Option<(Arc<Mount>, Arc<Dentry>)> {
        match self {
            Parent::Held(mount, dentry) => Some((mount.clone(), dentry.clone())),
            Parent::Covered(mount, dentry) => Some((mount.upgrade()?, dentry.clone())),
        }
    }
}

#[derive(Default)]
struct Links {
    parent: Option<Parent>,
    /// By the address of the dentry that is covered, which the child holds.
    children: HashMap<usize, Arc<Mount>>,
    namespace: Weak<MountNamespace>,
}

/// A file system with its tree of names, shared by all mounts of it.
struct SuperBlock {
    tables: Arc<Tables>,
    fs: Arc<dyn FileSystem>,
    root: Arc<Dentry>,
    /// Who mounted it: set-id bits and devices of its files count there and below (`s_user_ns`).
    user_ns: Arc<UserNamespace>,
}

impl Drop for SuperBlock {
    fn drop(&mut self) {
        // Whoever watches files of it is told of the end while the names are there.
        self.tables.watches.unmounted(&self.fs);
        // Cached names and their directories hold each other, so nothing else would free them.
        self.root.prune();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let links = self.links.get_mut();
        // It went with the mount that it covered.
        if let Some(Parent::Held(_, dentry) | Parent::Covered(_, dentry)) = links.parent.take() {
            dentry.remove_mount();
        }
        teardown::let_go(links.children.drain().map(|(_, mount)| teardown::Gone::Covering(mount)).collect());
    }
}

/// A file system attached at a place.
pub struct Mount {
    id: u64,
    superblock: Arc<SuperBlock>,
    root: Arc<Dentry>,
    source: Vec<u8>,
    flags: AtomicU32,
    links: RwLock<Links>,
}

fn address(d: &Arc<Dentry>) -> usize {
    Arc::as_ptr(d).addr()
}

impl Mount {
    /// Makes a mount of the whole of `fs` that is attached nowhere yet, as the sentry makes it.
    #[must_use]
    pub fn new(tables: &Arc<Tables>, fs: Arc<dyn FileSystem>, flags: MountFlags, source: &[u8]) -> Arc<Mount> {
        Mount::new_in(tables, fs, flags, source, tables.root_user_ns.clone())
    }

    /// As [`Mount::new`], for a task of `user_ns`.
    #[must_use]
    pub fn new_in(
        tables: &Arc<Tables>,
        fs: Arc<dyn FileSystem>,
        flags: MountFlags,
        source: &[u8],
        user_ns: Arc<UserNamespace>,
    ) -> Arc<Mount> {
        let root = Dentry::root(&tables.dentries, fs.root());
        let superblock = SuperBlock { tables: tables.clone(), fs, root: root.clone(), user_ns };
        Mount::of(Arc::new(superblock), root, flags, source)
    }

    fn of(superblock: Arc<SuperBlock>, root: Arc<Dentry>, flags: MountFlags, source: &[u8]) -> Arc<Mount> {
        Arc::new(Mount {
            id: superblock.tables.ids.mounts.next(),
            superblock,
            root,
            source: source.to_vec(),
            flags: AtomicU32::new(flags.bits()),
            links: RwLock::new(LockClass::Mounts, Links::default()),
        })
    }

    /// Another mount of what `path` shows (the first half of a bind mount).
    #[must_use]
    pub fn bind(path: &Path) -> Arc<Mount> {
        Mount::of(path.mount.superblock.clone(), path.dentry.clone(), path.mount.flags(), &path.mount.source)
    }

    /// The id that /proc/PID/mountinfo and statx show.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The tables of the kernel that it belongs to.
    #[must_use]
    pub fn tables(&self) -> &Arc<Tables> {
        &self.superblock.tables
    }

    /// The user namespace that it was mounted in.
    #[must_use]
    pub fn user_ns(&self) -> &Arc<UserNamespace> {
        &self.superblock.user_ns
    }

    /// The file system.
    #[must_use]
    pub fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.superblock.fs
    }

    /// What the mount shows at its top.
    #[must_use]
    pub fn root(&self) -> &Arc<Dentry> {
        &self.root
    }

    /// The source given to mount(2).
    #[must_use]
    pub fn source(&self) -> &[u8] {
        &self.source
    }

    /// The flags.
    #[must_use]
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed))
    }

    /// Replaces the flags.
    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }

    /// EROFS if nothing may be changed through this mount.
    ///
    /// # Errors
    /// EROFS.
    pub fn check_writable(&self) -> Result<()> {
        if self.flags().contains(MountFlags::RDONLY) { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// Where it is mounted; `None` at the root of a namespace and once unmounted.
    #[must_use]
    pub fn mountpoint(&self) -> Option<Path> {
        let links = self.links.read();
        let (mount, dentry) = links.parent.as_ref()?.get()?;
        Some(Path { mount, dentry })
    }

    /// The mount on top of `dentry` of this mount.
    #[must_use]
    pub fn child_at(&self, dentry: &Arc<Dentry>) -> Option<Arc<Mount>> {
        self.links.read().children.get(&address(dentry)).cloned()
    }

    /// The mounts right below this one, oldest first.
    #[must_use]
    pub fn children(&self) -> Vec<Arc<Mount>> {
        let mut all: Vec<_> = self.links.read().children.values().cloned().collect();
        all.sort_by_key(|m| m.id);
        all
    }

    /// The namespace it is in.
    #[must_use]
    pub fn namespace(&self) -> Option<Arc<MountNamespace>> {
        self.links.read().namespace.upgrade()
    }

    /// This mount and all below it, parents first.
    #[must_use]
    pub fn tree(self: &Arc<Self>) -> Vec<Arc<Mount>> {
        let mut all = vec![self.clone()];
        let mut at = 0;
        while at < all.len() {
            let below = all[at].children();
            all.extend(below);
            at += 1;
        }
        all
    }

    fn attach(self: &Arc<Self>, at: &Path, namespace: &Weak<MountNamespace>) {
        {
            let mut l = self.links.write();
            l.parent = Some(Parent::Held(at.mount.clone(), at.dentry.clone()));
            l.namespace = namespace.clone();
        }
        // Counted before it is found by walks: a mountpoint that is not counted would not be looked at.
        at.dentry.add_mount();
        at.mount.links.write().children.insert(address(&at.dentry), self.clone());
    }

    fn detach(self: &Arc<Self>) {
        let parent = {
            let mut l = self.links.write();
            l.namespace = Weak::new();
            l.parent.take()
        };
        if let Some((m, d)) = parent.and_then(|p| p.get()) {
            // Dropped after the parent's links are free: it may be the last reference.
            let me = m.links.write().children.remove(&address(&d));
            d.remove_mount();
            drop(me);
        }
    }

    /// Takes it out of its namespace, but leaves it on its parent, which holds it from here on and not the other way round.
    fn leave_namespace(&self) {
        let mut l = self.links.write();
        l.namespace = Weak::new();
        let old = l.parent.take();
        l.parent = match &old {
            Some(Parent::Held(m, d)) => Some(Parent::Covered(Arc::downgrade(m), d.clone())),
            Some(Parent::Covered(m, d)) => Some(Parent::Covered(m.clone(), d.clone())),
            None => None,
        };
        drop(l);
        // The parent's own links must not be needed under the lock.
        drop(old);
    }

    fn set_namespace(&self, namespace: &Weak<MountNamespace>) {
        self.links.write().namespace = namespace.clone();
    }
}
