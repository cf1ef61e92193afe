//! Byte-range locks of one file: conflicts, splitting and joining.

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

    fn overlaps(self, other: Range) -> bool {
        self.start <= other.end && other.start <= self.end
    }

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

/// The record locks of one file: ranges of one owner never overlap, and never touch if of one kind.
#[derive(Default)]
pub struct RecordLocks {
    locks: Vec<RecordLock>,
}

impl RecordLocks {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty()
    }

    /// All of them.
    pub(super) fn all(&self) -> &[RecordLock] {
        &self.locks
    }

    /// The first lock of another owner that excludes `new`, the one with the lowest start.
    #[must_use]
    pub fn conflict(&self, new: &RecordLock) -> Option<RecordLock> {
        let excludes = |l: &&RecordLock| {
            l.owner != new.owner
                && l.range.overlaps(new.range)
                && (l.kind == LockKind::Write || new.kind == LockKind::Write)
        };
        // F_GETLK shows the first one in the file.
        self.locks.iter().filter(excludes).min_by_key(|l| l.range.start).copied()
    }

    /// The lock of `owner` in the range that starts first.
    #[must_use]
    pub fn held(&self, owner: LockOwner, range: Range) -> Option<RecordLock> {
        let fits = |l: &&RecordLock| l.owner == owner && l.range.overlaps(range);
        self.locks.iter().filter(fits).min_by_key(|l| l.range.start).copied()
    }

    /// Sets a lock that conflicts with none; true if it took something from the owner that others may have waited for.
    pub fn set(&mut self, new: RecordLock) -> bool {
        // What the owner had in the range goes first, whatever its kind: the new lock replaces it.
        let changed = self.clear(new.owner, new.range);
        let mut joined = new;
        // Neighbours of the same kind become one, so that unlocking splits as little as possible.
        self.locks.retain(|l| {
            let joins = l.owner == new.owner && l.kind == new.kind && l.range.touches(joined.range);
            if joins {
                joined.range.start = joined.range.start.min(l.range.start);
                joined.range.end = joined.range.end.max(l.range.end);
            }
            !joins
        });
        self.locks.push(joined);
        changed
    }

    /// Removes an owner's locks in a range, splitting those that reach beyond; true if there were any.
    pub fn clear(&mut self, owner: LockOwner, range: Range) -> bool {
        let mut rest = Vec::new();
        let before = self.locks.len();
        self.locks.retain(|l| {
            if l.owner != owner || !l.range.overlaps(range) {
                return true;
            }
            // What sticks out below and above stays locked.
            if l.range.start < range.start {
                rest.push(RecordLock {
                    range: Range { start: l.range.start, end: range.start.saturating_sub(1) },
                    ..*l
                });
            }
            if l.range.end > range.end {
                rest.push(RecordLock { range: Range { start: range.end.saturating_add(1), end: l.range.end }, ..*l });
            }
            false
        });
        let changed = self.locks.len() != before;
        self.locks.append(&mut rest);
        changed
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
                for l in &real.locks {
                    let LockOwner::Process(o) = l.owner else { unreachable!() };
                    for at in l.range.start..=l.range.end {
                        let cell = &mut shown.0[o as usize][at as usize];
                        prop_assert!(cell.is_none(), "locks of one owner overlap");
                        *cell = Some(l.kind == LockKind::Write);
                    }
                    let joined = real.locks.iter().filter(|m| m.owner == l.owner && m.kind == l.kind && m.range.touches(l.range)).count();
                    prop_assert_eq!(joined, 1, "neighbours of one kind are one lock");
                }
                prop_assert_eq!(&shown, &naive);
            }
        }
    }
}
