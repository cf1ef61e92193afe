//! An instance of inotify as a file.

use std::fmt::Write;
use std::sync::{Arc, Weak};

use moat_abi::fs::{InotifyMask, OpenFlags};
use moat_abi::tty::FIONREAD;
use moat_abi::{Errno, PollEvents, Result};
use moat_image::Refusal;
use moat_image::state::OpenFileKind;
use moat_sync::WaitQueue;

use super::events::id_of;
use super::instance::Inotify;
use super::outside::Mark;
use super::table::Watched;
use crate::caller::Caller;
use crate::cred::Credentials;
use crate::dentry::Dentry;
use crate::file::{File, SaveFiles, Seekable};
use crate::inode::Inode;
use crate::mount::Mount;
use crate::open_file::OpenFile;
use crate::path::Path;
use crate::vfs::Vfs;

/// Where a watched file was found.
pub(super) struct Place {
    /// Held so that the address names no other inode as long as the watch lasts.
    pub(super) _inode: Arc<dyn Inode>,
    pub(super) mount: Weak<Mount>,
    pub(super) dentry: Weak<Dentry>,
    /// What has the host tell of it, where others change it too.
    pub(super) _mark: Option<Mark>,
}

impl Inotify {
    /// Opens an instance that watches nothing.
    ///
    /// # Errors
    /// EMFILE beyond `max_user_instances`.
    pub fn open(vfs: &Vfs, flags: OpenFlags, creds: &Arc<Credentials>) -> Result<Arc<OpenFile>> {
        let instance = Inotify::new(vfs.watches.clone(), creds.euid)?;
        Ok(vfs.open_anon("inotify", instance, flags, creds))
    }

    /// Watches the file at `path`; gives the watch's number. The mask has been checked.
    ///
    /// # Errors
    /// EEXIST (IN_MASK_CREATE), ENOSPC; those of asking for the file's number.
    pub fn watch(self: &Arc<Self>, path: &Path, mask: InotifyMask) -> Result<i32> {
        self.table().watch(self, self.watched(path, mask)?, mask)
    }

    /// The file at `path`, to be watched.
    pub(super) fn watched(&self, path: &Path, mask: InotifyMask) -> Result<Watched> {
        let inode = path.inode();
        Ok(Watched {
            id: id_of(inode),
            key: inode.metadata()?.key(),
            held: Arc::new(Place::of(path, self.table().mark_outside(&path.dentry, mask))),
            filesystem: Arc::as_ptr(path.mount.fs()).addr(),
        })
    }
}

impl File for Inotify {
    fn save(&self, _f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        self.save_instance(saver)
    }

    fn seekable(&self) -> Seekable {
        Seekable::Noop
    }

    fn read(&self, _f: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        self.take(buf)
    }

    fn poll(&self, _f: &OpenFile) -> PollEvents {
        if self.bytes_queued() == 0 { PollEvents::empty() } else { PollEvents::READ_READY }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.queue_of_readers())
    }

    fn ioctl(&self, _f: &OpenFile, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        if cmd != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let bytes = i32::try_from(self.bytes_queued()).unwrap_or(i32::MAX);
        caller.write_user(arg, &bytes.to_ne_bytes())?;
        Ok(0)
    }

    fn release(&self, _f: &OpenFile) {
        self.end();
    }

    fn fdinfo(&self, _f: &OpenFile) -> String {
        let mut text = String::new();
        // Newest first, as Linux lists its marks.
        for w in self.watches().iter().rev() {
            // As of a file system without file handles. The device has the kernel's form: twenty bits of the minor number.
            let dev = w.on.key.dev.major << 20 | w.on.key.dev.minor & 0xf_ffff;
            let (wd, ino, mask) = (w.wd, w.on.key.ino, w.mask().bits());
            // Writing to a string can't fail.
            let _ = writeln!(text, "inotify wd:{wd:x} ino:{ino:x} sdev:{dev:x} mask:{mask:x} ignored_mask:0 ");
        }
        text
    }
}
