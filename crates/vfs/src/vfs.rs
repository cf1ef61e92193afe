//! [`Vfs`]: what exists once per kernel for files, and [`Tables`], the part that every mount refers to.
//!
//! A mount has its tables, so a path, an open file and a descriptor table do, too. The mounts of pipes, sockets and their like
//! belong to the [`Vfs`] itself and are reached by tasks through their kernel.

use std::sync::{Arc, Weak};

use moat_abi::stat::DeviceId;
use moat_identity::{Counter, Extensions, UserNamespace};
use moat_sync::{LockClass, Mutex};

use crate::anon::{FIRST_FREE_MINOR, PseudoMounts};
use crate::caller::KernelCaller;
use crate::dentry::DentryCache;
use crate::locks::LockTable;
use crate::open_file::Owner;
use crate::registry::Registry;
use crate::text_busy::TextUses;

/// How the kernel sends signals about files.
pub trait IoSignals: Send + Sync {
    /// Sends `signal` (SIGIO if 0) to the owner of a file that became ready: `fd`, `band` as in `F_SETSIG` of fcntl(2).
    /// Must not block; called with locks of the file possibly held.
    fn send_io_signal(&self, owner: &Owner, signal: u32, fd: i32, band: u32);
}

/// What a vfs is made with.
pub struct VfsConfig {
    /// File system types, devices, address families.
    pub registry: Registry,
    /// Bytes of memory that the guest's machine has.
    pub total_memory: u64,
    /// The first user namespace.
    pub root_user_ns: Arc<UserNamespace>,
    /// The kernel.
    pub io_signals: Weak<dyn IoSignals>,
}

/// Where ids come from.
pub struct VfsIds {
    /// Minor numbers of file systems without a device.
    devices: Counter,
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
    /// File system types, devices, address families.
    pub registry: Registry,
    /// Record locks of all files.
    pub locks: LockTable,
    /// Which files are executed or written.
    pub(crate) text_uses: Arc<TextUses>,
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
    /// A device number for a file system without a device, never given twice.
    ///
    /// The host's own anonymous devices are small numbers too: nothing compares them with these.
    #[must_use]
    pub fn new_device(&self) -> DeviceId {
        // Four billion mounts of file systems without a device are out of reach.
        DeviceId::new(0, u32::try_from(self.ids.devices.next()).unwrap_or(u32::MAX))
    }

    /// The sentry as a caller that may do everything.
    #[must_use]
    pub fn kernel_caller(&self) -> KernelCaller {
        KernelCaller::root(self.root_user_ns.clone())
    }
}

/// What exists once per kernel for files.
pub struct Vfs {
    tables: Arc<Tables>,
    pub(crate) pseudo: PseudoMounts,
}

impl Vfs {
    /// A vfs without mounts.
    #[must_use]
    pub fn new(config: VfsConfig) -> Vfs {
        let tables = Arc::new(Tables {
            registry: config.registry,
            locks: LockTable::default(),
            text_uses: Arc::default(),
            dentries: Arc::default(),
            rename: Mutex::new(LockClass::Rename, ()),
            epoll_nesting: Mutex::new(LockClass::Epoll, ()),
            ids: VfsIds {
                devices: Counter::starting_at(FIRST_FREE_MINOR),
                mounts: Counter::starting_at(1),
                namespaces: Counter::starting_at(0xf000_1000_0000),
                open_files: Counter::starting_at(1),
                fd_tables: Counter::starting_at(1),
                inodes: Arc::new(Counter::starting_at(1000)),
            },
            total_memory: config.total_memory,
            root_user_ns: config.root_user_ns,
            extensions: Extensions::default(),
            io_signals: config.io_signals,
        });
        Vfs { pseudo: PseudoMounts::new(&tables), tables }
    }

    /// What mounts refer to.
    #[must_use]
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }
}

impl std::ops::Deref for Vfs {
    type Target = Tables;
    fn deref(&self) -> &Tables {
        &self.tables
    }
}

/// A vfs without a kernel, for tests: it sends no signals.
#[cfg(any(test, feature = "fake"))]
pub mod fake {
    use super::{IoSignals, Owner, Registry, Vfs, VfsConfig};
    use moat_identity::UserNamespace;
    use std::sync::Weak;

    struct NoSignals;

    impl IoSignals for NoSignals {
        fn send_io_signal(&self, _owner: &Owner, _signal: u32, _fd: i32, _band: u32) {}
    }

    /// A vfs with what `registry` has.
    #[must_use]
    pub fn vfs(registry: Registry) -> Vfs {
        let io_signals = Weak::<NoSignals>::new();
        Vfs::new(VfsConfig { registry, total_memory: 1 << 30, root_user_ns: UserNamespace::root(), io_signals })
    }
}
