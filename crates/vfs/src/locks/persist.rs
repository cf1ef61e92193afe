//! What an image is told of locks.

use super::{LockKind, LockOwner, LockTable, RecordLock};
use crate::metadata::InodeKey;

impl LockTable {
    /// Whether nothing is locked.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.lock().is_empty()
    }

    /// The record locks that `owner` has on the inode `key`.
    pub(crate) fn of_owner(&self, key: InodeKey, owner: LockOwner) -> Vec<RecordLock> {
        // Not by `of`, which would leave an entry behind.
        let Some(file) = self.find(key) else { return Vec::new() };
        let s = file.state.lock();
        s.records.all().filter(|lock| lock.owner == owner).copied().collect()
    }

    /// The flock(2) lock that a description has on the inode `key`, and who took it.
    pub(crate) fn whole_of(&self, key: InodeKey, description: u64) -> Option<(LockKind, i32)> {
        let file = self.find(key)?;
        let s = file.state.lock();
        s.whole.iter().find(|lock| lock.description == description).map(|lock| (lock.kind, lock.pid))
    }
}
