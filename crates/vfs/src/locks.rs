//! Locks on files: POSIX record locks, OFD locks and flock(2). Source: fcntl(2), flock(2), `fs/locks.c`.
//!
//! The locks of an inode are found by its number in one table, for as long as there are any ([`FileLocks`]). Nothing waits
//! here: who is refused listens to [`FileLocks::queue`], after [`LockTable::begin_wait`] has looked for a deadlock. `held.rs` has what is done with
//! the locks of an open file; the tables know inodes and owners by their numbers.

mod held;
mod persist;
mod record;

use std::collections::HashMap;
use std::sync::Arc;

use moat_abi::{Errno, PollEvents, Result};
use moat_sync::{LockClass, Mutex, WaitQueue};

use crate::metadata::InodeKey;

pub use held::{locks_of, unflock};
pub use record::{LockKind, Range, RecordLock, RecordLocks};

/// Who holds a record lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// A flock(2) lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WholeLock {
    description: u64,
    kind: LockKind,
    /// Who took it, in the root pid namespace.
    pid: i32,
}

/// By which call a lock was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LockCall {
    Flock,
    Posix,
    Ofd,
}

/// A lock as /proc/locks lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedLock {
    /// The file.
    pub file: InodeKey,
    /// How it was taken.
    pub call: LockCall,
    /// Shared or exclusive.
    pub kind: LockKind,
    /// The bytes.
    pub range: Range,
    /// Who took it, in the root pid namespace; -1 for a description's.
    pub pid: i32,
}

#[derive(Default)]
struct FileLocksState {
    records: RecordLocks,
    whole: Vec<WholeLock>,
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

impl LockTable {
    /// The locks of the inode `key`, to add to them.
    #[must_use]
    pub fn of(&self, key: InodeKey) -> Arc<FileLocks> {
        let new = || {
            let state = Mutex::new(LockClass::FileLocks, FileLocksState::default());
            Arc::new(FileLocks { key, state, queue: WaitQueue::new() })
        };
        self.files.lock().entry(key).or_insert_with(new).clone()
    }

    /// Gives up an owner's record locks on the inode `key`, and for a description its flock(2) lock too.
    pub(crate) fn release(&self, key: InodeKey, owner: LockOwner) {
        if let Some(l) = self.find(key) {
            l.release(owner);
            self.tidy(l);
        }
    }

    /// Gives up the flock(2) lock of a description on the inode `key`.
    pub(crate) fn unflock(&self, key: InodeKey, description: u64) {
        if let Some(l) = self.find(key) {
            l.unflock(description);
            self.tidy(l);
        }
    }

    /// All locks there are, file by file.
    #[must_use]
    pub fn all(&self) -> Vec<ListedLock> {
        let files: Vec<Arc<FileLocks>> = self.files.lock().values().cloned().collect();
        files.iter().flat_map(|file| file.listed()).collect()
    }

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

    fn listed(&self) -> Vec<ListedLock> {
        let s = self.state.lock();
        let whole = s.whole.iter().map(|l| (LockCall::Flock, l.kind, Range::ALL, l.pid));
        let records = s.records.all().map(|l| {
            let call = match l.owner {
                LockOwner::Process(_) => LockCall::Posix,
                LockOwner::Description(_) => LockCall::Ofd,
            };
            (call, l.kind, l.range, l.pid)
        });
        whole
            .chain(records)
            .map(|(call, kind, range, pid)| ListedLock { file: self.key, call, kind, range, pid })
            .collect()
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
                // The caller tells who it is (F_GETLK), or waits for it.
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
    fn lock_whole(&self, description: u64, kind: LockKind, pid: i32) -> Result<()> {
        let (result, dropped) = {
            let mut s = self.state.lock();
            // The same lock again changes nothing, and wakes nobody.
            if s.whole.iter().any(|l| l.description == description && l.kind == kind) {
                return Ok(());
            }
            // Given up before the new one is had: a conversion is not atomic (flock(2)).
            let before = s.whole.len();
            s.whole.retain(|l| l.description != description);
            let dropped = s.whole.len() != before;
            let free = s.whole.iter().all(|l| l.kind == LockKind::Read && kind == LockKind::Read);
            if free {
                s.whole.push(WholeLock { description, kind, pid });
            }
            (if free { Ok(()) } else { Err(Errno::EAGAIN) }, dropped)
        };
        if dropped {
            self.changed();
        }
        result
    }

    fn release(&self, owner: LockOwner) {
        let changed = {
            let mut s = self.state.lock();
            let before = s.whole.len();
            s.whole.retain(|l| LockOwner::Description(l.description) != owner);
            let whole = s.whole.len() != before;
            s.records.clear(owner, Range::ALL) || whole
        };
        if changed {
            self.changed();
        }
    }

    fn unflock(&self, description: u64) {
        let changed = {
            let mut s = self.state.lock();
            let before = s.whole.len();
            s.whole.retain(|l| l.description != description);
            s.whole.len() != before
        };
        if changed {
            self.changed();
        }
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
        // OFD locks and flock have no owner that could be seen to wait.
        let (LockOwner::Process(w), LockOwner::Process(h)) = (waiter, holder) else {
            return Ok(WaitMark { waits: self.waits.clone(), edge: None });
        };
        let mut waits = self.waits.lock();
        // A walk from the holder along who waits for whom; the list of those reached ends it even in a circle.
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
        // Entered under the same lock as the walk: of two processes that close a circle the second finds it.
        waits.push((w, h));
        Ok(WaitMark { waits: self.waits.clone(), edge: Some((w, h)) })
    }
}

impl Drop for WaitMark {
    fn drop(&mut self) {
        if let Some(edge) = self.edge {
            let mut waits = self.waits.lock();
            // One of its kind: a process may wait with several threads.
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
