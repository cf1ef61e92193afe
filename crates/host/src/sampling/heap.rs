//! [`Sampled`]: the allocator of the program, which takes samples of what is allocated while it is asked to.
//!
//! The distances between samples are random, as in tcmalloc and Go: an allocation of `size` bytes is in the profile with probability
//! 1 - exp(-size / the interval). Those sampled are kept in a table of fixed size until they are freed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use moat_abi::Result;

use super::ring::{Registers, Ring};

/// The allocator: the C library's, with samples.
pub struct Sampled;

static ON: AtomicBool = AtomicBool::new(false);
static RING: Ring = Ring::new();

const ENTRIES: usize = 16 << 10;
/// How many entries an address may be in.
const WAYS: usize = 16;
const EMPTY: usize = 0;
/// No allocation has this address.
const RESERVED: usize = 1;

/// A sampled allocation that has not been freed.
struct Live {
    address: AtomicUsize,
    id: AtomicU64,
}

static LIVE: [Live; ENTRIES] = [const { Live { address: AtomicUsize::new(EMPTY), id: AtomicU64::new(0) } }; ENTRIES];
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Bytes until the thread's next sample.
    static LEFT: Cell<usize> = const { Cell::new(0) };
    /// The state of its random numbers; 0 before the first.
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

/// Bytes between two samples, on average.
static INTERVAL: AtomicU32 = AtomicU32::new(1);

/// Begins to sample, every `interval_bytes` on average.
///
/// # Errors
/// ENOMEM.
pub fn start(interval_bytes: u32) -> Result<()> {
    INTERVAL.store(interval_bytes, Ordering::Relaxed);
    RING.prepare()?;
    LIVE.iter().for_each(|live| live.address.store(EMPTY, Ordering::Relaxed));
    ON.store(true, Ordering::Release);
    Ok(())
}

/// Ends that; gives the numbers (`payload[1]`) of the samples whose memory is still in use.
pub fn stop() -> Vec<u64> {
    ON.store(false, Ordering::Relaxed);
    let in_use = LIVE.iter().filter(|live| live.address.load(Ordering::Acquire) > RESERVED);
    in_use.map(|live| live.id.load(Ordering::Relaxed)).collect()
}

/// What has been sampled; the payload is the size in bytes and a number.
pub fn ring() -> &'static Ring {
    &RING
}

// SAFETY: passes everything on to the system's allocator, whose contract it keeps; what it notes changes no memory of callers.
unsafe impl GlobalAlloc for Sampled {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        let memory = unsafe { System.alloc(layout) };
        if ON.load(Ordering::Relaxed) {
            allocated(memory, layout.size());
        }
        memory
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        let memory = unsafe { System.alloc_zeroed(layout) };
        if ON.load(Ordering::Relaxed) {
            allocated(memory, layout.size());
        }
        memory
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // Before: afterwards the address may be another allocation's.
        if ON.load(Ordering::Relaxed) {
            freed(memory);
        }
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !ON.load(Ordering::Relaxed) {
            // SAFETY: as the caller promises.
            return unsafe { System.realloc(memory, layout, size) };
        }
        freed(memory);
        // SAFETY: as the caller promises.
        let new = unsafe { System.realloc(memory, layout, size) };
        allocated(new, size);
        new
    }
}

#[cold]
#[inline(never)]
fn allocated(memory: *mut u8, size: usize) {
    // A thread that is ending has no counters any more.
    let _ = LEFT.try_with(|left| match left.get().checked_sub(size) {
        Some(rest) if RANDOM.get() != 0 => left.set(rest),
        _ => {
            let first = RANDOM.get() == 0;
            left.set(distance());
            if !first && !memory.is_null() {
                let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
                RING.push(Registers::here(), [u64::try_from(size).unwrap_or(u64::MAX), id]);
                keep(memory.addr(), id);
            }
        }
    });
}

/// A random distance to the next sample, exponentially distributed.
fn distance() -> usize {
    let mut random = RANDOM.get();
    if random == 0 {
        // Differs by thread, since the counters of each lie elsewhere.
        let address = RANDOM.with(|cell| std::ptr::from_ref(cell).addr());
        random = u64::try_from(address).unwrap_or(0) | 1;
    }
    // xorshift64
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    RANDOM.set(random);
    let uniform = (f64::from(u32::try_from(random >> 32).unwrap_or(0)) + 1.0) / (f64::from(u32::MAX) + 1.0);
    let distance = -uniform.ln() * f64::from(INTERVAL.load(Ordering::Relaxed));
    // SAFETY: the logarithm is between -23 and 0, the interval has 32 bits: neither infinite nor out of range.
    unsafe { distance.to_int_unchecked() }
}

/// The entries that an address may be in.
fn ways(address: usize) -> impl Iterator<Item = &'static Live> {
    let first = (address >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (first..first.wrapping_add(WAYS)).filter_map(|at| LIVE.get(at % ENTRIES))
}

fn keep(address: usize, id: u64) {
    for live in ways(address) {
        if live.address.compare_exchange(EMPTY, RESERVED, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            live.id.store(id, Ordering::Relaxed);
            live.address.store(address, Ordering::Release);
            return;
        }
    }
}

#[cold]
#[inline(never)]
fn freed(memory: *mut u8) {
    let address = memory.addr();
    if let Some(live) = ways(address).find(|live| live.address.load(Ordering::Relaxed) == address) {
        live.address.store(EMPTY, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_taken_by_size_and_leave_when_freed() {
        let layout = Layout::from_size_align(1 << 20, 8).unwrap();
        start(512 << 10).unwrap();
        // SAFETY: the layout has a size, and each allocation is freed with its own.
        unsafe {
            let kept: Vec<_> = (0..40).map(|_| Sampled.alloc(layout)).collect();
            for _ in 0..10 {
                Sampled.dealloc(Sampled.alloc_zeroed(layout), layout);
            }
            let mut taken = Vec::new();
            ring().take(|sample| taken.push(sample.payload));
            // 86% of 50 are expected.
            assert!((30..=50).contains(&taken.len()), "{}", taken.len());
            assert!(taken.iter().all(|[size, _]| *size == 1 << 20));
            let in_use = stop();
            assert!((22..=40).contains(&in_use.len()) && in_use.len() < taken.len(), "{}", in_use.len());
            kept.into_iter().for_each(|memory| Sampled.dealloc(memory, layout));
        }
    }
}
