//! A file is written or executed, never both: ETXTBSY (`deny_write_access`, `get_write_access`).

use std::collections::BTreeMap;
use std::sync::Arc;

use moat_abi::{Errno, Result};
use moat_sync::{LockClass, Mutex};

use crate::metadata::InodeKey;

/// Uses of files: writers count up, executions down.
pub(crate) struct TextUses {
    counts: Mutex<BTreeMap<InodeKey, i64>>,
}

impl Default for TextUses {
    fn default() -> TextUses {
        TextUses { counts: Mutex::new(LockClass::Table, BTreeMap::new()) }
    }
}

impl TextUses {
    pub(crate) fn change(&self, key: InodeKey, step: i64) -> Result<()> {
        let mut counts = self.counts.lock();
        let count = counts.entry(key).or_insert(0);
        // Users of the other kind are there.
        if *count != 0 && count.signum() != step.signum() {
            return Err(Errno::ETXTBSY);
        }
        *count += step;
        Ok(())
    }

    /// How many openings for writing there are.
    pub(crate) fn writers(&self, key: InodeKey) -> u64 {
        let count = self.counts.lock().get(&key).copied().unwrap_or(0);
        u64::try_from(count).unwrap_or(0)
    }

    pub(crate) fn undo(&self, key: InodeKey, step: i64) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&key) {
            *count -= step;
            if *count == 0 {
                counts.remove(&key);
            }
        }
    }
}

/// An opening for writing.
pub struct WriteAccess {
    uses: Arc<TextUses>,
    key: InodeKey,
}

impl WriteAccess {
    /// Takes note that the regular file `key` is being opened for writing.
    ///
    /// # Errors
    /// ETXTBSY while it is executed.
    pub(crate) fn take(uses: &Arc<TextUses>, key: InodeKey) -> Result<WriteAccess> {
        uses.change(key, 1)?;
        Ok(WriteAccess { uses: uses.clone(), key })
    }
}

impl Drop for WriteAccess {
    fn drop(&mut self) {
        self.uses.undo(self.key, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_abi::stat::DeviceId;

    #[test]
    fn writers_and_executions_exclude_each_other() {
        let uses = TextUses::default();
        let key = InodeKey { dev: DeviceId::new(0, 77), ino: 1 };
        uses.change(key, 1).unwrap();
        uses.change(key, 1).unwrap();
        assert_eq!(uses.change(key, -1), Err(Errno::ETXTBSY));
        uses.undo(key, 1);
        uses.undo(key, 1);
        uses.change(key, -1).unwrap();
        assert_eq!(uses.change(key, 1), Err(Errno::ETXTBSY));
        uses.undo(key, -1);
        uses.change(key, 1).unwrap();
        uses.undo(key, 1);
    }

    #[test]
    fn the_same_key_in_two_kernels_is_two_files() {
        let (one, other) = (TextUses::default(), TextUses::default());
        let key = InodeKey { dev: DeviceId::new(0, 77), ino: 1 };
        one.change(key, -1).unwrap();
        assert_eq!((one.change(key, 1), other.change(key, 1)), (Err(Errno::ETXTBSY), Ok(())));
    }
}
