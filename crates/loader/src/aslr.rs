//! [`Aslr`]: whether, and how far, the places of a process's parts are random.

use moat_mm::PAGE_SIZE;

/// Bits of randomness, in pages, of the mapping base and of position-independent programs (`mmap_rnd_bits`).
pub(crate) const MMAP_RANDOM_BITS: u32 = 28;

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
