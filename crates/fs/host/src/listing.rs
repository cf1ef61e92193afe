//! [`Listing`]: the entries of a directory as they were at one moment.

use moat_vfs::file::FIRST_ENTRY;

use crate::tree::HostEntry;

/// A listing with the position after each entry.
pub(crate) struct Listing(Vec<(HostEntry, u64)>);

impl Listing {
    /// Positions are the host's, so that they mean the same in every opening; where those do not grow (no file system of
    /// Linux that counts entries or hashes does that) they are counted.
    pub(crate) fn new(entries: Vec<HostEntry>) -> Listing {
        let host = |e: &HostEntry| u64::try_from(e.next).unwrap_or(0).saturating_add(FIRST_ENTRY).min(LAST);
        let grows = entries.windows(2).all(|w| host(&w[0]) < host(&w[1]));
        let first_fits = entries.first().is_none_or(|e| host(e) > FIRST_ENTRY);
        let positions: Vec<u64> = if grows && first_fits {
            entries.iter().map(host).collect()
        } else {
            (FIRST_ENTRY + 1..).take(entries.len()).collect()
        };
        Listing(entries.into_iter().zip(positions).collect())
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The entries behind a position, each with its own.
    pub(crate) fn behind(&self, position: u64) -> impl Iterator<Item = &(HostEntry, u64)> {
        let start = self.0.partition_point(|(_, next)| *next <= position);
        self.0.iter().skip(start)
    }
}

/// The largest position that lseek(2) takes.
const LAST: u64 = i64::MAX.cast_unsigned();
