//! [`Ranges`]: a set of addresses, as ranges that don't meet.

use std::collections::BTreeMap;

/// A set of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// End by start.
    ends: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Adds `start..end`, of which nothing is in the set.
    pub(crate) fn insert(&mut self, start: u64, end: u64) {
        if start < end {
            self.ends.insert(start, end);
        }
    }

    /// Takes `start..end` out.
    pub(crate) fn remove(&mut self, start: u64, end: u64) {
        for (from, to) in self.within_whole(start, end) {
            self.ends.remove(&from);
            self.insert(from, to.min(start));
            self.insert(from.max(end), to);
        }
    }

    /// The parts of the set in `start..end`, in order.
    pub(crate) fn within(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        self.within_whole(start, end).iter().map(|(from, to)| ((*from).max(start), (*to).min(end))).collect()
    }

    /// The ranges that meet `start..end`, whole.
    fn within_whole(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        if self.ends.is_empty() || start >= end {
            return Vec::new();
        }
        let below = self.ends.range(..start).next_back().filter(|(_, to)| **to > start);
        below.into_iter().chain(self.ends.range(start..end)).map(|(from, to)| (*from, *to)).collect()
    }
}

/// Cuts `start..end` at the borders of `parts`, which are in order: each piece, and whether it is one of them.
pub(crate) fn cut(start: u64, end: u64, parts: &[(u64, u64)]) -> Vec<(u64, u64, bool)> {
    let mut pieces = Vec::new();
    let mut at = start;
    for (from, to) in parts {
        if at < *from {
            pieces.push((at, *from, false));
        }
        pieces.push((*from, *to, true));
        at = *to;
    }
    if at < end {
        pieces.push((at, end, false));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_leaves_the_rest() {
        let mut set = Ranges::default();
        set.insert(10, 20);
        set.insert(30, 40);
        set.remove(15, 32);
        assert_eq!(set.within(0, 100), [(10, 15), (32, 40)]);
        set.remove(11, 12);
        assert_eq!(set.within(0, 14), [(10, 11), (12, 14)]);
        set.remove(0, 100);
        assert_eq!(set, Ranges::default());
    }

    #[test]
    fn a_range_is_cut_at_the_borders() {
        assert_eq!(
            cut(0, 50, &[(10, 20), (20, 30)]),
            [(0, 10, false), (10, 20, true), (20, 30, true), (30, 50, false)]
        );
        assert_eq!(cut(0, 5, &[(0, 5)]), [(0, 5, true)]);
        assert_eq!(cut(0, 5, &[]), [(0, 5, false)]);
    }
}
