//! mprotect(2).

use moat_abi::mman::ProtFlags;
use moat_abi::{Errno, Result};
use moat_platform::{GUEST_TOP, GuestThread, Order};

use crate::copy::effective_prot;
use crate::manager::{MmState, When};
use crate::vma::{Backing, VmaFlags};
use crate::{MemoryManager, is_page_aligned, page_up};

/// A stretch whose protection is to change, all of it in one area.
struct Step {
    start: u64,
    end: u64,
    /// The host may refuse: a shared file.
    refusable: bool,
    unchanged: bool,
}

impl MemoryManager {
    /// Sets the protection of `addr..addr + len` (`do_mprotect_pkey`). As on Linux, areas before the first that fails are changed.
    ///
    /// # Errors
    /// EINVAL, ENOMEM for a hole or a limit, EACCES where the file does not allow it.
    pub async fn mprotect(&self, thread: &mut dyn GuestThread, addr: u64, len: u64, prot: ProtFlags) -> Result<()> {
        let grows = prot & (ProtFlags::GROWSDOWN | ProtFlags::GROWSUP);
        let prot = prot.difference(grows);
        if grows == (ProtFlags::GROWSDOWN | ProtFlags::GROWSUP) || !is_page_aligned(addr) {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        let end = page_up(len).and_then(|len| addr.checked_add(len)).filter(|&end| end > addr).ok_or(Errno::ENOMEM)?;
        // PROT_SEM is accepted and means nothing (mprotect(2)).
        if !(ProtFlags::RWX | ProtFlags::SEM).contains(prot) {
            return Err(Errno::EINVAL);
        }
        if end > GUEST_TOP {
            return Err(Errno::ENOMEM);
        }
        let prot = prot & ProtFlags::RWX;
        let turn = self.turn().await;
        let (steps, outcome) = self.state().plan_protect(addr, end, prot, grows)?;
        for step in steps {
            if step.unchanged {
                continue;
            }
            let Step { start, end, .. } = step;
            let order =
                Order::Mprotect { addr: start, len: end.saturating_sub(start), prot: effective_prot(prot).bits() };
            let when = if step.refusable { When::Now } else { When::Resume };
            let when = self.state().urgency(end.saturating_sub(start), prot, when);
            turn.carry_out(thread, order, when).await?;
            // Step by step, so that after a refusal the tree says what the host has.
            self.state().tree.update(start, end, |vma| vma.prot = prot);
        }
        outcome
    }
}

impl MmState {
    /// What mprotect changes, and how it ends after that.
    fn plan_protect(&self, addr: u64, end: u64, prot: ProtFlags, grows: ProtFlags) -> Result<(Vec<Step>, Result<()>)> {
        let first = self.tree.find_from(addr).ok_or(Errno::ENOMEM)?;
        let mut start = addr;
        // The range begins where the stack does, which has to reach into what the guest named.
        if grows.contains(ProtFlags::GROWSDOWN) {
            if first.start >= end {
                return Err(Errno::ENOMEM);
            }
            start = first.start;
            if !first.flags.contains(VmaFlags::GROWSDOWN) {
                return Err(Errno::EINVAL);
            }
        } else {
            if first.start > start {
                return Err(Errno::ENOMEM);
            }
            if grows.contains(ProtFlags::GROWSUP) {
                // No area grows up on x86.
                return Err(Errno::EINVAL);
            }
        }
        let mut steps = Vec::new();
        let mut at = start;
        for vma in self.tree.overlapping(start, end) {
            // A hole: what is before it is changed all the same.
            if vma.start > at {
                return Ok((steps, Err(Errno::ENOMEM)));
            }
            if !vma.max_prot.contains(prot) {
                return Ok((steps, Err(Errno::EACCES)));
            }
            let until = vma.end.min(end);
            let mut changed = vma.slice(at, until);
            changed.prot = prot;
            // Private pages that become writable count as data from then on.
            if changed.is_data() && !vma.is_data() && self.check_expand_data(until.saturating_sub(at)).is_err() {
                return Ok((steps, Err(Errno::ENOMEM)));
            }
            // Each border inside an area makes one area more.
            let borders = usize::from(vma.start < at) + usize::from(until < vma.end);
            if vma.prot != prot && self.check_count(borders).is_err() {
                return Ok((steps, Err(Errno::ENOMEM)));
            }
            // The host checks these against the file: its open mode, its mount.
            let refusable = matches!(vma.backing, Backing::File { .. })
                && (vma.flags.contains(VmaFlags::SHARED) || prot.contains(ProtFlags::EXEC));
            steps.push(Step { start: at, end: until, refusable, unchanged: vma.prot == prot });
            at = until;
        }
        let outcome = if at < end { Err(Errno::ENOMEM) } else { Ok(()) };
        Ok((steps, outcome))
    }

    fn check_expand_data(&self, len: u64) -> Result<()> {
        let data = self.tree.totals().data;
        if data.checked_add(len).is_some_and(|sum| sum <= self.limits.data) { Ok(()) } else { Err(Errno::ENOMEM) }
    }
}
