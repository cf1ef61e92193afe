//! Byte-range locks of one file: conflicts, splitting and joining.

use std::collections::BTreeMap;

use super::LockOwner;

/// Shared or exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LockKind {
    Read,
    Write,
}

/// Bytes `start` to `end`, both included; `u64::MAX` as end is the end of the file wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Range {
    pub start: u64,
    pub end: u64,
}

impl Range {
    /// Every byte.
    pub const ALL: Range = Range { start: 0, end: u64::MAX };

    /// Whether the two overlap or follow one another without a gap.
    fn touches(self, other: Range) -> bool {
        // End and start may be at the limits of u64.
        self.start <= other.end.saturating_add(1) && other.start <= self.end.saturating_add(1)
    }
}

/// A lock on a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RecordLock {
    pub range: Range,
    pub kind: LockKind,
    pub owner: LockOwner,
    /// What F_GETLK shows, in the root pid namespace; -1 for a description's.
    pub pid: i32,
}

/// The record locks of one owner, by their start: they never overlap, and never touch if of one kind.
type Owned = BTreeMap<u64, RecordLock>;

/// The record locks of one file.
#[derive(Default)]
pub struct RecordLocks {
    owners: BTreeMap<LockOwner, Owned>,
}

/// Those that overlap a range, in order.
fn within(owned: &Owned, range: Range) -> impl Iterator<Item = &RecordLock> {
    let reaches = |(_, lock): &(&u64, &RecordLock)| lock.range.end >= range.start;
    let before = owned.range(..range.start).next_back().filter(reaches);
    before.into_iter().chain(owned.range(range.start..=range.end.max(range.start))).map(|(_, lock)| lock)
}

impl RecordLocks {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &RecordLock> {
        self.owners.values().flat_map(BTreeMap::values)
    }

    /// The first lock of another owner that excludes `new`, the one with the lowest start.
    #[must_use]
    pub fn conflict(&self, new: &RecordLock) -> Option<RecordLock> {
        let others = self.owners.iter().filter(|(owner, _)| **owner != new.owner);
        let excludes = |l: &&RecordLock| l.kind == LockKind::Write || new.kind == LockKind::Write;
        // F_GETLK shows the first one in the file.
        let first = others.filter_map(|(_, owned)| within(owned, new.range).find(excludes));
        first.min_by_key(|l| l.range.start).copied()
    }

    /// The lock of `owner` in the range that starts first.
    #[must_use]
    pub fn held(&self, owner: LockOwner, range: Range) -> Option<RecordLock> {
        within(self.owners.get(&owner)?, range).next().copied()
    }

    /// Sets a lock that conflicts with none; true if it took something from the owner that others may have waited for.
    pub fn set(&mut self, new: RecordLock) -> bool {
        // What the owner had in the range goes first, whatever its kind: the new lock replaces it.
        let changed = self.clear(new.owner, new.range);
        let owned = self.owners.entry(new.owner).or_default();
        let mut joined = new;
        // Neighbours of the same kind become one, so that unlocking splits as little as possible.
        let wider = Range { start: new.range.start.saturating_sub(1), end: new.range.end.saturating_add(1) };
        let joins = |l: &&RecordLock| l.kind == new.kind && l.range.touches(new.range);
        let neighbours: Vec<RecordLock> = within(owned, wider).filter(joins).copied().collect();
        for l in neighbours {
            owned.remove(&l.range.start);
            joined.range.start = joined.range.start.min(l.range.start);
            joined.range.end = joined.range.end.max(l.range.end);
        }
        owned.insert(joined.range.start, joined);
        changed
    }

    /// Removes an owner's locks in a range, splitting those that reach beyond; true if there were any.
    pub fn clear(&mut self, owner: LockOwner, range: Range) -> bool {
        let Some(owned) = self.owners.get_mut(&owner) else { return false };
        let met: Vec<RecordLock> = within(owned, range).copied().collect();
        for l in &met {
            owned.remove(&l.range.start);
            // What sticks out below and above stays locked.
            if l.range.start < range.start {
                let below = Range { start: l.range.start, end: range.start.saturating_sub(1) };
                owned.insert(below.start, RecordLock { range: below, ..*l });
            }
            if l.range.end > range.end {
                let above = Range { start: range.end.saturating_add(1), end: l.range.end };
                owned.insert(above.start, RecordLock { range: above, ..*l });
            }
        }
        if owned.is_empty() {
            self.owners.remove(&owner);
        }
        !met.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One lock kind per byte and owner.
    #[derive(Default, Clone, PartialEq, Debug)]
    struct Naive([[Option<bool>; 24]; 3]);

    proptest! {
        #[test]
        fn ranges_agree_with_bytes(steps in prop::collection::vec((0u64..3, 0u64..24, 0u64..24, 0..3), 0..60)) {
            let mut real = RecordLocks::default();
            let mut naive = Naive::default();
            for (owner, a, b, what) in steps {
                let range = Range { start: a.min(b), end: a.max(b) };
                let bytes = a.min(b) as usize..=a.max(b) as usize;
                let who = owner as usize;
                let owner = LockOwner::Process(owner);
                let kind = match what { 0 => LockKind::Read, _ => LockKind::Write };
                if what == 2 {
                    real.clear(owner, range);
                    naive.0[who][bytes].fill(None);
                } else {
                    let new = RecordLock { range, kind, owner, pid: 0 };
                    let clash = (0..3).filter(|o| *o != who).any(|o| {
                        naive.0[o][bytes.clone()].iter().any(|l| l.is_some_and(|w| w || kind == LockKind::Write))
                    });
                    prop_assert_eq!(real.conflict(&new).is_some(), clash);
                    if !clash {
                        real.set(new);
                        naive.0[who][bytes].fill(Some(kind == LockKind::Write));
                    }
                }
                let mut shown = Naive::default();
                for l in real.all() {
                    let LockOwner::Process(o) = l.owner else { unreachable!() };
                    for at in l.range.start..=l.range.end {
                        let cell = &mut shown.0[o as usize][at as usize];
                        prop_assert!(cell.is_none(), "locks of one owner overlap");
                        *cell = Some(l.kind == LockKind::Write);
                    }
                    let joined = real.all().filter(|m| m.owner == l.owner && m.kind == l.kind && m.range.touches(l.range)).count();
                    prop_assert_eq!(joined, 1, "neighbours of one kind are one lock");
                }
                prop_assert_eq!(&shown, &naive);
            }
        }
    }
}
