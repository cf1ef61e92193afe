//! [`Vfs`]: what exists once per kernel for files.
//!
//! The part that every mount refers to is [`Tables`]. What there is by name or number, and the mounts of pipes, sockets and their
//! like, are reached by tasks through their kernel.

use std::sync::{Arc, Weak};

use moat_identity::{Counter, Extensions, UserNamespace};
use moat_sync::{LockClass, Mutex};

use crate::anon::{FIRST_FREE_MINOR, PseudoMounts};
use crate::dentry::DentryCache;
use crate::inotify::Watches;
use crate::leases::LeaseTable;
use crate::locks::LockTable;
use crate::registry::Registry;
use crate::tables::VfsIds;

pub use crate::tables::{IoSignals, Tables};

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

/// What exists once per kernel for files.
pub struct Vfs {
    /// File system types, devices, address families.
    pub registry: Arc<Registry>,
    tables: Arc<Tables>,
    pub(crate) pseudo: PseudoMounts,
}

impl Vfs {
    /// A vfs without mounts.
    #[must_use]
    pub fn new(config: VfsConfig) -> Vfs {
        let registry = Arc::new(config.registry);
        let watches = Arc::new(Watches::new(config.total_memory));
        let tables = Arc::new(Tables {
            special: registry.clone(),
            locks: LockTable::default(),
            leases: LeaseTable::default(),
            text_uses: Arc::default(),
            dentries: Arc::new(DentryCache::new(&watches)),
            watches,
            aio: Arc::default(),
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
        Vfs { registry, pseudo: PseudoMounts::new(&tables), tables }
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
    use super::{IoSignals, Registry, Vfs, VfsConfig};
    use crate::owner::Owner;
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
