//! [`Order`]: what the sentry has a guest thread do to its own address space.

use std::os::fd::OwnedFd;
use std::sync::Arc;

/// An operation that a guest thread carries out on its own address space.
///
/// Addresses and lengths are page-aligned, below [`crate::GUEST_TOP`] and already checked against the
/// VMA tree. The host gives the errno.
#[derive(Clone, Debug)]
pub enum Order {
    /// mmap(2) with MAP_FIXED. `prot` is PROT_*.
    Mmap {
        /// First byte.
        addr: u64,
        /// Bytes.
        len: u64,
        /// PROT_READ | PROT_WRITE | PROT_EXEC.
        prot: u32,
        /// What is mapped.
        source: MapSource,
    },
    /// munmap(2).
    #[allow(missing_docs)]
    Munmap { addr: u64, len: u64 },
    /// mprotect(2).
    #[allow(missing_docs)]
    Mprotect { addr: u64, len: u64, prot: u32 },
    /// mremap(2) with MREMAP_MAYMOVE | MREMAP_FIXED, or in place where both addresses are equal.
    #[allow(missing_docs)]
    Mremap { old_addr: u64, old_len: u64, new_addr: u64, new_len: u64, dont_unmap: bool },
    /// madvise(2), with an advice that harms nobody else (DONTNEED, FREE, HUGEPAGE, DONTFORK, WIPEONFORK, ...).
    #[allow(missing_docs)]
    Madvise { addr: u64, len: u64, advice: i32 },
    /// mlock2(2) / munlock(2), best effort.
    #[allow(missing_docs)]
    Mlock { addr: u64, len: u64, lock: bool },
    /// An atomic operation on a 32-bit word of guest memory; the result is the word's old value.
    Atomic32 {
        /// The word, 4-byte aligned.
        addr: u64,
        /// What to do.
        op: Atomic32,
    },
    /// rseq(2) with these arguments, for the thread itself. ENOSYS on a platform that cannot have it.
    #[allow(missing_docs)]
    Rseq { addr: u64, len: u32, flags: u32, sig: u32 },
    /// prctl(PR_SET_NAME): the host's view of the guest's comm.
    SetName([u8; 16]),
    /// userfaultfd(2) for the thread's own memory, which gives the number of a descriptor: the sentry takes it (`userfault` of
    /// moat-host), and the thread is told to close its own.
    WatchWrites,
    /// close(2) of the descriptor that [`Order::WatchWrites`] gave.
    EndWatch(u32),
}

/// What a mapping shows.
#[derive(Clone, Debug)]
pub enum MapSource {
    /// Zero pages, private.
    AnonPrivate {
        /// MAP_NORESERVE.
        noreserve: bool,
    },
    /// A host file (or memfd).
    File {
        /// Open for what `prot` and `shared` need.
        fd: Arc<OwnedFd>,
        /// Byte offset, page-aligned.
        offset: u64,
        /// MAP_SHARED, else MAP_PRIVATE.
        shared: bool,
    },
}

/// An atomic read-modify-write of [`Order::Atomic32`]; each gives the old value. A fault gives EFAULT.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Atomic32 {
    Load,
    Swap(u32),
    Add(u32),
    Or(u32),
    AndNot(u32),
    Xor(u32),
    /// Stores `new` if the word is `old`.
    CompareExchange {
        old: u32,
        new: u32,
    },
}
