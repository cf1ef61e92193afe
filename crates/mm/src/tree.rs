//! [`VmaTree`]: the mapped areas of one address space, in order, split and merged as Linux does.

use std::collections::BTreeMap;
use std::ops::Bound;

use moat_abi::mman::ProtFlags;

use crate::PAGE_SIZE;
use crate::ranges::Ranges;
use crate::vma::{Vma, VmaFlags};

/// Bytes kept free below an area that grows down (`stack_guard_gap`, 256 pages).
pub const STACK_GUARD_GAP: u64 = 256 * PAGE_SIZE;

/// Sums over all areas, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Everything mapped.
    pub mapped: u64,
    /// Private writable memory (RLIMIT_DATA).
    pub data: u64,
    /// Locked memory (RLIMIT_MEMLOCK).
    pub locked: u64,
    /// Executable, not writable.
    pub exec: u64,
    /// Areas that grow down.
    pub stack: u64,
    /// Accessible memory: what can have pages at all.
    pub accessible: u64,
}

impl Totals {
    fn of(vma: &Vma) -> Totals {
        let len = vma.len();
        let when = |yes: bool| if yes { len } else { 0 };
        Totals {
            mapped: len,
            data: when(vma.is_data()),
            locked: when(vma.flags.contains(VmaFlags::LOCKED)),
            exec: when(vma.prot.contains(ProtFlags::EXEC) && !vma.prot.contains(ProtFlags::WRITE)),
            stack: when(vma.flags.contains(VmaFlags::GROWSDOWN)),
            accessible: when(!vma.prot.is_empty()),
        }
    }

    fn combine(&mut self, other: Totals, op: fn(u64, u64) -> u64) {
        self.mapped = op(self.mapped, other.mapped);
        self.data = op(self.data, other.data);
        self.locked = op(self.locked, other.locked);
        self.exec = op(self.exec, other.exec);
        self.stack = op(self.stack, other.stack);
        self.accessible = op(self.accessible, other.accessible);
    }
}

/// What earlier searches learnt: no free range of `len` bytes or more lies in `from..high`.
#[derive(Clone, Copy)]
struct GapHint {
    high: u64,
    from: u64,
    len: u64,
}

/// The areas by start address.
#[derive(Clone, Default)]
pub struct VmaTree {
    areas: BTreeMap<u64, Vma>,
    totals: Totals,
    hint: Option<GapHint>,
    /// What shows pages of an image.
    pub(crate) imaged: Ranges,
}

impl VmaTree {
    /// Nothing mapped.
    #[must_use]
    pub fn new() -> VmaTree {
        VmaTree::default()
    }

    /// How many areas there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.areas.len()
    }

    /// Sums over all areas.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// All areas in address order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Vma> {
        self.areas.values()
    }

    /// The area that contains `addr`.
    #[must_use]
    pub fn find(&self, addr: u64) -> Option<&Vma> {
        self.areas.range(..=addr).next_back().map(|(_, v)| v).filter(|v| addr < v.end)
    }

    /// The first area that ends above `addr` (`find_vma`).
    #[must_use]
    pub fn find_from(&self, addr: u64) -> Option<&Vma> {
        self.find(addr).or_else(|| self.areas.range((Bound::Excluded(addr), Bound::Unbounded)).next().map(|(_, v)| v))
    }

    /// The areas that meet `start..end`, in order.
    pub fn overlapping(&self, start: u64, end: u64) -> impl DoubleEndedIterator<Item = &Vma> {
        let first = self.find(start).map_or(start, |v| v.start);
        let range = if first < end { first..end } else { end..end };
        self.areas.range(range).map(|(_, v)| v)
    }

    /// Whether nothing is mapped in `start..end`.
    #[must_use]
    pub fn is_free(&self, start: u64, end: u64) -> bool {
        self.overlapping(start, end).next().is_none()
    }

    /// The end of the mapped stretch without holes that begins at `start`, at most `end`.
    #[must_use]
    pub fn covered_until(&self, start: u64, end: u64) -> u64 {
        let mut at = start;
        for vma in self.overlapping(start, end) {
            if vma.start > at {
                break;
            }
            at = vma.end;
        }
        at.min(end)
    }

    /// Adds an area where nothing is mapped, joining it with its neighbours.
    pub fn insert(&mut self, vma: Vma) {
        debug_assert!(!vma.is_empty() && self.is_free(vma.start, vma.end));
        let (start, end) = (vma.start, vma.end);
        self.put(vma);
        self.join_at(end);
        self.join_at(start);
    }

    /// Takes out what is mapped in `start..end`.
    pub fn remove(&mut self, start: u64, end: u64) -> Vec<Vma> {
        let mut removed = Vec::new();
        if start >= end {
            return removed;
        }
        self.imaged.remove(start, end);
        self.split_at(start);
        self.split_at(end);
        while let Some((&at, _)) = self.areas.range(start..end).next() {
            removed.extend(self.take(at));
        }
        if !removed.is_empty() {
            self.freed(end);
        }
        removed
    }

    /// Changes what is mapped in `start..end`, splitting and joining at the edges.
    ///
    /// `change` may alter everything but the address range.
    pub fn update(&mut self, start: u64, end: u64, mut change: impl FnMut(&mut Vma)) {
        if start >= end {
            return;
        }
        self.split_at(start);
        self.split_at(end);
        let mut edges = Vec::new();
        for (&at, vma) in self.areas.range_mut(start..end) {
            // Out with the old properties and in with the new: `change` may alter what counts.
            self.totals.combine(Totals::of(vma), u64::wrapping_sub);
            change(vma);
            self.totals.combine(Totals::of(vma), u64::wrapping_add);
            edges.push(at);
        }
        self.join_at(end);
        for at in edges.into_iter().rev() {
            self.join_at(at);
        }
    }

    /// Moves the start of the area at `start` down to `new_start`, over free space.
    pub fn grow_down(&mut self, start: u64, new_start: u64) {
        debug_assert!(new_start < start && self.is_free(new_start, start));
        if let Some(mut vma) = self.take(start) {
            if let crate::Backing::File { offset, .. } = &mut vma.backing {
                *offset = offset.saturating_sub(start - new_start);
            }
            vma.start = new_start;
            self.put(vma);
            self.join_at(new_start);
        }
    }

    /// The highest free range of `len` bytes in `low..high`, clear of the guard gaps of stacks.
    pub fn find_gap(&mut self, len: u64, low: u64, high: u64) -> Option<u64> {
        // An earlier search has shown that there is nothing so large above `from`.
        let known = self.hint.filter(|h| h.high == high && len >= h.len);
        let from = known.map_or(high, |h| h.from);
        let mut largest_skipped = 0;
        // An area above may be a stack, whose guard gap reaches below `from`.
        let mut gap_end = self.find_from(from).map_or(from, |above| from.min(guarded_start(above)));
        let mut found = None;
        for vma in self.areas.range(..from).rev().map(|(_, v)| v) {
            let gap_start = vma.end.max(low);
            let gap = gap_end.saturating_sub(gap_start);
            if gap >= len {
                found = Some(gap_end - len);
                break;
            }
            largest_skipped = largest_skipped.max(gap);
            // The gap below this area ends at its guard gap, if it is a stack.
            gap_end = gap_end.min(guarded_start(vma));
            if gap_end <= low {
                return None;
            }
        }
        let addr = match found {
            Some(addr) => addr,
            None if gap_end.saturating_sub(low) >= len => gap_end - len,
            None => return None,
        };
        // All gaps that were passed over are smaller than this, so a search for as much may begin here.
        let at_least = largest_skipped + PAGE_SIZE;
        self.hint = Some(GapHint { high, from: addr + len, len: known.map_or(at_least, |h| h.len.max(at_least)) });
        Some(addr)
    }

    /// Whether a mapping without MAP_FIXED may be put at `start..end`: free, and clear of guard gaps.
    #[must_use]
    pub fn is_free_for_hint(&self, start: u64, end: u64) -> bool {
        self.is_free(start, end) && self.find_from(end).is_none_or(|next| end <= guarded_start(next))
    }

    fn put(&mut self, vma: Vma) {
        self.totals.combine(Totals::of(&vma), u64::wrapping_add);
        self.areas.insert(vma.start, vma);
    }

    fn take(&mut self, start: u64) -> Option<Vma> {
        let vma = self.areas.remove(&start)?;
        self.totals.combine(Totals::of(&vma), u64::wrapping_sub);
        Some(vma)
    }

    /// Makes `addr` a border if it lies inside an area.
    fn split_at(&mut self, addr: u64) {
        let Some(vma) = self.find(addr).filter(|v| v.start < addr) else { return };
        let (low, high) = (vma.slice(vma.start, addr), vma.slice(addr, vma.end));
        self.take(low.start);
        self.put(low);
        self.put(high);
    }

    /// Joins the areas that meet at `addr` if they are alike.
    fn join_at(&mut self, addr: u64) {
        let Some(high) = self.areas.get(&addr) else { return };
        let Some((_, low)) = self.areas.range(..addr).next_back() else { return };
        if !low.joins(high) {
            return;
        }
        let (low_start, end) = (low.start, high.end);
        self.take(addr);
        if let Some(mut joined) = self.take(low_start) {
            joined.end = end;
            self.put(joined);
        }
    }

    /// Something that ended at `end` was unmapped: the free range there may be larger than the hint says.
    fn freed(&mut self, end: u64) {
        let Some(hint) = self.hint else { return };
        // The next search comes by there anyway.
        if end + STACK_GUARD_GAP < hint.from {
            return;
        }
        let gap_end = self.find_from(end).map_or(hint.high, |v| v.start.min(hint.high));
        self.hint = Some(GapHint { from: hint.from.max(gap_end), ..hint });
    }
}

/// Where the space below an area ends for new mappings (`vm_start_gap`).
fn guarded_start(vma: &Vma) -> u64 {
    if vma.flags.contains(VmaFlags::GROWSDOWN) { vma.start.saturating_sub(STACK_GUARD_GAP) } else { vma.start }
}

#[cfg(test)]
mod tests;
