//! [`ProcMount`]: what all inodes of a mounted proc share.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use moat_abi::stat::DeviceId;
use moat_identity::{Namespaces, PidNamespace};
use moat_kernel::Kernel;
use moat_vfs::generated::{Attributes, ListedDir, Listing};
use moat_vfs::inode::Inode;

/// What all inodes of a mount share.
#[derive(Clone)]
pub(crate) struct ProcMount {
    pub(crate) dev: DeviceId,
    pub(crate) kernel: Arc<Kernel>,
    /// Whose tasks are shown, under which numbers.
    pub(crate) pid_ns: Arc<PidNamespace>,
    /// The mounter's. A task that opens a file of /proc/sys sees its own settings there.
    pub(crate) namespaces: Arc<Namespaces>,
}

impl ProcMount {
    /// A number for the inode of `what`: the same for the same file as long as the mount lives.
    pub(crate) fn ino(&self, what: impl Hash) -> u64 {
        let mut h = DefaultHasher::new();
        what.hash(&mut h);
        // Programs that keep inode numbers in 32 bits exist, and 0 and 1 are special.
        (h.finish() & 0x7fff_ffff) | 0x100
    }

    /// Attributes of a root-owned file.
    pub(crate) fn attributes(&self, what: impl Hash, mode: u32) -> Attributes {
        Attributes { dev: self.dev, ino: self.ino(what), mode, uid: 0, gid: 0 }
    }
}

/// A directory inode around a listing.
pub(crate) fn dir<L: Listing>(attributes: Attributes, listing: L) -> Arc<dyn Inode> {
    ListedDir::new(attributes, listing)
}
