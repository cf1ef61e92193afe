//! [`MountNamespace`]: the tree of mounts that a task sees, and its changes.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use moat_abi::{Errno, PollEvents, Result};
use moat_sync::{LockClass, Mutex, RwLock, WaitQueue};

use super::teardown::{Gone, dissolve, let_go};
use super::{Mount, MountFlags};
use moat_identity::quota::Charge;

use crate::cred::UserNamespace;
use crate::dentry::Dentry;
use crate::inode::FileSystem;
use crate::path::Path;

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

/// Locks a tree together that comes from a more privileged namespace (`lock_mnt_tree`).
fn lock_tree(root: &Arc<Mount>) {
    for m in root.tree() {
        let top = Arc::ptr_eq(&m, root);
        m.set_flags(m.flags().locked() | if top { MountFlags::empty() } else { MountFlags::LOCKED });
    }
}

/// Whether mounted files of mount namespaces are copied with the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NamespaceFiles {
    Copied,
    LeftOut,
}

/// A tree of mounts.
pub struct MountNamespace {
    id: u64,
    user_ns: Arc<UserNamespace>,
    root: RwLock<Arc<Mount>>,
    change: Mutex<()>,
    changed: WaitQueue,
    /// What it counts as.
    _charge: Option<Charge>,
    /// Weak reference to itself, given to its mounts.
    me: Weak<MountNamespace>,
}

/// Mounts of one namespace (`/proc/sys/fs/mount-max` is 100000 on Linux; each costs memory here too).
const MAX_MOUNTS: usize = 10_000;

impl MountNamespace {
    /// A namespace with `root` mounted at its root.
    #[must_use]
    pub fn new(root: Arc<Mount>, user_ns: Arc<UserNamespace>) -> Arc<MountNamespace> {
        MountNamespace::charged(root, user_ns, None)
    }

    fn charged(root: Arc<Mount>, user_ns: Arc<UserNamespace>, charge: Option<Charge>) -> Arc<MountNamespace> {
        let ns = Arc::new_cyclic(|me| MountNamespace {
            id: root.tables().ids.namespaces.next(),
            user_ns,
            root: RwLock::new(LockClass::Mounts, root.clone()),
            // Outside the links of single mounts, which are also of class Mounts (it may nest).
            change: Mutex::new(LockClass::Mounts, ()),
            changed: WaitQueue::new(),
            _charge: charge,
            me: me.clone(),
        });
        // Mounts know their namespace, so that a path can be tested for it.
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
        // On top of what is there: mounts on one place stack.
        let at = at.clone().topmost();
        if !self.contains(&at.mount) {
            return Err(Errno::EINVAL);
        }
        // A name that is gone can't be reached, nor unmounted.
        if at.dentry.is_deleted() {
            return Err(Errno::ENOENT);
        }
        if is_dir(&at.dentry) != is_dir(mount.root()) {
            return Err(Errno::ENOTDIR);
        }
        // Each mount costs memory of the sentry.
        if self.mounts().len() >= MAX_MOUNTS {
            return Err(Errno::ENOSPC);
        }
        mount.attach(&at, &self.me);
        // What is below came along without a namespace.
        for m in mount.tree() {
            m.set_namespace(&self.me);
        }
        drop(change);
        self.notify();
        Ok(())
    }

    /// Whether a mount on or below `path` is locked there: a copy without it would show what it covers.
    #[must_use]
    pub fn has_locked_children(path: &Path) -> bool {
        let locked = |m: &Arc<Mount>| m.flags().contains(MountFlags::LOCKED);
        let below = |m: &Arc<Mount>| m.mountpoint().is_some_and(|at| at.dentry.is_below(&path.dentry));
        path.mount.children().iter().any(|m| locked(m) && below(m))
    }

    /// Whether a new mount of the type of `fs` would show no more than one that is here already, and the locks that it gets from
    /// that one: for types that show the system (`mnt_already_visible`).
    #[must_use]
    pub fn shows_already(&self, fs: &dyn FileSystem, new: MountFlags) -> Option<MountFlags> {
        let covered = |m: &Arc<Mount>| m.children().iter().any(|c| c.flags().contains(MountFlags::LOCKED));
        let whole = |m: &Arc<Mount>| m.root().parent().is_none() && m.fs().name() == fs.name();
        let locks = |m: &Arc<Mount>| m.flags() & (MountFlags::LOCK_RDONLY | MountFlags::LOCK_ATIME);
        let mounts = self.mounts();
        let fits = |m: &&Arc<Mount>| {
            let locks = locks(m);
            whole(m)
                && (!locks.contains(MountFlags::LOCK_RDONLY) || new.contains(MountFlags::RDONLY))
                && (!locks.contains(MountFlags::LOCK_ATIME) || m.flags() & MountFlags::ATIME == new & MountFlags::ATIME)
                && !covered(m)
        };
        mounts.iter().find(fits).map(locks)
    }

    /// Whether the file `of` may be mounted here: a namespace holds only younger ones, so that they hold each other in no circle
    /// (`mnt_ns_loop`).
    #[must_use]
    pub fn may_hold(&self, of: &Path) -> bool {
        of.inode().mount_namespace().is_none_or(|id| id > self.id)
    }

    /// Attaches a copy of [`MountNamespace::copy_tree`], or lets it go.
    ///
    /// # Errors
    /// As [`MountNamespace::attach`].
    pub fn attach_copy(&self, copy: &Arc<Mount>, at: &Path) -> Result<()> {
        // Its mounts hold one another: whoever else holds it, they would stay.
        self.attach(copy, at).inspect_err(|_| dissolve(copy))
    }

    /// Whether the mount belongs to this namespace.
    #[must_use]
    pub fn contains(&self, mount: &Mount) -> bool {
        std::ptr::eq(mount.links.read().namespace.as_ptr(), self.me.as_ptr())
    }

    /// Removes the mount whose root is `at`.
    ///
    /// # Errors
    /// EINVAL if `at` is no mount's root, is not in this namespace, is its root or is locked; EBUSY while in use.
    pub fn unmount(&self, at: &Path, how: Unmount) -> Result<()> {
        let change = self.change.lock();
        let mount = &at.mount;
        if !at.is_mount_root() || !self.contains(mount) || mount.flags().contains(MountFlags::LOCKED) {
            return Err(Errno::EINVAL);
        }
        // The namespace's root is never unmounted; the two errnos are those of umount(2).
        if mount.mountpoint().is_none() {
            return Err(if how == Unmount::Detach { Errno::EINVAL } else { Errno::EBUSY });
        }
        // Held by its parent and by `at`: more means that someone works in it.
        if how == Unmount::IfUnused && (!mount.children().is_empty() || Arc::strong_count(mount) > 2) {
            return Err(Errno::EBUSY);
        }
        dissolve(mount);
        drop(change);
        self.notify();
        Ok(())
    }

    /// Moves the mount whose root is `from` to `to`.
    ///
    /// # Errors
    /// EINVAL if `from` is no mount's root, is the namespace's or is locked, or a directory where the other is none;
    /// ELOOP if `to` is below it.
    pub fn move_mount(&self, from: &Path, to: &Path) -> Result<()> {
        let change = self.change.lock();
        let to = to.clone().topmost();
        if !from.is_mount_root()
            || !self.contains(&from.mount)
            || !self.contains(&to.mount)
            || from.mount.mountpoint().is_none()
            || from.mount.flags().contains(MountFlags::LOCKED)
        {
            return Err(Errno::EINVAL);
        }
        if is_dir(&to.dentry) != is_dir(&from.dentry) {
            return Err(Errno::EINVAL);
        }
        // It would hold itself, out of everybody's reach.
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
        Self::copy_mounts(path, subtree, NamespaceFiles::Copied)
    }

    fn copy_mounts(path: &Path, subtree: Subtree, files: NamespaceFiles) -> Arc<Mount> {
        let top = Mount::bind(path);
        // What is bound may be removed again; what lies on it in the copy may not.
        top.set_flags(top.flags().difference(MountFlags::LOCKED));
        if subtree == Subtree::All {
            let mut pending = vec![(path.mount.clone(), top.clone())];
            let mut first = true;
            while let Some((old, new)) = pending.pop() {
                for child in old.children() {
                    let Some(at) = child.mountpoint() else { continue };
                    if files == NamespaceFiles::LeftOut && child.root().inode().mount_namespace().is_some() {
                        continue;
                    }
                    // Only what is mounted below the place that is shown; deeper levels come along as a whole.
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

    /// A copy of the whole namespace (CLONE_NEWNS) and, for each of `paths`, the same place in the copy. One for another user
    /// namespace is less privileged: there its mounts stay as they are together.
    #[must_use]
    pub fn copy(
        &self,
        user_ns: Arc<UserNamespace>,
        charge: Option<Charge>,
        paths: &mut [&mut Path],
    ) -> Arc<MountNamespace> {
        // Nobody may change the tree while it is copied.
        let change = self.change.lock();
        let old_root = self.root.read().clone();
        let top = Path::root_of(old_root.clone());
        // The copy is younger than all whose files are mounted: see `may_hold`.
        let new_root = Self::copy_mounts(&top, Subtree::All, NamespaceFiles::LeftOut);
        drop(change);
        // Both trees were walked in the same order.
        let pairs: HashMap<u64, Arc<Mount>> = pair(&old_root, &new_root);
        for p in paths.iter_mut() {
            if let Some(m) = pairs.get(&p.mount.id) {
                p.mount = m.clone();
            }
        }
        if !Arc::ptr_eq(&user_ns, &self.user_ns) {
            lock_tree(&new_root);
        }
        MountNamespace::charged(new_root, user_ns, charge)
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
        // The old root has to be reachable from the new one, or it could never be unmounted.
        if !new_root.is_mount_root() || !old_root.is_mount_root() || !put_old.is_below(new_root) {
            return Err(Errno::EINVAL);
        }
        if !self.contains(&new_root.mount) || !self.contains(&old_root.mount) || new_root.mount.mountpoint().is_none() {
            return Err(Errno::EINVAL);
        }
        if new_root.mount.flags().contains(MountFlags::LOCKED) {
            return Err(Errno::EINVAL);
        }
        // The lock is one on the place, where the new root is from here on.
        if old_root.mount.flags().contains(MountFlags::LOCKED) {
            old_root.mount.set_flags(old_root.mount.flags().difference(MountFlags::LOCKED));
            new_root.mount.set_flags(new_root.mount.flags() | MountFlags::LOCKED);
        }
        // A root that is itself mounted somewhere (after chroot(2)) is replaced there.
        let above = old_root.mount.mountpoint();
        new_root.mount.detach();
        if above.is_some() {
            old_root.mount.detach();
        }
        new_root.mount.set_namespace(&self.me);
        // put_old may be new_root itself: the old root then lies on top of it.
        old_root.mount.attach(put_old, &self.me);
        // Last: until here the old root is what everybody sees.
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
        let_go(vec![Gone::Tree(self.root.get_mut().clone())]);
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
