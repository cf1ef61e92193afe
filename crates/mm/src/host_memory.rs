//! [`HostMemory`]: memory that guest processes map, in a memfd of the host or a file without a name.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_host::descriptors::{Purpose, within};
use moat_platform::MapSource;
use rustix::fs::{FallocateFlags, MemfdFlags};

/// Bytes in the blocks that fstat(2) counts.
const STAT_BLOCK: u64 = 512;

/// Whether writes to a mapping reach what is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// MAP_SHARED.
    Shared,
    /// MAP_PRIVATE.
    Private,
}

/// A memfd or a file without a name, zeros at first. Clones are the same memory, which goes with the last of them and of the mappings.
#[derive(Clone, Debug)]
pub struct HostMemory {
    fd: Arc<OwnedFd>,
}

impl HostMemory {
    /// `len` bytes; `name` is for whoever looks at the host's descriptors.
    ///
    /// # Errors
    /// ENOMEM, EMFILE, ENFILE from the host; EINVAL, EFBIG for a length beyond its files.
    pub fn new(name: &str, len: u64) -> Result<HostMemory> {
        HostMemory::with_flags(name, len, MemfdFlags::CLOEXEC)
    }

    /// As [`HostMemory::new`], to which seals may be added.
    ///
    /// # Errors
    /// As [`HostMemory::new`].
    pub fn sealable(name: &str, len: u64) -> Result<HostMemory> {
        HostMemory::with_flags(name, len, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
    }

    /// In the file `fd`, which nobody else has and which is open for reading and writing.
    ///
    /// # Errors
    /// Those of ftruncate(2).
    pub fn in_file(fd: OwnedFd, len: u64) -> Result<HostMemory> {
        rustix::fs::ftruncate(&fd, len).map_err(Errno::from)?;
        Ok(HostMemory { fd: Arc::new(fd) })
    }

    fn with_flags(name: &str, len: u64, flags: MemfdFlags) -> Result<HostMemory> {
        let fd = rustix::fs::memfd_create(name, flags).map_err(Errno::from)?;
        let fd = within(fd, Purpose::Memory).map_err(|_| Errno::ENOMEM)?;
        rustix::fs::ftruncate(&fd, len).map_err(Errno::from)?;
        Ok(HostMemory { fd: Arc::new(fd) })
    }

    /// The memfd or file.
    #[must_use]
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// What the host process is to map, from `offset` on.
    #[must_use]
    pub fn map_source(&self, offset: u64, sharing: Sharing) -> MapSource {
        MapSource::File { fd: self.fd.clone(), offset, shared: sharing == Sharing::Shared }
    }

    /// Gives the range back to the host; it reads as zeros.
    ///
    /// # Errors
    /// EINVAL for an empty or overflowing range; EPERM for a seal.
    pub fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(self.fd(), flags, offset, len).map_err(Errno::from)
    }

    /// When its contents were last changed, stores through mappings included as far as the host notes them; `None` if it can't be asked.
    #[must_use]
    pub fn modified(&self) -> Option<Timespec> {
        let st = rustix::fs::fstat(self.fd()).ok()?;
        Some(Timespec { tv_sec: st.st_mtime, tv_nsec: i64::try_from(st.st_mtime_nsec).unwrap_or(0) })
    }

    /// Bytes that the host holds for it, in memory or swap: holes cost nothing.
    #[must_use]
    pub fn allocated_bytes(&self) -> u64 {
        rustix::fs::fstat(self.fd()).map_or(0, |s| u64::try_from(s.st_blocks).unwrap_or(0).saturating_mul(STAT_BLOCK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_gives_its_pages_back() {
        let memory = HostMemory::new("test", 8 << 12).unwrap();
        assert_eq!(memory.allocated_bytes(), 0);
        rustix::io::pwrite(memory.fd(), &[7; 8192], 4096).unwrap();
        let held = memory.allocated_bytes();
        assert!(held >= 8192);
        memory.punch_hole(0, 8 << 12).unwrap();
        assert_eq!(memory.allocated_bytes(), 0);
        let mut byte = [1];
        assert_eq!((rustix::io::pread(memory.fd(), &mut byte, 4096), byte), (Ok(1), [0]));
    }

    #[test]
    fn only_sealable_memory_takes_seals() {
        let seal = |m: &HostMemory| rustix::fs::fcntl_add_seals(m.fd(), rustix::fs::SealFlags::GROW);
        assert_eq!(seal(&HostMemory::new("test", 1).unwrap()), Err(rustix::io::Errno::PERM));
        assert_eq!(seal(&HostMemory::sealable("test", 1).unwrap()), Ok(()));
    }
}
