//! [`Dentry`]: a name in a directory, and the cache of them.
//!
//! A dentry stands for an existing file; absences are remembered as bare names in the directory. A directory holds
//! its cached children and each child holds its parent, so a dentry whose count shows that only its parent has it is unused: the
//! cache drops such ones, oldest first, beyond a limit. What is removed is unhashed: it lives on for those who hold it.
//!
//! # Invariants
//! - A change of entries runs under [`Dentry::lock_entries`]: first the file system, then the dentries, then `version` is
//!   raised. A lookup asks the file system under no lock, and enters what it found only if `version` is as it was.
//! - No lock is held while a directory of [`Cache::None`] is asked: its answers need the locks of tasks and descriptors.
//! - A hashed dentry is in its parent's `children` under its name.

mod removed;
mod restore;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use moat_abi::fs::NAME_MAX;
use moat_abi::{Errno, Result};
use moat_sync::{LockClass, Mutex, MutexGuard, RwLock};

use crate::inode::{Cache, Inode, same_inode};
use crate::inotify::Watches;

/// A shared name.
pub type Name = Arc<[u8]>;

#[derive(Default)]
struct DentryState {
    name: Option<Name>,
    parent: Option<Arc<Dentry>>,
    unhashed: bool,
    children: HashMap<Name, Arc<Dentry>>,
    /// Names known not to exist.
    absent: HashSet<Name>,
}

/// A name in a directory that stands for a file.
pub struct Dentry {
    cache: Arc<DentryCache>,
    inode: Arc<dyn Inode>,
    kind: Kind,
    entries: Mutex<()>,
    state: RwLock<DentryState>,
    /// Counts the changes of this directory's entries.
    version: AtomicU64,
    /// Mounts on top of this dentry, in all namespaces.
    mounts: AtomicU32,
    /// Used since the cache last looked.
    recent: AtomicBool,
    /// The file had no other name when this one was removed.
    was_last_name: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// In a tree.
    Tree,
    /// Shown by its name alone: `pipe:[7]`.
    Anonymous,
}

/// What the cache knows of a name.
pub(crate) enum Cached {
    Hit(Arc<Dentry>),
    Absent,
    Unknown,
}

/// Absent names remembered in one directory, and in all.
const MAX_ABSENT: usize = 256;
const MAX_ABSENT_TOTAL: usize = 32 * 1024;

impl Dentry {
    fn new(
        cache: &Arc<DentryCache>,
        inode: Arc<dyn Inode>,
        kind: Kind,
        name: Option<Name>,
        parent: Option<Arc<Dentry>>,
    ) -> Arc<Dentry> {
        let unhashed = kind == Kind::Tree && name.is_some() && parent.is_none();
        let state = DentryState { name, parent, unhashed, ..DentryState::default() };
        Arc::new(Dentry {
            cache: cache.clone(),
            inode,
            kind,
            entries: Mutex::new(LockClass::Directory, ()),
            state: RwLock::new(LockClass::Dentry, state),
            version: AtomicU64::new(0),
            mounts: AtomicU32::new(0),
            recent: AtomicBool::new(false),
            was_last_name: AtomicBool::new(false),
        })
    }

    /// The root of a file system's tree of names.
    #[must_use]
    pub(crate) fn root(cache: &Arc<DentryCache>, inode: Arc<dyn Inode>) -> Arc<Dentry> {
        Dentry::new(cache, inode, Kind::Tree, None, None)
    }

    /// A file that is in no directory and is shown by `name`: a pipe, a socket.
    #[must_use]
    pub(crate) fn anonymous(cache: &Arc<DentryCache>, inode: Arc<dyn Inode>, name: &[u8]) -> Arc<Dentry> {
        Dentry::new(cache, inode, Kind::Anonymous, Some(name.into()), None)
    }

    /// A file made in `parent` without a name there (O_TMPFILE); shown as `/#ino (deleted)` below it.
    #[must_use]
    pub fn unnamed(parent: &Arc<Dentry>, inode: Arc<dyn Inode>, ino: u64) -> Arc<Dentry> {
        let name = format!("#{ino}").into_bytes().into();
        let d = Dentry::new(&parent.cache, inode, Kind::Tree, Some(name), Some(parent.clone()));
        d.state.write().unhashed = true;
        d
    }

    /// The file.
    #[must_use]
    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }

    /// The last component; empty for a root.
    #[must_use]
    pub fn name(&self) -> Name {
        self.state.read().name.clone().unwrap_or_else(|| Arc::from(&b""[..]))
    }

    /// The directory it is (or was) in; none for a root.
    #[must_use]
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.state.read().parent.clone()
    }

    pub(crate) fn name_and_parent(&self) -> (Name, Option<Arc<Dentry>>) {
        let s = self.state.read();
        (s.name.clone().unwrap_or_else(|| Arc::from(&b""[..])), s.parent.clone())
    }

    /// Whether it is in no tree of names.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.kind == Kind::Anonymous
    }

    /// Whether something is mounted on it, in whatever namespace.
    #[must_use]
    pub fn is_mountpoint(&self) -> bool {
        self.mounts.load(Ordering::Acquire) != 0
    }

    /// Takes note that the file goes with this dentry: whoever watches it is told when nobody holds the dentry any more.
    pub(crate) fn note_last_name(&self) {
        self.was_last_name.store(true, Ordering::Relaxed);
    }

    pub(crate) fn add_mount(&self) {
        self.mounts.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn remove_mount(&self) {
        self.mounts.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether `self` is `ancestor` or below it, within one file system.
    #[must_use]
    pub fn is_below(self: &Arc<Self>, ancestor: &Arc<Dentry>) -> bool {
        let mut at = self.clone();
        loop {
            if Arc::ptr_eq(&at, ancestor) {
                return true;
            }
            match at.parent() {
                Some(p) => at = p,
                None => return false,
            }
        }
    }

    /// Keeps others from changing this directory's entries.
    ///
    /// `None` for a directory whose entries are made up as they are asked for ([`Cache::None`]): names don't change it, and what
    /// its file system has to ask about a lookup or an owner (tasks, descriptor tables) has locks that are outside of this one.
    pub(crate) fn lock_entries(&self) -> Option<MutexGuard<'_, ()>> {
        (self.inode.cache_policy() != Cache::None).then(|| self.entries.lock())
    }

    fn cached(&self, name: &[u8]) -> Cached {
        let s = self.state.read();
        match s.children.get(name) {
            Some(d) => {
                if !d.recent.load(Ordering::Relaxed) {
                    d.recent.store(true, Ordering::Relaxed);
                }
                Cached::Hit(d.clone())
            }
            None if s.absent.contains(name) => Cached::Absent,
            None => Cached::Unknown,
        }
    }

    /// Finds the entry `name`, in the cache or by asking the file system.
    ///
    /// # Errors
    /// ENOENT, ENAMETOOLONG; those of [`Inode::lookup`].
    pub fn lookup(self: &Arc<Self>, name: &[u8]) -> Result<Arc<Dentry>> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let policy = self.inode.cache_policy();
        let known = self.cached(name);
        match (policy, &known) {
            (Cache::Keep, Cached::Hit(d)) => return Ok(d.clone()),
            (Cache::Keep, Cached::Absent) => return Err(Errno::ENOENT),
            (Cache::Revalidate, Cached::Hit(d)) if self.inode.revalidate(name, &d.inode)? => return Ok(d.clone()),
            _ => {}
        }
        // Until a lookup was not overtaken by a change of the directory.
        loop {
            let version = self.version.load(Ordering::Acquire);
            match self.inode.lookup(name) {
                Ok(inode) => {
                    if let Some(d) = self.enter(name, inode, version) {
                        return Ok(d);
                    }
                }
                Err(Errno::ENOENT) => {
                    self.forget(name, version, policy);
                    return Err(Errno::ENOENT);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Enters what a lookup found, or finds that another did; `None` if the directory has changed meanwhile.
    fn enter(self: &Arc<Self>, name: &[u8], inode: Arc<dyn Inode>, version: u64) -> Option<Arc<Dentry>> {
        let mut replaced = None;
        // Compared before the lock is taken: what a file system says of an inode may need outer locks.
        let known = self.state.read().children.get(name).cloned();
        let known = known.filter(|d| same_inode(&d.inode, &inode));
        let entered = {
            let mut s = self.state.write();
            if self.version.load(Ordering::Acquire) != version {
                return None;
            }
            if s.unhashed && self.kind == Kind::Tree && s.name.is_some() {
                // A removed directory caches nothing, or it could not be freed.
                return Some(Dentry::detached(self, name, inode));
            }
            match s.children.get(name) {
                Some(d) if known.as_ref().is_some_and(|k| Arc::ptr_eq(k, d)) => return Some(d.clone()),
                Some(_) => replaced = s.children.remove(name),
                None => {}
            }
            self.insert(&mut s, name, inode)
        };
        if let Some(d) = replaced {
            d.discard();
        }
        self.cache.remember(&entered);
        Some(entered)
    }

    fn insert(self: &Arc<Self>, s: &mut DentryState, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        if s.absent.remove(name) {
            self.cache.absent_total.fetch_sub(1, Ordering::Relaxed);
        }
        let name: Name = name.into();
        let d = Dentry::new(&self.cache, inode, Kind::Tree, Some(name.clone()), Some(self.clone()));
        s.children.insert(name, d.clone());
        d
    }

    /// Takes note that `name` does not exist.
    fn forget(&self, name: &[u8], version: u64, policy: Cache) {
        let gone = {
            let mut s = self.state.write();
            if self.version.load(Ordering::Acquire) != version {
                return;
            }
            let gone = s.children.remove(name);
            if policy == Cache::Keep && !s.unhashed {
                self.cache.note_absent(&mut s, name);
            }
            gone
        };
        if let Some(d) = gone {
            d.discard();
        }
    }

    /// Enters a file just made. The entries are locked.
    pub(crate) fn add_child(self: &Arc<Self>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        let (d, old) = {
            let mut s = self.state.write();
            if s.unhashed && self.kind == Kind::Tree && s.name.is_some() {
                // As above: others have moved it.
                self.version.fetch_add(1, Ordering::AcqRel);
                drop(s);
                return Dentry::detached(self, name, inode);
            }
            let old = s.children.remove(name);
            let d = self.insert(&mut s, name, inode);
            self.version.fetch_add(1, Ordering::AcqRel);
            (d, old)
        };
        if let Some(old) = old {
            old.discard();
        }
        self.cache.remember(&d);
        d
    }

    /// Drops the entry of a file just removed. The entries are locked.
    pub(crate) fn remove_child(self: &Arc<Self>, name: &[u8]) {
        let gone = {
            let mut s = self.state.write();
            let gone = s.children.remove(name);
            if self.inode.cache_policy() == Cache::Keep && !s.unhashed {
                self.cache.note_absent(&mut s, name);
            }
            self.version.fetch_add(1, Ordering::AcqRel);
            gone
        };
        if let Some(d) = gone {
            d.discard();
        }
    }

    /// Moves the entry `old` of this directory to `new` of `to`, dropping what was there. Both are locked.
    pub(crate) fn move_child(self: &Arc<Self>, old: &[u8], to: &Arc<Dentry>, new: &[u8]) {
        let moved = self.take_entry(old);
        if self.inode.cache_policy() == Cache::Keep {
            self.cache.note_absent(&mut self.state.write(), old);
        }
        let replaced = to.take_entry(new);
        if let Some(d) = moved {
            to.put_entry(new, d);
        }
        if let Some(d) = replaced {
            d.discard();
        }
    }

    /// Exchanges two entries. Both directories are locked.
    pub(crate) fn exchange_children(self: &Arc<Self>, a: &[u8], to: &Arc<Dentry>, b: &[u8]) {
        let first = self.take_entry(a);
        let second = to.take_entry(b);
        if let Some(d) = first {
            to.put_entry(b, d);
        }
        if let Some(d) = second {
            self.put_entry(a, d);
        }
    }

    /// Forgets what is known of `name`, which the file system has given to something else. The entries are locked.
    pub(crate) fn forget_entry(&self, name: &[u8]) {
        if let Some(d) = self.take_entry(name) {
            d.discard();
        }
    }

    fn take_entry(&self, name: &[u8]) -> Option<Arc<Dentry>> {
        let mut s = self.state.write();
        self.version.fetch_add(1, Ordering::AcqRel);
        if s.absent.remove(name) {
            self.cache.absent_total.fetch_sub(1, Ordering::Relaxed);
        }
        s.children.remove(name)
    }

    fn put_entry(self: &Arc<Self>, name: &[u8], d: Arc<Dentry>) {
        let name: Name = name.into();
        let old_parent = {
            let mut s = d.state.write();
            s.name = Some(name.clone());
            s.parent.replace(self.clone())
        };
        drop(old_parent);
        let mut s = self.state.write();
        self.version.fetch_add(1, Ordering::AcqRel);
        s.children.insert(name, d);
    }

    /// Unhashes a dentry that its parent has let go, and empties its cache so that it can be freed.
    fn discard(self: &Arc<Self>) {
        let mut pending = vec![self.clone()];
        while let Some(d) = pending.pop() {
            let children = {
                let mut s = d.state.write();
                s.unhashed = true;
                d.cache.absent_total.fetch_sub(s.absent.len(), Ordering::Relaxed);
                s.absent.clear();
                d.version.fetch_add(1, Ordering::AcqRel);
                std::mem::take(&mut s.children)
            };
            pending.extend(children.into_values());
        }
    }

    /// Empties the cache below the root of a tree that is being given up.
    pub(crate) fn prune(self: &Arc<Self>) {
        let children = {
            let mut s = self.state.write();
            self.version.fetch_add(1, Ordering::AcqRel);
            std::mem::take(&mut s.children)
        };
        for d in children.into_values() {
            d.discard();
        }
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        if *self.was_last_name.get_mut() {
            self.cache.watches.file_gone(&self.inode);
        }
        let s = self.state.get_mut();
        self.cache.absent_total.fetch_sub(s.absent.len(), Ordering::Relaxed);
        // A loop instead of recursion: a guest can nest directories deeper than a stack.
        let mut next = s.parent.take();
        while let Some(mut d) = next.and_then(Arc::into_inner) {
            next = d.state.get_mut().parent.take();
        }
    }
}

/// Dentries beyond which unused ones are dropped.
const CACHE_LIMIT: usize = 16 * 1024;
/// Dentries looked at for each new one, so that the queue shrinks but no lookup takes long.
const SCAN: usize = 4;

/// The names that a kernel remembers, in the order in which they may be forgotten.
pub(crate) struct DentryCache {
    queue: Mutex<VecDeque<Weak<Dentry>>>,
    absent_total: AtomicUsize,
    watches: Arc<Watches>,
}

impl DentryCache {
    /// An empty cache of a kernel with these watches.
    pub(crate) fn new(watches: &Arc<Watches>) -> DentryCache {
        let queue = Mutex::new(LockClass::Table, VecDeque::new());
        DentryCache { queue, absent_total: AtomicUsize::new(0), watches: watches.clone() }
    }

    fn note_absent(&self, s: &mut DentryState, name: &[u8]) {
        if s.absent.len() >= MAX_ABSENT || self.absent_total.load(Ordering::Relaxed) >= MAX_ABSENT_TOTAL {
            self.absent_total.fetch_sub(s.absent.len(), Ordering::Relaxed);
            s.absent.clear();
        }
        if self.absent_total.load(Ordering::Relaxed) < MAX_ABSENT_TOTAL && s.absent.insert(name.into()) {
            self.absent_total.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Queues a new dentry for eviction some day, and evicts if there are too many.
    fn remember(&self, d: &Arc<Dentry>) {
        let mut old = Vec::new();
        {
            let mut queue = self.queue.lock();
            queue.push_back(Arc::downgrade(d));
            if queue.len() > CACHE_LIMIT {
                old.extend(queue.drain(..SCAN));
            }
        }
        let kept: Vec<_> = old.into_iter().filter(|w| w.upgrade().is_some_and(|d| !evict(d))).collect();
        if !kept.is_empty() {
            self.queue.lock().extend(kept);
        }
    }
}

/// Takes an unused dentry out of its parent; false if it is in use or was lately.
fn evict(d: Arc<Dentry>) -> bool {
    if d.recent.swap(false, Ordering::Relaxed) || d.is_mountpoint() {
        return false;
    }
    let (name, Some(parent)) = d.name_and_parent() else { return true };
    let gone = {
        let mut s = parent.state.write();
        // Two references: the parent's, which only this lock gives out again, and ours.
        if Arc::strong_count(&d) > 2 || !s.children.get(&name).is_some_and(|c| Arc::ptr_eq(c, &d)) {
            return d.is_deleted();
        }
        s.children.remove(&name)
    };
    drop(gone);
    true
}
