//! unlink(2) and rmdir(2).

use std::sync::Arc;

use moat_abi::fs::{FileType, InotifyMask};
use moat_abi::{Errno, Result};

use super::{Victim, check_delete};
use crate::dentry::Dentry;
use crate::inotify::Watches;
use crate::path::Path;
use crate::walk::{Last, LookupFlags, Parent, Trailing, View, resolve_parent};

/// Removes the name of what is no directory.
///
/// # Errors
/// Those of unlink(2).
pub fn unlink(view: &View<'_>, path: &[u8]) -> Result<()> {
    let Parent { dir, last, trailing } = resolve_parent(view, path, LookupFlags::empty())?;
    // `.`, `..` and `/` are directories.
    let Last::Name(name) = last else {
        return Err(Errno::EISDIR);
    };
    dir.mount.check_writable()?;
    // From the lookup to the removal nobody may put another file under the name.
    let _entries = dir.dentry.lock_entries();
    let victim = dir.dentry.lookup(&name)?;
    if trailing == Trailing::Slash {
        // The entry exists but is no directory that the slash could stand for.
        return Err(if victim.inode().file_type() == FileType::Directory { Errno::EISDIR } else { Errno::ENOTDIR });
    }
    check_delete(&dir, view.creds(), victim.inode().as_ref(), Victim::Other)?;
    // In any namespace: a mount elsewhere keeps the name too.
    if victim.is_mountpoint() {
        return Err(Errno::EBUSY);
    }
    let watches = &dir.mount.tables().watches;
    // Before the removal, which changes the count of names.
    note_end(watches, &victim);
    abandon(&victim);
    dir.inode().unlink(&name)?;
    dir.dentry.remove_child(&name);
    // For those who have the file open: one name less.
    watches.inode_event(victim.inode(), InotifyMask::ATTRIB);
    removed(watches, &dir, &name, victim);
    Ok(())
}

/// Removes an empty directory.
///
/// # Errors
/// Those of rmdir(2).
pub fn rmdir(view: &View<'_>, path: &[u8]) -> Result<()> {
    let Parent { dir, last, .. } = resolve_parent(view, path, LookupFlags::empty())?;
    let name = match last {
        Last::Name(name) => name,
        Last::Dot => return Err(Errno::EINVAL),
        Last::DotDot => return Err(Errno::ENOTEMPTY),
        Last::Root => return Err(Errno::EBUSY),
    };
    dir.mount.check_writable()?;
    let _entries = dir.dentry.lock_entries();
    let victim = dir.dentry.lookup(&name)?;
    check_delete(&dir, view.creds(), victim.inode().as_ref(), Victim::Directory)?;
    if victim.is_mountpoint() {
        return Err(Errno::EBUSY);
    }
    let watches = &dir.mount.tables().watches;
    note_end(watches, &victim);
    {
        // Under the victim's own lock, so that nothing is made in a directory on its way out.
        let _inside = victim.lock_entries();
        abandon(&victim);
        dir.inode().rmdir(&name)?;
        dir.dentry.remove_child(&name);
    }
    removed(watches, &dir, &name, victim);
    Ok(())
}

/// Tells the file system of a file that only the cache of names has. Who finds the name from here on may find that the file is gone, as if it
/// had come later.
pub(super) fn abandon(victim: &Arc<Dentry>) {
    // That of its directory, and the caller's.
    if Arc::strong_count(victim) <= 2 {
        victim.inode().abandon();
    }
}

/// Takes note of whether the name about to go is the file's last one.
pub(super) fn note_end(watches: &Watches, victim: &Dentry) {
    let inode = victim.inode();
    let is_last = || inode.file_type() == FileType::Directory || inode.metadata().is_ok_and(|m| m.nlink <= 1);
    if watches.any() && is_last() {
        victim.note_last_name();
    }
}

/// Tells of an entry that is gone, after the end of the file itself if nobody has it open (`d_delete_notify`).
fn removed(watches: &Watches, dir: &Path, name: &[u8], victim: Arc<Dentry>) {
    let inode = victim.inode().clone();
    // Before the event: if this was the last use, its watches are told of the end first.
    drop(victim);
    watches.entry_event(&dir.dentry, name, &inode, InotifyMask::DELETE, 0);
}
