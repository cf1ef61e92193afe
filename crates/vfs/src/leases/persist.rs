//! Leases in an image, and out of it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;

use moat_abi::{Errno, Result};
use moat_sync::{LockClass, Mutex, WaitQueue};

use super::{Breaking, FileLeases, Lease, LeaseHolder, LeaseKind, LeaseTable};
use crate::metadata::InodeKey;

/// The lease of a description.
pub struct SavedLease {
    /// The descriptor that the signal names.
    pub fd: i32,
    /// What it is told of.
    pub kind: LeaseKind,
    /// What it is becoming, and until when, if it is being broken.
    pub breaking: Option<(Option<LeaseKind>, Option<Instant>)>,
}

impl LeaseTable {
    /// The lease that a description has.
    pub(crate) fn save(&self, key: InodeKey, holder: u64) -> Option<SavedLease> {
        let file = self.find(key)?;
        let leases = file.leases.lock();
        let own = leases.iter().find(|lease| lease.holder == holder)?;
        let breaking = own.breaking.map(|breaking| (breaking.to, breaking.until));
        Some(SavedLease { fd: own.fd, kind: own.kind, breaking })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Gives a description the lease that it had, with the breaking that had begun.
    ///
    /// # Errors
    /// EAGAIN if it and another exclude each other.
    pub(crate) fn restore(
        &self,
        key: InodeKey,
        holder: u64,
        file: Weak<dyn LeaseHolder>,
        saved: SavedLease,
    ) -> Result<()> {
        let new = || {
            let leases = Mutex::new(LockClass::FileLocks, Vec::new());
            Arc::new(FileLeases { leases, queue: WaitQueue::new(), count: self.count.clone() })
        };
        // As `set` enters it, but with what it may be on its way to.
        let of_file = self.files.lock().entry(key).or_insert_with(new).clone();
        let mut leases = of_file.leases.lock();
        // A write lease is its file's only one.
        let excludes = |lease: &Lease| saved.kind == LeaseKind::Write || lease.kind == LeaseKind::Write;
        if leases.iter().any(excludes) {
            return Err(Errno::EAGAIN);
        }
        let breaking = saved.breaking.map(|(to, until)| Breaking { to, until });
        leases.push(Lease { holder, file, fd: saved.fd, kind: saved.kind, breaking });
        self.count.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}
