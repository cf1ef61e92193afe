//! Leases: a note that a file is about to be opened or truncated by others (F_SETLEASE of fcntl(2), `fs/locks.c`).
//!
//! An opening or truncation that conflicts with a lease *breaks* it: the holder gets a signal and has `lease-break-time` seconds to
//! give it up or make it weaker; then that is done for it. Nothing waits here: who breaks a lease listens to
//! [`FileLeases::queue`] and asks [`FileLeases::wait_until`] again.

mod persist;

pub use persist::SavedLease;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use moat_abi::{Errno, PollEvents, Result};
use moat_identity::Setting;
use moat_sync::{LockClass, Mutex, WaitQueue};

use crate::metadata::InodeKey;

/// An open file description that has a lease.
pub trait LeaseHolder: Send + Sync {
    /// The lease is being broken: whoever F_SETOWN named is sent the signal of F_SETSIG, about descriptor `fd`.
    fn lease_breaks(&self, fd: i32);
}

/// What the holder of a lease is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseKind {
    /// F_RDLCK: openings for writing, and truncation.
    Read,
    /// F_WRLCK: all openings.
    Write,
}

/// How a file is about to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// It is opened for reading.
    Reader,
    /// It is opened for writing, or truncated.
    Writer,
}

impl Breaker {
    fn conflicts_with(self, kind: LeaseKind) -> bool {
        self == Breaker::Writer || kind == LeaseKind::Write
    }

    /// What the lease may become.
    fn leaves(self) -> Option<LeaseKind> {
        match self {
            Breaker::Reader => Some(LeaseKind::Read),
            Breaker::Writer => None,
        }
    }
}

/// A lease on its way to something weaker.
#[derive(Clone, Copy)]
struct Breaking {
    /// `None`: it is to be given up.
    to: Option<LeaseKind>,
    /// When that is done for the holder.
    until: Option<Instant>,
}

struct Lease {
    holder: u64,
    file: Weak<dyn LeaseHolder>,
    /// The descriptor that the signal names.
    fd: i32,
    kind: LeaseKind,
    breaking: Option<Breaking>,
}

/// The leases of one file.
pub struct FileLeases {
    leases: Mutex<Vec<Lease>>,
    queue: WaitQueue,
    count: Arc<AtomicUsize>,
}

/// The leases of all files of a kernel.
pub struct LeaseTable {
    files: Mutex<HashMap<InodeKey, Arc<FileLeases>>>,
    /// How many there are, so that openings ask for nothing while there is none.
    count: Arc<AtomicUsize>,
    /// `/proc/sys/fs/lease-break-time`, in seconds; 0 waits for ever.
    pub break_time: Arc<Setting>,
}

impl Default for LeaseTable {
    fn default() -> LeaseTable {
        LeaseTable {
            files: Mutex::new(LockClass::Table, HashMap::new()),
            count: Arc::default(),
            break_time: Arc::new(Setting::new(45, 0, 0x7fff_ffff)),
        }
    }
}

impl FileLeases {
    /// Woken when a lease has gone, or become weaker.
    #[must_use]
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// Until when `breaker` has to wait at most before it asks again, `None` in it for ever; nothing if no lease is in its way (any
    /// more). What is due is done.
    pub fn wait_until(&self, breaker: Breaker) -> Option<Option<Instant>> {
        // One time for all leases of the file.
        let now = Instant::now();
        let (waits, changed) = {
            let mut leases = self.leases.lock();
            let before = leases.len();
            let mut changed = false;
            leases.retain_mut(|lease| match lease.breaking {
                Some(Breaking { to, until: Some(until) }) if until <= now => {
                    changed = true;
                    // The time is over: what the holder was asked for is done.
                    lease.breaking = None;
                    lease.kind = to.unwrap_or(lease.kind);
                    to.is_some()
                }
                _ => true,
            });
            let gone = before.saturating_sub(leases.len());
            self.count.fetch_sub(gone, Ordering::AcqRel);
            changed |= gone != 0;
            let mut in_the_way = leases.iter().filter(|lease| breaker.conflicts_with(lease.kind));
            (in_the_way.next().map(|lease| lease.breaking.and_then(|b| b.until)), changed)
        };
        // Others that wait for this file look again.
        if changed {
            self.queue.wake(PollEvents::IN);
        }
        waits
    }

    /// Begins to break what is in the way of `breaker`; the holders that are to be told.
    fn begin(&self, breaker: Breaker, until: Option<Instant>) -> Vec<(Weak<dyn LeaseHolder>, i32)> {
        let to = breaker.leaves();
        let mut told = Vec::new();
        // Signals are sent by the caller, when this lock is free.
        for lease in self.leases.lock().iter_mut().filter(|lease| breaker.conflicts_with(lease.kind)) {
            // One that is being given up can't be broken further; one that becomes a read lease can.
            if lease.breaking.is_none_or(|b| b.to.is_some() && to.is_none()) {
                lease.breaking = Some(Breaking { to, until });
                told.push((lease.file.clone(), lease.fd));
            }
        }
        told
    }
}

impl LeaseTable {
    /// Whether there is none, so that nothing can be in the way of anybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    fn find(&self, key: InodeKey) -> Option<Arc<FileLeases>> {
        self.files.lock().get(&key).cloned()
    }

    /// Breaks the leases that are in the way of an opening or truncation: the signals are sent. Nothing if there is none; else the
    /// caller waits, or gives EWOULDBLOCK.
    #[must_use]
    pub fn break_for(&self, key: InodeKey, breaker: Breaker) -> Option<Arc<FileLeases>> {
        let leases = self.in_the_way(key, breaker)?;
        let seconds = self.break_time.get();
        // 0 is no limit (`lease-break-time` of proc_sys_fs(5)).
        let until = if seconds == 0 { None } else { Instant::now().checked_add(Duration::from_secs(seconds)) };
        for (file, fd) in leases.begin(breaker, until) {
            if let Some(file) = file.upgrade() {
                file.lease_breaks(fd);
            }
        }
        Some(leases)
    }

    /// The leases of a file if one is in the way; nothing is broken.
    #[must_use]
    pub fn in_the_way(&self, key: InodeKey, breaker: Breaker) -> Option<Arc<FileLeases>> {
        self.find(key).filter(|leases| leases.wait_until(breaker).is_some())
    }

    /// The kind of lease that a description has, or will have when it is broken (F_GETLEASE).
    #[must_use]
    pub fn held(&self, key: InodeKey, holder: u64) -> Option<LeaseKind> {
        let file = self.find(key)?;
        let leases = file.leases.lock();
        let own = leases.iter().find(|lease| lease.holder == holder)?;
        own.breaking.map_or(Some(own.kind), |b| b.to)
    }

    /// Gives the description `holder` a lease, or changes the one that it has. That the file is open in no way that conflicts has been
    /// checked.
    ///
    /// # Errors
    /// EAGAIN if another lease is in the way.
    pub fn set(
        &self,
        key: InodeKey,
        holder: u64,
        (file, fd): (Weak<dyn LeaseHolder>, i32),
        kind: LeaseKind,
    ) -> Result<()> {
        let of_file = {
            let new = || {
                let leases = Mutex::new(LockClass::FileLocks, Vec::new());
                Arc::new(FileLeases { leases, queue: WaitQueue::new(), count: self.count.clone() })
            };
            // Entered before the lease is, so that an opening from here on finds the file.
            self.files.lock().entry(key).or_insert_with(new).clone()
        };
        {
            let mut leases = of_file.leases.lock();
            let mut others = leases.iter().filter(|lease| lease.holder != holder);
            // Nobody gets one while another is being given up.
            let refuses = |lease: &Lease| kind == LeaseKind::Write || lease.breaking.is_some_and(|b| b.to.is_none());
            if others.any(refuses) {
                return Err(Errno::EAGAIN);
            }
            match leases.iter_mut().find(|lease| lease.holder == holder) {
                Some(own) => {
                    own.kind = kind;
                    // A read lease is all that a reader asks for; a writer goes on waiting.
                    own.breaking = own.breaking.filter(|b| kind == LeaseKind::Write || b.to.is_none());
                }
                None => {
                    leases.push(Lease { holder, file, fd, kind, breaking: None });
                    self.count.fetch_add(1, Ordering::AcqRel);
                }
            }
        }
        // A lease that became weaker lets a reader go on.
        of_file.queue.wake(PollEvents::IN);
        Ok(())
    }

    /// Takes the lease of a description away (F_UNLCK, and its last close).
    ///
    /// # Errors
    /// EAGAIN if it has none.
    pub fn remove(&self, key: InodeKey, holder: u64) -> Result<()> {
        let Some(of_file) = self.find(key) else { return Err(Errno::EAGAIN) };
        let (had, is_empty) = {
            let mut leases = of_file.leases.lock();
            let before = leases.len();
            leases.retain(|lease| lease.holder != holder);
            let gone = before.saturating_sub(leases.len());
            self.count.fetch_sub(gone, Ordering::AcqRel);
            (gone != 0, leases.is_empty())
        };
        if had {
            of_file.queue.wake(PollEvents::IN);
        }
        // A file without leases costs nothing.
        if is_empty {
            self.tidy(key, &of_file);
        }
        if had { Ok(()) } else { Err(Errno::EAGAIN) }
    }

    /// Forgets a file without leases, unless somebody is about to add one.
    fn tidy(&self, key: InodeKey, of_file: &Arc<FileLeases>) {
        let gone = {
            let mut files = self.files.lock();
            // The table's reference and the caller's.
            if Arc::strong_count(of_file) > 2 { None } else { files.remove(&key) }
        };
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_abi::stat::DeviceId;

    struct Holder;

    impl LeaseHolder for Holder {
        fn lease_breaks(&self, _fd: i32) {}
    }

    const KEY: InodeKey = InodeKey { dev: DeviceId { major: 0, minor: 9 }, ino: 1 };

    fn set(table: &LeaseTable, holder: u64, kind: LeaseKind) -> Result<()> {
        let file: Weak<dyn LeaseHolder> = Weak::<Holder>::new();
        table.set(KEY, holder, (file, 3), kind)
    }

    #[test]
    fn a_lease_is_broken_and_given_up() {
        let table = LeaseTable::default();
        set(&table, 1, LeaseKind::Read).unwrap();
        set(&table, 2, LeaseKind::Read).unwrap();
        assert_eq!(set(&table, 3, LeaseKind::Write), Err(Errno::EAGAIN));
        assert!(table.break_for(KEY, Breaker::Reader).is_none());
        let leases = table.break_for(KEY, Breaker::Writer).unwrap();
        assert_eq!(table.held(KEY, 1), None, "it is on its way");
        assert_eq!(set(&table, 3, LeaseKind::Read), Err(Errno::EAGAIN));
        table.remove(KEY, 1).unwrap();
        assert!(leases.wait_until(Breaker::Writer).is_some());
        table.remove(KEY, 2).unwrap();
        assert!(leases.wait_until(Breaker::Writer).is_none() && table.is_empty());
        assert_eq!(table.remove(KEY, 2), Err(Errno::EAGAIN));
    }

    #[test]
    fn what_is_due_is_done_for_the_holder() {
        let table = LeaseTable::default();
        set(&table, 1, LeaseKind::Write).unwrap();
        let leases = table.break_for(KEY, Breaker::Reader).unwrap();
        assert_eq!(table.held(KEY, 1), Some(LeaseKind::Read));
        let due = |leases: &FileLeases| {
            for lease in leases.leases.lock().iter_mut() {
                lease.breaking = lease.breaking.map(|b| Breaking { until: Some(Instant::now()), ..b });
            }
        };
        due(&leases);
        assert!(leases.wait_until(Breaker::Reader).is_none());
        assert!(table.break_for(KEY, Breaker::Writer).is_some());
        due(&leases);
        assert!(leases.wait_until(Breaker::Writer).is_none() && table.is_empty());
    }
}
