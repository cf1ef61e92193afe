//! brk(2).

use moat_abi::Result;
use moat_abi::mman::ProtFlags;
use moat_platform::{GUEST_TOP, GuestThread, MapSource, Order};

use crate::manager::{MmState, When};
use crate::vma::{Backing, Vma};
use crate::{MemoryManager, PAGE_SIZE, page_up};

impl MemoryManager {
    /// Sets where the heap begins and, empty, ends.
    pub fn set_brk_start(&self, start: u64) {
        let mut state = self.state();
        state.brk_start = start;
        state.brk = start;
    }

    /// Moves the end of the heap; gives the new end, or the old one where it can't be moved.
    pub async fn brk(&self, thread: &mut dyn GuestThread, wanted: u64) -> u64 {
        let turn = self.turn().await;
        let (old, start) = {
            let state = self.state();
            (state.brk, state.brk_start)
        };
        // brk(2) has no errors: a caller sees from the old end that nothing moved.
        if wanted < start || self.state().check_brk(wanted).is_err() {
            return old;
        }
        // The break is a byte address; whole pages are mapped.
        let (Some(old_end), Some(new_end)) = (page_up(old), page_up(wanted)) else { return old };
        let done = if new_end < old_end {
            self.unmap_in_turn(thread, &turn, new_end, old_end).await
        } else if new_end > old_end {
            let len = new_end.saturating_sub(old_end);
            let vma = Vma {
                start: old_end,
                end: new_end,
                prot: ProtFlags::READ | ProtFlags::WRITE,
                max_prot: ProtFlags::RWX,
                flags: self.state().lock_future,
                backing: Backing::Anonymous,
            };
            let when = self.state().plan_brk(&vma);
            match when {
                Ok(when) => {
                    let source = MapSource::AnonPrivate { noreserve: false };
                    let order = Order::Mmap { addr: old_end, len, prot: vma.prot.bits(), source };
                    turn.carry_out(thread, order, when).await.map(|_| {
                        let mut state = self.state();
                        state.tree.insert(vma);
                        state.note_peak();
                    })
                }
                Err(errno) => Err(errno),
            }
        } else {
            // Within the last page, which is mapped already.
            Ok(())
        };
        if done.is_err() {
            return old;
        }
        // Only after the host's part: a refusal leaves the break where it was.
        self.state().brk = wanted;
        wanted
    }
}

impl MmState {
    /// RLIMIT_DATA over heap and initialised data (`check_data_rlimit`).
    fn check_brk(&self, wanted: u64) -> Result<()> {
        let data = self.image.data.end.saturating_sub(self.image.data.start);
        let heap = wanted.saturating_sub(self.brk_start);
        if heap.checked_add(data).is_some_and(|sum| sum <= self.limits.data) {
            Ok(())
        } else {
            Err(moat_abi::Errno::ENOMEM)
        }
    }

    /// Whether the heap can grow by `vma`.
    fn plan_brk(&self, vma: &Vma) -> Result<When> {
        // Linux keeps a page free between the heap and what follows, beside the guard gap of a stack.
        let guard = vma.end.checked_add(PAGE_SIZE).filter(|&end| end <= GUEST_TOP).ok_or(moat_abi::Errno::ENOMEM)?;
        if !self.tree.is_free_for_hint(vma.start, guard) {
            return Err(moat_abi::Errno::ENOMEM);
        }
        self.check_expand(vma.len(), true)?;
        self.check_count(1)?;
        self.check_lock_limit(vma.start, vma.len(), vma.flags)?;
        Ok(self.urgency(vma.len(), vma.prot, When::ResumeFresh))
    }
}
