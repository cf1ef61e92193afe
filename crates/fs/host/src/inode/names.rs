//! The names by which a file was found: hints where to look for it, never what it is.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::HostInode;
use crate::tree::HostTree;

/// Names remembered of one file; one with more is found by the last ones.
const MAX_NAMES: usize = 8;

/// How far below the root a directory can be and still be found again when its node was given back.
pub(super) const MAX_DEPTH: usize = 1 << 16;

/// A name: the directory, and the component.
pub(super) type NameInDirectory<T> = (Arc<HostInode<T>>, Arc<[u8]>);

/// The names of a file, and those in it if it is a directory.
pub(super) struct Names<T: HostTree> {
    /// The last found comes last.
    places: Vec<NameInDirectory<T>>,
    children: HashMap<Arc<[u8]>, Weak<HostInode<T>>>,
}

impl<T: HostTree> Default for Names<T> {
    fn default() -> Self {
        Names { places: Vec::new(), children: HashMap::new() }
    }
}

impl<T: HostTree> Names<T> {
    /// Takes `me`, whose names these are, out of its directories. Each inode keeps those: a chain of any length is taken
    /// apart here, without recursion.
    pub(super) fn leave(&mut self, me: *const HostInode<T>) {
        let mut pending: Vec<(NameInDirectory<T>, *const HostInode<T>)> =
            self.places.drain(..).map(|place| (place, me)).collect();
        while let Some(((dir, name), child)) = pending.pop() {
            dir.remove_child(&name, child);
            let at = Arc::as_ptr(&dir);
            if let Some(mut last) = Arc::into_inner(dir) {
                pending.extend(last.names.get_mut().places.drain(..).map(|place| (place, at)));
            }
        }
    }
}

impl<T: HostTree> HostInode<T> {
    fn remove_child(&self, name: &[u8], child: *const HostInode<T>) {
        let mut names = self.names.lock();
        if names.children.get(name).is_some_and(|known| std::ptr::eq(known.as_ptr(), child)) {
            names.children.remove(name);
        }
    }

    /// The names, the last found first.
    pub(super) fn places(&self) -> Vec<NameInDirectory<T>> {
        self.names.lock().places.iter().rev().cloned().collect()
    }

    /// The name found last.
    pub(super) fn last_place(&self) -> Option<NameInDirectory<T>> {
        self.names.lock().places.last().cloned()
    }

    /// What was last found as `name` in this directory, if it is in memory.
    pub(super) fn child(&self, name: &[u8]) -> Option<Arc<HostInode<T>>> {
        self.names.lock().children.get(name).and_then(Weak::upgrade)
    }

    /// `name` of this directory leads to `child`.
    ///
    /// A directory is never noted as its own ancestor: that is what it looks like when it is mounted below itself, or
    /// when it was moved on the host and what is known of the others is from before.
    pub(super) fn name_child(&self, name: &[u8], child: &Arc<HostInode<T>>) {
        let Some(me) = self.me.upgrade() else { return };
        let known = self.names.lock().children.get(name).is_some_and(|w| std::ptr::eq(w.as_ptr(), Arc::as_ptr(child)));
        // The usual case: nothing is new.
        if known && child.names.lock().places.last().is_some_and(|(d, n)| Arc::ptr_eq(d, &me) && **n == *name) {
            return;
        }
        let directory = child.file_type_is_directory();
        if directory && me.is_below(child) {
            return;
        }
        self.unname_child(name);
        let name: Arc<[u8]> = name.into();
        self.names.lock().children.insert(name.clone(), Arc::downgrade(child));
        // Dropped with the names unlocked: each refers to a directory.
        let mut forgotten = Vec::new();
        {
            let mut names = child.names.lock();
            let all = std::mem::take(&mut names.places);
            let same = |(dir, n): &NameInDirectory<T>| Arc::ptr_eq(dir, &me) && *n == name;
            // A directory has one name only.
            let (gone, mut kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|place| directory || same(place));
            forgotten.extend(gone);
            if kept.len() >= MAX_NAMES {
                forgotten.push(kept.remove(0));
            }
            kept.push((me.clone(), name.clone()));
            names.places = kept;
        }
        for (dir, old) in forgotten {
            if !(Arc::ptr_eq(&dir, &me) && old == name) {
                dir.remove_child(&old, Arc::as_ptr(child));
            }
        }
    }

    /// `name` of this directory leads to what it did no longer.
    pub(super) fn unname_child(&self, name: &[u8]) {
        let child = self.names.lock().children.remove(name).and_then(|w| w.upgrade());
        let Some(child) = child else { return };
        let gone = {
            let mut names = child.names.lock();
            let here = |(dir, n): &NameInDirectory<T>| std::ptr::eq(Arc::as_ptr(dir), self) && **n == *name;
            names.places.iter().position(here).map(|at| names.places.remove(at))
        };
        // Dropped unlocked, as it refers to a directory.
        drop(gone);
    }

    /// Whether `name` of `dir` is the only one known.
    pub(super) fn is_only_name(&self, dir: &HostInode<T>, name: &[u8]) -> bool {
        let names = self.names.lock();
        names.places.iter().all(|(d, n)| std::ptr::eq(Arc::as_ptr(d), dir) && **n == *name)
    }

    /// Whether this directory is `other`, or below it as far as is known.
    fn is_below(self: &Arc<Self>, other: &Arc<HostInode<T>>) -> bool {
        let mut at = self.clone();
        for _ in 0..MAX_DEPTH {
            if Arc::ptr_eq(&at, other) {
                return true;
            }
            match at.last_place() {
                Some((parent, _)) => at = parent,
                None => return false,
            }
        }
        true
    }
}
