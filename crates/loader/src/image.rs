//! Segments of an ELF file become mappings.

use std::ops::Range;
use std::sync::Arc;

use moat_abi::fs::AccessMode;
use moat_abi::mman::{MapFlags, ProtFlags};
use moat_abi::{Errno, Result};
use moat_mm::{FileAccess, MapBacking, Mappable, MemoryManager, MmapRequest, PAGE_SIZE, page_down, page_up};
use moat_platform::{GUEST_TOP, GuestThread};
use moat_vfs::OpenFile;

use crate::aslr::{Aslr, MMAP_RANDOM_BITS};
use crate::elf::{ElfHeaders, ElfKind, Segment};

/// Where position-independent programs go without randomness (`ELF_ET_DYN_BASE`).
const PIE_BASE: u64 = page_down(0x7fff_ffff_f000 / 3 * 2);
/// How far the heap may begin behind the program (`arch_randomize_brk`).
const BRK_RANDOM: u64 = 0x0200_0000;

/// An ELF file in memory.
#[derive(Clone, Debug)]
pub struct MappedImage {
    /// What was added to the file's addresses.
    pub bias: u64,
    /// The entry point.
    pub entry: u64,
    /// One past the last byte.
    pub end: u64,
    /// The program headers; 0 if they are not in memory.
    pub phdr: u64,
    /// How many there are.
    pub phnum: u64,
    /// From the first to the last byte of executable segments.
    pub code: Range<u64>,
    /// From the first byte of the last segment to the last byte that comes from the file.
    pub data: Range<u64>,
    /// It was placed like any other mapping.
    pub among_mappings: bool,
    /// Parts of pages to be zeroed.
    tails: Vec<Range<u64>>,
}

impl MappedImage {
    /// Zeroes the parts of pages that follow file contents in memory but not in the segment's file part.
    ///
    /// # Errors
    /// EFAULT.
    pub fn clear_tails(&self, mm: &MemoryManager) -> Result<()> {
        for tail in &self.tails {
            mm.write_zeros(tail.start.into(), tail.end.saturating_sub(tail.start))?;
        }
        Ok(())
    }

    /// Where the heap begins: after the program, at a random distance.
    #[must_use]
    pub fn place_brk(&self, has_interpreter: bool, aslr: Aslr) -> u64 {
        let after = page_up(self.end).unwrap_or(self.end);
        // A program that is its own interpreter (ld.so run by name) lies among the mappings; its heap gets a place of its own.
        let base = if self.among_mappings && !has_interpreter { PIE_BASE } else { after };
        match aslr {
            Aslr::On => page_down(base.saturating_add(aslr.random() % BRK_RANDOM)),
            Aslr::Off => base,
        }
    }
}

/// Maps the file that is executed.
///
/// # Errors
/// EINVAL, ENOMEM, EEXIST; those of the file.
pub async fn map_program(
    mm: &MemoryManager,
    thread: &mut dyn GuestThread,
    file: &OpenFile,
    headers: &ElfHeaders,
    has_interpreter: bool,
    aslr: Aslr,
) -> Result<MappedImage> {
    let span = headers.span();
    let (bias, among_mappings) = match headers.kind {
        ElfKind::Fixed => (0, false),
        // Linux puts a program without interpreter, which is ld.so run by name, among the mappings. A static PIE can live there too.
        ElfKind::Relocatable if !has_interpreter => (bias_among_mappings(mm, headers)?, true),
        ElfKind::Relocatable => (place_pie(&span, headers.max_align, aslr), false),
    };
    map(mm, thread, file, headers, bias, among_mappings).await
}

/// Maps the interpreter, anywhere.
///
/// # Errors
/// As [`map_program`].
pub async fn map_interpreter(
    mm: &MemoryManager,
    thread: &mut dyn GuestThread,
    file: &OpenFile,
    headers: &ElfHeaders,
) -> Result<MappedImage> {
    let bias = match headers.kind {
        ElfKind::Fixed => 0,
        ElfKind::Relocatable => bias_among_mappings(mm, headers)?,
    };
    map(mm, thread, file, headers, bias, true).await
}

/// The load bias of a position-independent program whose pages are `span`, unbiased.
fn place_pie(span: &Range<u64>, max_align: u64, aslr: Aslr) -> u64 {
    let base = PIE_BASE + aslr.random_pages(MMAP_RANDOM_BITS);
    // Aligned, so that huge pages fit, and such that the first segment lands there.
    let aligned = base - base % max_align;
    aligned.wrapping_sub(span.start - span.start % max_align)
}

/// A load bias at which all pages of the file are free, below the mapping base.
fn bias_among_mappings(mm: &MemoryManager, headers: &ElfHeaders) -> Result<u64> {
    let span = headers.span();
    let align = headers.max_align;
    // With room to move the start to the alignment.
    let len = (span.end - span.start).checked_add(align - PAGE_SIZE).ok_or(Errno::ENOMEM)?;
    let free = mm.find_free(len)?;
    let start = free.next_multiple_of(align);
    // The first segment keeps its place relative to the alignment.
    Ok(start.wrapping_sub(span.start - span.start % align))
}

async fn map(
    mm: &MemoryManager,
    thread: &mut dyn GuestThread,
    file: &OpenFile,
    headers: &ElfHeaders,
    bias: u64,
    among_mappings: bool,
) -> Result<MappedImage> {
    let span = headers.span();
    // The bias may be "negative": sums wrap, but every biased address must be in user space.
    let start = span.start.wrapping_add(bias);
    if start.checked_add(span.end - span.start).is_none_or(|end| end > GUEST_TOP) {
        return Err(Errno::ENOMEM);
    }
    // Nothing that is there may be replaced.
    if !mm.is_free(start, span.end - span.start) {
        return Err(Errno::EEXIST);
    }
    let entry = headers.entry.wrapping_add(bias);
    if entry >= GUEST_TOP {
        return Err(Errno::EINVAL);
    }
    let mut image = MappedImage {
        bias,
        entry,
        end: 0,
        phdr: headers.phdr_vaddr.map_or(0, |a| a.wrapping_add(bias)),
        phnum: headers.phnum,
        code: 0..0,
        data: 0..0,
        among_mappings,
        tails: Vec::new(),
    };
    let object = file.file().clone().mappable(file)?;
    let mut access = FileAccess::READ | FileAccess::EXEC;
    access.set(FileAccess::WRITE, file.access_mode() == AccessMode::ReadWrite);
    for segment in &headers.segments {
        let biased = Segment { vaddr: segment.vaddr.wrapping_add(bias), ..*segment };
        map_segment(mm, thread, &object, access, &biased, &mut image).await?;
        image.note(&biased);
    }
    Ok(image)
}

impl MappedImage {
    /// Takes a segment into the bounds of code and data, as load_elf_binary() does.
    fn note(&mut self, s: &Segment) {
        let file_end = s.vaddr.saturating_add(s.filesz);
        if s.prot.contains(ProtFlags::EXEC) {
            let start = if self.code.is_empty() { s.vaddr } else { self.code.start.min(s.vaddr) };
            self.code = start..self.code.end.max(file_end);
        }
        self.data = self.data.start.max(s.vaddr)..self.data.end.max(file_end);
        self.end = self.end.max(s.end());
    }
}

async fn map_segment(
    mm: &MemoryManager,
    thread: &mut dyn GuestThread,
    object: &Arc<dyn Mappable>,
    access: FileAccess,
    s: &Segment,
    image: &mut MappedImage,
) -> Result<()> {
    let start = page_down(s.vaddr);
    let end = page_up(s.end()).ok_or(Errno::ENOMEM)?;
    let file_end = s.vaddr.saturating_add(s.filesz);
    let file_pages_end = if s.filesz == 0 { start } else { page_up(file_end).ok_or(Errno::ENOMEM)? };
    if file_pages_end > start {
        let backing = MapBacking::File { object: object.clone(), offset: s.offset - (s.vaddr - start), access };
        map_fixed(mm, thread, start, file_pages_end - start, s.prot, backing).await?;
        // The rest of the last page shows the file; with a bss it must be zero. A read-only one stays, as on Linux.
        if s.memsz > s.filesz && s.prot.contains(ProtFlags::WRITE) && file_end < file_pages_end {
            image.tails.push(file_end..file_pages_end);
        }
    }
    if end > file_pages_end {
        map_fixed(mm, thread, file_pages_end, end - file_pages_end, s.prot, MapBacking::Anonymous).await?;
    }
    Ok(())
}

/// Maps at exactly `addr`. A later segment of the same file may replace the end of an earlier one, as on Linux.
async fn map_fixed(
    mm: &MemoryManager,
    thread: &mut dyn GuestThread,
    addr: u64,
    len: u64,
    prot: ProtFlags,
    backing: MapBacking,
) -> Result<()> {
    let mut flags = MapFlags::PRIVATE | MapFlags::FIXED;
    flags.set(MapFlags::ANONYMOUS, matches!(backing, MapBacking::Anonymous));
    mm.mmap(thread, MmapRequest { addr, len, prot, flags, backing }).await?;
    Ok(())
}
