//! An address space out of an image, in a blank process.
//!
//! Private pages are mapped from the image's file, copy-on-write: that costs the same whatever their number, and processes
//! that are restored from one image share them until they write. Few pages in a row that differ from those of a mapped file are copied,
//! and so is program text.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::Errno;
use moat_abi::mman::{MADV_DONTFORK, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_NORMAL, MADV_WIPEONFORK, ProtFlags};
use moat_image::pages::{Pages, Stored};
use moat_image::state::{AreaState, MemoryState, Segment};
use moat_image::{ImageError, PAGE_SIZE, length};
use moat_platform::{AddressSpace, GUEST_BOTTOM, GUEST_TOP, GuestThread, MapSource, Order, VdsoLayout, execute};

use crate::copy::effective_prot;
use crate::manager::MAX_MAP_COUNT;
use crate::ranges::cut;
use crate::vma::{Backing, Vma, VmaFlags};
use crate::{ImageLayout, MapFile, Mappable, MemoryManager, MmIds, MmLimits, Sharing, is_page_aligned};

/// Pages in a row that differ from those of a mapped file, from which number on they are mapped: to copy fewer costs less than a mapping.
const WORTH_MAPPING: u64 = 8 * PAGE_SIZE;

/// Where the pages of an image come from.
pub struct PageSource {
    pages: Pages,
    /// To be mapped by guests, by the number of the image; none if they can't map them as they are.
    files: Vec<Arc<OwnedFd>>,
}

/// What an address space is restored with.
pub struct Restored<'a> {
    /// Its state.
    pub state: &'a MemoryState,
    /// What its areas show, by the number in the image.
    pub mappables: &'a [Arc<dyn Mappable>],
    /// The image's pages.
    pub pages: &'a PageSource,
}

impl PageSource {
    /// The pages of an image, which guests map.
    ///
    /// # Errors
    /// Of the host.
    pub fn mapped(pages: Pages) -> Result<PageSource, ImageError> {
        let copy = |file: &File| file.try_clone().map(|file| Arc::new(file.into()));
        let files = pages.files().map(copy).collect::<Result<_, _>>();
        Ok(PageSource { files: files.map_err(|e| ImageError::host("duplicating a descriptor", e))?, pages })
    }

    /// The pages of an image on a medium from which nothing may be executed, as guest memory may: they are copied.
    #[must_use]
    pub fn copied(pages: Pages) -> PageSource {
        PageSource { pages, files: Vec::new() }
    }

    /// The file that has these pages as they are.
    fn file_of(&self, stored: &Stored) -> Option<&Arc<OwnedFd>> {
        self.files.get(usize::from(stored.base)).filter(|_| stored.packed.is_none())
    }

    /// The pages.
    #[must_use]
    pub fn pages(&self) -> &Pages {
        &self.pages
    }
}

impl MemoryManager {
    /// The address space of `from` in the blank process `space`, carried out by its `thread`. It has one user.
    ///
    /// # Errors
    /// What is wrong with the image; what the host refuses.
    pub async fn restore(
        space: Arc<dyn AddressSpace>,
        thread: &mut dyn GuestThread,
        vdso: &VdsoLayout,
        ids: &Arc<MmIds>,
        from: &Restored<'_>,
    ) -> Result<MemoryManager, ImageError> {
        let state = from.state;
        let [address_space, data, stack, memlock] = state.limits;
        let limits = MmLimits { address_space, data, stack, memlock };
        let mm = MemoryManager::new(space, vdso, limits, ids);
        // A guest can't have more, and each costs the host memory.
        if state.areas.len() > MAX_MAP_COUNT {
            return Err(ImageError::state(format!("{} areas in one address space", state.areas.len())));
        }
        let mut segments = state.segments.as_slice();
        for area in &state.areas {
            let vma = mm.check_area(area, from.mappables)?;
            // Both are by address, so each segment is looked at once.
            let own = segments.iter().take_while(|s| s.start < vma.end).count();
            let (these, rest) = segments.split_at(own);
            segments = rest;
            check_segments(&vma, these, from.pages)?;
            let failed = |errno: Errno| {
                let error = std::io::Error::from_raw_os_error(errno.raw());
                ImageError::host(format!("mapping memory at {:#x}", vma.start), error)
            };
            mm.map_area(thread, &vma, these, from.pages).await.map_err(|e| e.or(failed))?;
            mm.state().tree.insert(vma);
        }
        if let Some(first) = state.areas.first() {
            // This changes nothing, and is done when all that was put off is: others copy from and to this memory from here on.
            let order = Order::Madvise { addr: first.start, len: PAGE_SIZE, advice: MADV_NORMAL };
            let failed = |e: Errno| ImageError::host("mapping memory", std::io::Error::from_raw_os_error(e.raw()));
            execute(thread, order).await.map_err(failed)?;
        }
        if let Some(segment) = segments.first() {
            return Err(ImageError::state(format!("pages at {:#x}, where no area is", segment.start)));
        }
        mm.take_settings(state);
        Ok(mm)
    }

    /// The area that the image describes, if there may be one.
    fn check_area(&self, area: &AreaState, mappables: &[Arc<dyn Mappable>]) -> Result<Vma, ImageError> {
        let wrong = |what: &str| ImageError::state(format!("the area {:#x}-{:#x} {what}", area.start, area.end));
        // As strict as mmap(2): the tree's order and the platform's own areas depend on it.
        let bounds = [area.start, area.end];
        if bounds.iter().any(|at| !is_page_aligned(*at)) || area.start >= area.end {
            return Err(wrong("is none"));
        }
        if area.start < GUEST_BOTTOM || area.end > GUEST_TOP || !self.state().tree.is_free(area.start, area.end) {
            return Err(wrong("lies where none may be"));
        }
        let bits = |n| ProtFlags::from_bits(n).filter(|p| ProtFlags::RWX.contains(*p));
        let (prot, max_prot) =
            bits(area.prot).zip(bits(area.max_prot)).ok_or_else(|| wrong("has unknown protections"))?;
        let flags = VmaFlags::from_bits(area.flags).ok_or_else(|| wrong("has unknown flags"))?;
        let backing = match area.shows {
            None if flags.contains(VmaFlags::SHARED) => return Err(wrong("is shared and shows nothing")),
            None => Backing::Anonymous,
            Some((name, offset)) => {
                let end = offset.checked_add(area.end.saturating_sub(area.start));
                if !is_page_aligned(offset) || end.is_none_or(|end| i64::try_from(end).is_err()) {
                    return Err(wrong("shows what no file has"));
                }
                Backing::File { object: moat_image::refs::find(mappables, name)?.clone(), offset }
            }
        };
        Ok(Vma { start: area.start, end: area.end, prot, max_prot, flags, backing })
    }

    /// Has the host map an area with its pages.
    async fn map_area(
        &self,
        thread: &mut dyn GuestThread,
        vma: &Vma,
        segments: &[Segment],
        source: &PageSource,
    ) -> Result<(), Failure> {
        let prot = effective_prot(vma.prot).bits();
        let map = |addr: u64, end: u64, source| Order::Mmap { addr, len: end.saturating_sub(addr), prot, source };
        let least = match vma.backing {
            // What a child is to find zeroed the host must know as anonymous.
            Backing::Anonymous if !vma.flags.contains(VmaFlags::WIPEONFORK) => Some(0),
            // The platform has pages of its own where call sites are rewritten.
            Backing::File { .. } if !vma.prot.contains(ProtFlags::EXEC) => Some(WORTH_MAPPING),
            _ => None,
        };
        let mapped = |segment: &Segment| least.is_some_and(|least| segment.stored.len >= least);
        let file = |segment: &Segment| source.file_of(&segment.stored).filter(|_| mapped(segment));
        let part = |s: &Segment| (s.start, s.start.saturating_add(s.stored.len));
        match &vma.backing {
            Backing::File { object, .. } => {
                let shared = vma.flags.contains(VmaFlags::SHARED);
                let sharing = if shared { Sharing::Shared } else { Sharing::Private };
                let what = MapFile {
                    offset: vma.file_offset(vma.start),
                    len: vma.len(),
                    prot: vma.prot,
                    sharing,
                    ids: self.ids(),
                };
                object.mapped(&what)?;
                thread.defer(map(vma.start, vma.end, object.map_source(&what)?));
                for segment in segments {
                    let Some(fd) = file(segment) else { continue };
                    let (start, end) = part(segment);
                    self.state().tree.imaged.insert(start, end);
                    let pages = MapSource::File { fd: fd.clone(), offset: segment.stored.offset, shared: false };
                    thread.defer(map(start, end, pages));
                }
            }
            _ => {
                // The host gets one mapping for each stretch; to the tree it is one area.
                let parts: Vec<_> = segments.iter().filter(|s| file(s).is_some()).map(part).collect();
                let mut files = segments.iter().filter_map(|s| Some((file(s)?, s.stored.offset)));
                for (start, end, from_image) in cut(vma.start, vma.end, &parts) {
                    let source = match if from_image { files.next() } else { None } {
                        Some((fd, offset)) => {
                            self.state().tree.imaged.insert(start, end);
                            MapSource::File { fd: fd.clone(), offset, shared: false }
                        }
                        None => vma.zeros(),
                    };
                    thread.defer(map(start, end, source));
                }
            }
        }
        for advice in advice_of(vma.flags) {
            thread.defer(Order::Madvise { addr: vma.start, len: vma.len(), advice });
        }
        if vma.flags.contains(VmaFlags::LOCKED) {
            // Best effort, as when the guest asked for it.
            let _ = execute(thread, Order::Mlock { addr: vma.start, len: vma.len(), lock: true }).await;
        }
        let copied: Vec<_> = segments.iter().filter(|segment| file(segment).is_none()).collect();
        if !copied.is_empty() {
            // The mapping has to be there before it is written to.
            execute(thread, Order::Madvise { addr: vma.start, len: vma.len(), advice: MADV_NORMAL }).await?;
            self.copy_in(&copied, source)?;
        }
        Ok(())
    }

    /// Writes pages into memory that is mapped.
    fn copy_in(&self, segments: &[&Segment], source: &PageSource) -> Result<(), Failure> {
        for segment in segments {
            source.pages.read(&segment.stored, |at, bytes| {
                let addr = segment.start.saturating_add(at);
                let done = self.space().write(addr, bytes).unwrap_or(0);
                let rest = bytes.get(done..).unwrap_or_default();
                // What the guest may not write to: the relocated part of a library.
                if !rest.is_empty() && self.space().write_forced(addr.saturating_add(length(done)), rest)? < rest.len()
                {
                    return Err(Failure::Host(Errno::EFAULT));
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn take_settings(&self, from: &MemoryState) {
        let range = |(start, end): (u64, u64)| start..end;
        let [code, data, args, env] = from.parts.map(range);
        let mut s = self.state();
        s.mmap_base = from.mmap_base.clamp(GUEST_BOTTOM, GUEST_TOP);
        s.brk_start = from.brk_start;
        s.brk = from.brk;
        s.image = ImageLayout { code, data, start_stack: from.start_stack, args, env, auxv: from.auxv.clone() };
        s.lock_future = VmaFlags::from_bits_truncate(from.lock_future) & (VmaFlags::LOCKED | VmaFlags::LOCK_ONFAULT);
        s.peak_mapped = from.peak_mapped.max(s.tree.totals().mapped);
        drop(s);
        if from.private_barrier {
            self.register_private_barrier();
        }
    }
}

/// Why an area could not be mapped.
enum Failure {
    Host(Errno),
    Image(ImageError),
}

impl Failure {
    fn or(self, host: impl FnOnce(Errno) -> ImageError) -> ImageError {
        match self {
            Failure::Host(errno) => host(errno),
            Failure::Image(error) => error,
        }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure::Host(errno)
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Failure {
        Failure::Image(error)
    }
}

/// What the host is told of an area besides its protection.
fn advice_of(flags: VmaFlags) -> impl Iterator<Item = i32> {
    let all = [
        (VmaFlags::DONTFORK, MADV_DONTFORK),
        (VmaFlags::WIPEONFORK, MADV_WIPEONFORK),
        (VmaFlags::HUGEPAGE, MADV_HUGEPAGE),
        (VmaFlags::NOHUGEPAGE, MADV_NOHUGEPAGE),
    ];
    all.into_iter().filter(move |(flag, _)| flags.contains(*flag)).map(|(_, advice)| advice)
}

/// Whether the segments are in order and in the private area `vma`, and their pages in the file.
fn check_segments(vma: &Vma, segments: &[Segment], source: &PageSource) -> Result<(), ImageError> {
    // In order and apart, so that each address has one page.
    let mut at = vma.start;
    for segment in segments {
        source.pages.check(&segment.stored)?;
        let end = segment.start.checked_add(segment.stored.len).filter(|end| *end <= vma.end);
        let fits =
            segment.start >= at && segment.start.is_multiple_of(PAGE_SIZE) && !vma.flags.contains(VmaFlags::SHARED);
        at = end
            .filter(|_| fits)
            .ok_or_else(|| ImageError::state(format!("the pages at {:#x} are not those of an area", segment.start)))?;
    }
    Ok(())
}
