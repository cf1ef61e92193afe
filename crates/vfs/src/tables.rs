//! [`Tables`]: what all mounts of a kernel refer to, and so paths, open files and descriptor tables do.

use std::sync::{Arc, Weak};

use moat_abi::stat::DeviceId;
use moat_identity::{Counter, Extensions, UserNamespace};
use moat_sync::Mutex;

use crate::aio_limits::AioLimits;
use crate::dentry::DentryCache;
use crate::inode::SpecialFiles;
use crate::inotify::Watches;
use crate::leases::LeaseTable;
use crate::locks::LockTable;
use crate::metadata::InodeKey;
use crate::owner::Owner;
use crate::text_busy::TextUses;

/// How the kernel sends signals about files.
pub trait IoSignals: Send + Sync {
    /// Sends `signal` (SIGIO if 0) to the owner of a file that became ready: `fd`, `band` as in `F_SETSIG` of fcntl(2).
    /// Must not block; called with locks of the file possibly held.
    fn send_io_signal(&self, owner: &Owner, signal: u32, fd: i32, band: u32);
}

/// Where ids come from.
pub struct VfsIds {
    /// Minor numbers of file systems without a device.
    pub(crate) devices: Counter,
    /// See [`crate::mount::Mount::id`].
    pub(crate) mounts: Counter,
    /// See [`crate::mount::MountNamespace::id`].
    pub(crate) namespaces: Counter,
    /// See [`crate::open_file::OpenFile::id`].
    pub(crate) open_files: Counter,
    /// See [`crate::fd_table::FdTable::id`].
    pub(crate) fd_tables: Counter,
    /// Inode numbers of pipes and sockets.
    pub inodes: Arc<Counter>,
}

/// What all mounts of a kernel refer to.
pub struct Tables {
    /// What opens FIFOs and devices, on whatever file system they are.
    pub(crate) special: Arc<dyn SpecialFiles>,
    /// Record locks of all files.
    pub locks: LockTable,
    /// Leases of all files.
    pub leases: LeaseTable,
    /// Which files are executed or written.
    pub(crate) text_uses: Arc<TextUses>,
    /// Which files are watched for events.
    pub watches: Arc<Watches>,
    /// Requests of asynchronous I/O.
    pub aio: Arc<AioLimits>,
    /// Names that are known.
    pub(crate) dentries: Arc<DentryCache>,
    /// Held by every rename between directories, so that who is whose ancestor does not change under it.
    pub(crate) rename: Mutex<()>,
    /// Serialises what makes epolls watch epolls, so that no cycle arises.
    pub(crate) epoll_nesting: Mutex<()>,
    /// Where ids come from.
    pub ids: VfsIds,
    /// Bytes of memory that the guest's machine has.
    pub total_memory: u64,
    /// The first user namespace.
    pub root_user_ns: Arc<UserNamespace>,
    /// What file systems keep once per kernel.
    pub extensions: Extensions,
    pub(crate) io_signals: Weak<dyn IoSignals>,
}

impl Tables {
    /// How many openings for writing a file has.
    #[must_use]
    pub fn writers(&self, key: InodeKey) -> u64 {
        self.text_uses.writers(key)
    }

    /// A device number for a file system without a device, never given twice.
    ///
    /// The host's own anonymous devices are small numbers too: nothing compares them with these.
    #[must_use]
    pub fn new_device(&self) -> DeviceId {
        // Four billion mounts of file systems without a device are out of reach.
        DeviceId::new(0, u32::try_from(self.ids.devices.next()).unwrap_or(u32::MAX))
    }
}
