//! [`OverlayInode`]: a file of the union.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use moat_abi::fs::{FileType, OpenFlags};
use moat_abi::stat::DeviceId;
use moat_abi::{Errno, Result};
use moat_image::Refusal;
use moat_image::state::NodeState;
use moat_sync::{LockClass, Mutex};
use moat_vfs::acl::{Acl, AclKind};
use moat_vfs::cred::Credentials;
use moat_vfs::file::File;
use moat_vfs::inode::{
    Access, Inode, InodeKey, Metadata, NewNode, NodeKind, OpenContext, RenameFlags, SetAttr, permission_by_acl,
};
use moat_vfs::persist::SaveFiles;

use crate::copy_up;
use crate::dir::{MergedDir, merged_names};
use crate::file::LowerFile;
use crate::fs::{LowerName, Union};

/// The attribute that makes an upper directory hide the lower ones.
pub(crate) const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// What each tree has for a file. Lower parts below the first are kept for directories only.
#[derive(Clone, Default)]
pub(crate) struct Layers {
    pub(crate) upper: Option<Arc<dyn Inode>>,
    /// Topmost first.
    pub(crate) lowers: Vec<Arc<dyn Inode>>,
}

impl Layers {
    /// The part that is seen.
    pub(crate) fn top(&self) -> Result<&Arc<dyn Inode>> {
        self.upper.as_ref().or(self.lowers.first()).ok_or(Errno::ESTALE)
    }
}

/// Where a file was found, for copying up.
#[derive(Clone)]
pub(crate) struct NameInDir {
    pub(crate) parent: Arc<OverlayInode>,
    pub(crate) name: Vec<u8>,
}

/// A file of the union.
pub struct OverlayInode {
    pub(crate) union: Arc<Union>,
    me: Weak<OverlayInode>,
    file_type: FileType,
    /// Shown to the guest; that of the part that was topmost when the inode was made.
    ino: u64,
    /// Of a lower file with several names, the directory and name that this one is: copied up alone, it is a file of its own
    /// (overlayfs without an index).
    one_of_many: Option<LowerName>,
    key: InodeKey,
    pub(crate) layers: Mutex<Layers>,
    pub(crate) place: Mutex<Option<NameInDir>>,
}

impl Drop for OverlayInode {
    fn drop(&mut self) {
        self.union.forget(self.key);
        if let Some(name) = &self.one_of_many {
            self.union.forget_name(name);
        }
        // It is known by the key of its upper part as well: see `Union::alias`.
        let upper = self.layers.get_mut().upper.take();
        if let Some(meta) = upper.and_then(|u| u.metadata().ok()) {
            self.union.forget(meta.key());
        }
    }
}

/// Whether a node stands for "there is nothing here".
pub(crate) fn is_whiteout(inode: &Arc<dyn Inode>) -> bool {
    inode.file_type() == FileType::CharDevice && inode.metadata().is_ok_and(|m| m.rdev == DeviceId::new(0, 0))
}

fn own(inode: &Arc<dyn Inode>) -> Result<Arc<OverlayInode>> {
    let any: Arc<dyn Any + Send + Sync> = inode.clone();
    any.downcast().map_err(|_| Errno::EXDEV)
}

impl OverlayInode {
    pub(crate) fn new(union: Arc<Union>, place: Option<NameInDir>, layers: Layers) -> Result<Arc<OverlayInode>> {
        let top = layers.top()?;
        let (file_type, meta) = (top.file_type(), top.metadata()?);
        let key = meta.key();
        let has_others = layers.upper.is_none() && meta.nlink > 1 && file_type != FileType::Directory;
        let one_of_many = place.as_ref().filter(|_| has_others).map(|p| (p.parent.key, p.name.clone()));
        let ino = union.number(key);
        Ok(Arc::new_cyclic(|me| OverlayInode {
            union,
            me: me.clone(),
            file_type,
            ino,
            one_of_many,
            key,
            layers: Mutex::new(LockClass::Inode, layers),
            place: Mutex::new(LockClass::Inode, place),
        }))
    }

    pub(crate) fn arc(&self) -> Result<Arc<OverlayInode>> {
        self.me.upgrade().ok_or(Errno::ESTALE)
    }

    pub(crate) fn parts(&self) -> Layers {
        self.layers.lock().clone()
    }

    /// The upper part, made now if there is none.
    pub(crate) fn upper(&self) -> Result<Arc<dyn Inode>> {
        if let Some(u) = self.layers.lock().upper.clone() {
            return Ok(u);
        }
        copy_up::copy_up(&self.arc()?, copy_up::Contents::All)
    }

    fn top(&self) -> Result<Arc<dyn Inode>> {
        self.layers.lock().top().cloned()
    }

    /// What the lower trees have for an entry of this directory.
    fn lower_entries(&self, name: &[u8]) -> Result<Vec<Arc<dyn Inode>>> {
        let mut found: Vec<Arc<dyn Inode>> = Vec::new();
        for dir in self.parts().lowers {
            let entry = match dir.lookup(name) {
                Ok(e) => e,
                Err(Errno::ENOENT) => continue,
                Err(e) => return Err(e),
            };
            if is_whiteout(&entry) {
                break;
            }
            let is_dir = entry.file_type() == FileType::Directory;
            // Directories merge with directories only.
            if !found.is_empty() && !is_dir {
                break;
            }
            let opaque = is_dir && is_opaque(&entry);
            found.push(entry);
            if !is_dir || opaque {
                break;
            }
        }
        Ok(found)
    }

    fn entry(&self, name: &[u8]) -> Result<Arc<OverlayInode>> {
        let upper = match &self.parts().upper {
            Some(dir) => match dir.lookup(name) {
                Ok(e) if is_whiteout(&e) => return Err(Errno::ENOENT),
                Ok(e) => Some(e),
                Err(Errno::ENOENT) => None,
                Err(e) => return Err(e),
            },
            None => None,
        };
        let hides = upper.as_ref().is_some_and(|u| u.file_type() != FileType::Directory || is_opaque(u));
        let mut lowers = if hides { Vec::new() } else { self.lower_entries(name)? };
        // A directory hides a file below it.
        if upper.is_some() && lowers.first().is_some_and(|l| l.file_type() != FileType::Directory) {
            lowers.clear();
        }
        self.intern(name, Layers { upper, lowers })
    }

    fn intern(&self, name: &[u8], layers: Layers) -> Result<Arc<OverlayInode>> {
        layers.top().map_err(|_| Errno::ENOENT)?;
        let place = NameInDir { parent: self.arc()?, name: name.to_vec() };
        let new = OverlayInode::new(self.union.clone(), Some(place.clone()), layers)?;
        if let Some(name) = &new.one_of_many {
            return Ok(self.union.intern_name(name, &new));
        }
        let known = self.union.intern(new.key, || new.clone());
        // What is not copied yet will be copied to the name that it was found by last.
        if !Arc::ptr_eq(&known, &new) && known.layers.lock().upper.is_none() {
            *known.place.lock() = Some(place);
        }
        Ok(known)
    }

    /// Whether a lower tree shows `name` once the upper entry is gone.
    fn shows_below(&self, name: &[u8]) -> Result<bool> {
        Ok(!self.lower_entries(name)?.is_empty())
    }

    fn upper_has_whiteout(dir: &Arc<dyn Inode>, name: &[u8]) -> bool {
        dir.lookup(name).is_ok_and(|e| is_whiteout(&e))
    }

    fn put_whiteout(dir: &Arc<dyn Inode>, name: &[u8]) -> Result<()> {
        let kind = NodeKind::Device { file_type: FileType::CharDevice, rdev: DeviceId::new(0, 0) };
        dir.create(name, &NewNode { mode: 0, uid: 0, gid: 0, kind }).map(drop)
    }

    /// Removes the upper entry, if there is one, and hides the lower ones.
    fn erase(&self, name: &[u8], entry: &OverlayInode) -> Result<()> {
        let dir = self.upper()?;
        if let Some(u) = entry.parts().upper {
            if u.file_type() == FileType::Directory {
                // What it still holds are whiteouts: it was found empty.
                let mut left = Vec::new();
                for (n, ..) in crate::dir::names_of(&self.union, &u)? {
                    left.push(n);
                }
                for n in left {
                    u.unlink(&n)?;
                }
                dir.rmdir(name)?;
            } else {
                dir.unlink(name)?;
            }
        }
        if self.shows_below(name)? { Self::put_whiteout(&dir, name) } else { Ok(()) }
    }

    fn is_merged(&self) -> bool {
        let l = self.layers.lock();
        l.lowers.len() + usize::from(l.upper.is_some()) > 1
    }

    fn is_pure_upper(&self) -> bool {
        let l = self.layers.lock();
        l.upper.is_some() && l.lowers.is_empty()
    }
}

pub(crate) fn is_opaque(dir: &Arc<dyn Inode>) -> bool {
    dir.get_xattr(OPAQUE).is_ok_and(|v| v == b"y")
}

impl Inode for OverlayInode {
    fn metadata(&self) -> Result<Metadata> {
        let mut meta = self.top()?.metadata()?;
        let copied = self.one_of_many.is_some() && Some(meta.dev) == self.union.upper_dev;
        meta.ino = if copied { self.union.number(meta.key()) } else { self.ino };
        meta.dev = self.union.dev;
        if self.file_type == FileType::Directory {
            // As Linux does for merged directories: the true count would take a listing.
            meta.nlink = if self.is_merged() { meta.nlink.min(1) } else { meta.nlink };
        }
        Ok(meta)
    }

    fn file_type(&self) -> FileType {
        self.file_type
    }

    fn save_unnamed(&self, saver: &mut dyn SaveFiles) -> std::result::Result<NodeState, Refusal> {
        let upper = self.parts().upper;
        upper.ok_or_else(|| Refusal::new("a file of a lower tree whose name is gone"))?.save_unnamed(saver)
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        let has_upper = self.layers.lock().upper.is_some();
        // Truncated to nothing, it needs no contents.
        if !has_upper && change.size == Some(0) {
            copy_up::copy_up(&self.arc()?, copy_up::Contents::None)?;
        }
        self.upper()?.set_attr(change)
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        Ok(self.entry(name)?)
    }

    fn create(&self, name: &[u8], node: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        let dir = self.upper()?;
        if matches!(node.kind, NodeKind::TmpFile) {
            let upper = Some(dir.create(name, node)?);
            return Ok(OverlayInode::new(self.union.clone(), None, Layers { upper, lowers: Vec::new() })?);
        }
        let covered = Self::upper_has_whiteout(&dir, name);
        // A whiteout is a node, and would be in the way.
        if covered {
            dir.unlink(name)?;
        }
        let made = dir.create(name, node);
        let upper = match made {
            Ok(u) => u,
            Err(e) => {
                // What is below stays hidden.
                if covered {
                    Self::put_whiteout(&dir, name)?;
                }
                return Err(e);
            }
        };
        // What the old directory has below must not show in the new one.
        if covered && matches!(node.kind, NodeKind::Dir) {
            upper.set_xattr(OPAQUE, b"y", 0)?;
        }
        Ok(self.intern(name, Layers { upper: Some(upper), lowers: Vec::new() })?)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let target = own(target)?;
        let file = target.upper()?;
        let dir = self.upper()?;
        let covered = Self::upper_has_whiteout(&dir, name);
        if covered {
            dir.unlink(name)?;
        }
        let done = dir.link(name, &file);
        if done.is_err() && covered {
            Self::put_whiteout(&dir, name)?;
        }
        done
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let entry = self.entry(name)?;
        if entry.file_type == FileType::Directory {
            return Err(Errno::EISDIR);
        }
        self.erase(name, &entry)
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        let entry = self.entry(name)?;
        if entry.file_type != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if !merged_names(&entry)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.erase(name, &entry)
    }

    fn rename(&self, old: &[u8], new_dir: &Arc<dyn Inode>, new: &[u8], flags: RenameFlags) -> Result<()> {
        let new_dir = own(new_dir)?;
        let moved = self.entry(old)?;
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let target = match new_dir.entry(new) {
            Ok(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EEXIST),
            Ok(t) => Some(t),
            Err(Errno::ENOENT) => None,
            Err(e) => return Err(e),
        };
        // A directory with lower parts would have to leave them behind: mv(1) copies on EXDEV, as on Linux.
        for dir in [Some(&moved), target.as_ref().filter(|_| exchange)].into_iter().flatten() {
            if dir.file_type == FileType::Directory && !dir.is_pure_upper() {
                return Err(Errno::EXDEV);
            }
        }
        moved.upper()?;
        let (from, to) = (self.upper()?, new_dir.upper()?);
        let (old_below, new_below) = (self.shows_below(old)?, new_dir.shows_below(new)?);
        match (&target, exchange) {
            (None, true) => return Err(Errno::ENOENT),
            (Some(t), true) => {
                t.upper()?;
                from.rename(old, &to, new, RenameFlags::EXCHANGE)?;
                *t.place.lock() = Some(NameInDir { parent: self.arc()?, name: old.to_vec() });
                // Else it would show what its new place has below.
                if old_below && t.file_type == FileType::Directory {
                    t.upper()?.set_xattr(OPAQUE, b"y", 0)?;
                }
            }
            (Some(t), false) => {
                if t.file_type == FileType::Directory {
                    if !merged_names(t)?.is_empty() {
                        return Err(Errno::ENOTEMPTY);
                    }
                    new_dir.erase(new, t)?;
                    if Self::upper_has_whiteout(&to, new) {
                        to.unlink(new)?;
                    }
                }
                from.rename(old, &to, new, RenameFlags::empty())?;
            }
            (None, false) => {
                if Self::upper_has_whiteout(&to, new) {
                    to.unlink(new)?;
                }
                from.rename(old, &to, new, RenameFlags::empty())?;
            }
        }
        if !exchange && old_below {
            Self::put_whiteout(&from, old)?;
        }
        // As above.
        if new_below && moved.file_type == FileType::Directory {
            moved.upper()?.set_xattr(OPAQUE, b"y", 0)?;
        }
        *moved.place.lock() = Some(NameInDir { parent: new_dir, name: new.to_vec() });
        Ok(())
    }

    fn connect_socket(&self, socket_type: u32) -> Result<OwnedFd> {
        self.top()?.connect_socket(socket_type)
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        self.top()?.read_link()
    }

    fn open(self: Arc<Self>, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        match self.file_type {
            FileType::Directory => Ok(Arc::new(MergedDir::new(self))),
            FileType::Regular => {
                // What is about to be truncated is not read from below, however it is opened.
                let truncates = ctx.flags.contains(OpenFlags::TRUNC);
                if truncates && self.layers.lock().upper.is_none() {
                    copy_up::copy_up(&self, copy_up::Contents::None)?;
                }
                let changes = truncates || ctx.flags.access_mode().can_write();
                if changes {
                    self.upper()?;
                }
                let Layers { upper, .. } = self.parts();
                match upper {
                    Some(upper) => upper.open(ctx),
                    None => {
                        let lower = self.top()?.open(ctx)?;
                        let find_copy = Box::new(move || self.parts().upper);
                        Ok(Arc::new(LowerFile::new(lower, find_copy)))
                    }
                }
            }
            _ => moat_vfs::inode::open_special(&self.metadata()?, ctx),
        }
    }

    fn permission(&self, creds: &Credentials, access: Access) -> Result<()> {
        permission_by_acl(&self.top()?.metadata()?, creds, access, || self.get_acl(AclKind::Access))
    }

    fn get_acl(&self, kind: AclKind) -> Result<Option<Arc<Acl>>> {
        self.top()?.get_acl(kind)
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        // The union's own attributes are not for the guest.
        if name.starts_with(b"trusted.overlay.") {
            return Err(Errno::ENODATA);
        }
        self.top()?.get_xattr(name)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        if name.starts_with(b"trusted.overlay.") {
            return Err(Errno::EPERM);
        }
        self.upper()?.set_xattr(name, value, flags)
    }

    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        let mut names = match self.top()?.list_xattr() {
            Err(Errno::EOPNOTSUPP) => Vec::new(),
            other => other?,
        };
        names.retain(|n| !n.starts_with(b"trusted.overlay."));
        Ok(names)
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        // What is not there need not be copied up to be removed.
        if self.layers.lock().upper.is_none() {
            self.top()?.get_xattr(name)?;
        }
        self.upper()?.remove_xattr(name)
    }
}
