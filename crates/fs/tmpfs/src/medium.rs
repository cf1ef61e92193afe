//! [`Medium`]: where the contents of larger files are, if not in memory.

use std::os::fd::OwnedFd;

use moat_abi::stat::Statfs;
use moat_abi::{Errno, Result};
use moat_mm::HostMemory;
use moat_sync::{block_in_place, host_call};
use rustix::io::ReadWriteFlags;

/// A file system of the host that gives files without a name, which vanish with their last descriptor.
pub trait Medium: Send + Sync + 'static {
    /// A new empty file, open for reading and writing.
    ///
    /// # Errors
    /// Those of the host: ENOSPC, EDQUOT, EMFILE.
    fn new_file(&self) -> Result<OwnedFd>;

    /// What it has room for.
    ///
    /// # Errors
    /// Those of the host.
    fn statfs(&self) -> Result<Statfs>;
}

/// Reads from a file of a medium, without a lock, since it may wait for a disk.
pub(crate) fn read(memory: &HostMemory, buf: &mut [u8], pos: u64) -> Result<usize> {
    let mut at_once = [std::io::IoSliceMut::new(buf)];
    match rustix::io::preadv2(memory.fd(), &mut at_once, pos, ReadWriteFlags::NOWAIT) {
        Ok(n) if n == buf.len() => Ok(n),
        // Only a part is in the page cache, or nothing.
        Ok(_) | Err(rustix::io::Errno::AGAIN) => {
            block_in_place(|| rustix::io::pread(memory.fd(), buf, pos)).map_err(Errno::from)
        }
        // Nobody can tell.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            host_call(|| rustix::io::pread(memory.fd(), buf, pos)).map_err(Errno::from)
        }
        Err(e) => Err(e.into()),
    }
}
