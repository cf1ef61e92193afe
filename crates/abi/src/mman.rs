//! Memory: flags of mmap(2) and its family.
//!
//! Sources: `asm-generic/mman{,-common}.h`, `linux/mman.h`, `arch/x86/include/uapi/asm/mman.h`.

use bitflags::bitflags;

bitflags! {
    /// `PROT_*` of mmap(2) and mprotect(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ProtFlags: u32 {
        /// Readable.
        const READ = 1;
        /// Writable.
        const WRITE = 2;
        /// Executable.
        const EXEC = 4;
        /// May be used for atomic operations (no meaning on x86).
        const SEM = 8;
        /// mprotect: extend to the start of a mapping that grows down.
        const GROWSDOWN = 0x0100_0000;
        /// mprotect: extend to the end of a mapping that grows up.
        const GROWSUP = 0x0200_0000;
    }
}

impl ProtFlags {
    /// Read, write and execute: the bits that are a protection.
    pub const RWX: ProtFlags = Self::READ.union(Self::WRITE).union(Self::EXEC);
}

bitflags! {
    /// `MAP_*` of mmap(2). The low four bits are the type, see [`MapFlags::map_type`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MapFlags: u32 {
        /// Share changes.
        const SHARED = 0x1;
        /// Changes are private.
        const PRIVATE = 0x2;
        /// Shared, and unknown flags are refused (SHARED | PRIVATE).
        const SHARED_VALIDATE = 0x3;
        /// At exactly this address, replacing what is there.
        const FIXED = 0x10;
        /// No file: zeros.
        const ANONYMOUS = 0x20;
        /// In the low 2 GiB.
        const ADDR_32BIT = 0x40;
        /// Hint above 47 bits (no meaning without 5-level page tables).
        const ABOVE4G = 0x80;
        /// Grows towards lower addresses.
        const GROWSDOWN = 0x100;
        /// Ignored since long ago.
        const DENYWRITE = 0x800;
        /// Ignored.
        const EXECUTABLE = 0x1000;
        /// Lock the pages.
        const LOCKED = 0x2000;
        /// Do not reserve swap.
        const NORESERVE = 0x4000;
        /// Fault the pages in.
        const POPULATE = 0x8000;
        /// With POPULATE: only what is in memory already.
        const NONBLOCK = 0x10000;
        /// Suitable for a stack (no meaning).
        const STACK = 0x20000;
        /// Huge pages.
        const HUGETLB = 0x40000;
        /// Synchronous faults of DAX files.
        const SYNC = 0x80000;
        /// As FIXED, but EEXIST where something is mapped.
        const FIXED_NOREPLACE = 0x10_0000;
        /// Uninitialised memory (not on a kernel with an MMU).
        const UNINITIALIZED = 0x400_0000;
    }
}

/// The bits of the mapping type, `MAP_TYPE`.
pub const MAP_TYPE: u32 = 0xf;
consts! { "Huge page size in the flags, mmap(2).", u32; MAP_HUGE_SHIFT = 26, MAP_HUGE_MASK = 0x3f }

impl MapFlags {
    /// The mapping type bits: 1 shared, 2 private, 3 shared-validate; others are EINVAL.
    #[must_use]
    pub const fn map_type(self) -> u32 {
        self.bits() & MAP_TYPE
    }

    /// `LEGACY_MAP_MASK`: the flags that MAP_SHARED_VALIDATE accepts from every file (others: EOPNOTSUPP).
    pub const LEGACY_MASK: u32 = 0x1
        | 0x2
        | 0x10
        | 0x20
        | 0x800
        | 0x1000
        | 0x100
        | 0x2000
        | 0x4000
        | 0x8000
        | 0x10000
        | 0x20000
        | 0x40000
        | 0x40
        | 0x80
        | (MAP_HUGE_MASK << MAP_HUGE_SHIFT);
}

consts! { "mremap(2) flags.", u32; MREMAP_MAYMOVE = 1, MREMAP_FIXED = 2, MREMAP_DONTUNMAP = 4 }
consts! { "msync(2) flags.", u32; MS_ASYNC = 1, MS_INVALIDATE = 2, MS_SYNC = 4 }
consts! { "mlockall(2) flags.", u32; MCL_CURRENT = 1, MCL_FUTURE = 2, MCL_ONFAULT = 4 }
consts! { "mlock2(2) flag.", u32; MLOCK_ONFAULT = 1 }
consts! { "madvise(2) advice.", i32; MADV_NORMAL = 0, MADV_RANDOM = 1, MADV_SEQUENTIAL = 2, MADV_WILLNEED = 3,
MADV_DONTNEED = 4,
MADV_FREE = 8, MADV_REMOVE = 9, MADV_DONTFORK = 10, MADV_DOFORK = 11, MADV_MERGEABLE = 12, MADV_UNMERGEABLE = 13,
MADV_HUGEPAGE = 14,
MADV_NOHUGEPAGE = 15, MADV_DONTDUMP = 16, MADV_DODUMP = 17, MADV_WIPEONFORK = 18, MADV_KEEPONFORK = 19,
MADV_COLD = 20,
MADV_PAGEOUT = 21, MADV_POPULATE_READ = 22, MADV_POPULATE_WRITE = 23, MADV_DONTNEED_LOCKED = 24, MADV_COLLAPSE = 25,
MADV_HWPOISON = 100, MADV_SOFT_OFFLINE = 101, MADV_GUARD_INSTALL = 102, MADV_GUARD_REMOVE = 103 }
consts! { "NUMA policies, set_mempolicy(2) and mbind(2).", u32; MPOL_DEFAULT = 0, MPOL_PREFERRED = 1, MPOL_BIND = 2,
MPOL_INTERLEAVE = 3,
MPOL_LOCAL = 4, MPOL_PREFERRED_MANY = 5, MPOL_WEIGHTED_INTERLEAVE = 6 }
consts! { "Mode flags of set_mempolicy(2).", u32; MPOL_F_STATIC_NODES = 1 << 15, MPOL_F_RELATIVE_NODES = 1 << 14,
MPOL_F_NUMA_BALANCING = 1 << 13 }
consts! { "get_mempolicy(2) flags.", u32; MPOL_F_NODE = 1, MPOL_F_ADDR = 2, MPOL_F_MEMS_ALLOWED = 4 }
consts! { "pkey_alloc(2) access rights.", u32; PKEY_DISABLE_ACCESS = 1, PKEY_DISABLE_WRITE = 2 }
