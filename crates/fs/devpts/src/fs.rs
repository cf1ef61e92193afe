//! [`DevptsFs`]: the directory of terminals.

use std::sync::Arc;

use moat_abi::stat::{DEVPTS_SUPER_MAGIC, DeviceId, Statfs};
use moat_abi::{Errno, Result};
use moat_vfs::filesystem::{FileSystem, MountRequest, new_anonymous_dev};
use moat_vfs::generated::{Attributes, Entry, ListedDir, Listing};
use moat_vfs::inode::Inode;

struct DevptsFs {
    dev: DeviceId,
    root: Arc<dyn Inode>,
}

/// No terminal exists, and none can be made.
struct Terminals;

impl Listing for Terminals {
    fn lookup(&self, _name: &[u8]) -> Result<Arc<dyn Inode>> {
        Err(Errno::ENOENT)
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        Ok(Vec::new())
    }
}

pub(crate) fn construct(_request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    let dev = new_anonymous_dev();
    let root = ListedDir::new(Attributes { dev, ino: 1, mode: 0o755, uid: 0, gid: 0 }, Terminals);
    Ok(Arc::new(DevptsFs { dev, root }))
}

impl FileSystem for DevptsFs {
    fn name(&self) -> &'static str {
        "devpts"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn dev(&self) -> DeviceId {
        self.dev
    }

    fn statfs(&self) -> Result<Statfs> {
        Ok(Statfs { f_type: DEVPTS_SUPER_MAGIC, f_bsize: 4096, f_frsize: 4096, f_namelen: 255, ..Statfs::default() })
    }
}
