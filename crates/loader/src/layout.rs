//! Where the parts of a process go, and how random that is.

use std::ops::Range;

use moat_abi::{Errno, Result};
use moat_mm::{MemoryManager, PAGE_SIZE, page_down, page_up};
use moat_platform::{GUEST_BOTTOM, GUEST_TOP};

use crate::image::MappedImage;

/// Bits of randomness, in pages, of the mapping base and of position-independent programs (`mmap_rnd_bits`).
const MMAP_RANDOM_BITS: u32 = 28;
/// Bits of randomness, in pages, of the stack (`STACK_RND_MASK`).
const STACK_RANDOM_BITS: u32 = 22;
/// Where position-independent programs go without randomness (`ELF_ET_DYN_BASE`).
const PIE_BASE: u64 = page_down(0x7fff_ffff_f000 / 3 * 2);
/// How far the heap may begin behind the program (`arch_randomize_brk`).
const BRK_RANDOM: u64 = 0x0200_0000;
/// The least distance of the mapping base from the stack's top (`mmap_base`).
const MIN_STACK_GAP: u64 = 128 << 20;
/// The most of the stack that is mapped from the start; a fault grows it further.
const MAX_INITIAL_STACK: u64 = 64 << 20;
/// Room below the arguments that every stack has from the start, whatever RLIMIT_STACK.
const MIN_STACK_ROOM: u64 = 128 << 10;
/// The size of a transparent huge page.
const HUGE_PAGE: u64 = 2 << 20;
/// The least part of a huge page that the stack's top lies above a huge-page border.
const OFF_HUGE_BORDER: u64 = 512 << 10;

/// Whether addresses are random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aslr {
    /// As Linux with `randomize_va_space` 2.
    On,
    /// personality(2) with ADDR_NO_RANDOMIZE.
    Off,
}

impl Aslr {
    /// A random number of pages of `bits` bits, in bytes; zero without randomness.
    #[must_use]
    pub fn random_pages(self, bits: u32) -> u64 {
        (self.random() & ((1 << bits) - 1)) * PAGE_SIZE
    }

    /// A random number; zero without randomness.
    #[must_use]
    pub fn random(self) -> u64 {
        match self {
            Aslr::On => {
                let mut bytes = [0; 8];
                moat_host::random::fill(&mut bytes);
                u64::from_ne_bytes(bytes)
            }
            Aslr::Off => 0,
        }
    }
}

/// Chooses the pages of the initial stack and sets the mapping base of `mm` below it.
///
/// # Errors
/// ENOMEM where no room is.
pub fn place_stack(mm: &MemoryManager, limit: u64, needed: u64, aslr: Aslr) -> Result<Range<u64>> {
    let room = page_up(needed).and_then(|n| n.checked_add(MIN_STACK_ROOM)).ok_or(Errno::ENOMEM)?;
    let len = page_down(limit.min(MAX_INITIAL_STACK)).max(room);
    let gap = limit.clamp(MIN_STACK_GAP, GUEST_TOP / 6 * 5).max(len);
    let mut top = GUEST_TOP - PAGE_SIZE - aslr.random_pages(STACK_RANDOM_BITS);
    // The vDSO is the only thing mapped: the stack with all its room to grow goes below it if they would meet.
    for vma in mm.vmas_snapshot().iter().rev() {
        if vma.start < top + PAGE_SIZE && vma.end + gap > top {
            top = vma.start.saturating_sub(PAGE_SIZE);
        }
    }
    // The first pages must not be backed by a huge page: most stacks stay small, and a huge one costs 2 MiB of
    // zeroing. The part of the area above the last border can't be huge, so the top goes well above one.
    if top % HUGE_PAGE < OFF_HUGE_BORDER {
        top = top - top % HUGE_PAGE - HUGE_PAGE / 4;
    }
    let start = top.checked_sub(len).filter(|&s| s > GUEST_BOTTOM).ok_or(Errno::ENOMEM)?;
    // The base stays clear of the stack at its largest (`mmap_base`).
    let guard = (1 << 20) + aslr.random_pages(MMAP_RANDOM_BITS);
    let base = top.checked_sub(gap).and_then(|b| b.checked_sub(guard)).ok_or(Errno::ENOMEM)?;
    mm.set_mmap_base(page_down(base));
    Ok(start..top)
}

/// The load bias of a position-independent program whose pages are `span`, unbiased.
#[must_use]
pub fn place_pie(span: &Range<u64>, max_align: u64, aslr: Aslr) -> u64 {
    let base = PIE_BASE + aslr.random_pages(MMAP_RANDOM_BITS);
    // Aligned, so that huge pages fit, and such that the first segment lands there.
    let aligned = base - base % max_align;
    aligned.wrapping_sub(span.start - span.start % max_align)
}

/// Where the heap begins: after the program, at a random distance.
#[must_use]
pub fn place_brk(program: &MappedImage, has_interpreter: bool, aslr: Aslr) -> u64 {
    let after = page_up(program.end).unwrap_or(program.end);
    // A program that is its own interpreter (ld.so run by name) lies among the mappings; its heap gets a place of its own.
    let base = if program.among_mappings && !has_interpreter { PIE_BASE } else { after };
    match aslr {
        Aslr::On => page_down(base + aslr.random() % BRK_RANDOM),
        Aslr::Off => base,
    }
}
