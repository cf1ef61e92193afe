//! [`Shared`]: what all inodes of one tmpfs share: its numbers and its limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use moat_abi::stat::DeviceId;
use moat_abi::{Errno, Result};

use crate::medium::Medium;

/// Bytes in a block.
pub const BLOCK: u64 = 4096;

/// What all inodes of one tmpfs share.
pub struct Shared {
    /// The device number.
    pub dev: DeviceId,
    next_ino: AtomicU64,
    /// Where larger files are; in memory if there is none.
    pub(crate) medium: Option<Arc<dyn Medium>>,
    pub(crate) max_blocks: AtomicU64,
    pub(crate) used_blocks: AtomicU64,
    pub(crate) max_inodes: AtomicU64,
    pub(crate) used_inodes: AtomicU64,
    /// Counts changes of any kind but access times.
    changes: AtomicU64,
    /// How many there were when it was complete as configured.
    made: AtomicU64,
    /// The limits are not those of the configuration (mount(2) with MS_REMOUNT).
    remounted: AtomicBool,
}

impl Shared {
    /// Nothing used yet; a limit of 0 is none.
    pub(crate) fn new(dev: DeviceId, max_blocks: u64, max_inodes: u64, medium: Option<Arc<dyn Medium>>) -> Arc<Shared> {
        Arc::new(Shared {
            dev,
            next_ino: AtomicU64::new(1),
            medium,
            max_blocks: AtomicU64::new(max_blocks),
            used_blocks: AtomicU64::new(0),
            max_inodes: AtomicU64::new(max_inodes),
            used_inodes: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            made: AtomicU64::new(0),
            remounted: AtomicBool::new(false),
        })
    }

    /// Something has changed.
    pub(crate) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// It is complete as configured.
    pub(crate) fn made(&self) {
        self.made.store(self.changes.load(Ordering::Relaxed), Ordering::Relaxed);
        self.remounted.store(false, Ordering::Relaxed);
    }

    pub(crate) fn note_remount(&self) {
        self.remounted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_remounted(&self) -> bool {
        self.remounted.load(Ordering::Relaxed)
    }

    /// Whether nothing has changed since then.
    pub(crate) fn is_as_made(&self) -> bool {
        self.made.load(Ordering::Relaxed) == self.changes.load(Ordering::Relaxed)
    }

    /// Counts one more inode and names it.
    ///
    /// # Errors
    /// ENOSPC.
    pub(crate) fn new_ino(&self) -> Result<u64> {
        take(&self.used_inodes, 1, self.max_inodes.load(Ordering::Relaxed))?;
        Ok(self.next_ino.fetch_add(1, Ordering::Relaxed))
    }

    /// The last number that was given.
    pub(crate) fn last_ino(&self) -> u64 {
        self.next_ino.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// Counts an inode that has its number.
    ///
    /// # Errors
    /// ENOSPC.
    pub(crate) fn put_back_ino(&self, ino: u64) -> Result<()> {
        take(&self.used_inodes, 1, self.max_inodes.load(Ordering::Relaxed))?;
        self.put_back_last_ino(ino);
        Ok(())
    }

    /// Gives only numbers beyond this one.
    pub(crate) fn put_back_last_ino(&self, ino: u64) {
        self.next_ino.fetch_max(ino.saturating_add(1), Ordering::Relaxed);
    }

    pub(crate) fn free_ino(&self) {
        self.used_inodes.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts `blocks` more blocks.
    ///
    /// # Errors
    /// ENOSPC.
    pub(crate) fn take_blocks(&self, blocks: u64) -> Result<()> {
        take(&self.used_blocks, blocks, self.max_blocks.load(Ordering::Relaxed))
    }

    /// Blocks that are left.
    pub(crate) fn blocks_left(&self) -> u64 {
        match self.max_blocks.load(Ordering::Relaxed) {
            0 => u64::MAX,
            max => max.saturating_sub(self.used_blocks.load(Ordering::Relaxed)),
        }
    }

    /// Counts `new` blocks in place of `old` ones, whether there is room or not.
    pub(crate) fn exchange_blocks(&self, old: u64, new: u64) {
        self.used_blocks.fetch_add(new.saturating_sub(old), Ordering::Relaxed);
        self.free_blocks(old.saturating_sub(new));
    }

    pub(crate) fn free_blocks(&self, blocks: u64) {
        self.used_blocks.fetch_sub(blocks, Ordering::Relaxed);
    }
}

fn take(used: &AtomicU64, n: u64, max: u64) -> Result<()> {
    // 0 is no limit.
    let fits = |u: u64| u.checked_add(n).filter(|&u| max == 0 || u <= max);
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map(|_| ()).map_err(|_| Errno::ENOSPC)
}
