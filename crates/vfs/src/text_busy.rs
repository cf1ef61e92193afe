//! A file is written or executed, never both: ETXTBSY (`deny_write_access`, `get_write_access`).

use std::collections::BTreeMap;
use std::sync::Arc;

use moat_abi::{Errno, Result};
use moat_sync::{LockClass, Mutex};

use crate::inode::{Inode, InodeKey};
use crate::path::Path;

/// Uses of a file: writers count up, executions down.
static USES: Mutex<BTreeMap<InodeKey, i64>> = Mutex::new(LockClass::Table, BTreeMap::new());

fn change(key: InodeKey, step: i64) -> Result<()> {
    let mut uses = USES.lock();
    let count = uses.entry(key).or_insert(0);
    if *count != 0 && count.signum() != step.signum() {
        return Err(Errno::ETXTBSY);
    }
    *count += step;
    Ok(())
}

fn undo(key: InodeKey, step: i64) {
    let mut uses = USES.lock();
    if let Some(count) = uses.get_mut(&key) {
        *count -= step;
        if *count == 0 {
            uses.remove(&key);
        }
    }
}

/// An opening for writing.
pub struct WriteAccess(InodeKey);

impl WriteAccess {
    /// Takes note that `inode`, a regular file, is being opened for writing.
    ///
    /// # Errors
    /// ETXTBSY while it is executed; those of [`Inode::metadata`].
    pub fn take(inode: &dyn Inode) -> Result<WriteAccess> {
        let key = inode.metadata()?.key();
        change(key, 1).map(|()| WriteAccess(key))
    }
}

impl Drop for WriteAccess {
    fn drop(&mut self) {
        undo(self.0, 1);
    }
}

/// A file that processes execute.
pub struct Executable {
    path: Path,
    key: InodeKey,
}

impl Executable {
    /// Takes note that the file at `path` is about to be executed.
    ///
    /// # Errors
    /// ETXTBSY while it is open for writing; those of [`Inode::metadata`].
    pub fn new(path: Path) -> Result<Arc<Executable>> {
        let key = path.inode().metadata()?.key();
        change(key, -1).map(|()| Arc::new(Executable { path, key }))
    }

    /// The file: /proc/PID/exe.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        undo(self.key, -1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_abi::stat::DeviceId;

    #[test]
    fn writers_and_executions_exclude_each_other() {
        let key = InodeKey { dev: DeviceId::new(0, 77), ino: 1 };
        change(key, 1).unwrap();
        change(key, 1).unwrap();
        assert_eq!(change(key, -1), Err(Errno::ETXTBSY));
        undo(key, 1);
        undo(key, 1);
        change(key, -1).unwrap();
        assert_eq!(change(key, 1), Err(Errno::ETXTBSY));
        undo(key, -1);
        change(key, 1).unwrap();
        undo(key, 1);
    }
}
