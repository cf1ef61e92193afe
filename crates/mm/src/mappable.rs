//! [`Mappable`]: what a file is to a mapping.

use std::any::Any;

use moat_abi::mman::ProtFlags;
use moat_abi::{Errno, Result};
use moat_platform::MapSource;

use crate::host_memory::HostMemory;
pub use crate::host_memory::Sharing;
use crate::ids::MmIds;

/// What a mapping asks of a file.
#[derive(Clone, Copy, Debug)]
pub struct MapFile<'a> {
    /// Byte offset, page-aligned.
    pub offset: u64,
    /// Bytes, page-aligned.
    pub len: u64,
    /// Read, write, execute.
    pub prot: ProtFlags,
    /// MAP_SHARED or MAP_PRIVATE.
    pub sharing: Sharing,
    /// For a file that makes memory of its own for the mapping: /dev/zero.
    pub ids: &'a MmIds,
}

/// Which file it is: the same for every open of one inode, as long as it is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileIdentity {
    /// The device number (`stx_dev` as makedev).
    pub dev: u64,
    /// The inode number.
    pub ino: u64,
}

/// How `/proc/PID/maps` shows a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapName {
    /// Device and inode.
    pub identity: FileIdentity,
    /// The path in the mount namespace, or a name like `/memfd:x (deleted)`.
    pub path: Vec<u8>,
}

/// What a mapping goes back to, for a checkpoint.
pub enum Origin<'a> {
    /// A file that can be opened again: a value of the vfs, which knows it by its type.
    File(&'a (dyn Any + Send + Sync)),
    /// Memory without a name, and its length.
    Memory(&'a HostMemory, u64),
    /// Something else, as people call it: "memory of a packet socket".
    Other(&'static str),
}

/// A file as a mapping sees it. The VMA tree holds it as long as a part of it is mapped.
pub trait Mappable: Send + Sync {
    /// What the host process is to map. May be called again for the same range (mremap, stack growth).
    ///
    /// # Errors
    /// ENODEV for a file that can't be mapped; EPERM for a seal; ENOMEM, EMFILE from the host.
    fn map_source(&self, what: &MapFile<'_>) -> Result<MapSource>;

    /// Which file it is; futexes in shared mappings go by it.
    fn identity(&self) -> FileIdentity;

    /// How `/proc/PID/maps` shows it.
    fn describe(&self) -> MapName;

    /// Whether it is a System V segment, which shmdt(2) unmaps.
    fn is_segment(&self) -> bool {
        false
    }

    /// What it goes back to, so that a restore can map the same again.
    fn origin(&self) -> Origin<'_> {
        Origin::Other(std::any::type_name::<Self>())
    }

    /// A mapping of the file is about to be made, which its mode and the caller's wishes allow. For seals, deny-write counts and the
    /// time of access.
    ///
    /// # Errors
    /// EPERM where a seal or another use forbids it.
    fn mapped(&self, _what: &MapFile<'_>) -> Result<()> {
        Ok(())
    }

    /// Writes dirty data of the range to the storage, as msync(MS_SYNC); may block.
    ///
    /// # Errors
    /// EIO from the storage.
    fn sync(&self, _offset: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    /// Frees the range's storage, as madvise(MADV_REMOVE).
    ///
    /// # Errors
    /// EOPNOTSUPP where the file can't.
    fn punch_hole(&self, _offset: u64, _len: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
}

/// MAP_SHARED | MAP_ANONYMOUS memory: a memfd of the mapping's size.
pub struct SharedAnon {
    ino: u64,
    memory: HostMemory,
    len: u64,
}

impl SharedAnon {
    /// `/dev/zero` of Linux's internal shmem mount, as `/proc/PID/maps` shows it.
    const DEV: u64 = 1;

    /// New zeroed memory.
    ///
    /// # Errors
    /// ENOMEM where the host has no memory or descriptor left.
    pub fn new(ids: &MmIds, len: u64) -> Result<SharedAnon> {
        let memory = HostMemory::new("shared", len).map_err(|_| Errno::ENOMEM)?;
        Ok(SharedAnon { ino: ids.shared_anon.next(), memory, len })
    }

    /// The memory.
    #[must_use]
    pub fn memory(&self) -> &HostMemory {
        &self.memory
    }
}

impl Mappable for SharedAnon {
    fn map_source(&self, what: &MapFile<'_>) -> Result<MapSource> {
        Ok(self.memory.map_source(what.offset, what.sharing))
    }

    fn identity(&self) -> FileIdentity {
        FileIdentity { dev: Self::DEV, ino: self.ino }
    }

    fn describe(&self) -> MapName {
        MapName { identity: self.identity(), path: b"/dev/zero (deleted)".to_vec() }
    }

    fn origin(&self) -> Origin<'_> {
        Origin::Memory(&self.memory, self.len)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        self.memory.punch_hole(offset, len)
    }
}
