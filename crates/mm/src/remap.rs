//! mremap(2).

use moat_abi::mman::{MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE, ProtFlags};
use moat_abi::{Errno, Result};
use moat_platform::{GUEST_BOTTOM, GUEST_TOP, GuestThread, Order};

use crate::copy::effective_prot;
use crate::manager::{MmState, Turn, When};
use crate::mappable::Sharing;
use crate::vma::{Backing, Vma, VmaFlags};
use crate::{MemoryManager, PAGE_SIZE, is_page_aligned, page_up};

/// The arguments of mremap(2).
#[derive(Clone, Copy, Debug)]
pub struct MremapRequest {
    /// The old mapping.
    pub addr: u64,
    /// Its bytes; zero duplicates a shared mapping.
    pub old_len: u64,
    /// Bytes wanted.
    pub new_len: u64,
    /// MREMAP_*.
    pub flags: u32,
    /// Where to, with MREMAP_FIXED.
    pub new_addr: u64,
}

/// A checked request: lengths in whole pages.
#[derive(Clone, Copy)]
struct Move {
    addr: u64,
    old_len: u64,
    new_len: u64,
    flags: u32,
    new_addr: u64,
}

impl Move {
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// The end of the old range, which [`check`] has found to be an address.
    fn old_end(&self) -> u64 {
        self.addr.saturating_add(self.old_len)
    }

    /// The end of what is left in place when the range shrinks.
    fn kept_end(&self) -> u64 {
        self.addr.saturating_add(self.new_len)
    }

    /// How much the range grows.
    fn growth(&self) -> u64 {
        self.new_len.saturating_sub(self.old_len)
    }
}

impl MemoryManager {
    /// Resizes or moves a mapping; gives its address.
    ///
    /// # Errors
    /// Those of mremap(2).
    pub async fn mremap(&self, thread: &mut dyn GuestThread, request: MremapRequest) -> Result<u64> {
        let m = check(&request)?;
        let turn = self.turn().await;
        if self.state().tree.find(m.addr).is_none() {
            return Err(Errno::EFAULT);
        }
        if m.has(MREMAP_FIXED | MREMAP_DONTUNMAP) {
            return self.remap_to(thread, &turn, m).await;
        }
        if m.old_len >= m.new_len {
            if m.old_len > m.new_len {
                // Dropping the tail works across areas and holes; only what grows has to be one area.
                self.unmap_in_turn(thread, &turn, m.kept_end(), m.old_end()).await?;
            }
            return Ok(m.addr);
        }
        let vma = self.state().check_resize(&m)?;
        if self.state().can_extend(&vma, &m) {
            let at = m.old_end();
            self.map_more(thread, &turn, &vma, at, at, m.growth()).await?;
            return Ok(m.addr);
        }
        if !m.has(MREMAP_MAYMOVE) {
            return Err(Errno::ENOMEM);
        }
        let new_addr = self.state().find_place(m.new_len)?;
        self.move_area(thread, &turn, &vma, Move { new_addr, ..m }).await
    }

    /// MREMAP_FIXED and MREMAP_DONTUNMAP (`mremap_to`).
    async fn remap_to(&self, thread: &mut dyn GuestThread, turn: &Turn, m: Move) -> Result<u64> {
        let mut m = m;
        if m.has(MREMAP_FIXED) {
            let new_end = m.new_addr.checked_add(m.new_len).filter(|&end| end <= GUEST_TOP).ok_or(Errno::EINVAL)?;
            if !is_page_aligned(m.new_addr) {
                return Err(Errno::EINVAL);
            }
            if m.new_addr < GUEST_BOTTOM {
                return Err(Errno::EPERM);
            }
            // The two ranges must not meet.
            if m.old_end() > m.new_addr && new_end > m.addr {
                return Err(Errno::EINVAL);
            }
            // Room for splits at both ends, wanted before anything is changed (`mremap_to`).
            self.state().check_count(4)?;
            // What is at the target goes before the source is checked: as
            // on Linux, a later error does not bring it back.
            self.unmap_in_turn(thread, turn, m.new_addr, new_end).await?;
        }
        if m.old_len > m.new_len {
            self.unmap_in_turn(thread, turn, m.kept_end(), m.old_end()).await?;
            m.old_len = m.new_len;
        }
        let vma = self.state().check_resize(&m)?;
        if !m.has(MREMAP_FIXED) {
            // Without MREMAP_FIXED the address is a hint.
            m.new_addr = {
                let mut state = self.state();
                let (hint, len) = (m.new_addr, m.new_len);
                let fits = is_page_aligned(hint)
                    && hint >= GUEST_BOTTOM
                    && hint.checked_add(len).is_some_and(|end| end <= GUEST_TOP);
                if fits && state.tree.is_free_for_hint(hint, hint.saturating_add(len)) {
                    hint
                } else {
                    state.find_place(len)?
                }
            };
        }
        self.move_area(thread, turn, &vma, m).await
    }

    /// Moves the checked range, of `vma`, to `m.new_addr`, where nothing is mapped (`move_vma`).
    async fn move_area(&self, thread: &mut dyn GuestThread, turn: &Turn, vma: &Vma, m: Move) -> Result<u64> {
        self.state().check_count(3)?;
        // Nothing moves: a shared mapping is shown a second time.
        if m.old_len == 0 {
            self.map_more(thread, turn, vma, m.addr, m.new_addr, m.new_len).await?;
            return Ok(m.new_addr);
        }
        let dont_unmap = m.has(MREMAP_DONTUNMAP);
        let order = Order::Mremap {
            old_addr: m.addr,
            old_len: m.old_len,
            new_addr: m.new_addr,
            new_len: m.new_len,
            dont_unmap,
        };
        let mut moved = vma.slice(m.addr, m.old_end());
        moved.start = m.new_addr;
        moved.end = m.new_addr.saturating_add(m.new_len);
        let mut grown = Ok(());
        let imaged = self.state().tree.imaged.within(m.addr, m.old_end());
        let done = if imaged.is_empty() {
            turn.carry_out(thread, order, When::Now).await
        } else {
            // The host would let it grow into what follows in the image.
            Err(Errno::EFAULT)
        };
        match done {
            // What is one area here may be several on the host, which moves only one at a time.
            Err(Errno::EFAULT) => {
                self.move_in_pieces(thread, turn, &m).await?;
                moved.end = m.new_addr.saturating_add(m.old_len);
                if m.new_len > m.old_len {
                    let (from, to) = (m.old_end(), moved.end);
                    grown = self.map_more(thread, turn, vma, from, to, m.growth()).await;
                }
                if dont_unmap {
                    self.clear_imaged(thread, turn, vma, &imaged).await?;
                }
            }
            done => drop(done?),
        }
        let removed = {
            let mut state = self.state();
            let removed = if dont_unmap {
                // What stays in place is locked no more; the lock has moved along.
                state.tree.update(m.addr, m.old_end(), |v| v.flags.remove(VmaFlags::LOCKED | VmaFlags::LOCK_ONFAULT));
                Vec::new()
            } else {
                state.tree.remove(m.addr, m.old_end())
            };
            state.tree.insert(moved);
            for (start, end) in imaged {
                let at = m.new_addr.saturating_add(start.saturating_sub(m.addr));
                state.tree.imaged.insert(at, at.saturating_add(end.saturating_sub(start)));
            }
            state.note_peak();
            removed
        };
        drop(removed);
        grown.map(|()| m.new_addr)
    }

    /// Has the host move the range without resizing it, in halves of halves until each is within one of its areas.
    async fn move_in_pieces(&self, thread: &mut dyn GuestThread, turn: &Turn, m: &Move) -> Result<()> {
        let mut pieces = vec![(m.addr, m.new_addr, m.old_len)];
        while let Some((old_addr, new_addr, len)) = pieces.pop() {
            let dont_unmap = m.has(MREMAP_DONTUNMAP);
            let order = Order::Mremap { old_addr, old_len: len, new_addr, new_len: len, dont_unmap };
            match turn.carry_out(thread, order, When::Now).await {
                // mremap(2) moves one area of the host's at a time, and the host may have split where the guest's tree
                // has not.
                Err(Errno::EFAULT) if len > PAGE_SIZE => {
                    let half = (len / 2).next_multiple_of(PAGE_SIZE);
                    let rest = (old_addr.saturating_add(half), new_addr.saturating_add(half), len.saturating_sub(half));
                    pieces.push(rest);
                    pieces.push((old_addr, new_addr, half));
                }
                done => drop(done?),
            }
        }
        Ok(())
    }

    /// Maps `len` bytes at `to`, free, showing what `vma` shows from `from` on (which may be past its end).
    async fn map_more(
        &self,
        thread: &mut dyn GuestThread,
        turn: &Turn,
        vma: &Vma,
        from: u64,
        to: u64,
        len: u64,
    ) -> Result<()> {
        let mut more = vma.clone();
        let offset = vma.file_offset(from);
        more.start = to;
        more.end = to.saturating_add(len);
        let sharing = if vma.flags.contains(VmaFlags::SHARED) { Sharing::Shared } else { Sharing::Private };
        let source = self.source_of(vma, from, len)?;
        if let Backing::File { offset: start, .. } = &mut more.backing {
            *start = offset;
        }
        // Others may look into shared memory at once; private pages are the caller's, who finds them when it resumes.
        let wish = if sharing == Sharing::Shared { When::Now } else { When::ResumeFresh };
        let when = self.state().urgency(len, vma.prot, wish);
        let order = Order::Mmap { addr: to, len, prot: effective_prot(vma.prot).bits(), source };
        turn.carry_out(thread, order, when).await?;
        let mut state = self.state();
        state.tree.insert(more);
        state.note_peak();
        Ok(())
    }
}

/// The checks of mremap(2) that need no tree.
fn check(r: &MremapRequest) -> Result<Move> {
    let flag = |flag: u32| r.flags & flag != 0;
    let wrong_flags = r.flags & !(MREMAP_FIXED | MREMAP_MAYMOVE | MREMAP_DONTUNMAP) != 0
        || (flag(MREMAP_FIXED | MREMAP_DONTUNMAP) && !flag(MREMAP_MAYMOVE))
        || (flag(MREMAP_DONTUNMAP) && r.old_len != r.new_len);
    if wrong_flags || !is_page_aligned(r.addr) {
        return Err(Errno::EINVAL);
    }
    let old_len = page_up(r.old_len).ok_or(Errno::EINVAL)?;
    let new_len = page_up(r.new_len).ok_or(Errno::EINVAL)?;
    if new_len == 0 || r.addr.checked_add(old_len).is_none() {
        return Err(Errno::EINVAL);
    }
    Ok(Move { addr: r.addr, old_len, new_len, flags: r.flags, new_addr: r.new_addr })
}

impl MmState {
    /// The area that `m` resizes, if it may (`vma_to_resize`).
    fn check_resize(&self, m: &Move) -> Result<Vma> {
        let vma = self.tree.find(m.addr).ok_or(Errno::EFAULT)?;
        // A private mapping has no pages that two places could show.
        if m.old_len == 0 && !vma.flags.contains(VmaFlags::SHARED) {
            return Err(Errno::EINVAL);
        }
        let special = matches!(vma.backing, Backing::Special(_));
        if special && m.has(MREMAP_DONTUNMAP) {
            return Err(Errno::EINVAL);
        }
        // All of the old range has to be in one area.
        if m.old_len > vma.end.saturating_sub(m.addr) {
            return Err(Errno::EFAULT);
        }
        if m.new_len == m.old_len {
            if m.has(MREMAP_DONTUNMAP) {
                self.check_expand(m.new_len, vma.is_data())?;
            }
            return Ok(vma.clone());
        }
        // Its pages are not a guest's to resize (VM_DONTEXPAND).
        if special {
            return Err(Errno::EFAULT);
        }
        if matches!(vma.backing, Backing::File { .. }) {
            let end = vma.file_offset(m.addr).checked_add(m.new_len).ok_or(Errno::EINVAL)?;
            i64::try_from(end).map_err(|_| Errno::EINVAL)?;
        }
        let more = m.growth();
        if self.check_lock_limit(m.addr, more, vma.flags).is_err() {
            // EAGAIN, where the limit of address space below is ENOMEM.
            return Err(Errno::EAGAIN);
        }
        self.check_expand(more, vma.prot.contains(ProtFlags::WRITE) && vma.is_data())?;
        Ok(vma.clone())
    }

    /// Whether `vma` can grow where it is.
    fn can_extend(&self, vma: &Vma, m: &Move) -> bool {
        let old_end = m.old_end();
        let Some(new_end) = m.addr.checked_add(m.new_len) else { return false };
        m.old_len != 0 && vma.end == old_end && new_end <= GUEST_TOP && self.tree.is_free(old_end, new_end)
    }
}
