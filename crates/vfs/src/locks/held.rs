//! The locks of an open file.

use std::sync::Arc;

use moat_abi::Result;

use super::{FileLocks, LockKind};
use crate::open_file::OpenFile;

/// The locks of a file, to add to them.
///
/// # Errors
/// Those of [`crate::Inode::metadata`].
pub fn locks_of(f: &OpenFile) -> Result<Arc<FileLocks>> {
    let key = f.inode().metadata()?.key();
    Ok(f.path().mount.tables().locks.of(key))
}

impl FileLocks {
    /// Sets the flock(2) lock of a description of this file for the process `pid` (in the root pid namespace); a lock of the other kind that it has is given up first, even if
    /// this fails.
    ///
    /// # Errors
    /// EAGAIN.
    pub fn flock(&self, f: &OpenFile, kind: LockKind, pid: i32) -> Result<()> {
        f.note_lock();
        self.lock_whole(f.id(), kind, pid)
    }
}

/// Gives up the flock(2) lock of a description (LOCK_UN).
///
/// # Errors
/// Those of [`crate::Inode::metadata`].
pub fn unflock(f: &OpenFile) -> Result<()> {
    // Outside first: if it fails, nothing has changed here.
    if let Some(outside) = f.file().outside_locks() {
        outside.flock(f.id(), None)?;
    }
    f.path().mount.tables().locks.unflock(f.inode().metadata()?.key(), f.id());
    Ok(())
}
