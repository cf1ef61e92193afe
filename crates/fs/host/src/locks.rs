//! Locks of shared trees, taken on the host as well: who else has the tree sees them.
//!
//! Each owner of locks has a descriptor of its own on the host, whose open file description the host's locks belong to. What an
//! owner gives up at close goes with that descriptor.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::fs::{F_RDLCK, F_UNLCK, F_WRLCK};
use moat_abi::{Errno, Result};
use moat_host::objects::{self, RecordLock as HostLock};
use moat_vfs::locks::{LockKind, LockOwner, OutsideLocks, Range, RecordLock};
use rustix::fs::FlockOperation;

use crate::inode::HostInode;
use crate::tree::HostTree;

fn host_lock(range: Range, kind: Option<LockKind>) -> HostLock {
    let kind = match kind {
        None => F_UNLCK,
        Some(LockKind::Read) => F_RDLCK,
        Some(LockKind::Write) => F_WRLCK,
    };
    let start = i64::try_from(range.start).unwrap_or(i64::MAX);
    // 0 is "to the end, wherever it is".
    let len = (range.end - range.start).checked_add(1).and_then(|n| i64::try_from(n).ok());
    let len = if range.end >= i64::MAX.cast_unsigned() { 0 } else { len.unwrap_or(0) };
    HostLock { kind, start, len, pid: 0 }
}

impl<T: HostTree> HostInode<T> {
    fn lock_descriptor(&self, owner: LockOwner) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = self.lock_owners().lock().get(&owner).cloned() {
            return Ok(fd);
        }
        let fd = Arc::new(self.open_for_locks()?);
        self.give_back_if_closed();
        // Of two that come at once, one descriptor is closed again.
        Ok(self.lock_owners().lock().entry(owner).or_insert(fd).clone())
    }

    fn known_descriptor(&self, owner: LockOwner) -> Option<Arc<OwnedFd>> {
        self.lock_owners().lock().get(&owner).cloned()
    }
}

impl<T: HostTree> OutsideLocks for HostInode<T> {
    fn set(&self, owner: LockOwner, range: Range, kind: Option<LockKind>) -> Result<()> {
        let fd = match kind {
            Some(_) => self.lock_descriptor(owner)?,
            None => match self.known_descriptor(owner) {
                Some(fd) => fd,
                None => return Ok(()),
            },
        };
        objects::set_record_lock(&*fd, host_lock(range, kind))
    }

    fn test(&self, lock: &RecordLock) -> Result<Option<RecordLock>> {
        let fd = self.lock_descriptor(lock.owner)?;
        let other = objects::record_lock_in_the_way(&*fd, host_lock(lock.range, Some(lock.kind)))?;
        let kind = match other.kind {
            F_RDLCK => LockKind::Read,
            F_WRLCK => LockKind::Write,
            _ => return Ok(None),
        };
        let start = u64::try_from(other.start).unwrap_or(0);
        let end = match u64::try_from(other.len) {
            Ok(len) if len > 0 => start.saturating_add(len - 1),
            _ => u64::MAX,
        };
        // Whoever it is, it is no process that the guest can see.
        Ok(Some(RecordLock { range: Range { start, end }, kind, owner: lock.owner, pid: other.pid.min(0) }))
    }

    fn flock(&self, description: u64, kind: Option<LockKind>) -> Result<()> {
        let owner = LockOwner::Description(description);
        let (fd, operation) = match kind {
            None => match self.known_descriptor(owner) {
                Some(fd) => (fd, FlockOperation::NonBlockingUnlock),
                None => return Ok(()),
            },
            Some(LockKind::Read) => (self.lock_descriptor(owner)?, FlockOperation::NonBlockingLockShared),
            Some(LockKind::Write) => (self.lock_descriptor(owner)?, FlockOperation::NonBlockingLockExclusive),
        };
        rustix::fs::flock(&*fd, operation).map_err(Errno::from)
    }

    fn release(&self, owner: LockOwner) {
        let gone = self.lock_owners().lock().remove(&owner);
        drop(gone);
    }
}
