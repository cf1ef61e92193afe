//! munmap(2).

use moat_abi::mman::ProtFlags;
use moat_abi::{Errno, Result};
use moat_platform::{GUEST_BOTTOM, GUEST_TOP, GuestThread, Order};

use crate::manager::{MmState, Turn, When};
use crate::vma::Backing;
use crate::{FileIdentity, MemoryManager, is_page_aligned, page_up};

impl MemoryManager {
    /// Unmaps what is mapped in `addr..addr + len` (`do_munmap`).
    ///
    /// # Errors
    /// EINVAL for a bad range; ENOMEM if a split would make too many areas.
    pub async fn munmap(&self, thread: &mut dyn GuestThread, addr: u64, len: u64) -> Result<()> {
        let end = unmap_range(addr, len)?;
        let turn = self.turn().await;
        self.unmap_in_turn(thread, &turn, addr, end).await
    }

    /// Unmaps the System V segment that was attached at `addr`, or what is left of it there; gives which it was (`ksys_shmdt`).
    ///
    /// # Errors
    /// EINVAL without one.
    pub async fn detach_segment(&self, thread: &mut dyn GuestThread, addr: u64) -> Result<FileIdentity> {
        if !is_page_aligned(addr) || addr >= GUEST_TOP {
            return Err(Errno::EINVAL);
        }
        let turn = self.turn().await;
        let (identity, areas) = self.state().attached_areas(addr).ok_or(Errno::EINVAL)?;
        for (start, end) in areas {
            self.unmap_in_turn(thread, &turn, start, end).await?;
        }
        Ok(identity)
    }

    /// As [`MemoryManager::munmap`], for a range already checked, in the caller's turn.
    pub(crate) async fn unmap_in_turn(
        &self,
        thread: &mut dyn GuestThread,
        turn: &Turn,
        addr: u64,
        end: u64,
    ) -> Result<()> {
        let when = {
            let state = self.state();
            // Unmapping what is not mapped is no error (munmap(2)).
            if state.tree.is_free(addr, end) {
                return Ok(());
            }
            // Only a cut out of the middle leaves one area more.
            let splits = state.tree.find(addr).is_some_and(|v| v.start < addr && end < v.end);
            state.check_count(usize::from(splits))?;
            // The host may have no room for it, which is an error and not the end of the process.
            if splits { state.urgency(0, ProtFlags::empty(), When::Resume) } else { When::Resume }
        };
        // Nothing of the guest's lies below, and something of the platform's may.
        let start = addr.max(GUEST_BOTTOM);
        turn.carry_out(thread, Order::Munmap { addr: start, len: end.saturating_sub(start) }, when).await?;
        let removed = self.state().tree.remove(addr, end);
        // Dropped outside the lock: the last use of a file may close it.
        drop(removed);
        Ok(())
    }
}

impl MmState {
    /// The areas that an attachment at `addr` of the first segment found there left: those in their old places.
    fn attached_areas(&self, addr: u64) -> Option<(FileIdentity, Vec<(u64, u64)>)> {
        let mut segment = None;
        let mut areas = Vec::new();
        for vma in self.tree.overlapping(addr, GUEST_TOP) {
            let Backing::File { object, offset } = &vma.backing else { continue };
            // Another attachment, or a part that mremap(2) has moved, is at another distance from its start.
            if !object.is_segment() || vma.start.checked_sub(addr) != Some(*offset) {
                continue;
            }
            // The first segment found decides which it is; others at matching distances stay.
            if *segment.get_or_insert(object.identity()) == object.identity() {
                areas.push((vma.start, vma.end));
            }
        }
        segment.map(|s| (s, areas))
    }
}

/// Checks the arguments of munmap(2); gives the end of the range.
fn unmap_range(addr: u64, len: u64) -> Result<u64> {
    if !is_page_aligned(addr) || addr > GUEST_TOP || len == 0 {
        return Err(Errno::EINVAL);
    }
    let len = page_up(len).ok_or(Errno::EINVAL)?;
    addr.checked_add(len).filter(|&end| end <= GUEST_TOP).ok_or(Errno::EINVAL)
}
