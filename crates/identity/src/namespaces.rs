//! [`Namespaces`]: the namespaces of a task (`struct nsproxy`), and those that need no file of their own.
//!
//! The user namespace is part of the credentials and the mount namespace of the file system context.

use std::sync::Arc;

use moat_sync::{LockClass, Mutex};

use crate::extensions::Extensions;
use crate::net::NetNamespace;
use crate::pid::PidNamespace;
use crate::quota::{Charge, NamespaceId};
use crate::user_ns::UserNamespace;

/// The namespaces of a task that are not kept elsewhere.
#[derive(Clone)]
pub struct Namespaces {
    /// Host name.
    pub uts: Arc<UtsNamespace>,
    /// Where children are numbered.
    pub pid_for_children: Arc<PidNamespace>,
    /// System V IPC and POSIX message queues.
    pub ipc: Arc<IpcNamespace>,
    /// Network devices, addresses, ports.
    pub net: Arc<NetNamespace>,
    /// The view of the cgroup tree.
    pub cgroup: Arc<CgroupNamespace>,
}

/// A UTS namespace: the names that uname(2) gives.
pub struct UtsNamespace {
    /// The inode number of `/proc/PID/ns/uts`.
    pub id: u64,
    /// The user namespace whose capabilities rule here.
    pub user_ns: Arc<UserNamespace>,
    names: Mutex<UtsNames>,
    /// What it counts as.
    _charge: Option<Charge>,
}

/// What uname(2) says of a UTS namespace.
#[derive(Clone, Debug, Default)]
pub struct UtsNames {
    /// nodename.
    pub host: Vec<u8>,
    /// domainname.
    pub domain: Vec<u8>,
}

impl UtsNamespace {
    /// A namespace with these names.
    #[must_use]
    pub fn new(id: impl Into<NamespaceId>, user_ns: Arc<UserNamespace>, names: UtsNames) -> Arc<UtsNamespace> {
        let NamespaceId { number: id, charge } = id.into();
        Arc::new(UtsNamespace { id, user_ns, names: Mutex::new(LockClass::Table, names), _charge: charge })
    }

    /// Both names.
    #[must_use]
    pub fn names(&self) -> UtsNames {
        self.names.lock().clone()
    }

    /// The host name.
    #[must_use]
    pub fn host_name(&self) -> Vec<u8> {
        self.names.lock().host.clone()
    }

    /// The NIS domain name.
    #[must_use]
    pub fn domain_name(&self) -> Vec<u8> {
        self.names.lock().domain.clone()
    }

    /// Sets the host name; the caller has checked its length.
    pub fn set_host_name(&self, name: Vec<u8>) {
        self.names.lock().host = name;
    }

    /// Sets the NIS domain name; the caller has checked its length.
    pub fn set_domain_name(&self, name: Vec<u8>) {
        self.names.lock().domain = name;
    }
}

/// An IPC namespace: ids, keys and names of System V IPC and POSIX message queues are its own, ipc_namespaces(7).
///
/// The objects are kept by their subsystems in [`IpcNamespace::extensions`].
pub struct IpcNamespace {
    /// The inode number of `/proc/PID/ns/ipc`.
    pub id: u64,
    /// The user namespace whose capabilities rule here.
    pub user_ns: Arc<UserNamespace>,
    /// The registries of its subsystems, with their settings.
    pub extensions: Extensions,
    /// What it counts as.
    _charge: Option<Charge>,
}

impl IpcNamespace {
    /// A namespace without objects.
    #[must_use]
    pub fn new(id: impl Into<NamespaceId>, user_ns: Arc<UserNamespace>) -> Arc<IpcNamespace> {
        let NamespaceId { number: id, charge } = id.into();
        Arc::new(IpcNamespace { id, user_ns, extensions: Extensions::default(), _charge: charge })
    }
}

/// A cgroup namespace.
pub struct CgroupNamespace {
    /// The inode number of `/proc/PID/ns/cgroup`.
    pub id: u64,
    /// The user namespace whose capabilities rule here.
    pub user_ns: Arc<UserNamespace>,
    /// What the kernel keeps of the cgroup that is its root.
    pub extensions: Extensions,
    /// What it counts as.
    _charge: Option<Charge>,
}

impl CgroupNamespace {
    /// A namespace.
    #[must_use]
    pub fn new(id: impl Into<NamespaceId>, user_ns: Arc<UserNamespace>) -> Arc<CgroupNamespace> {
        let NamespaceId { number: id, charge } = id.into();
        Arc::new(CgroupNamespace { id, user_ns, extensions: Extensions::default(), _charge: charge })
    }
}
