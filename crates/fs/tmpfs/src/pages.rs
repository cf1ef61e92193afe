//! [`PageSet`]: which pages of a file are there, the others being holes.

use std::collections::BTreeMap;

/// A set of page numbers, kept as ranges that neither touch nor overlap.
#[derive(Debug, Default)]
pub(crate) struct PageSet {
    /// First page and the one after the last.
    ranges: BTreeMap<u64, u64>,
    len: u64,
}

impl PageSet {
    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The parts of `start..end` that are in the set.
    pub(crate) fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let before = self.ranges.range(..start).next_back();
        let from_start = self.ranges.range(start..end.max(start));
        let overlaps = before.into_iter().chain(from_start);
        overlaps.map(move |(&a, &b)| (a.max(start), b.min(end))).filter(|(a, b)| a < b)
    }

    /// How many of `start..end` are missing.
    pub(crate) fn missing(&self, start: u64, end: u64) -> u64 {
        let there: u64 = self.within(start, end).map(|(a, b)| b.saturating_sub(a)).sum();
        end.saturating_sub(start).saturating_sub(there)
    }

    /// Adds `start..end`.
    pub(crate) fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        // Only what is new counts; then all ranges that touch become one.
        self.len = self.len.saturating_add(self.missing(start, end));
        let (mut first, mut last) = (start, end);
        if let Some((&a, &b)) = self.ranges.range(..start).next_back()
            && b >= start
        {
            (first, last) = (a, last.max(b));
            self.ranges.remove(&a);
        }
        while let Some((&a, &b)) = self.ranges.range(first..=last).next() {
            last = last.max(b);
            self.ranges.remove(&a);
        }
        self.ranges.insert(first, last);
    }

    /// Takes `start..end` out; gives how many there were.
    pub(crate) fn remove(&mut self, start: u64, end: u64) -> u64 {
        let there: Vec<(u64, u64)> = self.within(start, end).collect();
        let mut removed = 0u64;
        for (a, b) in there {
            // The range that has it begins at or before it.
            let Some((&first, &last)) = self.ranges.range(..=a).next_back() else { continue };
            self.ranges.remove(&first);
            if first < a {
                self.ranges.insert(first, a);
            }
            if b < last {
                self.ranges.insert(b, last);
            }
            removed = removed.saturating_add(b.saturating_sub(a));
        }
        self.len = self.len.saturating_sub(removed);
        removed
    }

    /// The first page from `page` on that is there.
    pub(crate) fn next(&self, page: u64) -> Option<u64> {
        self.within(page, u64::MAX).next().map(|(a, _)| a)
    }

    /// The first page from `page` on that is not.
    pub(crate) fn next_missing(&self, page: u64) -> u64 {
        match self.ranges.range(..=page).next_back() {
            Some((_, &end)) if end > page => end,
            _ => page,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_a_set_of_numbers(steps in prop::collection::vec((any::<bool>(), 0..40u64, 0..12u64), 1..40)) {
            let (mut pages, mut model) = (PageSet::default(), BTreeSet::new());
            for (add, start, len) in steps {
                let range = start..start + len;
                let there = range.clone().filter(|page| model.contains(page)).count() as u64;
                prop_assert_eq!(pages.missing(range.start, range.end), len - there);
                if add {
                    pages.insert(range.start, range.end);
                    model.extend(range);
                } else {
                    prop_assert_eq!(pages.remove(range.start, range.end), there);
                    model.retain(|page| !range.contains(page));
                }
                prop_assert_eq!(pages.len(), model.len() as u64);
                for page in 0..55 {
                    prop_assert_eq!(pages.next(page), model.range(page..).next().copied());
                    let missing = (page..).find(|page| !model.contains(page)).unwrap();
                    prop_assert_eq!(pages.next_missing(page), missing);
                }
                let touching = pages.ranges.iter().zip(pages.ranges.iter().skip(1)).any(|(a, b)| a.1 >= b.0);
                prop_assert!(!touching);
            }
        }
    }
}
