//! Contents of a regular file.
//!
//! A vector while the file is small, without holes but at its end, and nobody maps it; else a host memfd, or a file of the file
//! system's medium. The sentry's descriptors are limited, so once there are many ([`MANY`]) larger files stay vectors too, holes
//! filled. The file system's usage counts pages that were written or reserved one by one; those that were only stored to through a
//! mapping are counted when attributes are asked for.

mod persist;

use std::sync::atomic::{AtomicUsize, Ordering};

use moat_abi::fs::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, SealFlags};
use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_mm::HostMemory;
use moat_sync::block_in_place;
use moat_vfs::file::SparseSeek;
use rustix::fs::{FallocateFlags, SeekFrom};

use crate::pages::PageSet;
use crate::shared::{BLOCK, Shared};

/// The largest file kept in a vector, in bytes.
const SMALL: u64 = 64 * 1024;
/// The largest one once there are [`MANY`] memfds.
const MEDIUM: u64 = 16 * 1024 * 1024;
/// Memfds beyond which only large and mapped files get one.
const MANY: usize = 4096;

/// Counts for the whole process, whose descriptors they are.
static MEMFDS: AtomicUsize = AtomicUsize::new(0);

enum Store {
    Small(Vec<u8>),
    Host(HostMemory),
}

/// The contents of a regular file, with its seals.
pub struct Data {
    store: Store,
    size: u64,
    /// Pages that were written or reserved. Those of a vector begin at 0 and have no gaps.
    held: PageSet,
    /// Pages that the host has besides, by stores through a mapping.
    stored: u64,
    /// The host's time of change when the guest's was last set, once stores through a mapping can change the file.
    seen: Option<Timespec>,
    seals: SealFlags,
}

/// The pages that bytes are in.
fn pages(pos: u64, end: u64) -> (u64, u64) {
    (pos / BLOCK, end.div_ceil(BLOCK))
}

fn length(v: &[u8]) -> u64 {
    v.len() as u64
}

fn to_usize(n: u64) -> Result<usize> {
    usize::try_from(n).map_err(|_| Errno::EFBIG)
}

impl Data {
    pub(crate) fn new(seals: SealFlags) -> Data {
        let store = Store::Small(Vec::new());
        Data { store, size: 0, held: PageSet::default(), stored: 0, seen: None, seals }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Blocks in use. The host knows what was stored through a mapping.
    pub(crate) fn blocks(&mut self, shared: &Shared) -> u64 {
        if self.seen.is_some() {
            self.count_stored(shared);
        }
        self.held.len().saturating_add(self.stored)
    }

    fn count_stored(&mut self, shared: &Shared) {
        let Store::Host(memory) = &self.store else { return };
        let stored = (memory.allocated_bytes() / BLOCK).saturating_sub(self.held.len());
        // They are there, whatever the limit says.
        shared.exchange_blocks(self.stored, stored);
        self.stored = stored;
    }

    /// The file can be changed by stores through a mapping from here on.
    pub(crate) fn note_mapped(&mut self) {
        if let Store::Host(memory) = &self.store
            && self.seen.is_none()
        {
            self.seen = memory.modified();
        }
    }

    /// The time of the last store through a mapping, if there was one since this was called.
    pub(crate) fn stored_at(&mut self) -> Option<Timespec> {
        let Store::Host(memory) = &self.store else { return None };
        let (seen, now) = (self.seen?, memory.modified()?);
        self.seen = Some(now);
        (now != seen).then_some(now)
    }

    pub(crate) fn seals(&self) -> SealFlags {
        self.seals
    }

    /// Adds seals (F_ADD_SEALS). The host keeps them too, so that mappings obey.
    pub(crate) fn add_seals(&mut self, seals: SealFlags) -> Result<()> {
        if self.seals.contains(SealFlags::SEAL) {
            return Err(Errno::EPERM);
        }
        if let Store::Host(memory) = &self.store {
            // First on the host, which refuses F_SEAL_WRITE while somebody has a writable mapping (EBUSY).
            seal_host(memory, seals)?;
        }
        self.seals |= seals;
        Ok(())
    }

    pub(crate) fn read(&self, buf: &mut [u8], pos: u64) -> Result<usize> {
        if pos >= self.size {
            return Ok(0);
        }
        let n = usize::try_from(self.size.saturating_sub(pos)).unwrap_or(usize::MAX).min(buf.len());
        match &self.store {
            Store::Small(v) => {
                let from = to_usize(pos)?;
                let have = v.get(from..).unwrap_or_default();
                let have = &have[..have.len().min(n)];
                buf[..have.len()].copy_from_slice(have);
                // What the vector lacks of the file is zeros.
                buf[have.len()..n].fill(0);
                Ok(n)
            }
            Store::Host(memory) => rustix::io::pread(memory.fd(), &mut buf[..n], pos).map_err(Errno::from),
        }
    }

    /// The file of a medium in which `len` bytes at `pos` are, as many as there are; `None` if [`Data::read`] has them without waiting.
    pub(crate) fn on_medium(&self, shared: &Shared, pos: u64, len: usize) -> Option<(HostMemory, usize)> {
        match &self.store {
            Store::Host(memory) if shared.medium.is_some() => {
                let left = usize::try_from(self.size.saturating_sub(pos)).unwrap_or(usize::MAX);
                Some((memory.clone(), left.min(len)))
            }
            _ => None,
        }
    }

    /// Writes; gives the bytes written, fewer if the file system is full after some.
    pub(crate) fn write(&mut self, shared: &Shared, buf: &[u8], pos: u64) -> Result<usize> {
        if self.seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
            return Err(Errno::EPERM);
        }
        if buf.is_empty() {
            return Ok(0);
        }
        let mut buf = buf;
        if i64::MAX.cast_unsigned().saturating_sub(pos) < buf.len() as u64 {
            return Err(Errno::EFBIG);
        }
        if self.seals.contains(SealFlags::GROW) && pos.saturating_add(buf.len() as u64) > self.size {
            // Page by page (`shmem_write_begin`): a page that the write would leave longer is not written at all.
            let room = (self.size / BLOCK).saturating_mul(BLOCK).saturating_sub(pos);
            if room == 0 {
                return Err(Errno::EPERM);
            }
            buf = &buf[..to_usize(room)?.min(buf.len())];
        }
        let mut end = pos.saturating_add(buf.len() as u64);
        if !self.stays_vector(pos, end) {
            self.host_memory(shared)?;
        }
        if self.charge(shared, pos, end).is_err() {
            // Full: what fits in the blocks left is written, as a page-wise copy would have it.
            end = end.min(self.reach(pos, end, shared.blocks_left()));
            if end <= pos {
                return Err(Errno::ENOSPC);
            }
            self.charge(shared, pos, end)?;
            buf = &buf[..to_usize(end.saturating_sub(pos))?];
        }
        match &mut self.store {
            Store::Small(v) => {
                let (from, to) = (to_usize(pos)?, to_usize(end)?);
                if v.len() < to {
                    v.resize(to, 0);
                }
                v[from..to].copy_from_slice(buf);
            }
            Store::Host(memory) => {
                let n = rustix::io::pwrite(memory.fd(), buf, pos).map_err(Errno::from)?;
                self.size = self.size.max(pos.saturating_add(n as u64));
                return Ok(n);
            }
        }
        self.size = self.size.max(end);
        Ok(buf.len())
    }

    /// Whether a vector can take a write of `pos..end`: that is no hole in it, or there are too many memfds to have holes.
    fn stays_vector(&self, pos: u64, end: u64) -> bool {
        let Store::Small(v) = &self.store else { return false };
        let gap = pos / BLOCK > length(v).div_ceil(BLOCK);
        (end <= SMALL && !gap) || (end <= MEDIUM && MEMFDS.load(Ordering::Relaxed) >= MANY)
    }

    /// Counts the blocks that a write of `pos..end` needs.
    fn charge(&mut self, shared: &Shared, pos: u64, end: u64) -> Result<()> {
        let (first, last) = pages(pos, end);
        // A vector holds every block up to its end.
        let first = if matches!(self.store, Store::Small(_)) { 0 } else { first };
        let more = self.held.missing(first, last);
        if more == 0 {
            return Ok(());
        }
        // Those that a mapping has stored to are counted already.
        let counted = more.min(self.stored);
        shared.take_blocks(more.saturating_sub(counted))?;
        self.stored = self.stored.saturating_sub(counted);
        self.held.insert(first, last);
        Ok(())
    }

    /// How far a write of `pos..end` gets with `left` more blocks.
    fn reach(&self, pos: u64, end: u64, mut left: u64) -> u64 {
        let (first, last) = pages(pos, end);
        // A vector has to be filled from its start: pages before `pos` count as well.
        let mut page = if matches!(self.store, Store::Small(_)) { self.held.next_missing(0) } else { first };
        while page < last {
            match self.held.next_missing(page) {
                next if next > page => page = next,
                _ if left == 0 => break,
                _ => (page, left) = (page.saturating_add(1), left.saturating_sub(1)),
            }
        }
        page.saturating_mul(BLOCK)
    }

    /// Gives back pages that are holes now.
    fn release(&mut self, shared: &Shared, first: u64, last: u64) {
        shared.free_blocks(self.held.remove(first, last));
    }

    /// Gives back what is counted; the file is going.
    pub(crate) fn uncharge(&mut self, shared: &Shared) {
        self.release(shared, 0, u64::MAX);
        shared.free_blocks(std::mem::take(&mut self.stored));
    }

    /// Truncates or extends with zeros.
    pub(crate) fn set_size(&mut self, shared: &Shared, len: u64) -> Result<()> {
        if len > i64::MAX.cast_unsigned() {
            return Err(Errno::EFBIG);
        }
        let shrinks = len < self.size && self.seals.contains(SealFlags::SHRINK);
        let grows = len > self.size && self.seals.contains(SealFlags::GROW);
        if shrinks || grows {
            return Err(Errno::EPERM);
        }
        match &mut self.store {
            Store::Host(memory) => {
                let freed = self.size.saturating_sub(len);
                freeing(freed, || rustix::fs::ftruncate(memory.fd(), len)).map_err(Errno::from)?;
            }
            // The vector may be shorter than the file: what is missing reads as zeros.
            Store::Small(v) if len <= SMALL => v.truncate(to_usize(len)?),
            Store::Small(_) => {
                self.host_memory(shared)?;
                return self.set_size(shared, len);
            }
        }
        self.size = len;
        self.release(shared, len.div_ceil(BLOCK), u64::MAX);
        self.count_stored(shared);
        Ok(())
    }

    /// fallocate(2): reserves, or with PUNCH_HOLE frees, a range.
    pub(crate) fn fallocate(&mut self, shared: &Shared, mode: u32, offset: u64, len: u64) -> Result<()> {
        if mode & !(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE) != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let end = offset.checked_add(len).filter(|&e| e <= i64::MAX.cast_unsigned()).ok_or(Errno::EFBIG)?;
        if mode & FALLOC_FL_PUNCH_HOLE != 0 {
            if self.seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
                return Err(Errno::EPERM);
            }
            return self.punch(shared, offset, end);
        }
        let extends = mode & FALLOC_FL_KEEP_SIZE == 0 && end > self.size;
        if extends && self.seals.contains(SealFlags::GROW) {
            return Err(Errno::EPERM);
        }
        // What is reserved is no data, which a vector can't tell. A memfd that is there must be as long as the file says.
        let beyond = matches!(&self.store, Store::Small(v) if end > length(v));
        if beyond && !(end <= MEDIUM && MEMFDS.load(Ordering::Relaxed) >= MANY) {
            self.host_memory(shared)?;
        }
        // Before the host allocates: its memory is not limited by the mount's size.
        self.charge(shared, offset, end)?;
        if let Store::Host(memory) = &self.store {
            let flags = if extends { FallocateFlags::empty() } else { FallocateFlags::KEEP_SIZE };
            rustix::fs::fallocate(memory.fd(), flags, offset, len).map_err(Errno::from)?;
        }
        if extends {
            self.size = end;
        }
        Ok(())
    }

    fn punch(&mut self, shared: &Shared, offset: u64, end: u64) -> Result<()> {
        let (first, last) = (offset.div_ceil(BLOCK), end / BLOCK);
        let makes_hole = first < last && !self.held.within(first, last).eq([]);
        if makes_hole && matches!(self.store, Store::Small(_)) && MEMFDS.load(Ordering::Relaxed) < MANY {
            self.host_memory(shared)?;
        }
        match &mut self.store {
            Store::Small(v) => {
                let len = v.len();
                // Beyond the vector there is nothing to free.
                let (from, to) =
                    (usize::try_from(offset).unwrap_or(len).min(len), usize::try_from(end).unwrap_or(len).min(len));
                v[from..to].fill(0);
                Ok(())
            }
            Store::Host(memory) => {
                let len = end.saturating_sub(offset);
                freeing(len, || memory.punch_hole(offset, len))?;
                self.release(shared, first, last);
                self.count_stored(shared);
                Ok(())
            }
        }
    }

    pub(crate) fn seek_sparse(&self, offset: u64, what: SparseSeek) -> Result<u64> {
        if offset >= self.size {
            return Err(Errno::ENXIO);
        }
        match (&self.store, what) {
            (Store::Small(_), SparseSeek::Data) if self.held.next(offset / BLOCK) == Some(offset / BLOCK) => Ok(offset),
            (Store::Small(_), SparseSeek::Data) => Err(Errno::ENXIO),
            (Store::Small(_), SparseSeek::Hole) => {
                let hole = self.held.next_missing(offset / BLOCK).saturating_mul(BLOCK);
                Ok(hole.max(offset).min(self.size))
            }
            // The descriptor's own position is used for nothing else.
            (Store::Host(memory), SparseSeek::Data) => {
                rustix::fs::seek(memory.fd(), SeekFrom::Data(offset)).map_err(Errno::from)
            }
            (Store::Host(memory), SparseSeek::Hole) => {
                rustix::fs::seek(memory.fd(), SeekFrom::Hole(offset)).map_err(Errno::from)
            }
        }
    }

    /// The memfd, or the file of the medium, with the contents, made if there is none yet.
    pub(crate) fn host_memory(&mut self, shared: &Shared) -> Result<HostMemory> {
        let v = match &self.store {
            Store::Host(memory) => return Ok(memory.clone()),
            Store::Small(v) => v,
        };
        let memory = match &shared.medium {
            Some(medium) => HostMemory::in_file(medium.new_file()?, self.size)?,
            // Neither executable bits nor a name matter: the guest never sees this descriptor.
            None => HostMemory::sealable("tmpfs", self.size)?,
        };
        let mut done = 0;
        while done < v.len() {
            done += rustix::io::pwrite(memory.fd(), &v[done..], done as u64).map_err(Errno::from)?;
        }
        // After the contents are in: a seal may forbid writing.
        if !self.seals.is_empty() {
            seal_host(&memory, self.seals)?;
        }
        MEMFDS.fetch_add(1, Ordering::Relaxed);
        self.store = Store::Host(memory.clone());
        Ok(memory)
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if let Store::Host(_) = self.store {
            MEMFDS.fetch_sub(1, Ordering::Relaxed);
            let memory = std::mem::replace(&mut self.store, Store::Small(Vec::new()));
            freeing(self.size, || drop(memory));
        }
    }
}

/// Memory that the host gives back in less than it takes to hand a worker's role on.
const FREED_SOON: u64 = 8 << 20;

/// Does what may free so many bytes: of memory that is in use, a gigabyte takes the host some 100 ms.
fn freeing<R>(bytes: u64, body: impl FnOnce() -> R) -> R {
    if bytes > FREED_SOON { block_in_place(body) } else { body() }
}

/// Sets on the host what mappings must obey; that no more seals come is the sentry's own business.
fn seal_host(memory: &HostMemory, seals: SealFlags) -> Result<()> {
    let flags = rustix::fs::SealFlags::from_bits_truncate((seals - SealFlags::SEAL - SealFlags::EXEC).bits());
    if flags.is_empty() { Ok(()) } else { rustix::fs::fcntl_add_seals(memory.fd(), flags).map_err(Errno::from) }
}
