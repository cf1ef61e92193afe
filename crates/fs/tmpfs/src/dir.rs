//! Entries of a directory, in the order of their making, and rename(2), which changes two of them.
//!
//! Each entry has a cookie that grows and is never used again in this directory: it is the position after the entry,
//! so that a readdir under way neither skips nor repeats what others leave alone.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use moat_abi::fs::NAME_MAX;
use moat_abi::{Errno, Result};
use moat_vfs::RenameFlags;
use moat_vfs::clock::now;
use moat_vfs::file::{DirEntry, DirSink, FIRST_ENTRY};

use crate::inode::TmpInode;

/// The entries.
pub struct Entries {
    by_name: HashMap<Arc<[u8]>, u64>,
    by_cookie: BTreeMap<u64, (Arc<[u8]>, Arc<TmpInode>)>,
    last_cookie: u64,
    /// Removed: nothing may be made here any more.
    pub(crate) dead: bool,
}

/// One entry.
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) cookie: u64,
    pub(crate) inode: Arc<TmpInode>,
}

impl Default for Entries {
    fn default() -> Self {
        Entries { by_name: HashMap::new(), by_cookie: BTreeMap::new(), last_cookie: FIRST_ENTRY, dead: false }
    }
}

impl Entries {
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&Arc<TmpInode>> {
        self.by_cookie.get(self.by_name.get(name)?).map(|e| &e.1)
    }

    /// Adds an entry that does not exist.
    ///
    /// # Errors
    /// EEXIST; ENOENT in a removed directory.
    pub(crate) fn insert(&mut self, name: &[u8], inode: Arc<TmpInode>) -> Result<()> {
        if self.dead {
            return Err(Errno::ENOENT);
        }
        if self.by_name.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.last_cookie += 1;
        let name: Arc<[u8]> = name.into();
        self.by_name.insert(name.clone(), self.last_cookie);
        self.by_cookie.insert(self.last_cookie, (name, inode));
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<Arc<TmpInode>> {
        let cookie = self.by_name.remove(name)?;
        self.by_cookie.remove(&cookie).map(|e| e.1)
    }

    /// Puts another inode in an entry's place; gives the old one.
    pub(crate) fn replace(&mut self, name: &[u8], inode: Arc<TmpInode>) -> Option<Arc<TmpInode>> {
        let entry = self.by_cookie.get_mut(self.by_name.get(name)?)?;
        Some(std::mem::replace(&mut entry.1, inode))
    }

    /// Takes all inodes out, for a directory that is going.
    pub(crate) fn drain(&mut self) -> Vec<Arc<TmpInode>> {
        self.by_name.clear();
        self.last_cookie = FIRST_ENTRY;
        std::mem::take(&mut self.by_cookie).into_values().map(|e| e.1).collect()
    }

    /// All entries by growing cookies, and the last cookie that was given.
    pub(crate) fn all(&self) -> (Vec<Entry>, u64) {
        let entry = |(cookie, (name, inode)): (&u64, &(Arc<[u8]>, Arc<TmpInode>))| Entry {
            name: name.to_vec(),
            cookie: *cookie,
            inode: inode.clone(),
        };
        (self.by_cookie.iter().map(entry).collect(), self.last_cookie)
    }

    /// Adds an entry of an image, behind those that are there.
    ///
    /// # Errors
    /// EINVAL for a name or cookie that can't be; those of [`Entries::insert`].
    pub(crate) fn put_back(&mut self, name: &[u8], cookie: u64, inode: Arc<TmpInode>) -> Result<()> {
        // From an image: all that the vfs would have checked.
        let is_name = !matches!(name, b"" | b"." | b"..") && name.len() <= NAME_MAX;
        if !is_name || name.iter().any(|byte| matches!(byte, 0 | b'/')) || cookie <= self.last_cookie {
            return Err(Errno::EINVAL);
        }
        self.put_back_cookie(cookie.saturating_sub(1))?;
        self.insert(name, inode)
    }

    /// Gives only cookies beyond this one.
    ///
    /// # Errors
    /// EINVAL if others have been given, or for one that is no position of a directory.
    pub(crate) fn put_back_cookie(&mut self, cookie: u64) -> Result<()> {
        if cookie < self.last_cookie || cookie >= i64::MAX.cast_unsigned() / 2 {
            return Err(Errno::EINVAL);
        }
        self.last_cookie = cookie;
        Ok(())
    }

    pub(crate) fn read(&self, pos: u64, sink: &mut DirSink<'_>) -> Result<u64> {
        if self.dead {
            return Err(Errno::ENOENT);
        }
        let mut reached = pos;
        for (&cookie, (name, inode)) in self.by_cookie.range(pos.saturating_add(1)..) {
            let entry = DirEntry { name, ino: inode.ino(), file_type: Some(inode.kind()), next: cookie };
            if let ControlFlow::Break(()) = sink(entry) {
                break;
            }
            reached = cookie;
        }
        Ok(reached)
    }
}

/// Marks an empty directory as removed.
pub(crate) fn kill_empty(dir: &TmpInode) -> Result<()> {
    let mut inside = dir.entries()?.lock();
    if !inside.is_empty() {
        return Err(Errno::ENOTEMPTY);
    }
    inside.dead = true;
    Ok(())
}

/// Gives a file another name, or two files each other's.
///
/// # Errors
/// ENOENT; EEXIST with RENAME_NOREPLACE; ENOTEMPTY for a directory in its place.
pub(crate) fn rename(from: &TmpInode, old: &[u8], to: &TmpInode, new: &[u8], flags: RenameFlags) -> Result<()> {
    let same = std::ptr::eq(from, to);
    // Both at once, so that no lookup misses the file; in the order of their numbers.
    let (mut a, mut b);
    if same {
        a = from.entries()?.lock();
        b = None;
    } else if from.ino < to.ino {
        a = from.entries()?.lock();
        b = Some(to.entries()?.lock());
    } else {
        let second = to.entries()?.lock();
        a = from.entries()?.lock();
        b = Some(second);
    }
    let source = a.get(old).cloned().ok_or(Errno::ENOENT)?;
    let target = b.as_deref().unwrap_or(&a).get(new).cloned();
    if flags.contains(RenameFlags::EXCHANGE) {
        let target = target.ok_or(Errno::ENOENT)?;
        a.replace(old, target.clone());
        b.as_deref_mut().unwrap_or(&mut a).replace(new, source.clone());
        drop((a, b));
        // A directory takes the link of its `..` along.
        let shift = i32::from(source.is_dir()) - i32::from(target.is_dir());
        from.touch(if same { 0 } else { -shift });
        to.touch(if same { 0 } else { shift });
        return Ok(());
    }
    match &target {
        Some(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EEXIST),
        Some(t) => {
            if t.is_dir() {
                kill_empty(t)?;
            }
            a.remove(old);
            b.as_deref_mut().unwrap_or(&mut a).replace(new, source.clone());
        }
        None => {
            b.as_deref_mut().unwrap_or(&mut a).insert(new, source.clone())?;
            a.remove(old);
        }
    }
    drop((a, b));
    let moved = i32::from(source.is_dir());
    let replaced = i32::from(target.as_ref().is_some_and(|t| t.is_dir()));
    if let Some(t) = target {
        t.drop_link();
    }
    if same {
        from.touch(-replaced);
    } else {
        from.touch(-moved);
        to.touch(moved - replaced);
    }
    source.attr().ctime = now();
    Ok(())
}
