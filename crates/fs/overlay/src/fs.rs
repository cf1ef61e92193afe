//! [`OverlayFs`]: a mounted union.

mod persist;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use moat_abi::fs::{FileType, OpenFlags};
use moat_abi::stat::{DeviceId, OVERLAYFS_SUPER_MAGIC, Statfs};
use moat_abi::{Errno, Result};
use moat_image::pages::Pages;
use moat_image::state::{FileSystemState, NodeState, TreeState};
use moat_image::{ImageError, Refusal};
use moat_sync::{LockClass, Mutex};
use moat_vfs::anon::InternalMount;
use moat_vfs::filesystem::{FileSystem, MountRequest, options};
use moat_vfs::inode::{Inode, InodeKey};
use moat_vfs::path::Path;
use moat_vfs::persist::SaveFiles;
use moat_vfs::{Caller, OpenContext, OpenFile, Tables};

use crate::inode::{Layers, OverlayInode};

/// A directory and a name in it.
pub(crate) type LowerName = (InodeKey, Vec<u8>);

/// What all inodes of a union share.
pub(crate) struct Union {
    pub(crate) dev: DeviceId,
    /// Where the files of the layers are opened.
    internal: InternalMount,
    /// Device of the upper tree, and of the first lower one: their inode numbers are told apart by it.
    pub(crate) upper_dev: Option<DeviceId>,
    /// Files that are one inode stay one: by the key of their topmost part.
    known: Mutex<HashMap<InodeKey, Weak<OverlayInode>>>,
    /// Names of lower files that have several, as long as they are not copied up: each is a file of its own.
    known_names: Mutex<HashMap<LowerName, Weak<OverlayInode>>>,
    /// Serialises copying up, so that a file is copied once.
    pub(crate) copying: Mutex<()>,
}

impl Union {
    /// The inode known by `key`, or the one that `make` makes.
    pub(crate) fn intern(&self, key: InodeKey, make: impl FnOnce() -> Arc<OverlayInode>) -> Arc<OverlayInode> {
        let mut known = self.known.lock();
        if let Some(found) = known.get(&key).and_then(Weak::upgrade) {
            return found;
        }
        let new = make();
        known.insert(key, Arc::downgrade(&new));
        new
    }

    /// The inode known by a name in a directory, or `new` from here on.
    pub(crate) fn intern_name(&self, name: &LowerName, new: &Arc<OverlayInode>) -> Arc<OverlayInode> {
        let mut known = self.known_names.lock();
        if let Some(found) = known.get(name).and_then(Weak::upgrade) {
            return found;
        }
        known.insert(name.clone(), Arc::downgrade(new));
        new.clone()
    }

    pub(crate) fn forget_name(&self, name: &LowerName) {
        let mut known = self.known_names.lock();
        // Another may have been entered under the name since.
        if known.get(name).is_some_and(|w| w.strong_count() == 0) {
            known.remove(name);
        }
    }

    /// Opens a file of a layer, with the sentry's rights.
    pub(crate) fn open_layer(&self, inode: &Arc<dyn Inode>, flags: OpenFlags) -> Result<Arc<OpenFile>> {
        let caller = self.internal.tables().kernel_caller();
        let path = self.internal.path(inode.clone(), b"overlay");
        let file = inode.clone().open(&OpenContext { flags, caller: &caller, path: &path })?;
        Ok(OpenFile::new(file, path, flags, caller.creds().clone()))
    }

    /// `inode` is also known by `key` from here on (it was copied up).
    pub(crate) fn alias(&self, key: InodeKey, inode: &Arc<OverlayInode>) {
        self.known.lock().insert(key, Arc::downgrade(inode));
    }

    pub(crate) fn forget(&self, key: InodeKey) {
        let mut known = self.known.lock();
        if known.get(&key).is_some_and(|w| w.strong_count() == 0) {
            known.remove(&key);
        }
    }

    /// The number shown for an inode of a tree: upper ones are moved out of the lower ones' way.
    pub(crate) fn number(&self, key: InodeKey) -> u64 {
        if Some(key.dev) == self.upper_dev { key.ino | (1 << 62) } else { key.ino }
    }
}

/// A mounted union.
pub struct OverlayFs {
    union: Arc<Union>,
    root: Arc<OverlayInode>,
    upper: Option<Arc<dyn FileSystem>>,
    /// Options for /proc/mounts.
    shown: String,
}

impl OverlayFs {
    /// The union of `lowers`, topmost first, below `upper`; without an upper tree it is read-only.
    ///
    /// `upper_fs` answers statfs(2).
    ///
    /// # Errors
    /// EINVAL without a lower tree or with roots that are no directories; those of the trees.
    pub fn new(
        tables: &Arc<Tables>,
        lowers: Vec<Arc<dyn Inode>>,
        upper: Option<Arc<dyn Inode>>,
        upper_fs: Option<Arc<dyn FileSystem>>,
        shown: String,
    ) -> Result<Arc<OverlayFs>> {
        if lowers.is_empty() || lowers.iter().chain(&upper).any(|i| i.file_type() != FileType::Directory) {
            return Err(Errno::EINVAL);
        }
        let upper_dev = match &upper {
            Some(u) => Some(u.metadata()?.dev),
            None => None,
        };
        let union = Arc::new(Union {
            dev: tables.new_device(),
            internal: InternalMount::new(tables),
            upper_dev,
            known: Mutex::new(LockClass::Table, HashMap::new()),
            known_names: Mutex::new(LockClass::Table, HashMap::new()),
            copying: Mutex::new(LockClass::Inode, ()),
        });
        let root = OverlayInode::new(union.clone(), None, Layers { upper, lowers })?;
        Ok(Arc::new(OverlayFs { union, root, upper: upper_fs, shown }))
    }

    /// mount(2) with type "overlay": `lowerdir=A:B,upperdir=C,workdir=D`.
    ///
    /// # Errors
    /// EINVAL for missing or unknown options; those of the path walks.
    pub fn mount(request: &MountRequest<'_>, resolve: impl Fn(&[u8]) -> Result<Path>) -> Result<Arc<dyn FileSystem>> {
        let (mut lowers, mut upper, mut upper_fs) = (Vec::new(), None, None);
        for (key, value) in options(request.options) {
            match (key, value) {
                (b"lowerdir", Some(dirs)) => {
                    for dir in dirs.split(|&b| b == b':').filter(|d| !d.is_empty()) {
                        lowers.push(resolve(dir)?.inode().clone());
                    }
                }
                (b"upperdir", Some(dir)) => {
                    let path = resolve(dir)?;
                    upper_fs = Some(path.mount.fs().clone());
                    upper = Some(path.inode().clone());
                }
                // Files are made in place here; the directory must exist as Linux demands.
                (b"workdir", Some(dir)) => drop(resolve(dir)?),
                (b"userxattr" | b"index" | b"redirect_dir" | b"metacopy" | b"xino" | b"volatile", _) => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        let shown = format!(",{}", String::from_utf8_lossy(request.options));
        Ok(OverlayFs::new(request.tables, lowers, upper, upper_fs, shown)?)
    }
}

impl FileSystem for OverlayFs {
    fn made(&self) {
        if let Some(upper) = &self.upper {
            upper.made();
        }
    }

    fn save(&self, saver: &mut dyn SaveFiles) -> std::result::Result<FileSystemState, Refusal> {
        // What is below comes from the configuration.
        self.upper.as_ref().map_or(Ok(FileSystemState::Made), |fs| fs.save(saver))
    }

    fn restore(&self, tree: &TreeState, pages: &Pages) -> std::result::Result<(), ImageError> {
        let upper = self.upper.as_ref().ok_or_else(|| ImageError::state("changes of a union that takes none"))?;
        upper.restore(tree, pages)?;
        self.refresh();
        Ok(())
    }

    fn restore_unnamed(&self, node: &NodeState, pages: &Pages) -> std::result::Result<Arc<dyn Inode>, ImageError> {
        let upper = self.upper.as_ref().ok_or_else(|| ImageError::state("a file of a union that takes none"))?;
        let layers = Layers { upper: Some(upper.restore_unnamed(node, pages)?), lowers: Vec::new() };
        let inode = OverlayInode::new(self.union.clone(), None, layers);
        Ok(inode.map_err(|errno| ImageError::Unfit(format!("a file of a union: {errno}")))?)
    }

    fn name(&self) -> &'static str {
        "overlay"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn dev(&self) -> DeviceId {
        self.union.dev
    }

    fn statfs(&self) -> Result<Statfs> {
        let below = match &self.upper {
            Some(fs) => fs.statfs()?,
            None => Statfs { f_bsize: 4096, f_frsize: 4096, f_namelen: 255, ..Statfs::default() },
        };
        Ok(Statfs { f_type: OVERLAYFS_SUPER_MAGIC, ..below })
    }

    fn sync(&self) -> Result<()> {
        self.upper.as_ref().map_or(Ok(()), |fs| fs.sync())
    }

    fn show_options(&self) -> String {
        self.shown.clone()
    }
}
