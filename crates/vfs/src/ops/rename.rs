//! rename(2), renameat2(2).

use std::sync::Arc;

use moat_abi::fs::{FileType, InotifyMask};
use moat_abi::{Errno, Result};
use moat_sync::{Mutex, MutexGuard};

use super::remove::note_end;
use super::{Victim, check_create, check_delete};
use crate::dentry::Dentry;
use crate::inode::{Access, Cache, Inode, RenameFlags};
use crate::inotify::Watches;
use crate::walk::{Last, LookupFlags, Parent, Trailing, View, resolve_parent};

/// Both directories' entry locks, the ancestor's first.
struct BothLocked<'a> {
    _rename: Option<MutexGuard<'a, ()>>,
    _first: Option<MutexGuard<'a, ()>>,
    _second: Option<MutexGuard<'a, ()>>,
}

fn lock_both<'a>(rename: &'a Mutex<()>, a: &'a Arc<Dentry>, b: &'a Arc<Dentry>) -> BothLocked<'a> {
    // One lock for both; and nobody's ancestors change.
    if Arc::ptr_eq(a, b) {
        return BothLocked { _rename: None, _first: a.lock_entries(), _second: None };
    }
    // Made-up entries are never moved, and their file system is asked under no lock.
    let rename = (a.inode().cache_policy() != Cache::None).then(|| rename.lock());
    // Two renames in opposite directions take the locks in the same order.
    let (first, second) = if a.is_below(b) { (b, a) } else { (a, b) };
    BothLocked { _rename: rename, _first: first.lock_entries(), _second: second.lock_entries() }
}

/// Gives `old` the name `new`. `old_view` and `new_view` differ in their base only.
///
/// # Errors
/// Those of renameat2(2).
pub fn rename(old_view: &View<'_>, old: &[u8], new_view: &View<'_>, new: &[u8], flags: RenameFlags) -> Result<()> {
    if flags.contains(RenameFlags::EXCHANGE) && flags.intersects(RenameFlags::NOREPLACE | RenameFlags::WHITEOUT) {
        return Err(Errno::EINVAL);
    }
    // Both walks come first: nothing is locked while links are followed.
    let from = resolve_parent(old_view, old, LookupFlags::empty())?;
    let to = resolve_parent(new_view, new, LookupFlags::empty())?;
    if !Arc::ptr_eq(&from.dir.mount, &to.dir.mount) {
        return Err(Errno::EXDEV);
    }
    let Last::Name(old_name) = &from.last else {
        return Err(Errno::EBUSY);
    };
    // EEXIST and not EBUSY, since such a target is always there.
    let Last::Name(new_name) = &to.last else {
        return Err(if flags.contains(RenameFlags::NOREPLACE) { Errno::EEXIST } else { Errno::EBUSY });
    };
    from.dir.mount.check_writable()?;
    let _locked = lock_both(&from.dir.mount.tables().rename, &from.dir.dentry, &to.dir.dentry);
    // From here on both names mean what they mean when they are changed.
    let source = from.dir.dentry.lookup(old_name)?;
    let target = match to.dir.dentry.lookup(new_name) {
        Ok(d) => Some(d),
        Err(Errno::ENOENT) => None,
        Err(e) => return Err(e),
    };
    check_shape(&from, &to, &source, target.as_ref(), flags)?;
    // Two names of one file: nothing is done, whatever the rights (`vfs_rename`).
    if let Some(t) = &target
        && Arc::ptr_eq(source.inode(), t.inode())
    {
        return Ok(());
    }
    check_rights(old_view, &from, &to, &source, target.as_ref(), flags)?;
    if source.is_mountpoint() || target.as_ref().is_some_and(|t| t.is_mountpoint()) {
        return Err(Errno::EBUSY);
    }
    let watches = &from.dir.mount.tables().watches;
    // Of two that change places both stay.
    if let Some(replaced) = target.as_ref().filter(|_| !flags.contains(RenameFlags::EXCHANGE)) {
        super::remove::abandon(replaced);
        note_end(watches, replaced);
    }
    from.dir.inode().rename(old_name, to.dir.inode(), new_name, flags)?;
    if flags.contains(RenameFlags::EXCHANGE) {
        from.dir.dentry.exchange_children(old_name, &to.dir.dentry, new_name);
    } else {
        from.dir.dentry.move_child(old_name, &to.dir.dentry, new_name);
        // The old name has a new file, the whiteout, which the cache does not know.
        if flags.contains(RenameFlags::WHITEOUT) {
            from.dir.dentry.forget_entry(old_name);
        }
    }
    if watches.any() {
        let (old, new) = ((&*from.dir.dentry, &old_name[..]), (&*to.dir.dentry, &new_name[..]));
        if flags.contains(RenameFlags::EXCHANGE) {
            moved(watches, old, new, source.inode(), None);
            target.iter().for_each(|t| moved(watches, new, old, t.inode(), None));
        } else {
            moved(watches, old, new, source.inode(), target.as_ref().map(|t| t.inode()));
        }
    }
    Ok(())
}

/// A name of a directory.
type Entry<'a> = (&'a Dentry, &'a [u8]);

/// Tells that `file` has another name, which may have been `replaced`'s (`fsnotify_move`).
fn moved(watches: &Watches, old: Entry<'_>, new: Entry<'_>, file: &Arc<dyn Inode>, replaced: Option<&Arc<dyn Inode>>) {
    // The two halves of a move are found by it (inotify(7)).
    let cookie = watches.new_cookie();
    watches.entry_event(old.0, old.1, file, InotifyMask::MOVED_FROM, cookie);
    watches.entry_event(new.0, new.1, file, InotifyMask::MOVED_TO, cookie);
    if let Some(replaced) = replaced {
        watches.inode_event(replaced, InotifyMask::ATTRIB);
    }
    watches.inode_event(file, InotifyMask::MOVE_SELF);
}

/// The checks of types, slashes and ancestry, in the order of `do_renameat2`.
fn check_shape(
    from: &Parent,
    to: &Parent,
    source: &Arc<Dentry>,
    target: Option<&Arc<Dentry>>,
    flags: RenameFlags,
) -> Result<()> {
    if target.is_some() && flags.contains(RenameFlags::NOREPLACE) {
        return Err(Errno::EEXIST);
    }
    let exchange = flags.contains(RenameFlags::EXCHANGE);
    let is_dir = |d: &Arc<Dentry>| d.inode().file_type() == FileType::Directory;
    if exchange {
        let t = target.ok_or(Errno::ENOENT)?;
        if !is_dir(t) && to.trailing == Trailing::Slash {
            return Err(Errno::ENOTDIR);
        }
    }
    if !is_dir(source) && (from.trailing == Trailing::Slash || (!exchange && to.trailing == Trailing::Slash)) {
        return Err(Errno::ENOTDIR);
    }
    // A directory can't go below itself.
    if to.dir.dentry.is_below(source) {
        return Err(Errno::EINVAL);
    }
    // The target is an ancestor of the source, so it is a directory that is not empty.
    if target.is_some_and(|t| from.dir.dentry.is_below(t)) {
        return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
    }
    Ok(())
}

fn check_rights(
    view: &View<'_>,
    from: &Parent,
    to: &Parent,
    source: &Arc<Dentry>,
    target: Option<&Arc<Dentry>>,
    flags: RenameFlags,
) -> Result<()> {
    let creds = view.creds();
    let exchange = flags.contains(RenameFlags::EXCHANGE);
    // A directory may only replace a directory, and a file only what is none.
    let kind = Victim::of(source.inode().as_ref());
    check_delete(&from.dir, creds, source.inode().as_ref(), kind)?;
    match target {
        None => check_create(&to.dir, creds)?,
        Some(t) => {
            // A replaced target must be of the source's type; one that is exchanged goes on under the other name, whatever it is.
            let expected = if exchange { Victim::of(t.inode().as_ref()) } else { kind };
            check_delete(&to.dir, creds, t.inode().as_ref(), expected)?;
        }
    }
    // A directory that changes its parent has its `..` rewritten.
    if !Arc::ptr_eq(&from.dir.dentry, &to.dir.dentry) {
        if kind == Victim::Directory {
            source.inode().permission(creds, Access::WRITE)?;
        }
        if let Some(t) = target
            && exchange
            && Victim::of(t.inode().as_ref()) == Victim::Directory
        {
            t.inode().permission(creds, Access::WRITE)?;
        }
    }
    Ok(())
}
