//! Guest memory: what is mapped where, and copies to and from it.
//!
//! - [`addr`]: [`UserAddr`], [`UserPtr`], [`UserSlice`]: addresses as guests allege them.
//! - [`manager`]: [`MemoryManager`], one per guest address space; its operations are in modules of their own:
//!   [`copy`], [`mmap`], [`unmap`], [`protect`], [`remap`], [`brk`], [`advise`], [`residency`], [`fault`], [`report`].
//! - [`vma`], [`tree`]: mapped areas and the ordered tree of them.
//! - `persist`, `precopy`, `restore`: an address space in an image, while it runs or stands still, and out of it; `ranges`: what of it shows pages of the image itself.
//! - [`mappable`]: [`Mappable`], what a file is to a mapping.
//! - [`host_memory`]: [`HostMemory`], the memfd behind memory that is shared or kept for a file.
//! - [`futex_key`]: [`FutexKey`], the identity of a futex word.
//! - [`aio`]: what asynchronous I/O keeps with an address space.
//! - [`iovec`]: import of `struct iovec` arrays.
//! - `fake` (tests, feature `fake`): a platform whose guest memory is a map of pages in this process.
//!
//! The VMA tree is the authority on what is mapped, for limits, permissions and `/proc/PID/maps`; the host process carries
//! the tree's changes out by [`moat_platform::Order`]s and handles page faults, copy-on-write and swap itself.
//!
//! # Invariants
//! - Every page mapped in the host process below [`moat_platform::GUEST_TOP`] is in the tree with the same protection, but for
//!   orders still deferred by the thread that made them.
//! - The tree's lock is never held across an await, a copy or a host call that may block.
//! - Memory that a restore has mapped from an image is the guest's own, written to; [`VmaTree::imaged`](tree::VmaTree) knows where the
//!   host has the image's file there instead. Orders that tell the two apart (MADV_DONTNEED, mremap that grows) are not given for it.
//! - With more than one user, changes of existing mappings hold `map_lock` from the first look at the tree to the commit.
#![forbid(unsafe_code)]

pub mod addr;
pub mod advise;
pub mod aio;
pub mod brk;
pub mod copy;
#[cfg(any(test, feature = "fake"))]
#[allow(clippy::arithmetic_side_effects, reason = "for tests, which choose the numbers")]
pub mod fake;
pub mod fault;
pub mod futex_key;
pub mod host_memory;
mod ids;
mod imaged;
pub mod iovec;
pub mod manager;
pub mod mappable;
pub mod mmap;
#[cfg(test)]
mod model_tests;
mod persist;
mod precopy;
pub mod protect;
mod ranges;
pub mod remap;
pub mod report;
pub mod residency;
mod restore;
pub mod text;
pub mod tree;
pub mod unmap;
pub mod vma;

pub use addr::{UserAddr, UserPtr, UserSlice};
pub use fault::FaultAction;
pub use futex_key::{FutexKey, FutexScope};
pub use host_memory::HostMemory;
pub use ids::MmIds;
pub use iovec::IoVec;
pub use manager::{ImageLayout, MemoryManager, MmLimits};
pub use mappable::{FileIdentity, MapFile, MapName, Mappable, Origin, SharedAnon, Sharing};
pub use mmap::{FileAccess, MapBacking, MmapRequest};
pub use persist::{Present, SavedMemory, WhichPages};
pub use precopy::{Changes, Precopy, is_worth_watching};
pub use remap::MremapRequest;
pub use report::{VmUsage, VmaInfo};
pub use restore::{PageSource, Restored};
pub use vma::{Backing, Special, Vma, VmaFlags};

/// Bytes in a page.
pub const PAGE_SIZE: u64 = moat_platform::PAGE_SIZE;

/// Rounds down to a page boundary.
#[must_use]
pub const fn page_down(addr: u64) -> u64 {
    addr & !(PAGE_SIZE - 1)
}

/// Rounds up to a page boundary; None on overflow.
#[must_use]
pub const fn page_up(addr: u64) -> Option<u64> {
    match addr.checked_add(PAGE_SIZE - 1) {
        Some(a) => Some(page_down(a)),
        None => None,
    }
}

/// Whether `addr` is on a page boundary.
#[must_use]
pub const fn is_page_aligned(addr: u64) -> bool {
    addr.is_multiple_of(PAGE_SIZE)
}
