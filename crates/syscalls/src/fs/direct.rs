//! O_DIRECT's rules: where a transfer begins and how long each of its buffers is.

use moat_abi::fs::OpenFlags;
use moat_abi::{Errno, Result};
use moat_mm::iovec::IoVec;
use moat_vfs::OpenFile;

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
/// `offset` is none for the position.
///
/// # Errors
/// EINVAL; those of asking for the size.
pub(super) fn check(f: &OpenFile, iov: &IoVec, offset: Option<u64>, transfer: Transfer) -> Result<()> {
    check_all(f, iov.slices.iter().map(|slice| slice.len), offset, transfer)
}

/// The same of buffers of the sentry's, as splice(2) and copy_file_range(2) have them.
///
/// # Errors
/// As [`check`].
pub(super) fn check_all(
    f: &OpenFile,
    mut lengths: impl Iterator<Item = usize> + Clone,
    offset: Option<u64>,
    transfer: Transfer,
) -> Result<()> {
    if !f.flags().contains(OpenFlags::DIRECT) || lengths.clone().all(|len| len == 0) {
        return Ok(());
    }
    // A pipe's packets are of any length.
    let Some(block) = f.file().direct_block(f).filter(|block| *block > 1) else { return Ok(()) };
    let pos = match transfer {
        Transfer::Append => f.metadata()?.size,
        Transfer::Read | Transfer::Write => offset.unwrap_or_else(|| f.pos()),
    };
    let aligned = |n: u64| n.is_multiple_of(block);
    if aligned(pos) && lengths.all(|len| u64::try_from(len).is_ok_and(aligned)) {
        return Ok(());
    }
    if transfer == Transfer::Read && pos >= f.metadata()?.size { Ok(()) } else { Err(Errno::EINVAL) }
}
