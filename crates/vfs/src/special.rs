//! Device nodes and FIFOs: opened by what they stand for, on whatever file system the node is.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use moat_abi::fs::FileType;
use moat_abi::stat::DeviceId;
use moat_abi::{Errno, Result};
use moat_sync::{LockClass, RwLock};

use crate::file::File;
use crate::inode::{InodeKey, Metadata, OpenContext};

/// Opens a device of a driver.
pub type DeviceOpener = fn(DeviceId, &OpenContext<'_>) -> Result<Arc<dyn File>>;
/// Opens the FIFO of an inode.
pub type FifoOpener = fn(InodeKey, &OpenContext<'_>) -> Result<Arc<dyn File>>;

#[derive(Default)]
struct Drivers {
    /// By exact number.
    minors: HashMap<DeviceId, DeviceOpener>,
    /// By major number.
    majors: HashMap<u32, DeviceOpener>,
}

static CHAR_DRIVERS: OnceLock<RwLock<Drivers>> = OnceLock::new();
static FIFO: OnceLock<FifoOpener> = OnceLock::new();

fn drivers() -> &'static RwLock<Drivers> {
    CHAR_DRIVERS.get_or_init(|| RwLock::new(LockClass::Table, Drivers::default()))
}

/// Registers the driver of one character device.
pub fn register_char_device(dev: DeviceId, open: DeviceOpener) {
    drivers().write().minors.insert(dev, open);
}

/// Registers the driver of all character devices of a major number that have none of their own.
pub fn register_char_major(major: u32, open: DeviceOpener) {
    drivers().write().majors.insert(major, open);
}

/// Registers what opens FIFOs; the first call counts.
pub fn register_fifo(open: FifoOpener) {
    // A second call comes only from a second boot in a test process, with the same function.
    let _ = FIFO.set(open);
}

/// Opens a special file, as the default of [`crate::Inode::open`].
///
/// # Errors
/// ENXIO for sockets, block devices and devices without a driver; ELOOP for a symbolic link; EIO for other types, whose
/// file systems open them themselves.
pub fn open(meta: &Metadata, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
    match meta.file_type() {
        FileType::Fifo => FIFO.get().ok_or(Errno::ENXIO)?(meta.key(), ctx),
        FileType::CharDevice => {
            let found = {
                let d = drivers().read();
                d.minors.get(&meta.rdev).or_else(|| d.majors.get(&meta.rdev.major)).copied()
            };
            found.ok_or(Errno::ENXIO)?(meta.rdev, ctx)
        }
        FileType::Socket | FileType::BlockDevice => Err(Errno::ENXIO),
        FileType::Symlink => Err(Errno::ELOOP),
        FileType::Directory | FileType::Regular => Err(Errno::EIO),
    }
}
