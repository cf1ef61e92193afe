//! Locks, leases and the owners of signals in an image, and out of it.
//!
//! The tables know inodes by numbers that a new kernel gives anew: what is locked is said by the open file or the descriptor that holds it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moat_abi::Errno;
use moat_identity::PidNamespace;
use moat_image::state::{
    BreakingState, HeldState, LeaseState, LockKindState, OwnerIdState, OwnerState, ProcessLockState, RecordLockState,
};
use moat_image::{ImageError, Refusal};

use super::save::unknown;
use crate::fd::Fd;
use crate::fd_table::FdTable;
use crate::file::SaveFiles;
use crate::leases::{LeaseHolder, LeaseKind, SavedLease};
use crate::locks::{LockKind, LockOwner, Range, RecordLock};
use crate::open_file::{OpenFile, Owner, OwnerId};

impl From<LockKind> for LockKindState {
    fn from(kind: LockKind) -> LockKindState {
        match kind {
            LockKind::Read => LockKindState::Read,
            LockKind::Write => LockKindState::Write,
        }
    }
}

impl From<LockKindState> for LockKind {
    fn from(kind: LockKindState) -> LockKind {
        match kind {
            LockKindState::Read => LockKind::Read,
            LockKindState::Write => LockKind::Write,
        }
    }
}

fn lease_kind(kind: LeaseKind) -> LockKindState {
    match kind {
        LeaseKind::Read => LockKindState::Read,
        LeaseKind::Write => LockKindState::Write,
    }
}

fn lease_kind_of(kind: LockKindState) -> LeaseKind {
    match kind {
        LockKindState::Read => LeaseKind::Read,
        LockKindState::Write => LeaseKind::Write,
    }
}

fn record(lock: &RecordLock) -> RecordLockState {
    RecordLockState { start: lock.range.start, end: lock.range.end, kind: lock.kind.into(), pid: lock.pid }
}

/// What an open file holds of its file.
pub(super) fn held(f: &OpenFile) -> Result<HeldState, Refusal> {
    let tables = f.path().mount.tables();
    // Hardly any file is locked: then the inode is not asked for its number.
    if tables.locks.is_empty() && tables.leases.is_empty() {
        return Ok(HeldState::default());
    }
    let key = f.inode().metadata().map_err(|_| unknown(f.path()))?.key();
    // Those of processes are their descriptor tables'.
    let records = tables.locks.of_owner(key, LockOwner::Description(f.id()));
    let flock = tables.locks.whole_of(key, f.id());
    let lease = tables.leases.save(key, f.id()).map(|lease| LeaseState {
        fd: lease.fd,
        kind: lease_kind(lease.kind),
        breaking: lease.breaking.map(|(to, until)| BreakingState {
            to: to.map(lease_kind),
            // The clock of a restore is another one.
            left_ns: until.map(|until| nanoseconds(until.saturating_duration_since(Instant::now()))),
        }),
    });
    let flock = flock.map(|(kind, pid)| (kind.into(), pid));
    Ok(HeldState { flock, records: records.iter().map(record).collect(), lease })
}

/// The locks that the processes of a descriptor table hold, each by a descriptor of its file.
pub(super) fn held_by_table(table: &FdTable, files: &[(Fd, Arc<OpenFile>)]) -> Result<Vec<ProcessLockState>, Refusal> {
    let mut saved = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (fd, f) in files {
        let locks = &f.path().mount.tables().locks;
        // One table for all files: there is nothing to find by the others either.
        if locks.is_empty() {
            return Ok(saved);
        }
        let key = f.inode().metadata().map_err(|_| unknown(f.path()))?.key();
        // Several descriptors may be of one file.
        if seen.insert(key) {
            let found = locks.of_owner(key, LockOwner::Process(table.id()));
            saved.extend(found.iter().map(|lock| ProcessLockState { fd: fd.0, lock: record(lock) }));
        }
    }
    Ok(saved)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Who gets signals about a file.
pub(super) fn owner(owner: &Owner, saver: &mut dyn SaveFiles) -> Option<OwnerState> {
    let id = match &owner.id {
        OwnerId::None => return None,
        OwnerId::Thread(pid) => OwnerIdState::Thread(saver.process(pid)),
        OwnerId::Process(pid) => OwnerIdState::Process(saver.process(pid)),
        OwnerId::Group(pid) => OwnerIdState::Group(saver.process(pid)),
    };
    Some(OwnerState { id, uid: owner.uid, euid: owner.euid })
}

/// The same in a new kernel.
///
/// # Errors
/// A process that is not there.
pub fn owner_of(saved: &OwnerState, ns: &PidNamespace) -> Result<Owner, ImageError> {
    let find = |number| {
        ns.lookup(number).ok_or_else(|| ImageError::state(format!("a file that sends signals to process {number}")))
    };
    let id = match saved.id {
        OwnerIdState::Thread(number) => OwnerId::Thread(find(number)?),
        OwnerIdState::Process(number) => OwnerId::Process(find(number)?),
        OwnerIdState::Group(number) => OwnerId::Group(find(number)?),
    };
    Ok(Owner { id, uid: saved.uid, euid: saved.euid })
}

fn key_of(f: &OpenFile) -> Result<crate::metadata::InodeKey, ImageError> {
    let meta = f.inode().metadata().map_err(|errno| failed(f, errno))?;
    Ok(meta.key())
}

fn failed(f: &OpenFile, errno: Errno) -> ImageError {
    ImageError::Unfit(format!("a lock of {:?}: {errno}", f.path()))
}

/// Takes what an open file held of its file, outside of the sandbox too.
///
/// # Errors
/// Locks that exclude each other; somebody outside has one in the way.
pub fn hold_again(f: &Arc<OpenFile>, saved: &HeldState) -> Result<(), ImageError> {
    if *saved == HeldState::default() {
        return Ok(());
    }
    // Before anything is held, so that closing it gives all of it up.
    f.note_lock();
    let key = key_of(f)?;
    let tables = f.path().mount.tables();
    for lock in &saved.records {
        lock_again(f, LockOwner::Description(f.id()), lock)?;
    }
    if let Some((kind, pid)) = saved.flock {
        // In the sandbox first, as flock(2) does it.
        tables.locks.of(key).flock(f, kind.into(), pid).map_err(|errno| failed(f, errno))?;
        if let Some(outside) = f.file().outside_locks() {
            outside.flock(f.id(), Some(kind.into())).map_err(|errno| failed(f, errno))?;
        }
    }
    if let Some(lease) = &saved.lease {
        let until = |left: u64| Instant::now().checked_add(Duration::from_nanos(left));
        let breaking = lease.breaking.map(|b| (b.to.map(lease_kind_of), b.left_ns.and_then(until)));
        let holder: Arc<dyn LeaseHolder> = f.clone();
        let lease = SavedLease { fd: lease.fd, kind: lease_kind_of(lease.kind), breaking };
        tables.leases.restore(key, f.id(), Arc::downgrade(&holder), lease).map_err(|errno| failed(f, errno))?;
    }
    Ok(())
}

/// Takes the locks that the processes of a descriptor table held.
///
/// # Errors
/// As [`hold_again`]; descriptors that are not there.
pub(super) fn hold_again_by_table(table: &FdTable, saved: &[ProcessLockState]) -> Result<(), ImageError> {
    for ProcessLockState { fd, lock } in saved {
        let f = table.get(Fd(*fd)).map_err(|_| ImageError::state(format!("a lock of descriptor {fd}")))?;
        // As before F_SETLK: a close looks for it.
        table.note_posix_lock();
        lock_again(&f, LockOwner::Process(table.id()), lock)?;
    }
    Ok(())
}

fn lock_again(f: &OpenFile, owner: LockOwner, saved: &RecordLockState) -> Result<(), ImageError> {
    if saved.start > saved.end {
        return Err(ImageError::state("a lock that ends before it begins"));
    }
    let range = Range { start: saved.start, end: saved.end };
    let kind = LockKind::from(saved.kind);
    let lock = RecordLock { range, kind, owner, pid: saved.pid };
    let locks = f.path().mount.tables().locks.of(key_of(f)?);
    locks.lock(lock).map_err(|_| ImageError::state("locks that exclude each other"))?;
    // With --leave-running the original still has it there: then this is an error by name.
    match f.file().outside_locks() {
        Some(outside) => outside.set(owner, range, Some(kind)).map_err(|errno| failed(f, errno)),
        None => Ok(()),
    }
}
