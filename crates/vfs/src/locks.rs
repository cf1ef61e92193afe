//! Locks on files: POSIX record locks, OFD locks and flock(2). Source: fcntl(2), flock(2), `fs/locks.c`.
//!
//! The locks of an inode are found by its number in one table, for as long as there are any ([`FileLocks`]). Nothing waits
//! here: who is refused listens to [`FileLocks::queue`], after [`LockTable::begin_wait`] has looked for a deadlock.

mod record;

use std::collections::HashMap;
use std::sync::Arc;

use moat_abi::{Errno, PollEvents, Result};
use moat_sync::{LockClass, Mutex, WaitQueue};

use crate::fd_table::FdTable;
use crate::inode::InodeKey;
use crate::open_file::OpenFile;

pub use record::{LockKind, Range, RecordLock, RecordLocks};

/// Who holds a record lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockOwner {
    /// A process: the id of its descriptor table.
    Process(u64),
    /// An open file description, by id.
    Description(u64),
}

/// Locks of a file that is shared with others outside of the sandbox. Nothing here waits.
pub trait OutsideLocks {
    /// Sets a record lock, or with `None` gives it up.
    ///
    /// # Errors
    /// EAGAIN while somebody outside has one in the way; EBADF where the file can't be opened for it.
    fn set(&self, owner: LockOwner, range: Range, kind: Option<LockKind>) -> Result<()>;

    /// The lock outside that would be in the way.
    ///
    /// # Errors
    /// Those of opening the file.
    fn test(&self, lock: &RecordLock) -> Result<Option<RecordLock>>;

    /// Sets the flock(2) lock of a description, or with `None` gives it up.
    ///
    /// # Errors
    /// As `set`; a lock of the other kind is given up first, even if this fails.
    fn flock(&self, description: u64, kind: Option<LockKind>) -> Result<()>;

    /// Gives up all locks of an owner.
    fn release(&self, owner: LockOwner);
}

#[derive(Default)]
struct FileLocksState {
    records: RecordLocks,
    /// flock(2) locks by description.
    whole: Vec<(u64, LockKind)>,
}

/// All locks of one inode.
pub struct FileLocks {
    key: InodeKey,
    state: Mutex<FileLocksState>,
    queue: WaitQueue,
}

/// The locks of all files of a kernel.
pub struct LockTable {
    files: Mutex<HashMap<InodeKey, Arc<FileLocks>>>,
    /// Which process waits for which: only POSIX locks have deadlocks that can be told.
    waits: Arc<Mutex<Vec<WaitEdge>>>,
}

/// A waiting owner and the owner that it waits for, as ids of descriptor tables.
type WaitEdge = (u64, u64);

impl Default for LockTable {
    fn default() -> LockTable {
        LockTable {
            files: Mutex::new(LockClass::Table, HashMap::new()),
            waits: Arc::new(Mutex::new(LockClass::Table, Vec::new())),
        }
    }
}

/// The table that a file's locks are in.
fn table_of(f: &OpenFile) -> &LockTable {
    &f.path().mount.tables().locks
}

impl LockTable {
    fn find(&self, key: InodeKey) -> Option<Arc<FileLocks>> {
        self.files.lock().get(&key).cloned()
    }

    /// Takes the entry out of the table if nothing is locked and nobody else has it.
    fn tidy(&self, locks: Arc<FileLocks>) {
        if !locks.is_free() {
            return;
        }
        let gone = {
            let mut t = self.files.lock();
            // The table's reference and ours: a third would be somebody about to lock, or waiting.
            if Arc::strong_count(&locks) > 2 { None } else { t.remove(&locks.key) }
        };
        drop(gone);
    }
}

/// The locks of a file, to add to them.
///
/// # Errors
/// Those of [`crate::Inode::metadata`].
pub fn locks_of(f: &OpenFile) -> Result<Arc<FileLocks>> {
    let key = f.inode().metadata()?.key();
    let mut t = table_of(f).files.lock();
    let new = || {
        let state = Mutex::new(LockClass::FileLocks, FileLocksState::default());
        Arc::new(FileLocks { key, state, queue: WaitQueue::new() })
    };
    Ok(t.entry(key).or_insert_with(new).clone())
}

impl FileLocks {
    fn is_free(&self) -> bool {
        let s = self.state.lock();
        s.records.is_empty() && s.whole.is_empty()
    }

    /// Woken when a lock has gone.
    #[must_use]
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    fn changed(&self) {
        self.queue.wake(PollEvents::IN);
    }

    /// Sets a record lock, or gives the one in the way.
    ///
    /// # Errors
    /// The lock in the way.
    pub fn lock(&self, new: RecordLock) -> Result<(), RecordLock> {
        let changed = {
            let mut s = self.state.lock();
            if let Some(other) = s.records.conflict(&new) {
                return Err(other);
            }
            s.records.set(new)
        };
        // A write lock may have become a read lock.
        if changed {
            self.changed();
        }
        Ok(())
    }

    /// Removes an owner's record locks in a range.
    pub fn unlock(&self, owner: LockOwner, range: Range) {
        let changed = self.state.lock().records.clear(owner, range);
        if changed {
            self.changed();
        }
    }

    /// The lock that would be in the way.
    #[must_use]
    pub fn test(&self, new: &RecordLock) -> Option<RecordLock> {
        self.state.lock().records.conflict(new)
    }

    /// The first lock that an owner has in the range.
    #[must_use]
    pub fn held(&self, owner: LockOwner, range: Range) -> Option<RecordLock> {
        self.state.lock().records.held(owner, range)
    }

    /// Sets the flock(2) lock of a description; a lock of the other kind that it has is given up first, even if this fails.
    ///
    /// # Errors
    /// EAGAIN.
    pub fn flock(&self, f: &OpenFile, kind: LockKind) -> Result<()> {
        f.note_lock();
        let (result, dropped) = {
            let mut s = self.state.lock();
            if s.whole.contains(&(f.id(), kind)) {
                return Ok(());
            }
            let before = s.whole.len();
            s.whole.retain(|l| l.0 != f.id());
            let dropped = s.whole.len() != before;
            let free = s.whole.iter().all(|l| l.1 == LockKind::Read && kind == LockKind::Read);
            if free {
                s.whole.push((f.id(), kind));
            }
            (if free { Ok(()) } else { Err(Errno::EAGAIN) }, dropped)
        };
        if dropped {
            self.changed();
        }
        result
    }

    fn release(&self, f: &OpenFile) {
        let changed = {
            let mut s = self.state.lock();
            let before = s.whole.len();
            s.whole.retain(|l| l.0 != f.id());
            let whole = s.whole.len() != before;
            s.records.clear(LockOwner::Description(f.id()), Range::ALL) || whole
        };
        if changed {
            self.changed();
        }
    }
}

/// Gives up the flock(2) lock of a description (LOCK_UN).
///
/// # Errors
/// Those of [`crate::Inode::metadata`].
pub fn unflock(f: &OpenFile) -> Result<()> {
    if let Some(outside) = f.file().outside_locks() {
        outside.flock(f.id(), None)?;
    }
    let table = table_of(f);
    if let Some(l) = table.find(f.inode().metadata()?.key()) {
        let changed = {
            let mut s = l.state.lock();
            let before = s.whole.len();
            s.whole.retain(|x| x.0 != f.id());
            s.whole.len() != before
        };
        if changed {
            l.changed();
        }
        table.tidy(l);
    }
    Ok(())
}

/// Notes who sets record locks, so that closing looks for them: to be called before [`FileLocks::lock`].
pub fn note_owner(f: &OpenFile, fds: &FdTable, owner: LockOwner) {
    match owner {
        LockOwner::Process(_) => fds.note_posix_lock(),
        LockOwner::Description(_) => f.note_lock(),
    }
}

/// Gives up the POSIX locks that the descriptor table `owner` holds on a file.
pub(crate) fn release_posix(f: &OpenFile, owner: u64) {
    if let Some(outside) = f.file().outside_locks() {
        outside.release(LockOwner::Process(owner));
    }
    let Ok(meta) = f.inode().metadata() else { return };
    let table = table_of(f);
    if let Some(l) = table.find(meta.key()) {
        l.unlock(LockOwner::Process(owner), Range::ALL);
        table.tidy(l);
    }
}

/// Gives up the OFD and flock locks of a description.
pub(crate) fn release_description(f: &OpenFile) {
    if let Some(outside) = f.file().outside_locks() {
        outside.release(LockOwner::Description(f.id()));
    }
    let Ok(meta) = f.inode().metadata() else { return };
    let table = table_of(f);
    if let Some(l) = table.find(meta.key()) {
        l.release(f);
        table.tidy(l);
    }
}

/// A note that one process waits for another, taken back when dropped.
pub struct WaitMark {
    waits: Arc<Mutex<Vec<WaitEdge>>>,
    edge: Option<WaitEdge>,
}

impl LockTable {
    /// Notes that `waiter` waits for `holder`.
    ///
    /// # Errors
    /// EDEADLK if `holder` waits, directly or not, for `waiter`.
    pub fn begin_wait(&self, waiter: LockOwner, holder: LockOwner) -> Result<WaitMark> {
        let (LockOwner::Process(w), LockOwner::Process(h)) = (waiter, holder) else {
            return Ok(WaitMark { waits: self.waits.clone(), edge: None });
        };
        let mut waits = self.waits.lock();
        let mut reached = vec![h];
        let mut at = 0;
        while at < reached.len() {
            let from = reached[at];
            for next in waits.iter().filter(|e| e.0 == from).map(|e| e.1) {
                if next == w {
                    return Err(Errno::EDEADLK);
                }
                if !reached.contains(&next) {
                    reached.push(next);
                }
            }
            at += 1;
        }
        waits.push((w, h));
        Ok(WaitMark { waits: self.waits.clone(), edge: Some((w, h)) })
    }
}

impl Drop for WaitMark {
    fn drop(&mut self) {
        if let Some(edge) = self.edge {
            let mut waits = self.waits.lock();
            if let Some(at) = waits.iter().position(|e| *e == edge) {
                waits.swap_remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_of_waits_is_refused_in_its_own_table() {
        let p = LockOwner::Process;
        let (table, other) = (LockTable::default(), LockTable::default());
        let ab = table.begin_wait(p(1), p(2)).ok();
        let _bc = table.begin_wait(p(2), p(3)).ok();
        assert_eq!(table.begin_wait(p(3), p(1)).err(), Some(Errno::EDEADLK));
        assert!(other.begin_wait(p(3), p(1)).is_ok(), "another kernel has processes of its own");
        assert!(table.begin_wait(LockOwner::Description(3), p(1)).is_ok());
        drop(ab);
        assert!(table.begin_wait(p(3), p(1)).is_ok());
    }
}
