//! [`Ring`]: slots for samples, filled by whatever a thread was interrupted in and emptied by one reader.
//!
//! # Invariants
//! - A slot is FREE, WRITING (its writer's alone), FULL (the reader's alone), in turn. A writer that finds no free slot drops its
//!   sample and counts it; nobody ever waits.

use std::alloc::{Layout, alloc_zeroed};
use std::arch::asm;
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use moat_abi::{Errno, Result};

/// Most bytes of stack in a sample.
pub const STACK_BYTES: usize = 64 << 10;

const SLOTS: usize = 64;
const PAGE: usize = 4096;

const FREE: u32 = 0;
const WRITING: u32 = 1;
const FULL: u32 = 2;

/// The registers that unwinding begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    /// rip.
    pub ip: u64,
    /// rsp.
    pub sp: u64,
    /// rbp.
    pub bp: u64,
}

impl Registers {
    /// Those of the caller.
    #[inline(always)]
    #[must_use]
    pub fn here() -> Registers {
        let (ip, sp, bp);
        // SAFETY: reads registers, and changes none but those that it gives.
        unsafe {
            asm!(
                "lea {ip}, [rip]",
                "mov {sp}, rsp",
                "mov {bp}, rbp",
                ip = out(reg) ip,
                sp = out(reg) sp,
                bp = out(reg) bp,
                options(nomem, nostack, preserves_flags)
            );
        }
        Registers { ip, sp, bp }
    }
}

/// What a thread was doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Where it was.
    pub registers: Registers,
    /// The memory from `registers.sp` on.
    pub stack: Vec<u8>,
    /// The thread's id.
    pub thread: i32,
    /// Two numbers, as the kind of sample has them.
    pub payload: [u64; 2],
}

#[repr(C)]
struct Contents {
    registers: Registers,
    payload: [u64; 2],
    thread: i32,
    length: usize,
    stack: [u8; STACK_BYTES],
}

#[repr(C)]
struct Slot {
    state: AtomicU32,
    contents: UnsafeCell<Contents>,
}

/// Slots for samples.
pub struct Ring {
    /// Null until [`Ring::prepare`]; from then on [`SLOTS`] of them, for ever.
    slots: AtomicPtr<Slot>,
    next: AtomicUsize,
    dropped: AtomicU64,
}

impl Default for Ring {
    fn default() -> Ring {
        Ring::new()
    }
}

impl Ring {
    /// A ring without memory: it drops everything.
    #[must_use]
    pub const fn new() -> Ring {
        Ring { slots: AtomicPtr::new(ptr::null_mut()), next: AtomicUsize::new(0), dropped: AtomicU64::new(0) }
    }

    /// Gives it its memory, which is never given back: a handler may still be writing to it. Forgets what is in it.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn prepare(&self) -> Result<()> {
        if self.slots.load(Ordering::Acquire).is_null() {
            let layout = Layout::array::<Slot>(SLOTS).map_err(|_| Errno::ENOMEM)?;
            // SAFETY: the layout has a size. Zero is a value of every field of a slot, FREE its state.
            let new = unsafe { alloc_zeroed(layout) }.cast::<Slot>();
            if new.is_null() {
                return Err(Errno::ENOMEM);
            }
            // Of two that do this at a time one leaks its memory.
            let _ = self.slots.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Relaxed);
        }
        self.take(|_| {});
        self.dropped.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn slots(&self) -> &[Slot] {
        let slots = self.slots.load(Ordering::Acquire);
        if slots.is_null() {
            return &[];
        }
        // SAFETY: so many were made, and they are never freed.
        unsafe { std::slice::from_raw_parts(slots, SLOTS) }
    }

    /// Adds a sample of the calling thread; callable from a signal handler.
    pub fn push(&self, registers: Registers, payload: [u64; 2]) {
        let slots = self.slots();
        for _ in 0..slots.len() {
            let at = self.next.fetch_add(1, Ordering::Relaxed) % SLOTS;
            let Some(slot) = slots.get(at) else { break };
            if slot.state.compare_exchange(FREE, WRITING, Ordering::Acquire, Ordering::Relaxed).is_err() {
                continue;
            }
            let contents = slot.contents.get();
            // SAFETY: WRITING makes the contents this writer's alone.
            unsafe {
                (*contents).registers = registers;
                (*contents).payload = payload;
                (*contents).thread = i32::try_from(libc::syscall(libc::SYS_gettid)).unwrap_or(0);
                (*contents).length = copy_stack(registers.sp, (&raw mut (*contents).stack).cast());
            }
            slot.state.store(FULL, Ordering::Release);
            return;
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes out what is there, in no particular order. For one reader at a time.
    pub fn take(&self, mut each: impl FnMut(Sample)) {
        for slot in self.slots() {
            if slot.state.load(Ordering::Acquire) != FULL {
                continue;
            }
            // SAFETY: FULL makes the contents the reader's alone, and they have been written.
            let contents = unsafe { &*slot.contents.get() };
            let stack = contents.stack.get(..contents.length).unwrap_or_default().to_vec();
            let sample =
                Sample { registers: contents.registers, stack, thread: contents.thread, payload: contents.payload };
            slot.state.store(FREE, Ordering::Release);
            each(sample);
        }
    }

    /// Samples that found no free slot since [`Ring::prepare`].
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

// SAFETY: the contents of a slot belong to one thread at a time, as its state says.
unsafe impl Sync for Ring {}

/// Copies the calling thread's stack from `sp` to its end, at most [`STACK_BYTES`], to `to`; gives the number of bytes.
///
/// # Safety
/// `to` has room for [`STACK_BYTES`].
unsafe fn copy_stack(sp: u64, to: *mut u8) -> usize {
    // The host copies up to the first element that it can't read, so that the stack's end need not be known.
    let mut pages = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; STACK_BYTES / PAGE + 1];
    let mut at = usize::try_from(sp).unwrap_or(0);
    let mut left = STACK_BYTES;
    for page in &mut pages {
        let length = PAGE.wrapping_sub(at % PAGE).min(left);
        *page = libc::iovec { iov_base: ptr::without_provenance_mut(at), iov_len: length };
        at = at.wrapping_add(length);
        left = left.saturating_sub(length);
    }
    let local = libc::iovec { iov_base: to.cast(), iov_len: STACK_BYTES };
    // SAFETY: the host checks what it reads; what it writes to is room of the caller's.
    let n = unsafe {
        let own = libc::syscall(libc::SYS_getpid);
        let (remote, number) = (pages.as_ptr(), pages.len());
        // The numbers as wide as a register, whose other half the host would see as well.
        libc::syscall(libc::SYS_process_vm_readv, own, &raw const local, 1usize, remote, number, 0usize)
    };
    usize::try_from(n).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_the_stack_and_a_full_ring_drops() {
        let ring = Ring::new();
        ring.push(Registers::here(), [0; 2]);
        assert_eq!(ring.dropped(), 1);
        ring.prepare().unwrap();
        let marker = std::hint::black_box([0x1234_5678_9abc_def0u64; 4]);
        std::hint::black_box(&marker);
        let here = Registers::here();
        for n in 0..SLOTS as u64 + 3 {
            ring.push(here, [n, 1]);
        }
        assert_eq!(ring.dropped(), 3);
        let mut samples = Vec::new();
        ring.take(|sample| samples.push(sample));
        assert_eq!(samples.len(), SLOTS);
        let wanted: Vec<u8> = marker.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let sample = samples.iter().find(|s| s.payload == [5, 1]).unwrap();
        assert!(sample.stack.windows(wanted.len()).any(|bytes| bytes == wanted));
        assert_eq!(sample.registers, here);
        ring.take(|_| panic!("nothing is left"));
    }
}
