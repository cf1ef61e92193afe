//! Overlays over trees of the host: a tmpfs takes the changes, in memory or with its larger files in a directory of the host.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moat_abi::fs::FileType;
use moat_abi::stat::{DeviceId, Statfs};
use moat_abi::{Errno, Result};
use moat_control::spec::OverlayLimits;
use moat_fs_host::Watched;
use moat_fs_host::tree::{HostTree, NewHostNode};
use moat_fs_overlay::OverlayFs;
use moat_fs_tmpfs::{Medium, TmpFs, TmpOptions};
use moat_vfs::Vfs;
use moat_vfs::filesystem::FileSystem;
use moat_vfs::inode::{NewNode, NodeKind};

/// Where the files of an overlay are, and the name of that in the root of the tree below.
pub(super) struct UpperPlace {
    pub(super) medium: Arc<dyn Medium>,
    pub(super) hidden: Option<String>,
}

/// `lower` below a tmpfs with these limits.
pub(super) fn over(
    vfs: &Vfs,
    lower: &Arc<dyn FileSystem>,
    limits: OverlayLimits,
    place: Option<UpperPlace>,
) -> Result<Arc<dyn FileSystem>> {
    let top = lower.root().metadata()?;
    let usual = TmpOptions::of_machine(vfs.tables().total_memory);
    let options = TmpOptions {
        // What is not in memory is not limited by it.
        size: limits.size_bytes.unwrap_or(if place.is_some() { 0 } else { usual.size }),
        inodes: limits.inodes.unwrap_or(usual.inodes),
        mode: top.mode & 0o7777,
        uid: top.uid,
        gid: top.gid,
        memory: usual.memory,
    };
    let (medium, hidden) = place.map(|place| (place.medium, place.hidden)).unzip();
    let upper = match medium {
        Some(medium) => TmpFs::on_medium(vfs.new_device(), &options, medium)?,
        None => TmpFs::new(vfs.new_device(), &options)?,
    };
    if let Some(name) = hidden.flatten() {
        let kind = NodeKind::Device { file_type: FileType::CharDevice, rdev: DeviceId::new(0, 0) };
        upper.root().create(name.as_bytes(), &NewNode { mode: 0, uid: 0, gid: 0, kind })?;
    }
    Ok(OverlayFs::new(vfs.tables(), vec![lower.root()], Some(upper.root()), Some(upper), String::new())?)
}

/// A directory of the host in which files without a name are made.
pub(super) struct HostDirectory<T: HostTree> {
    tree: Watched<T>,
    root: T::Node,
    /// What files are made with: the directory's owner pays for them.
    new: NewHostNode,
    /// For file systems that can't make a file without a name.
    made: AtomicU64,
}

impl<T: HostTree> HostDirectory<T> {
    pub(super) fn new(tree: T) -> Result<HostDirectory<T>> {
        let tree = Watched::new(tree);
        let root = tree.root()?;
        let owner = tree.stat(&root)?;
        let new = NewHostNode { mode: 0o600, uid: owner.uid, gid: owner.gid };
        Ok(HostDirectory { tree, root, new, made: AtomicU64::new(0) })
    }

    /// Made with a name, which it loses at once.
    fn named(&self) -> Result<OwnedFd> {
        let name = format!("{:x}", self.made.fetch_add(1, Ordering::Relaxed));
        let fd = self.tree.create(&self.root, name.as_bytes(), self.new)?;
        self.tree.unlink(&self.root, name.as_bytes())?;
        Ok(fd)
    }
}

impl<T: HostTree> Medium for HostDirectory<T> {
    fn new_file(&self) -> Result<OwnedFd> {
        match self.tree.unnamed(&self.root, self.new) {
            Ok((_node, fd)) => Ok(fd),
            // EISDIR: a file system that does not know O_TMPFILE.
            Err(Errno::EOPNOTSUPP | Errno::EISDIR) => self.named(),
            Err(e) => Err(e),
        }
    }

    fn statfs(&self) -> Result<Statfs> {
        self.tree.statfs(&self.root)
    }
}
