//! [`FdTable`]: a process's descriptors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use moat_abi::{Errno, Result};
use moat_sync::{LockClass, RwLock};

use crate::locks::LockOwner;
use crate::open_file::OpenFile;
use crate::tables::Tables;

pub use crate::fd::{Fd, OnExec};

#[derive(Clone)]
struct Slot {
    file: Arc<OpenFile>,
    on_exec: OnExec,
}

#[derive(Clone, Default)]
struct Slots {
    slots: Vec<Option<Slot>>,
    /// No descriptor below this one is free.
    first_free: usize,
}

/// A table of descriptors; shared by CLONE_FILES, copied by fork.
///
/// Files are dropped outside its lock. It is also the owner of POSIX record locks.
pub struct FdTable {
    id: u64,
    tables: Arc<Tables>,
    slots: RwLock<Slots>,
    posix_locks: AtomicBool,
}

/// Descriptors of one process at most, whatever RLIMIT_NOFILE says (`/proc/sys/fs/nr_open`).
pub const NR_OPEN: u32 = 1024 * 1024;

fn index(fd: Fd) -> Result<usize> {
    usize::try_from(fd.0).map_err(|_| Errno::EBADF)
}

fn number(at: usize) -> Fd {
    // Indexes stay below NR_OPEN.
    Fd(i32::try_from(at).unwrap_or(i32::MAX))
}

impl Slots {
    fn get(&self, fd: Fd) -> Result<&Slot> {
        self.slots.get(index(fd)?).and_then(Option::as_ref).ok_or(Errno::EBADF)
    }

    fn get_mut(&mut self, fd: Fd) -> Result<&mut Slot> {
        self.slots.get_mut(index(fd)?).and_then(Option::as_mut).ok_or(Errno::EBADF)
    }

    fn lowest_free(&self, min: usize) -> usize {
        // Below `first_free` nothing is free, so the search begins there.
        let from = min.max(self.first_free);
        let rest = self.slots.get(from..).unwrap_or_default();
        from + rest.iter().position(Option::is_none).unwrap_or(rest.len())
    }

    fn put(&mut self, at: usize, slot: Slot) -> Option<Slot> {
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, || None);
        }
        if at == self.first_free {
            self.first_free = at + 1;
        }
        self.slots[at].replace(slot)
    }

    fn take(&mut self, at: usize) -> Option<Slot> {
        let slot = self.slots.get_mut(at)?.take()?;
        self.first_free = self.first_free.min(at);
        Some(slot)
    }
}

impl FdTable {
    /// An empty table.
    #[must_use]
    pub fn new(tables: &Arc<Tables>) -> FdTable {
        FdTable {
            id: tables.ids.fd_tables.next(),
            tables: tables.clone(),
            slots: RwLock::new(LockClass::FdTable, Slots::default()),
            posix_locks: AtomicBool::new(false),
        }
    }

    /// A copy with the same open files, as fork makes. POSIX locks stay with the old one.
    #[must_use]
    pub fn copy(&self) -> FdTable {
        let slots = self.slots.read().clone();
        FdTable {
            id: self.tables.ids.fd_tables.next(),
            tables: self.tables.clone(),
            slots: RwLock::new(LockClass::FdTable, slots),
            posix_locks: AtomicBool::new(false),
        }
    }

    /// Names the table: the owner of its POSIX locks, and the answer of kcmp(2).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The open file of `fd`, for anything that an O_PATH descriptor can't do.
    ///
    /// # Errors
    /// EBADF, also for an O_PATH descriptor.
    pub fn get(&self, fd: Fd) -> Result<Arc<OpenFile>> {
        let file = self.get_any(fd)?;
        if file.is_path() { Err(Errno::EBADF) } else { Ok(file) }
    }

    /// The open file of `fd`, O_PATH or not.
    ///
    /// # Errors
    /// EBADF.
    pub fn get_any(&self, fd: Fd) -> Result<Arc<OpenFile>> {
        self.slots.read().get(fd).map(|s| s.file.clone())
    }

    /// Installs a file at the lowest free descriptor not below `min`. `limit` is RLIMIT_NOFILE.
    ///
    /// # Errors
    /// EMFILE.
    pub fn insert(&self, file: Arc<OpenFile>, min: u32, limit: u64, on_exec: OnExec) -> Result<Fd> {
        let mut s = self.slots.write();
        // Looked for and taken under one lock: two threads never get one number.
        let at = s.lowest_free(min as usize);
        if at as u64 >= limit.min(u64::from(NR_OPEN)) {
            return Err(Errno::EMFILE);
        }
        s.put(at, Slot { file, on_exec });
        Ok(number(at))
    }

    /// Installs a file at the lowest free descriptor: what open(2) ends with.
    ///
    /// # Errors
    /// EMFILE.
    pub fn install(&self, file: Arc<OpenFile>, limit: u64, on_exec: OnExec) -> Result<Fd> {
        self.insert(file, 0, limit, on_exec)
    }

    /// EMFILE if no descriptor is free: for calls that must not fail at the end.
    ///
    /// # Errors
    /// EMFILE.
    pub fn check_free(&self, count: usize, limit: u64) -> Result<()> {
        // The answer may be old once the lock is given up, but only by another thread of the process.
        let s = self.slots.read();
        let mut at = 0;
        for _ in 0..count {
            at = s.lowest_free(at);
            if at as u64 >= limit.min(u64::from(NR_OPEN)) {
                return Err(Errno::EMFILE);
            }
            at += 1;
        }
        Ok(())
    }

    /// Installs a file at exactly `fd`, closing what was there (dup2, dup3).
    ///
    /// # Errors
    /// EBADF for a number out of range.
    pub fn replace(&self, fd: Fd, file: Arc<OpenFile>, limit: u64, on_exec: OnExec) -> Result<()> {
        let at = index(fd)?;
        if at as u64 >= limit.min(u64::from(NR_OPEN)) {
            return Err(Errno::EBADF);
        }
        // In one step: no other thread can take the number between close and reuse (dup2(2)).
        let old = self.slots.write().put(at, Slot { file, on_exec });
        if let Some(old) = old {
            // dup2 has no way to report the flush's error.
            let _ = self.closed(old);
        }
        Ok(())
    }

    /// Closes `fd`.
    ///
    /// # Errors
    /// EBADF; those of the file's flush, with the descriptor closed all the same.
    pub fn close(&self, fd: Fd) -> Result<()> {
        let at = index(fd)?;
        let slot = self.slots.write().take(at).ok_or(Errno::EBADF)?;
        self.closed(slot)
    }

    fn closed(&self, slot: Slot) -> Result<()> {
        if slot.file.is_path() {
            return Ok(());
        }
        // Each close flushes, even while other descriptors keep the description.
        let result = slot.file.file().flush(&slot.file);
        // Closing any descriptor of a file gives up all of the process's locks on it (fcntl(2)).
        if self.posix_locks.load(Ordering::Relaxed) {
            slot.file.release_locks(LockOwner::Process(self.id));
        }
        result
    }

    /// Closes all descriptors from `first` to `last`.
    pub fn close_range(&self, first: u32, last: u32) {
        // Taken out under the lock, closed after it: closing may flush to the host.
        let gone: Vec<Slot> = {
            let mut s = self.slots.write();
            // A range beyond the table is no error (close_range(2)).
            let end = (last as usize).saturating_add(1).min(s.slots.len());
            (first as usize..end).filter_map(|at| s.take(at)).collect()
        };
        for slot in gone {
            let _ = self.closed(slot);
        }
    }

    /// Marks all descriptors from `first` to `last` as closing on exec.
    pub fn cloexec_range(&self, first: u32, last: u32) {
        let mut s = self.slots.write();
        let end = (last as usize).saturating_add(1).min(s.slots.len());
        for slot in s.slots.get_mut(first as usize..end).into_iter().flatten().flatten() {
            slot.on_exec = OnExec::Close;
        }
    }

    /// Closes what exec closes. The table must not be shared any more.
    pub fn close_on_exec(&self) {
        let gone: Vec<Slot> = {
            // Nobody else has the table, so nothing comes in between the two steps.
            let mut s = self.slots.write();
            let marked = |s: &Slots, at: usize| s.slots[at].as_ref().is_some_and(|f| f.on_exec == OnExec::Close);
            let all: Vec<usize> = (0..s.slots.len()).filter(|&at| marked(&s, at)).collect();
            all.into_iter().filter_map(|at| s.take(at)).collect()
        };
        for slot in gone {
            let _ = self.closed(slot);
        }
    }

    /// Whether exec closes `fd`.
    ///
    /// # Errors
    /// EBADF.
    pub fn on_exec(&self, fd: Fd) -> Result<OnExec> {
        self.slots.read().get(fd).map(|s| s.on_exec)
    }

    /// Sets whether exec closes `fd`.
    ///
    /// # Errors
    /// EBADF.
    pub fn set_on_exec(&self, fd: Fd, on_exec: OnExec) -> Result<()> {
        self.slots.write().get_mut(fd).map(|s| s.on_exec = on_exec)
    }

    /// All descriptors with their files, in order: for /proc/PID/fd and SCM_RIGHTS cycles.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(Fd, Arc<OpenFile>, OnExec)> {
        let s = self.slots.read();
        s.slots
            .iter()
            .enumerate()
            .filter_map(|(at, s)| s.as_ref().map(|s| (number(at), s.file.clone(), s.on_exec)))
            .collect()
    }

    /// How many descriptors are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.slots.read().slots.iter().flatten().count()
    }

    /// The slots allocated: FDSize of /proc/PID/status.
    #[must_use]
    // As many as Linux allocates: a power of two, at least one long of bits.
    pub fn size(&self) -> usize {
        self.slots.read().slots.len().next_power_of_two().max(64)
    }

    /// Notes that `owner` sets record locks on `f`, so that closing looks for them: to be called before [`FileLocks::lock`].
    ///
    /// [`FileLocks::lock`]: crate::locks::FileLocks::lock
    pub fn note_lock_owner(&self, f: &OpenFile, owner: LockOwner) {
        match owner {
            LockOwner::Process(_) => self.note_posix_lock(),
            LockOwner::Description(_) => f.note_lock(),
        }
    }

    /// Notes that POSIX locks are held in this table's name, so that close looks for them.
    pub(crate) fn note_posix_lock(&self) {
        self.posix_locks.store(true, Ordering::Relaxed);
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        // The last task that had the table has gone.
        self.close_range(0, u32::MAX);
    }
}
