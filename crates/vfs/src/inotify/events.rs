//! What happened to a file, as told by the operations of the vfs (`fsnotify_*`).
//!
//! An event of a file goes to those who watch its directory, with its name, then to those who watch the file itself.

use std::sync::Arc;

use moat_abi::fs::{FileType, InotifyMask};

use super::instance::{Event, Name};
use super::table::{Through, Watch, WatchId, Watches};
use crate::dentry::Dentry;
use crate::filesystem::FileSystem;
use crate::inode::{Inode, SetAttr};

/// What tells the file from all others.
pub(super) fn id_of(inode: &Arc<dyn Inode>) -> WatchId {
    match inode.fleeting_key() {
        Some(key) => WatchId::Number(key),
        None => WatchId::Object(Arc::as_ptr(inode).addr()),
    }
}

/// IN_ISDIR for a directory.
fn of_type(inode: &Arc<dyn Inode>) -> InotifyMask {
    if inode.file_type() == FileType::Directory { InotifyMask::ISDIR } else { InotifyMask::empty() }
}

impl Watches {
    /// Something happened to the file that `dentry` stands for.
    pub(crate) fn file_event(&self, dentry: &Arc<Dentry>, what: InotifyMask, through: Through) {
        if self.any() && !dentry.is_anonymous() {
            self.tell_file(dentry, what, through);
        }
    }

    #[cold]
    fn tell_file(&self, dentry: &Arc<Dentry>, what: InotifyMask, through: Through) {
        let inode = dentry.inode();
        let what = what | of_type(inode);
        // IN_EXCL_UNLINK: no events by descriptors whose name is gone.
        let unlinked = through == Through::Descriptor && dentry.is_deleted();
        let (name, parent) = dentry.name_and_parent();
        // What is read and written of devices and FIFOs is not their directory's matter.
        let stream = !matches!(inode.file_type(), FileType::Regular | FileType::Directory | FileType::Symlink)
            && what.intersects(InotifyMask::ACCESS | InotifyMask::MODIFY);
        if let Some(parent) = parent.filter(|_| !stream) {
            // The directory first: a reader that watches both sees this order on Linux.
            self.tell(self.on(id_of(parent.inode())), what, 0, Some(&name), unlinked);
        }
        self.tell(self.on(id_of(inode)), what, 0, None, unlinked);
    }

    /// Something happened to the file itself, whatever its name.
    pub(crate) fn inode_event(&self, inode: &Arc<dyn Inode>, what: InotifyMask) {
        if self.any() {
            // A directory that is moved or removed is not called one in its own events.
            let kind = if what == InotifyMask::MOVE_SELF { InotifyMask::empty() } else { of_type(inode) };
            self.tell(self.on(id_of(inode)), what | kind, 0, None, false);
        }
    }

    /// The entry `name` of a directory came or went; `of` is the file.
    pub(crate) fn entry_event(&self, dir: &Dentry, name: &[u8], of: &Arc<dyn Inode>, what: InotifyMask, cookie: u32) {
        if self.any() && !(what == InotifyMask::CREATE && self.is_told_outside(dir, of)) {
            let name: Name = name.into();
            self.tell(self.on(id_of(dir.inode())), what | of_type(of), cookie, Some(&name), false);
        }
    }

    /// Attributes of a file were changed by name (`fsnotify_change`).
    pub(crate) fn attributes_event(&self, dentry: &Arc<Dentry>, change: &SetAttr) {
        if self.any() {
            let what = changed(change);
            if !what.is_empty() {
                self.file_event(dentry, what, Through::Name);
            }
        }
    }

    /// The last name of a file is gone, and nobody has it open by that name.
    pub(crate) fn file_gone(&self, inode: &Arc<dyn Inode>) {
        if self.any() {
            self.end(self.on(id_of(inode)), InotifyMask::DELETE_SELF);
        }
    }

    /// A file system is gone.
    pub(crate) fn unmounted(&self, fs: &Arc<dyn FileSystem>) {
        if self.any() {
            self.end(self.within(Arc::as_ptr(fs).addr()), InotifyMask::UNMOUNT);
        }
    }

    pub(super) fn tell(
        &self,
        watches: Vec<Arc<Watch>>,
        what: InotifyMask,
        cookie: u32,
        name: Option<&Name>,
        unlinked: bool,
    ) {
        for w in watches {
            let mask = w.mask();
            let wanted = mask.intersects(what & InotifyMask::ALL_EVENTS);
            if !wanted || (unlinked && mask.contains(InotifyMask::EXCL_UNLINK)) {
                continue;
            }
            // The instance may be on its way out; its watches go with it.
            let Some(instance) = w.instance.upgrade() else { continue };
            instance.tell(&w, Event { wd: w.wd, mask: what, cookie, name: name.cloned() });
            // One event, and the watch is used up (IN_ONESHOT).
            if mask.contains(InotifyMask::ONESHOT) {
                // Fails where somebody else has ended it meanwhile.
                let _ = self.unwatch(&instance, w.wd);
            }
        }
    }
}

/// The events that a change of attributes is.
fn changed(change: &SetAttr) -> InotifyMask {
    let mut what = InotifyMask::empty();
    if change.mode.is_some() || change.uid.is_some() || change.gid.is_some() {
        what |= InotifyMask::ATTRIB;
    }
    if change.size.is_some() {
        what |= InotifyMask::MODIFY;
    }
    // Both times at once are a touch; one alone is what a read or a write does (`fsnotify_change`).
    what |= match (change.atime.is_some(), change.mtime.is_some()) {
        (true, true) => InotifyMask::ATTRIB,
        (true, false) => InotifyMask::ACCESS,
        (false, true) => InotifyMask::MODIFY,
        (false, false) => InotifyMask::empty(),
    };
    what
}
