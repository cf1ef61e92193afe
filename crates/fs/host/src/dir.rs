//! Open directories of the host.

use std::ops::ControlFlow;
use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::{Errno, Result};
use moat_image::Refusal;
use moat_image::state::OpenFileKind;
use moat_sync::{LockClass, Mutex};
use moat_vfs::OpenFile;
use moat_vfs::file::{DirEntry, DirSink, FIRST_ENTRY, File, Seekable, SyncKind};
use moat_vfs::inode::Metadata;
use moat_vfs::persist::{Compare, SaveFiles};

use crate::inode::{HostInode, Opening};
use crate::listing::Listing;
use crate::tree::HostTree;

/// An open directory: a listing taken when reading starts at its beginning.
pub struct HostDirFile<T: HostTree> {
    inode: Opening<T>,
    /// Held where others may change its names, so that it stays the directory that was opened.
    dir: Option<Arc<T::Node>>,
    listing: Mutex<Option<Arc<Listing>>>,
}

impl<T: HostTree> HostDirFile<T> {
    pub(crate) fn new(inode: Arc<HostInode<T>>, dir: Option<Arc<T::Node>>) -> HostDirFile<T> {
        HostDirFile { inode: Opening::new(inode), dir, listing: Mutex::new(LockClass::FileData, None) }
    }

    fn node(&self) -> Result<Arc<T::Node>> {
        self.dir.clone().map_or_else(|| self.inode.node(), Ok)
    }
}

impl<T: HostTree> File for HostDirFile<T> {
    fn save(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        // Entries come and go; a position is only good for what is still there.
        saver.by_path(f, Compare::Type)
    }

    fn read(&self, _f: &OpenFile, _buf: &mut [u8], _pos: u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn metadata(&self, f: &OpenFile) -> Result<Metadata> {
        // Opened through a union, whose inode has the number and device that the guest knows.
        if !std::ptr::addr_eq(Arc::as_ptr(f.inode()), &raw const *self.inode) {
            return f.inode().metadata();
        }
        moat_vfs::Inode::metadata(&*self.inode)
    }

    fn seekable(&self) -> Seekable {
        Seekable::Yes
    }

    fn readdir(&self, _f: &OpenFile, pos: u64, sink: &mut DirSink<'_>) -> Result<u64> {
        let known = if pos == FIRST_ENTRY { None } else { self.listing.lock().clone() };
        let listing = match known {
            Some(l) => l,
            None => {
                let fresh = self.inode.listing(|| self.node())?;
                *self.listing.lock() = Some(fresh.clone());
                fresh
            }
        };
        let mut reached = pos;
        // Whatever has come and gone: entries behind the position that is asked for.
        for (e, next) in listing.behind(pos) {
            let file_type = FileType::from_mode(u32::from(e.dtype) << 12);
            // 0 would stand for no entry.
            let entry = DirEntry { name: &e.name, ino: e.ino.max(1), file_type, next: *next };
            if let ControlFlow::Break(()) = sink(entry) {
                break;
            }
            reached = *next;
        }
        Ok(reached)
    }

    fn sync(&self, _f: &OpenFile, kind: SyncKind) -> Result<()> {
        self.inode.sync_dir(&*self.node()?, kind)
    }
}
