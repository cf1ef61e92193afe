//! Shared memory segments: [`Segments`] of a namespace, and [`SegmentMemory`], what a mapping of one shows.
//!
//! A segment's memory is a [`HostMemory`]. The areas that show it hold a reference each, so the number of references is `shm_nattch`,
//! through fork, exec, exit and splits of areas. A removed segment keeps only a weak reference: it ends with its last area.

mod persist;

use std::sync::{Arc, Weak};

use moat_abi::ipc::{SHM_DEST, SHM_LOCKED, SHMALL, SHMMAX, SHMMIN, SHMMNI, Shmid64Ds};
use moat_abi::{Errno, Result};
use moat_identity::{Setting, UserNamespace};
use moat_mm::{FileIdentity, HostMemory, MapFile, MapName, Mappable, Origin, PAGE_SIZE, page_up};
use moat_platform::MapSource;
use moat_sync::{LockClass, Mutex, MutexGuard};
use moat_vfs::cred::Credentials;

use crate::now;
use crate::registry::{Entry, Found, Registry, Stat};

const DEST: u32 = SHM_DEST.cast_unsigned();
const LOCKED: u32 = SHM_LOCKED.cast_unsigned();

/// The memory of one segment.
pub struct SegmentMemory {
    memory: HostMemory,
    size: u64,
    key: i32,
    id: i32,
    identity: FileIdentity,
}

/// Bit of the device numbers that no file system has: the rest is the id of an IPC namespace.
const IDENTITY_DEVICES: u64 = 1 << 63;

impl SegmentMemory {
    /// Pages that are in memory.
    fn resident_pages(&self) -> u64 {
        self.memory.allocated_bytes() / PAGE_SIZE
    }
}

impl Mappable for SegmentMemory {
    fn map_source(&self, what: &MapFile) -> Result<MapSource> {
        Ok(self.memory.map_source(what.offset, what.sharing))
    }

    fn identity(&self) -> FileIdentity {
        self.identity
    }

    fn describe(&self) -> MapName {
        // Linux shows the internal tmpfs and the id.
        let identity = FileIdentity { dev: 1, ino: u64::from(self.id.cast_unsigned()) };
        MapName { identity, path: format!("/SYSV{:08x} (deleted)", self.key).into_bytes() }
    }

    /// Those of the container's namespace are known before their mappings are looked at.
    fn origin(&self) -> Origin<'_> {
        Origin::Other("a System V segment of another IPC namespace")
    }

    fn is_segment(&self) -> bool {
        true
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        self.memory.punch_hole(offset, len)
    }
}

enum Hold {
    /// Until IPC_RMID.
    Own(Arc<SegmentMemory>),
    /// After it.
    Dying(Weak<SegmentMemory>),
}

struct Segment {
    memory: Hold,
    size: u64,
    identity: FileIdentity,
    atime: i64,
    dtime: i64,
    ctime: i64,
    cpid: i32,
    lpid: i32,
}

impl Segment {
    fn attached(&self) -> u64 {
        let count = match &self.memory {
            // Less the table's own.
            Hold::Own(memory) => Arc::strong_count(memory) - 1,
            Hold::Dying(memory) => memory.strong_count(),
        };
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    fn memory(&self) -> Result<Arc<SegmentMemory>> {
        match &self.memory {
            Hold::Own(memory) => Ok(memory.clone()),
            Hold::Dying(memory) => memory.upgrade().ok_or(Errno::EINVAL),
        }
    }

    fn is_gone(&self) -> bool {
        matches!(&self.memory, Hold::Dying(m) if m.strong_count() == 0)
    }

    fn pages(&self) -> u64 {
        self.size.div_ceil(PAGE_SIZE)
    }
}

struct Table {
    registry: Registry<Segment>,
    /// Segments are never taken for one another, though ids come again.
    next_serial: u64,
    /// Removed, with areas left when last looked at.
    dying: Vec<i32>,
}

/// The sums that SHM_INFO shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Segments.
    pub segments: usize,
    /// Pages of all of them.
    pub pages: u64,
    /// Pages in memory.
    pub resident_pages: u64,
}

/// The segments of a namespace.
pub struct Segments {
    table: Mutex<Table>,
    /// What tells the segments of this namespace from those of others, and from files.
    dev: u64,
    /// Most bytes of one (`kernel.shmmax`).
    pub max_bytes: Setting,
    /// Most pages of all (`kernel.shmall`).
    pub max_pages: Setting,
    /// Most segments (`kernel.shmmni`).
    pub max_count: Setting,
}

impl Segments {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.lock().registry.count() == 0
    }

    /// A namespace without segments; `namespace` is its id, `user_ns` its owner.
    #[must_use]
    pub fn new(namespace: u64, user_ns: Arc<UserNamespace>) -> Segments {
        let registry = Registry::new(usize::try_from(SHMMNI).unwrap_or(usize::MAX), user_ns);
        Segments {
            table: Mutex::new(LockClass::Table, Table { registry, next_serial: 1, dying: Vec::new() }),
            dev: IDENTITY_DEVICES | namespace,
            max_bytes: Setting::new(SHMMAX, 0, u64::MAX),
            max_pages: Setting::new(SHMALL, 0, u64::MAX),
            max_count: Setting::new(SHMMNI, 0, 32768),
        }
    }
}

fn show(entry: &Entry<Segment>) -> Shmid64Ds {
    let s = &entry.object;
    Shmid64Ds {
        shm_perm: entry.perm.show(),
        shm_segsz: s.size,
        shm_atime: s.atime,
        shm_dtime: s.dtime,
        shm_ctime: s.ctime,
        shm_cpid: s.cpid,
        shm_lpid: s.lpid,
        shm_nattch: s.attached(),
        ..Shmid64Ds::default()
    }
}

impl Segments {
    /// The table, without removed segments whose last area is gone.
    fn table(&self) -> MutexGuard<'_, Table> {
        let mut table = self.table.lock();
        if !table.dying.is_empty() {
            let Table { registry, dying, .. } = &mut *table;
            dying.retain(|&id| {
                let gone = registry.get(id).is_ok_and(|e| e.object.is_gone());
                if gone {
                    // Nothing is closed by this: the memory went with its last area.
                    let _ = registry.remove(id);
                }
                !gone
            });
        }
        table
    }

    /// shmget(2); `pid` is the caller's.
    ///
    /// # Errors
    /// EINVAL for the size; ENOSPC for limits; ENOMEM; those of [`Registry::find`].
    pub fn get(&self, key: i32, size: u64, flags: i32, creds: &Credentials, pid: i32) -> Result<i32> {
        let find = |table: &Table| {
            table.registry.find(key, flags, creds, |s| if s.size < size { Err(Errno::EINVAL) } else { Ok(()) })
        };
        if let Found::Existing(id) = find(&self.table())? {
            return Ok(id);
        }
        if !(SHMMIN..=self.max_bytes.get()).contains(&size) {
            return Err(Errno::EINVAL);
        }
        let pages = page_up(size).ok_or(Errno::ENOSPC)?;
        // Made with the table unlocked: the host is asked.
        let memory = HostMemory::new("sysv", pages).map_err(|_| Errno::ENOMEM)?;
        let mut table = self.table();
        // Another call may have been faster.
        if let Found::Existing(id) = find(&table)? {
            // Unlocked before `memory` is closed.
            drop(table);
            return Ok(id);
        }
        let own_pages = usize::try_from(size.div_ceil(PAGE_SIZE)).map_err(|_| Errno::ENOSPC)?;
        let used = u64::try_from(table.registry.weight().saturating_add(own_pages)).unwrap_or(u64::MAX);
        if used > self.max_pages.get() {
            return Err(Errno::ENOSPC);
        }
        table.registry.set_capacity(self.max_count.get());
        let identity = FileIdentity { dev: self.dev, ino: table.next_serial };
        table.next_serial += 1;
        table.registry.add(key, flags, creds, own_pages, |id| Segment {
            memory: Hold::Own(Arc::new(SegmentMemory { memory, size, key, id, identity })),
            size,
            identity,
            atime: 0,
            dtime: 0,
            ctime: now(),
            cpid: pid,
            lpid: 0,
        })
    }

    /// The memory of segment `id` and its bytes, for shmat(2) with `wanted` permissions.
    ///
    /// # Errors
    /// EINVAL, EACCES.
    pub fn attach(&self, id: i32, wanted: u32, creds: &Credentials) -> Result<(Arc<SegmentMemory>, u64)> {
        let table = self.table();
        let entry = table.registry.get(id)?;
        entry.perm.check(creds, wanted)?;
        let memory = entry.object.memory()?;
        let size = memory.size;
        Ok((memory, size))
    }

    /// Takes note of an attachment that `pid` made.
    pub fn note_attach(&self, id: i32, pid: i32) {
        if let Ok(entry) = self.table().registry.get_mut(id) {
            entry.object.atime = now();
            entry.object.lpid = pid;
        }
    }

    /// Takes note that `pid` detached the segment `identity`, if it is of this namespace.
    pub fn note_detach(&self, identity: FileIdentity, pid: i32) {
        let mut table = self.table();
        if let Some(entry) = table.registry.iter_mut().find(|e| e.object.identity == identity) {
            entry.object.dtime = now();
            entry.object.lpid = pid;
        }
    }

    /// IPC_STAT and its like: the id and the state.
    ///
    /// # Errors
    /// EINVAL, EACCES.
    pub fn stat(&self, id: i32, how: Stat, creds: &Credentials) -> Result<(i32, Shmid64Ds)> {
        let table = self.table();
        let entry = table.registry.stat(id, how, creds)?;
        Ok((entry.id(), show(entry)))
    }

    /// IPC_SET.
    ///
    /// # Errors
    /// EINVAL, EPERM.
    pub fn set(&self, id: i32, new: &Shmid64Ds, creds: &Credentials) -> Result<()> {
        let mut table = self.table();
        let entry = table.registry.get_mut(id)?;
        entry.perm.check_control(creds)?;
        entry.perm.set(&new.shm_perm)?;
        entry.object.ctime = now();
        Ok(())
    }

    /// IPC_RMID: the key is free at once, the memory goes with its last area.
    ///
    /// # Errors
    /// EINVAL, EPERM.
    pub fn remove(&self, id: i32, creds: &Credentials) -> Result<()> {
        let freed = {
            let mut table = self.table();
            let entry = table.registry.get_mut(id)?;
            entry.perm.check_control(creds)?;
            entry.perm.mode |= DEST;
            // It is removed already.
            let Hold::Own(memory) = &entry.object.memory else { return Ok(()) };
            let weak = Hold::Dying(Arc::downgrade(memory));
            let memory = std::mem::replace(&mut entry.object.memory, weak);
            table.registry.forget_key(id);
            table.dying.push(id);
            memory
        };
        // The descriptor is closed outside the lock.
        drop(freed);
        // Without an area it is gone: this takes it out of the table.
        drop(self.table());
        Ok(())
    }

    /// SHM_LOCK and SHM_UNLOCK, which only mark the segment; `may_lock` is what CAP_IPC_LOCK or RLIMIT_MEMLOCK allow.
    ///
    /// # Errors
    /// EINVAL, EPERM.
    pub fn set_locked(&self, id: i32, lock: Lock, creds: &Credentials, is_privileged: bool) -> Result<()> {
        let mut table = self.table();
        let entry = table.registry.get_mut(id)?;
        if !is_privileged && !entry.perm.is_owner(creds) {
            return Err(Errno::EPERM);
        }
        match lock {
            Lock::Locked => entry.perm.mode |= LOCKED,
            Lock::Unlocked => entry.perm.mode &= !LOCKED,
        }
        Ok(())
    }

    /// The sums, and the highest index in use.
    #[must_use]
    pub fn usage(&self) -> (Usage, u32) {
        let (segments, highest) = {
            let table = self.table();
            // The host is asked for the pages later, with the table unlocked.
            let all: Vec<_> = table.registry.iter().map(|e| (e.object.pages(), e.object.memory().ok())).collect();
            (all, table.registry.highest_index())
        };
        let mut usage = Usage { segments: segments.len(), ..Usage::default() };
        for (pages, memory) in segments {
            usage.pages = usage.pages.saturating_add(pages);
            usage.resident_pages += memory.map_or(0, |m| m.resident_pages());
        }
        (usage, highest)
    }

    /// All segments: id, state and resident pages, for `/proc/sysvipc/shm`.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(i32, Shmid64Ds, u64)> {
        let all: Vec<_> = self.table().registry.iter().map(|e| (e.id(), show(e), e.object.memory().ok())).collect();
        all.into_iter().map(|(id, ds, memory)| (id, ds, memory.map_or(0, |m| m.resident_pages()))).collect()
    }
}

/// What SHM_LOCK and SHM_UNLOCK make of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Not to be swapped.
    Locked,
    /// As any memory.
    Unlocked,
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_abi::ipc::{IPC_CREAT, IPC_PRIVATE};

    #[test]
    fn a_removed_segment_lives_until_its_last_area() {
        let root = Credentials::root(moat_identity::UserNamespace::root());
        let s = Segments::new(1, UserNamespace::root());
        let id = s.get(9, 5000, IPC_CREAT | 0o600, &root, 1).unwrap();
        assert_eq!(s.get(9, 5001, 0, &root, 1), Err(Errno::EINVAL));
        let (area, size) = s.attach(id, 0o600, &root).unwrap();
        assert_eq!((size, s.stat(id, Stat::ById, &root).unwrap().1.shm_nattch), (5000, 1));
        s.remove(id, &root).unwrap();
        let ds = s.stat(id, Stat::ById, &root).unwrap().1;
        assert_eq!((ds.shm_nattch, ds.shm_perm.mode, ds.shm_perm.key), (1, 0o600 | DEST, IPC_PRIVATE));
        assert_eq!(s.get(9, 1, 0, &root, 1), Err(Errno::ENOENT));
        drop(area);
        assert_eq!(s.stat(id, Stat::ById, &root), Err(Errno::EINVAL));
        assert_eq!(s.usage().0, Usage::default());
    }
}
