//! [`UnixFamily`]: AF_UNIX of one kernel; what its sockets share.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Weak};

use moat_identity::NetNamespace;
use moat_sync::{LockClass, Mutex};
use moat_vfs::OpenFile;
use moat_vfs::inode::InodeKey;
use moat_vfs::socket::SocketFile;

use crate::name::Flavor;
use crate::rights::{InFlight, RightsQueue};
use crate::socket::UnixSocket;

/// The family: sockets bound to files are found from all namespaces, as the files are.
pub struct UnixFamily {
    pub(crate) files: Mutex<HashMap<InodeKey, Weak<UnixSocket>>>,
    pub(crate) in_flight: Arc<InFlight>,
}

impl Default for UnixFamily {
    fn default() -> UnixFamily {
        UnixFamily { files: Mutex::new(LockClass::Table, HashMap::new()), in_flight: Arc::new(InFlight::new(queue_of)) }
    }
}

fn queue_of(file: &OpenFile) -> Option<&dyn RightsQueue> {
    let socket: &UnixSocket = SocketFile::of(file)?.downcast()?;
    Some(socket)
}

/// The type of a socket and its name, with the leading zero byte.
type AbstractName = (Flavor, Vec<u8>);

/// What a network namespace has of UNIX sockets.
pub(crate) struct Local {
    pub(crate) abstracts: Mutex<HashMap<AbstractName, Weak<UnixSocket>>>,
    /// All sockets by inode number, for /proc/net/unix.
    pub(crate) sockets: Mutex<BTreeMap<u64, Weak<UnixSocket>>>,
    /// Where the search for an automatic name goes on.
    pub(crate) next_automatic: AtomicU32,
}

impl Default for Local {
    fn default() -> Local {
        Local {
            abstracts: Mutex::new(LockClass::Table, HashMap::new()),
            sockets: Mutex::new(LockClass::Table, BTreeMap::new()),
            // Arbitrary: Linux starts at a random one.
            next_automatic: AtomicU32::new(0x3_1f52),
        }
    }
}

impl Local {
    /// What `net` has.
    pub(crate) fn of(net: &NetNamespace) -> Arc<Local> {
        net.extensions.get_or_init(Local::default)
    }
}
