//! rename(2) within one tmpfs.

use moat_abi::{Errno, Result};
use moat_vfs::RenameFlags;
use moat_vfs::clock::now;

use crate::TmpInode;
use crate::inode::kill_empty;

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
