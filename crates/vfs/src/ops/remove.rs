//! unlink(2) and rmdir(2).

use moat_abi::fs::FileType;
use moat_abi::{Errno, Result};

use super::{Victim, check_delete};
use crate::walk::{Last, LookupFlags, Parent, Trailing, View, resolve_parent};

/// Removes the name of what is no directory.
///
/// # Errors
/// Those of unlink(2).
pub fn unlink(view: &View<'_>, path: &[u8]) -> Result<()> {
    let Parent { dir, last, trailing } = resolve_parent(view, path, LookupFlags::empty())?;
    let Last::Name(name) = last else {
        return Err(Errno::EISDIR);
    };
    dir.mount.check_writable()?;
    let _entries = dir.dentry.lock_entries();
    let victim = dir.dentry.lookup(&name)?;
    if trailing == Trailing::Slash {
        return Err(if victim.inode().file_type() == FileType::Directory { Errno::EISDIR } else { Errno::ENOTDIR });
    }
    check_delete(&dir, view.creds(), victim.inode().as_ref(), Victim::Other)?;
    if victim.is_mountpoint() {
        return Err(Errno::EBUSY);
    }
    dir.inode().unlink(&name)?;
    dir.dentry.remove_child(&name);
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
    // Under the victim's own lock, so that nothing is made in a directory on its way out.
    let _inside = victim.lock_entries();
    dir.inode().rmdir(&name)?;
    dir.dentry.remove_child(&name);
    Ok(())
}
