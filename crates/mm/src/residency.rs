//! The mlock(2) family, mincore(2), and what a new mapping does about its pages.
//!
//! Locking is kept in the tree with Linux's limits; the host's lock is best effort, since the host gives the sandbox a limit
//! of its own.

use moat_abi::mman::{
    MADV_POPULATE_READ, MADV_POPULATE_WRITE, MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, MLOCK_ONFAULT, MapFlags, ProtFlags,
};
use moat_abi::{Errno, Result};
use moat_platform::{GUEST_TOP, GuestThread, Order};

use crate::manager::{MmState, Turn, When};
use crate::vma::VmaFlags;
use crate::{MemoryManager, PAGE_SIZE, UserAddr, is_page_aligned, page_down, page_up};

/// What a hole in the range means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holes {
    /// The operation ends there with ENOMEM.
    Stop,
    /// Nothing.
    Skip,
}

const LOCKED_ANY: VmaFlags = VmaFlags::LOCKED.union(VmaFlags::LOCK_ONFAULT);

impl MemoryManager {
    /// Locks pages: mlock(2), mlock2(2).
    ///
    /// # Errors
    /// EINVAL for flags or range; EPERM, ENOMEM by RLIMIT_MEMLOCK; ENOMEM for a hole.
    pub async fn mlock(&self, thread: &mut dyn GuestThread, addr: u64, len: u64, flags: u32) -> Result<()> {
        if flags & !MLOCK_ONFAULT != 0 {
            return Err(Errno::EINVAL);
        }
        let (start, end) = lock_range(addr, len)?;
        let turn = self.turn().await;
        {
            let state = self.state();
            let limit = state.limits.memlock;
            // EPERM: may lock nothing. ENOMEM: not so much.
            if limit == 0 {
                return Err(Errno::EPERM);
            }
            // What is locked already does not count twice.
            let already: u64 = state
                .tree
                .overlapping(start, end)
                .filter(|v| v.flags.contains(VmaFlags::LOCKED))
                .map(|v| v.end.min(end).saturating_sub(v.start.max(start)))
                .sum();
            if state.tree.totals().locked.saturating_sub(already).saturating_add(end.saturating_sub(start))
                > page_down(limit)
            {
                return Err(Errno::ENOMEM);
            }
        }
        let new = if flags & MLOCK_ONFAULT != 0 { LOCKED_ANY } else { VmaFlags::LOCKED };
        self.relock(thread, &turn, start, end, new, Holes::Stop).await
    }

    /// Unlocks pages: munlock(2).
    ///
    /// # Errors
    /// EINVAL for the range; ENOMEM for a hole.
    pub async fn munlock(&self, thread: &mut dyn GuestThread, addr: u64, len: u64) -> Result<()> {
        let (start, end) = lock_range(addr, len)?;
        let turn = self.turn().await;
        self.relock(thread, &turn, start, end, VmaFlags::empty(), Holes::Stop).await
    }

    /// Locks all pages: mlockall(2).
    ///
    /// # Errors
    /// EINVAL for flags; EPERM, ENOMEM by RLIMIT_MEMLOCK.
    pub async fn mlockall(&self, thread: &mut dyn GuestThread, flags: u32) -> Result<()> {
        if flags == 0 || flags & !(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0 || flags == MCL_ONFAULT {
            return Err(Errno::EINVAL);
        }
        let turn = self.turn().await;
        let new = if flags & MCL_ONFAULT != 0 { LOCKED_ANY } else { VmaFlags::LOCKED };
        {
            let mut state = self.state();
            let limit = state.limits.memlock;
            if limit == 0 {
                return Err(Errno::EPERM);
            }
            if flags & MCL_CURRENT != 0 && state.tree.totals().mapped > page_down(limit) {
                return Err(Errno::ENOMEM);
            }
            state.lock_future = if flags & MCL_FUTURE != 0 { new } else { VmaFlags::empty() };
        }
        if flags & MCL_CURRENT != 0 {
            // Holes don't matter to mlockall.
            let _ = self.relock(thread, &turn, 0, GUEST_TOP, new, Holes::Skip).await;
        }
        Ok(())
    }

    /// Unlocks all pages, now and in future: munlockall(2).
    pub async fn munlockall(&self, thread: &mut dyn GuestThread) {
        let turn = self.turn().await;
        self.state().lock_future = VmaFlags::empty();
        let _ = self.relock(thread, &turn, 0, GUEST_TOP, VmaFlags::empty(), Holes::Skip).await;
    }

    /// Says which pages are in memory, one byte each to `vec`: mincore(2). The sentry does not ask the host: every mapped page
    /// counts as resident.
    ///
    /// # Errors
    /// EINVAL, ENOMEM for a hole, EFAULT for `vec`.
    pub fn mincore(&self, addr: u64, len: u64, vec: UserAddr) -> Result<()> {
        if !is_page_aligned(addr) {
            return Err(Errno::EINVAL);
        }
        let end = addr.checked_add(len).filter(|&end| end <= GUEST_TOP).ok_or(Errno::ENOMEM)?;
        let end = page_up(end).ok_or(Errno::ENOMEM)?;
        let resident = [1u8; PAGE_SIZE as usize];
        let mut at = addr;
        while at < end {
            // One page of answers is good for this many pages of memory.
            let chunk_end = end.min(at + (resident.len() as u64) * PAGE_SIZE);
            let mapped_end = self.state().tree.covered_until(at, chunk_end);
            let pages = usize::try_from((mapped_end - at) / PAGE_SIZE).unwrap_or(0);
            // What is ahead of a hole is written even if ENOMEM follows.
            self.write_bytes(vec.add((at - addr) / PAGE_SIZE)?, resident.get(..pages).unwrap_or(&resident))?;
            if mapped_end < chunk_end {
                return Err(Errno::ENOMEM);
            }
            at = chunk_end;
        }
        Ok(())
    }

    /// Locks or populates a new mapping as its flags ask; best effort, as on Linux.
    pub(crate) async fn after_map(
        &self,
        thread: &mut dyn GuestThread,
        turn: &Turn,
        addr: u64,
        len: u64,
        flags: MapFlags,
        vma_flags: VmaFlags,
    ) {
        if vma_flags.contains(VmaFlags::LOCKED) {
            let _ = turn.carry_out(thread, Order::Mlock { addr, len, lock: true }, When::Now).await;
        }
        let populate = flags.contains(MapFlags::POPULATE) && !flags.contains(MapFlags::NONBLOCK);
        if populate {
            // A write fault breaks copy-on-write ahead of time; shared
            // pages would only be made dirty (`populate_vma_page_range`).
            let writable = self
                .state()
                .tree
                .find(addr)
                .is_some_and(|v| v.prot.contains(ProtFlags::WRITE) && !v.flags.contains(VmaFlags::SHARED));
            let advice = if writable { MADV_POPULATE_WRITE } else { MADV_POPULATE_READ };
            let _ = turn.carry_out(thread, Order::Madvise { addr, len, advice }, When::Now).await;
        }
    }

    /// Gives what is mapped in `start..end` the lock flags `new`; ENOMEM at a hole that matters.
    async fn relock(
        &self,
        thread: &mut dyn GuestThread,
        turn: &Turn,
        start: u64,
        end: u64,
        new: VmaFlags,
        holes: Holes,
    ) -> Result<()> {
        let (changes, hole) = {
            let state = self.state();
            let mapped_end = state.tree.covered_until(start, end);
            let hole = holes == Holes::Stop && mapped_end < end;
            let end = if hole { mapped_end } else { end };
            let changes: Vec<_> = state
                .tree
                .overlapping(start, end)
                // The platform's areas are never locked, as on Linux (VM_SPECIAL).
                .filter(|v| v.flags & LOCKED_ANY != new && !matches!(v.backing, crate::Backing::Special(_)))
                .map(|v| (v.start.max(start), v.end.min(end)))
                .collect();
            (changes, hole)
        };
        for (from, to) in changes {
            // The range may begin and end inside of areas.
            self.state().check_count(2)?;
            let order = Order::Mlock { addr: from, len: to.saturating_sub(from), lock: new.contains(VmaFlags::LOCKED) };
            // The host's refusal is not the guest's: its limit is not the guest's limit.
            let _ = turn.carry_out(thread, order, When::Now).await;
            self.state().tree.update(from, to, |vma| vma.flags = vma.flags.difference(LOCKED_ANY) | new);
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }
}

impl MmState {
    /// Whether a new mapping of `len` bytes at `addr` with `flags` keeps RLIMIT_MEMLOCK (`mlock_future_ok`).
    pub(crate) fn check_lock_limit(&self, _addr: u64, len: u64, flags: VmaFlags) -> Result<()> {
        if !flags.contains(VmaFlags::LOCKED) {
            return Ok(());
        }
        if self.limits.memlock == 0 {
            return Err(Errno::EPERM);
        }
        // New mappings fail with EAGAIN here, where mlock(2) has ENOMEM.
        let sum = self.tree.totals().locked.checked_add(len);
        if sum.is_some_and(|sum| sum <= page_down(self.limits.memlock)) { Ok(()) } else { Err(Errno::EAGAIN) }
    }
}

/// The pages that a range touches.
fn lock_range(addr: u64, len: u64) -> Result<(u64, u64)> {
    let start = page_down(addr);
    let end = addr.checked_add(len).and_then(page_up).ok_or(Errno::EINVAL)?;
    if end > GUEST_TOP {
        return Err(Errno::ENOMEM);
    }
    Ok((start, end))
}
