//! [`Vma`]: one mapped area.

use std::sync::Arc;

use bitflags::bitflags;
use moat_abi::mman::ProtFlags;
use moat_platform::MapSource;

use crate::Mappable;

bitflags! {
    /// Properties of a mapped area beside its protection (`VM_*` of `linux/mm.h`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct VmaFlags: u32 {
        /// MAP_SHARED: writes reach the file.
        const SHARED = 1 << 0;
        /// Grows towards lower addresses on faults.
        const GROWSDOWN = 1 << 1;
        /// mlock(2)ed.
        const LOCKED = 1 << 2;
        /// With LOCKED: pages are locked as they are faulted in.
        const LOCK_ONFAULT = 1 << 3;
        /// Absent in children.
        const DONTFORK = 1 << 4;
        /// Zero in children.
        const WIPEONFORK = 1 << 5;
        /// No swap reserved; not counted as data.
        const NORESERVE = 1 << 6;
        /// Not in core dumps.
        const DONTDUMP = 1 << 7;
        /// madvise(MADV_HUGEPAGE).
        const HUGEPAGE = 1 << 8;
        /// madvise(MADV_NOHUGEPAGE).
        const NOHUGEPAGE = 1 << 9;
        /// madvise(MADV_MERGEABLE).
        const MERGEABLE = 1 << 10;
        /// madvise(MADV_SEQUENTIAL).
        const SEQUENTIAL = 1 << 11;
        /// madvise(MADV_RANDOM).
        const RANDOM = 1 << 12;
    }
}

/// What the host process maps beside anything a guest asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// The vDSO's data.
    Vvar,
    /// The vDSO's code.
    Vdso,
}

/// What an area shows.
#[derive(Clone)]
pub enum Backing {
    /// Private zero pages.
    Anonymous,
    /// A file, or shared anonymous memory.
    File {
        /// The file.
        object: Arc<dyn Mappable>,
        /// The byte offset of the area's first byte.
        offset: u64,
    },
    /// The platform's.
    Special(Special),
}

/// One mapped area, `start..end`, page-aligned and not empty.
#[derive(Clone)]
pub struct Vma {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Read, write, execute.
    pub prot: ProtFlags,
    /// What mprotect(2) may set (`VM_MAYREAD` and its like).
    pub max_prot: ProtFlags,
    /// Other properties.
    pub flags: VmaFlags,
    /// What it shows.
    pub backing: Backing,
}

impl Vma {
    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// What the host maps for it, or in place of a part of it, where it shows nothing else.
    pub(crate) fn zeros(&self) -> MapSource {
        MapSource::AnonPrivate { noreserve: self.flags.contains(VmaFlags::NORESERVE) }
    }

    /// Never: an area has at least one page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// The file offset of `addr`, which lies in the area; zero without a file.
    #[must_use]
    pub fn file_offset(&self, addr: u64) -> u64 {
        match self.backing {
            Backing::File { offset, .. } => offset.saturating_add(addr.saturating_sub(self.start)),
            _ => 0,
        }
    }

    /// The part of the area in `start..end`, which must meet it.
    #[must_use]
    pub fn slice(&self, start: u64, end: u64) -> Vma {
        let (start, end) = (start.max(self.start), end.min(self.end));
        let mut part = self.clone();
        if let Backing::File { offset, .. } = &mut part.backing {
            *offset = offset.saturating_add(start.saturating_sub(self.start));
        }
        part.start = start;
        part.end = end;
        part
    }

    /// Whether `next`, which begins where this ends, continues it in everything.
    #[must_use]
    pub fn joins(&self, next: &Vma) -> bool {
        if self.end != next.start
            || self.prot != next.prot
            || self.max_prot != next.max_prot
            || self.flags != next.flags
        {
            return false;
        }
        match (&self.backing, &next.backing) {
            (Backing::Anonymous, Backing::Anonymous) => true,
            (Backing::File { object: a, .. }, Backing::File { object: b, offset }) => {
                // Of the same object alone: two openings of one file may differ in what may be done with it.
                Arc::ptr_eq(a, b) && self.file_offset(self.end) == *offset
            }
            _ => false,
        }
    }

    /// Whether its pages count as data for RLIMIT_DATA (`is_data_mapping`): private, writable, no stack.
    #[must_use]
    pub fn is_data(&self) -> bool {
        self.prot.contains(ProtFlags::WRITE) && !self.flags.intersects(VmaFlags::SHARED | VmaFlags::GROWSDOWN)
    }
}
