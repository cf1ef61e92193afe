//! O_DIRECT's rules: where a transfer begins and how long each of its buffers is.

use moat_abi::fs::OpenFlags;
use moat_abi::{Errno, Result};
use moat_mm::iovec::IoVec;
use moat_vfs::OpenFile;

use super::io::At;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    /// From the file.
    Read,
    /// To it.
    Write,
    /// To its end.
    Append,
}

/// Refuses what the file's device can't transfer by itself (`__iomap_dio_rw`): positions and lengths of buffers are multiples of its
/// logical block. At and beyond the end of the file there is nothing to read, whatever the numbers. Addresses are not looked at, as on
/// recent kernels, whose drivers copy what their devices can't reach.
///
/// # Errors
/// EINVAL; those of asking for the size.
pub(super) fn check(f: &OpenFile, iov: &IoVec, at: At, transfer: Transfer) -> Result<()> {
    if iov.total == 0 || !f.flags().contains(OpenFlags::DIRECT) {
        return Ok(());
    }
    let block = f.file().direct_block(f);
    if block <= 1 {
        return Ok(());
    }
    let pos = match (transfer, at) {
        (Transfer::Append, _) => f.metadata()?.size,
        (_, At::Position) => f.pos(),
        (_, At::Offset(pos)) => pos,
    };
    let aligned = |n: u64| n.is_multiple_of(block);
    if aligned(pos) && iov.slices.iter().all(|slice| aligned(slice.len as u64)) {
        return Ok(());
    }
    if transfer == Transfer::Read && pos >= f.metadata()?.size { Ok(()) } else { Err(Errno::EINVAL) }
}
