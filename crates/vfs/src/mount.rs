//! [`Mount`]: a file system attached somewhere; [`MountNamespace`]: the tree of them that a task sees.
//!
//! # Invariants
//! - A mount holds its parent, and its parent holds it, until it is unmounted: then neither.
//! - Changes of the tree run under the namespace's `change` lock; readers take only one mount's links at a time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use bitflags::bitflags;
use moat_abi::{Errno, PollEvents, Result};
use moat_sync::{LockClass, Mutex, RwLock, WaitQueue};

use crate::cred::UserNamespace;
use crate::dentry::Dentry;
use crate::filesystem::FileSystem;
use crate::path::Path;
use crate::vfs::Tables;

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
        /// Locked: an unprivileged namespace may not change or remove it (not in mount(2)).
        const LOCKED = 1 << 31;
    }
}

#[derive(Default)]
struct Links {
    parent: Option<(Arc<Mount>, Arc<Dentry>)>,
    /// By the address of the dentry that is covered, which the child holds.
    children: HashMap<usize, Arc<Mount>>,
    namespace: Weak<MountNamespace>,
}

/// A file system with its tree of names, shared by all mounts of it.
struct SuperBlock {
    tables: Arc<Tables>,
    fs: Arc<dyn FileSystem>,
    root: Arc<Dentry>,
}

impl Drop for SuperBlock {
    fn drop(&mut self) {
        // Cached names and their directories hold each other.
        self.root.prune();
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
    /// Makes a mount of the whole of `fs` that is attached nowhere yet.
    #[must_use]
    pub fn new(tables: &Arc<Tables>, fs: Arc<dyn FileSystem>, flags: MountFlags, source: &[u8]) -> Arc<Mount> {
        let root = Dentry::root(&tables.dentries, fs.root());
        Mount::of(Arc::new(SuperBlock { tables: tables.clone(), fs, root: root.clone() }), root, flags, source)
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
        links.parent.as_ref().map(|(m, d)| Path { mount: m.clone(), dentry: d.clone() })
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
            l.parent = Some((at.mount.clone(), at.dentry.clone()));
            l.namespace = namespace.clone();
        }
        at.dentry.add_mount();
        at.mount.links.write().children.insert(address(&at.dentry), self.clone());
    }

    fn detach(self: &Arc<Self>) {
        let parent = {
            let mut l = self.links.write();
            l.namespace = Weak::new();
            l.parent.take()
        };
        if let Some((m, d)) = parent {
            let me = m.links.write().children.remove(&address(&d));
            d.remove_mount();
            drop(me);
        }
    }

    fn set_namespace(&self, namespace: &Weak<MountNamespace>) {
        self.links.write().namespace = namespace.clone();
    }
}

/// Whether umount(2) may take a mount that is in use out of sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// EBUSY while in use.
    IfUnused,
    /// MNT_DETACH: at once, with everything below it.
    Detach,
}

/// How much a bind mount or namespace copy takes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subtree {
    /// The one mount.
    Top,
    /// Also all mounts below it (MS_REC).
    All,
}

/// A tree of mounts.
pub struct MountNamespace {
    id: u64,
    user_ns: Arc<UserNamespace>,
    root: RwLock<Arc<Mount>>,
    change: Mutex<()>,
    changed: WaitQueue,
    /// Weak reference to itself, given to its mounts.
    me: Weak<MountNamespace>,
}

/// Mounts of one namespace (`/proc/sys/fs/mount-max` is 100000 on Linux; each costs memory here too).
const MAX_MOUNTS: usize = 10_000;

impl MountNamespace {
    /// A namespace with `root` mounted at its root.
    #[must_use]
    pub fn new(root: Arc<Mount>, user_ns: Arc<UserNamespace>) -> Arc<MountNamespace> {
        let ns = Arc::new_cyclic(|me| MountNamespace {
            id: root.tables().ids.namespaces.next(),
            user_ns,
            root: RwLock::new(LockClass::Mounts, root.clone()),
            // Outside the links of single mounts, which are also of class Mounts (it may nest).
            change: Mutex::new(LockClass::Mounts, ()),
            changed: WaitQueue::new(),
            me: me.clone(),
        });
        for m in root.tree() {
            m.set_namespace(&ns.me);
        }
        ns
    }

    /// Names the namespace in /proc/PID/ns/mnt.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The user namespace whose capabilities rule here.
    #[must_use]
    pub fn user_ns(&self) -> &Arc<UserNamespace> {
        &self.user_ns
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> Path {
        let top = self.root.read().clone();
        Path::root_of(top).topmost()
    }

    /// All mounts, parents first.
    #[must_use]
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        let root = self.root.read().clone();
        root.tree()
    }

    /// Woken with PRI and ERR when a mount comes or goes, as poll of /proc/mounts reports.
    #[must_use]
    pub fn changed(&self) -> &WaitQueue {
        &self.changed
    }

    fn notify(&self) {
        self.changed.wake(PollEvents::PRI | PollEvents::ERR);
    }

    /// Attaches `mount`, and what is below it, on top of `at`.
    ///
    /// # Errors
    /// EINVAL if `at` is not in this namespace; ENOENT if its name is gone; ENOTDIR if one is a directory and the other is
    /// not; ENOSPC with too many mounts.
    pub fn attach(&self, mount: &Arc<Mount>, at: &Path) -> Result<()> {
        let change = self.change.lock();
        let at = at.clone().topmost();
        if !self.contains(&at.mount) {
            return Err(Errno::EINVAL);
        }
        if at.dentry.is_deleted() {
            return Err(Errno::ENOENT);
        }
        if is_dir(&at.dentry) != is_dir(mount.root()) {
            return Err(Errno::ENOTDIR);
        }
        if self.mounts().len() >= MAX_MOUNTS {
            return Err(Errno::ENOSPC);
        }
        mount.attach(&at, &self.me);
        for m in mount.tree() {
            m.set_namespace(&self.me);
        }
        drop(change);
        self.notify();
        Ok(())
    }

    /// Whether the mount belongs to this namespace.
    #[must_use]
    pub fn contains(&self, mount: &Mount) -> bool {
        std::ptr::eq(mount.links.read().namespace.as_ptr(), self.me.as_ptr())
    }

    /// Removes the mount whose root is `at`.
    ///
    /// # Errors
    /// EINVAL if `at` is no mount's root, is not in this namespace or is its root; EBUSY while in use.
    pub fn unmount(&self, at: &Path, how: Unmount) -> Result<()> {
        let change = self.change.lock();
        let mount = &at.mount;
        if !at.is_mount_root() || !self.contains(mount) || mount.flags().contains(MountFlags::LOCKED) {
            return Err(Errno::EINVAL);
        }
        if mount.mountpoint().is_none() {
            return Err(if how == Unmount::Detach { Errno::EINVAL } else { Errno::EBUSY });
        }
        // Held by its parent and by `at`: more means that someone works in it.
        if how == Unmount::IfUnused && (!mount.children().is_empty() || Arc::strong_count(mount) > 2) {
            return Err(Errno::EBUSY);
        }
        for m in mount.tree().into_iter().rev() {
            m.detach();
        }
        drop(change);
        self.notify();
        Ok(())
    }

    /// Moves the mount whose root is `from` to `to`.
    ///
    /// # Errors
    /// EINVAL if `from` is no mount's root, or is the namespace's; ELOOP if `to` is below it; ENOTDIR.
    pub fn move_mount(&self, from: &Path, to: &Path) -> Result<()> {
        let change = self.change.lock();
        let to = to.clone().topmost();
        if !from.is_mount_root()
            || !self.contains(&from.mount)
            || !self.contains(&to.mount)
            || from.mount.mountpoint().is_none()
        {
            return Err(Errno::EINVAL);
        }
        if is_dir(&to.dentry) != is_dir(&from.dentry) {
            return Err(Errno::ENOTDIR);
        }
        if to.is_below(from) {
            return Err(Errno::ELOOP);
        }
        let mount = from.mount.clone();
        mount.detach();
        mount.attach(&to, &self.me);
        drop(change);
        self.notify();
        Ok(())
    }

    /// A copy of what `path` shows, for a bind mount.
    #[must_use]
    pub fn copy_tree(path: &Path, subtree: Subtree) -> Arc<Mount> {
        let top = Mount::bind(path);
        if subtree == Subtree::All {
            let mut pending = vec![(path.mount.clone(), top.clone())];
            let mut first = true;
            while let Some((old, new)) = pending.pop() {
                for child in old.children() {
                    let Some(at) = child.mountpoint() else { continue };
                    if first && !at.dentry.is_below(&path.dentry) {
                        continue;
                    }
                    let copy = Mount::bind(&Path::root_of(child.clone()));
                    copy.attach(&Path { mount: new.clone(), dentry: at.dentry }, &Weak::new());
                    pending.push((child, copy));
                }
                first = false;
            }
        }
        top
    }

    /// A copy of the whole namespace (CLONE_NEWNS) and, for each of `paths`, the same place in the copy.
    #[must_use]
    pub fn copy(&self, user_ns: Arc<UserNamespace>, paths: &mut [&mut Path]) -> Arc<MountNamespace> {
        let change = self.change.lock();
        let old_root = self.root.read().clone();
        let new_root = Self::copy_tree(&Path::root_of(old_root.clone()), Subtree::All);
        drop(change);
        // Both trees were walked in the same order.
        let pairs: HashMap<u64, Arc<Mount>> = pair(&old_root, &new_root);
        for p in paths.iter_mut() {
            if let Some(m) = pairs.get(&p.mount.id) {
                p.mount = m.clone();
            }
        }
        MountNamespace::new(new_root, user_ns)
    }

    /// pivot_root(2): `new_root` becomes the root, and the old one goes to `put_old`.
    ///
    /// # Errors
    /// EINVAL for what pivot_root(2) forbids; EBUSY if the roots are the same mount.
    pub fn pivot_root(&self, new_root: &Path, put_old: &Path, old_root: &Path) -> Result<()> {
        let change = self.change.lock();
        if Arc::ptr_eq(&new_root.mount, &old_root.mount) || Arc::ptr_eq(&put_old.mount, &old_root.mount) {
            return Err(Errno::EBUSY);
        }
        if !new_root.is_mount_root() || !old_root.is_mount_root() || !put_old.is_below(new_root) {
            return Err(Errno::EINVAL);
        }
        if !self.contains(&new_root.mount) || new_root.mount.mountpoint().is_none() {
            return Err(Errno::EINVAL);
        }
        let above = old_root.mount.mountpoint();
        new_root.mount.detach();
        if above.is_some() {
            old_root.mount.detach();
        }
        new_root.mount.set_namespace(&self.me);
        // put_old may be new_root itself: the old root then lies on top of it.
        old_root.mount.attach(put_old, &self.me);
        match above {
            Some(at) => new_root.mount.attach(&at, &self.me),
            None => *self.root.write() = new_root.mount.clone(),
        }
        drop(change);
        self.notify();
        Ok(())
    }
}

impl Drop for MountNamespace {
    fn drop(&mut self) {
        // Parents and children hold each other: take the tree apart.
        let root = self.root.get_mut().clone();
        for m in root.tree().into_iter().rev() {
            m.detach();
        }
    }
}

fn pair(old: &Arc<Mount>, new: &Arc<Mount>) -> HashMap<u64, Arc<Mount>> {
    let mut map = HashMap::new();
    let mut pending = vec![(old.clone(), new.clone())];
    while let Some((old, new)) = pending.pop() {
        for child in old.children() {
            if let Some(at) = child.mountpoint()
                && let Some(copy) = new.child_at(&at.dentry)
            {
                pending.push((child, copy));
            }
        }
        map.insert(old.id, new);
    }
    map
}

fn is_dir(d: &Dentry) -> bool {
    d.inode().file_type() == moat_abi::fs::FileType::Directory
}
