//! Device nodes and FIFOs: opened by what they stand for, on whatever file system the node is.

use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::{Errno, Result};

use crate::file::File;
use crate::inode::{Metadata, OpenContext};

/// Opens a special file, as the default of [`crate::Inode::open`].
///
/// # Errors
/// ENXIO for sockets, block devices and devices without a driver; ELOOP for a symbolic link; EIO for other types, whose
/// file systems open them themselves.
pub fn open(meta: &Metadata, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
    let registry = &ctx.path.mount.tables().registry;
    match meta.file_type() {
        FileType::Fifo => registry.open_fifo(meta.key(), ctx),
        FileType::CharDevice => registry.open_device(meta.rdev, ctx),
        FileType::Socket | FileType::BlockDevice => Err(Errno::ENXIO),
        FileType::Symlink => Err(Errno::ELOOP),
        FileType::Directory | FileType::Regular => Err(Errno::EIO),
    }
}
