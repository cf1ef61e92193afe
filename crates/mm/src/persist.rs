//! An address space on its way into an image: its areas, and which pages go with them.
//!
//! What a private area shows of a file is not saved, and neither are pages that nobody has touched: the host knows both. All of this
//! is done while no task runs application code.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use moat_abi::Errno;
use moat_host::procfs::{self, page};
use moat_image::pages::{PagesWriter, Segment};
use moat_image::state::{AreaState, MappableState, MemoryState};
use moat_image::{ImageError, Ref, Refusal, length, pieces};
use moat_platform::AddressSpace;

use crate::aio::KernelPoll;
use crate::ranges::{Ranges, cut};
use crate::vma::{Backing, Vma, VmaFlags};
use crate::{Mappable, MemoryManager, PAGE_SIZE};

/// Pages without contents between two runs of pages that are saved as one: a mapping more costs the restore more than these cost the
/// image, in which they are holes.
const GAP_PAGES: u64 = 64;

/// Words of the host's page map that are read at a time.
const WORDS: usize = 16 << 10;

/// Bytes copied at a time.
pub(crate) const PIECE: usize = 1 << 20;

/// Pages of one process that are to be saved: first and last address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present(pub Vec<(u64, u64)>);

/// Which pages of an address space are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhichPages {
    /// All.
    All,
    /// Those that a child made by fork(2) has as they are.
    Inherited,
    /// The others: MADV_DONTFORK, MADV_WIPEONFORK.
    NotInherited,
}

/// An address space without its pages.
pub struct SavedMemory {
    /// Areas and settings.
    pub state: MemoryState,
    /// Where the pages are to be found.
    pub(crate) private: PrivateAreas,
    /// Requests that wait for files, which the state lacks.
    pub polls: Vec<KernelPoll>,
}

/// The private areas of an address space.
pub(crate) struct PrivateAreas {
    /// In order.
    pub(crate) vmas: Vec<Vma>,
    /// What of them shows pages of an image.
    imaged: Ranges,
}

impl PrivateAreas {
    /// The pieces of an area, and whether each shows pages of an image.
    pub(crate) fn cut(&self, vma: &Vma) -> Vec<(u64, u64, bool)> {
        cut(vma.start, vma.end, &self.imaged.within(vma.start, vma.end))
    }

    /// Which pages of the process `host_pid` are to be saved, in the areas that are `wanted`.
    pub(crate) fn present(&self, host_pid: i32, wanted: impl Fn(&Vma) -> bool) -> Result<Present, ImageError> {
        let map = procfs::open_pagemap(host_pid).map_err(|e| ImageError::host("opening the page map", io(e)))?;
        let mut present = Present::default();
        for vma in self.vmas.iter().filter(|vma| wanted(vma)) {
            let mut runs = Vec::new();
            for (start, end, from_image) in self.cut(vma) {
                if from_image {
                    // The guest's own memory, though to the host most of it is a file.
                    runs.push((start, end));
                } else {
                    find_pages(&map, start, end, &mut runs)?;
                }
            }
            // Across what a file shows nothing may be joined: it would be saved with the rest.
            let gap = if matches!(vma.backing, Backing::Anonymous) { GAP_PAGES * PAGE_SIZE } else { 0 };
            present.0.extend(join(&runs, gap));
        }
        Ok(present)
    }
}

impl MemoryManager {
    /// Its private areas at this moment.
    pub(crate) fn private_areas(&self) -> PrivateAreas {
        let s = self.state();
        let is_private =
            |vma: &&Vma| !vma.flags.contains(VmaFlags::SHARED) && !matches!(vma.backing, Backing::Special(_));
        PrivateAreas { vmas: s.tree.iter().filter(is_private).cloned().collect(), imaged: s.tree.imaged.clone() }
    }

    /// The address space as data, but for its pages. `mappable` gives the name of what an area shows.
    ///
    /// # Errors
    /// Those of `mappable`.
    pub fn save(
        &self,
        mut mappable: impl FnMut(&Arc<dyn Mappable>) -> Result<Ref<MappableState>, Refusal>,
    ) -> Result<SavedMemory, Refusal> {
        // First of all: a request that ends meanwhile writes to memory.
        let (aio, polls) = self.aio().get().map(|aio| aio.save()).transpose()?.unwrap_or_default();
        // Copied, as what an area shows may lock anything.
        let (vmas, imaged, mut state) = {
            let s = self.state();
            let limits = [s.limits.address_space, s.limits.data, s.limits.stack, s.limits.memlock];
            let range = |r: &std::ops::Range<u64>| (r.start, r.end);
            let state = MemoryState {
                limits,
                mmap_base: s.mmap_base,
                brk_start: s.brk_start,
                brk: s.brk,
                parts: [range(&s.image.code), range(&s.image.data), range(&s.image.args), range(&s.image.env)],
                start_stack: s.image.start_stack,
                auxv: s.image.auxv.clone(),
                lock_future: s.lock_future.bits(),
                peak_mapped: s.peak_mapped,
                private_barrier: self.has_private_barrier(),
                aio,
                ..MemoryState::default()
            };
            (s.tree.iter().cloned().collect::<Vec<_>>(), s.tree.imaged.clone(), state)
        };
        // Shared memory is saved with what it shows, once for all who map it.
        let mut private = Vec::new();
        for vma in vmas {
            let shows = match &vma.backing {
                // Every process has it from the start.
                Backing::Special(_) => continue,
                Backing::Anonymous => None,
                Backing::File { object, offset } => {
                    let place = format!("the mapping at {:#x}", vma.start);
                    Some((mappable(object).map_err(|refusal| refusal.at(place))?, *offset))
                }
            };
            state.areas.push(AreaState {
                start: vma.start,
                end: vma.end,
                prot: vma.prot.bits(),
                max_prot: vma.max_prot.bits(),
                flags: vma.flags.bits(),
                shows,
            });
            if !vma.flags.contains(VmaFlags::SHARED) {
                private.push(vma);
            }
        }
        Ok(SavedMemory { state, private: PrivateAreas { vmas: private, imaged }, polls })
    }
}

impl SavedMemory {
    /// Which pages of the process `host_pid`, which has this memory, are to be saved.
    ///
    /// # Errors
    /// Of the host.
    pub fn present(&self, host_pid: i32) -> Result<Present, ImageError> {
        self.private.present(host_pid, |_| true)
    }

    /// Writes pages, which are those of `space`, and notes where they are.
    ///
    /// # Errors
    /// Of the host.
    pub fn write_pages(
        &mut self,
        space: &dyn AddressSpace,
        present: &Present,
        which: WhichPages,
        pages: &mut PagesWriter,
    ) -> Result<(), ImageError> {
        // By the platform, which shows program text as the guest knows it.
        let mut memory = Reader::new(space);
        let mut buffer = Vec::new();
        let apart = VmaFlags::DONTFORK | VmaFlags::WIPEONFORK;
        let inherited = |at: u64| {
            let behind = self.private.vmas.partition_point(|vma| vma.start <= at);
            let vma = behind.checked_sub(1).and_then(|i| self.private.vmas.get(i));
            !vma.is_some_and(|vma| at < vma.end && vma.flags.intersects(apart))
        };
        let wanted: Vec<_> = present
            .0
            .iter()
            .filter(|(start, _)| match which {
                WhichPages::All => true,
                WhichPages::Inherited => inherited(*start),
                WhichPages::NotInherited => !inherited(*start),
            })
            .collect();
        for (start, end) in wanted {
            let mut segment = pages.segment(*start);
            for (at, n) in pieces(*start, *end, PIECE) {
                buffer.resize(n, 0);
                memory.read(at, &mut buffer)?;
                segment.write(&buffer)?;
            }
            self.state.segments.extend(segment.finish()?);
        }
        self.state.segments.sort_by_key(|segment| segment.start);
        Ok(())
    }

    /// Adds pages that were written otherwise.
    pub fn add_segments(&mut self, segments: Vec<Segment>) {
        self.state.segments.extend(segments);
        self.state.segments.sort_by_key(|segment| segment.start);
    }
}

pub(crate) fn io(errno: Errno) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno.raw())
}

/// Runs that are no further apart than `gap` as one.
pub(crate) fn join(runs: &[(u64, u64)], gap: u64) -> Vec<(u64, u64)> {
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (start, end) in runs {
        match joined.last_mut() {
            Some(last) if start.saturating_sub(last.1) <= gap => last.1 = *end,
            _ => joined.push((*start, *end)),
        }
    }
    joined
}

/// Adds the runs of pages in `start..end` that are the process's own.
fn find_pages(map: &File, start: u64, end: u64, runs: &mut Vec<(u64, u64)>) -> Result<(), ImageError> {
    let mut words = vec![0; WORDS * 8];
    let mut at = start;
    while at < end {
        let count = usize::try_from(end.saturating_sub(at) / PAGE_SIZE).unwrap_or(usize::MAX).min(WORDS);
        let bytes = words.get_mut(..count.saturating_mul(8)).unwrap_or_default();
        map.read_exact_at(bytes, (at / PAGE_SIZE).saturating_mul(8))
            .map_err(|e| ImageError::host("reading the page map", e))?;
        for word in bytes.as_chunks::<8>().0 {
            let word = u64::from_ne_bytes(*word);
            // What is still the file's needs no saving: the file is mapped again.
            let own = word & (page::PRESENT | page::SWAPPED) != 0 && word & page::FILE == 0;
            let next = at.saturating_add(PAGE_SIZE);
            if own {
                match runs.last_mut() {
                    Some(last) if last.1 == at => last.1 = next,
                    _ => runs.push((at, next)),
                }
            }
            at = next;
        }
    }
    Ok(())
}

/// Reads guest memory, also what the guest itself may not.
pub(crate) struct Reader<'a> {
    space: &'a dyn AddressSpace,
    forced: Option<File>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(space: &'a dyn AddressSpace) -> Reader<'a> {
        Reader { space, forced: None }
    }

    /// Fills `buf` with what is at `addr`.
    ///
    /// # Errors
    /// Of the host.
    pub(crate) fn read(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), ImageError> {
        // Where the guest itself may not look, the host's own file of its memory does.
        let done = self.space.read(addr, buf).unwrap_or(0);
        let rest = buf.get_mut(done..).filter(|rest| !rest.is_empty());
        let Some(rest) = rest else { return Ok(()) };
        let failed = |e: std::io::Error| ImageError::host(format!("reading memory at {addr:#x}"), e);
        let file = match self.forced.take() {
            Some(file) => file,
            None => procfs::open_memory_to_read(self.space.host_pid()).map_err(|e| failed(io(e)))?,
        };
        let read = file.read_exact_at(rest, addr.saturating_add(length(done)));
        self.forced = Some(file);
        read.map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_joined_over_small_gaps() {
        let runs = [(0, 1), (3, 4), (9, 10)];
        assert_eq!(join(&runs, 2), [(0, 4), (9, 10)]);
        assert_eq!(join(&runs, 0), runs);
        assert_eq!(join(&[(0, 1), (1, 2)], 0), [(0, 2)]);
    }
}
