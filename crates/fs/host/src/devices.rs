//! [`Devices`]: the device numbers that a guest sees of a tree, in which the host may have mounted other file systems.

use std::sync::Weak;

use moat_abi::stat::DeviceId;
use moat_sync::{LockClass, Mutex};
use moat_vfs::tables::Tables;

/// File systems of the host in one tree that are told apart; the rest have the number of its root.
const MOST: usize = 1024;

/// One number for each file system of the host that was met.
pub(crate) struct Devices {
    /// The root's, on the host and as the guest sees it.
    root: (DeviceId, DeviceId),
    /// The others'.
    others: Mutex<Vec<(DeviceId, DeviceId)>>,
    /// Where new numbers come from.
    tables: Weak<Tables>,
}

impl Devices {
    pub(crate) fn new(host: DeviceId, shown: DeviceId, tables: Weak<Tables>) -> Devices {
        Devices { root: (host, shown), others: Mutex::new(LockClass::Leaf, Vec::new()), tables }
    }

    /// What the guest sees of the host's device.
    pub(crate) fn shown(&self, host: DeviceId) -> DeviceId {
        if host == self.root.0 {
            return self.root.1;
        }
        let mut others = self.others.lock();
        if let Some((_, shown)) = others.iter().find(|(of, _)| *of == host) {
            return *shown;
        }
        match self.tables.upgrade() {
            Some(tables) if others.len() < MOST => {
                let shown = tables.new_device();
                others.push((host, shown));
                shown
            }
            _ => self.root.1,
        }
    }
}
