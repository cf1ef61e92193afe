//! madvise(2) and msync(2).

use std::sync::Arc;

use moat_abi::mman::{
    MADV_COLD, MADV_COLLAPSE, MADV_DODUMP, MADV_DOFORK, MADV_DONTDUMP, MADV_DONTFORK, MADV_DONTNEED,
    MADV_DONTNEED_LOCKED, MADV_FREE, MADV_HUGEPAGE, MADV_HWPOISON, MADV_KEEPONFORK, MADV_MERGEABLE, MADV_NOHUGEPAGE,
    MADV_NORMAL, MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_RANDOM, MADV_REMOVE, MADV_SEQUENTIAL,
    MADV_SOFT_OFFLINE, MADV_UNMERGEABLE, MADV_WILLNEED, MADV_WIPEONFORK, MS_ASYNC, MS_INVALIDATE, MS_SYNC, ProtFlags,
};
use moat_abi::{Errno, Result};
use moat_platform::{GUEST_TOP, GuestThread, Order};

use crate::manager::When;
use crate::vma::{Backing, Special, Vma, VmaFlags};
use crate::{Mappable, MemoryManager, is_page_aligned, page_up};

/// What an advice does to one area.
enum Effect {
    /// Nothing that anyone could see.
    Nothing,
    /// Changes flags, and has the host do the same if asked to.
    Flags { set: VmaFlags, clear: VmaFlags, host: Host },
    /// The host does it.
    Host(Host),
    /// Frees the storage of a file's range.
    PunchHole(Arc<dyn Mappable>, u64),
}

/// How the host is told of an advice.
#[derive(Clone, Copy)]
enum Host {
    /// Not at all.
    Never,
    /// It must: contents depend on it.
    Must,
    /// Its refusal doesn't matter.
    BestEffort,
}

impl MemoryManager {
    /// Gives advice about `addr..addr + len`.
    ///
    /// # Errors
    /// Those of madvise(2); ENOMEM for holes comes after the mapped parts have been done.
    pub async fn madvise(&self, thread: &mut dyn GuestThread, addr: u64, len: u64, advice: i32) -> Result<()> {
        check_advice(advice)?;
        let (start, end) = advice_range(addr, len)?;
        if start == end {
            return Ok(());
        }
        // Populating changes no flags and ends at the first hole; the others go on behind it.
        if advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE {
            return self.populate(thread, start, end, advice).await;
        }
        let turn = self.turn().await;
        let areas: Vec<Vma> = self.state().tree.overlapping(start, end).map(|v| v.slice(start, end)).collect();
        let mut at = start;
        let mut hole = false;
        // A hole does not end the walk: Linux does the rest and then says ENOMEM (`madvise_walk_vmas`).
        for vma in areas {
            hole |= vma.start > at;
            at = vma.end;
            let (from, len) = (vma.start, vma.len());
            if advice == MADV_WIPEONFORK {
                self.settle(thread, &turn, &vma).await?;
            }
            let host = match effect(&vma, advice)? {
                Effect::Nothing => continue,
                Effect::PunchHole(object, offset) => {
                    // Freeing the host's pages may block; other tasks go on meanwhile.
                    moat_sync::block_in_place(|| object.punch_hole(offset, len))?;
                    continue;
                }
                Effect::Flags { set, clear, host } => {
                    let mut state = self.state();
                    // A slice from the middle of an area leaves one more on either side.
                    state.check_count(2)?;
                    state.tree.update(from, from.saturating_add(len), |v| v.flags = v.flags.difference(clear) | set);
                    host
                }
                Effect::Host(host) => host,
            };
            for (order, refusable) in self.orders_for(&vma, advice)? {
                match host {
                    Host::Never => {}
                    // Even next to other threads this may wait until the caller resumes: none of them can know how far
                    // the call has come.
                    Host::Must => drop(turn.carry_out(thread, order, When::ResumeFresh).await?),
                    Host::BestEffort if refusable => drop(turn.carry_out(thread, order, When::Now).await),
                    Host::BestEffort => drop(turn.carry_out(thread, order, When::Now).await?),
                }
            }
        }
        if hole || at < end { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    async fn populate(&self, thread: &mut dyn GuestThread, start: u64, end: u64, advice: i32) -> Result<()> {
        let turn = self.turn().await;
        let need = if advice == MADV_POPULATE_WRITE { ProtFlags::WRITE } else { ProtFlags::READ };
        // All of the range has to allow it before any page is made; what lies behind a gap is not made.
        let mapped_end = {
            let state = self.state();
            if state.tree.overlapping(start, end).any(|v| !v.prot.contains(need)) {
                return Err(Errno::EINVAL);
            }
            state.tree.covered_until(start, end)
        };
        if mapped_end > start {
            turn.carry_out(
                thread,
                Order::Madvise { addr: start, len: mapped_end.saturating_sub(start), advice },
                When::Now,
            )
            .await?;
        }
        if mapped_end < end { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Writes shared file mappings back: msync(2). May block the calling host thread.
    ///
    /// # Errors
    /// EINVAL, ENOMEM for a hole, EBUSY for MS_INVALIDATE of locked pages, EIO.
    pub fn msync(&self, addr: u64, len: u64, flags: u32) -> Result<()> {
        let wrong =
            flags & !(MS_ASYNC | MS_INVALIDATE | MS_SYNC) != 0 || (flags & MS_ASYNC != 0 && flags & MS_SYNC != 0);
        if wrong || !is_page_aligned(addr) {
            return Err(Errno::EINVAL);
        }
        // A range that wraps is a range with a hole: ENOMEM, where munmap(2) has EINVAL.
        let end = page_up(len).and_then(|len| addr.checked_add(len)).ok_or(Errno::ENOMEM)?;
        if addr == end {
            return Ok(());
        }
        // Copied, because writing back may block and the tree's lock is not held then.
        let (areas, hole) = {
            let state = self.state();
            let areas: Vec<Vma> = state.tree.overlapping(addr, end).map(|v| v.slice(addr, end)).collect();
            (areas, state.tree.covered_until(addr, end) < end)
        };
        for vma in areas {
            // Only here: what lies before a locked area has been written by then, as on Linux.
            if flags & MS_INVALIDATE != 0 && vma.flags.contains(VmaFlags::LOCKED) {
                return Err(Errno::EBUSY);
            }
            // MS_ASYNC starts nothing on Linux either: dirty pages are written in time anyway.
            if let Backing::File { object, offset } = &vma.backing
                && flags & MS_SYNC != 0
                && vma.flags.contains(VmaFlags::SHARED)
            {
                moat_sync::block_in_place(|| object.sync(*offset, vma.len()))?;
            }
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }
}

/// Known advice only (`madvise_behavior_valid`).
fn check_advice(advice: i32) -> Result<()> {
    match advice {
        MADV_NORMAL..=MADV_DONTNEED | MADV_FREE..=MADV_COLLAPSE => Ok(()),
        // For root of the machine, which no guest is.
        MADV_HWPOISON | MADV_SOFT_OFFLINE => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

fn advice_range(addr: u64, len: u64) -> Result<(u64, u64)> {
    if !is_page_aligned(addr) {
        return Err(Errno::EINVAL);
    }
    let len = page_up(len).ok_or(Errno::EINVAL)?;
    let end = addr.checked_add(len).ok_or(Errno::EINVAL)?;
    if end > GUEST_TOP {
        // Nothing is mapped there; the rest of the range is still done.
        return if addr < GUEST_TOP { Ok((addr, end)) } else { Err(Errno::ENOMEM) };
    }
    Ok((addr, end))
}

/// What `advice` does to `vma`, a slice of an area (`madvise_vma_behavior`).
fn effect(vma: &Vma, advice: i32) -> Result<Effect> {
    let flags = |set, clear, host| Ok(Effect::Flags { set, clear, host });
    let none = VmaFlags::empty();
    let file = matches!(vma.backing, Backing::File { .. });
    let shared = vma.flags.contains(VmaFlags::SHARED);
    let locked = vma.flags.contains(VmaFlags::LOCKED);
    let vvar = matches!(vma.backing, Backing::Special(Special::Vvar));
    match advice {
        MADV_NORMAL => flags(none, VmaFlags::SEQUENTIAL | VmaFlags::RANDOM, Host::Never),
        MADV_SEQUENTIAL => flags(VmaFlags::SEQUENTIAL, VmaFlags::RANDOM, Host::Never),
        MADV_RANDOM => flags(VmaFlags::RANDOM, VmaFlags::SEQUENTIAL, Host::Never),
        MADV_WILLNEED => Ok(Effect::Nothing),
        // Pages that are locked, or the kernel's own as those of the vvar (VM_PFNMAP), may not be taken away.
        MADV_DONTNEED if locked || vvar => Err(Errno::EINVAL),
        MADV_DONTNEED_LOCKED if vvar => Err(Errno::EINVAL),
        MADV_DONTNEED | MADV_DONTNEED_LOCKED => Ok(Effect::Host(Host::Must)),
        // Only private pages can be dropped lazily: those of a file would have to be written first.
        MADV_FREE if file || locked || vvar => Err(Errno::EINVAL),
        MADV_FREE => Ok(Effect::Host(Host::BestEffort)),
        MADV_COLD | MADV_PAGEOUT if locked || vvar => Err(Errno::EINVAL),
        MADV_COLD | MADV_PAGEOUT => Ok(Effect::Host(Host::BestEffort)),
        MADV_REMOVE => match &vma.backing {
            _ if locked => Err(Errno::EINVAL),
            // This destroys data of the file, so it takes a mapping that may write to it.
            Backing::File { object, offset } if shared && vma.max_prot.contains(ProtFlags::WRITE) => {
                Ok(Effect::PunchHole(object.clone(), *offset))
            }
            Backing::File { .. } => Err(Errno::EACCES),
            _ => Err(Errno::EINVAL),
        },
        // The host copies the memory at fork, so its areas need the flag too.
        MADV_DONTFORK => flags(VmaFlags::DONTFORK, none, Host::Must),
        MADV_DOFORK if vvar => Err(Errno::EINVAL),
        MADV_DOFORK => flags(none, VmaFlags::DONTFORK, Host::Must),
        // Wiping is for private zero pages only: a child cannot be given other contents of a file.
        MADV_WIPEONFORK if file || shared => Err(Errno::EINVAL),
        MADV_WIPEONFORK => flags(VmaFlags::WIPEONFORK, none, Host::Must),
        MADV_KEEPONFORK => flags(none, VmaFlags::WIPEONFORK, Host::Must),
        MADV_DONTDUMP => flags(VmaFlags::DONTDUMP, none, Host::Never),
        MADV_DODUMP if vvar => Err(Errno::EINVAL),
        MADV_DODUMP => flags(none, VmaFlags::DONTDUMP, Host::Never),
        MADV_MERGEABLE => flags(VmaFlags::MERGEABLE, none, Host::Never),
        MADV_UNMERGEABLE => flags(none, VmaFlags::MERGEABLE, Host::Never),
        MADV_HUGEPAGE => flags(VmaFlags::HUGEPAGE, VmaFlags::NOHUGEPAGE, Host::BestEffort),
        MADV_NOHUGEPAGE => flags(VmaFlags::NOHUGEPAGE, VmaFlags::HUGEPAGE, Host::BestEffort),
        MADV_COLLAPSE => Ok(Effect::Host(Host::BestEffort)),
        _ => Err(Errno::EINVAL),
    }
}
