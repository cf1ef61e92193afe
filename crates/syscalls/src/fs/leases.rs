//! Leases: F_SETLEASE and F_GETLEASE of fcntl(2), and the wait of who breaks one.

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::fs::{F_RDLCK, F_UNLCK, F_WRLCK, FileType};
use moat_abi::{Errno, PollEvents, Result};
use moat_kernel::task::wait::WaitError;
use moat_kernel::{CurrentTask, Restart, SyscallError, SyscallResult, Wait};
use moat_vfs::leases::{Breaker, FileLeases, LeaseHolder, LeaseKind};
use moat_vfs::open_file::{Owner, OwnerId};
use moat_vfs::{Fd, OpenFile};

/// F_GETLEASE.
pub(super) fn get(t: &CurrentTask, f: &OpenFile) -> SyscallResult {
    let key = f.inode().metadata()?.key();
    let kind = match t.kernel().vfs.leases.held(key, f.id()) {
        None => F_UNLCK,
        Some(LeaseKind::Read) => F_RDLCK,
        Some(LeaseKind::Write) => F_WRLCK,
    };
    Ok(u64::from(kind.unsigned_abs()))
}

/// F_SETLEASE (`generic_setlease`).
pub(super) fn set(t: &CurrentTask, fd: Fd, f: &Arc<OpenFile>, kind: i32) -> SyscallResult {
    let meta = f.inode().metadata()?;
    if t.creds().fsuid != meta.uid && !t.creds().has_root_cap(Cap::LEASE) {
        return Err(Errno::EACCES.into());
    }
    // Of a tree that others share, nobody here learns what they open: it has none, as a network file system.
    if meta.file_type() != FileType::Regular || f.file().outside_locks().is_some() {
        return Err(Errno::EINVAL.into());
    }
    let leases = &t.kernel().vfs.leases;
    let kind = match i16::try_from(kind) {
        Ok(F_UNLCK) => {
            leases.remove(meta.key(), f.id())?;
            return Ok(0);
        }
        Ok(F_RDLCK) => LeaseKind::Read,
        Ok(F_WRLCK) => LeaseKind::Write,
        _ => return Err(Errno::EINVAL.into()),
    };
    // Read before it is granted: the lease would have to be told of these openings.
    check_openings(t, f, kind)?;
    let holder: Arc<dyn LeaseHolder> = f.clone();
    leases.set(meta.key(), f.id(), (Arc::downgrade(&holder), fd.0), kind)?;
    // Closing looks for leases only where this is noted.
    f.note_lock();
    // Whoever takes a lease is told of its break, unless F_SETOWN has named somebody else.
    if matches!(f.owner().0.id, OwnerId::None) {
        let id = OwnerId::Process(t.group.pid().clone());
        f.set_owner(Owner { id, uid: t.creds().uid, euid: t.creds().euid });
    }
    Ok(0)
}

/// Whether the file is open in a way that the lease would have been told of (`check_conflicting_open`).
fn check_openings(t: &CurrentTask, f: &Arc<OpenFile>, kind: LeaseKind) -> Result<()> {
    let writes = f.flags().access_mode().can_write();
    // A write lease may be held by the only writer.
    let own = match kind {
        LeaseKind::Read => 0,
        LeaseKind::Write => u64::from(writes),
    };
    if t.kernel().vfs.writers(f.inode().metadata()?.key()) != own
        || (kind == LeaseKind::Write && has_other_openings(t, f)?)
    {
        return Err(Errno::EAGAIN);
    }
    Ok(())
}

/// Whether another description of the file is in the descriptors of some process.
fn has_other_openings(t: &CurrentTask, f: &Arc<OpenFile>) -> Result<bool> {
    let key = f.inode().metadata()?.key();
    for process in t.kernel().processes() {
        let Some(fds) = process.any_thread().and_then(|thread| thread.fds_of()) else { continue };
        for (_, other, _) in fds.snapshot() {
            let may_be = other.id() != f.id() && !other.is_path() && other.inode().file_type() == FileType::Regular;
            // One that can't be asked is open, but not this file's.
            if may_be && other.inode().metadata().is_ok_and(|meta| meta.key() == key) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Waits until no lease is in the way of `breaker`.
pub(super) async fn wait(t: &mut CurrentTask, leases: &FileLeases, breaker: Breaker) -> Result<(), SyscallError> {
    // Asked again after each wait: another lease may have come, or a break be due.
    while let Some(until) = leases.wait_until(breaker) {
        let wait = Wait::restarting("break_lease", Restart::Sys).until(until);
        let look = |_: &mut CurrentTask| match leases.wait_until(breaker) {
            None => std::task::Poll::Ready(()),
            Some(_) => std::task::Poll::Pending,
        };
        match t.wait_for(&(leases.queue(), PollEvents::IN), &wait, look).await {
            // What is due is done when it is asked again.
            Ok(()) | Err(WaitError::TimedOut) => {}
            Err(WaitError::Interrupted(error)) => return Err(error),
        }
    }
    Ok(())
}
