//! Listings of merged directories.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use moat_abi::fs::{FileType, OpenFlags};
use moat_abi::{Errno, Result};
use moat_image::Refusal;
use moat_image::state::OpenFileKind;
use moat_sync::{LockClass, Mutex};
use moat_vfs::OpenFile;
use moat_vfs::file::{DirEntry, DirSink, FIRST_ENTRY, File, Seekable, SyncKind};
use moat_vfs::inode::{Inode, InodeKey};
use moat_vfs::persist::{Compare, SaveFiles};

use crate::fs::Union;
use crate::inode::{OverlayInode, is_whiteout};

/// Name, inode number and type of an entry of one tree.
pub(crate) type Name = (Vec<u8>, u64, Option<FileType>);

/// The entries of a directory of one tree, whiteouts included.
///
/// # Errors
/// Those of the tree.
pub(crate) fn names_of(union: &Union, dir: &Arc<dyn Inode>) -> Result<Vec<Name>> {
    let open = union.open_layer(dir, OpenFlags::DIRECTORY)?;
    let mut names = Vec::new();
    open.file().readdir(&open, FIRST_ENTRY, &mut |e| {
        names.push((e.name.to_vec(), e.ino, e.file_type));
        ControlFlow::Continue(())
    })?;
    Ok(names)
}

/// The entries that the union shows in `dir`, sorted.
///
/// # Errors
/// Those of the trees.
pub(crate) fn merged_names(dir: &OverlayInode) -> Result<Vec<Name>> {
    let parts = dir.parts();
    // `None`: hidden by a whiteout further up.
    let mut merged: BTreeMap<Vec<u8>, Option<(u64, Option<FileType>)>> = BTreeMap::new();
    for tree in parts.upper.iter().chain(&parts.lowers) {
        let dev = tree.metadata()?.dev;
        for (name, ino, file_type) in names_of(&dir.union, tree)? {
            // The topmost tree decides.
            if merged.contains_key(&name) {
                continue;
            }
            // Nothing else can be one: no lookup is needed.
            let may_be_whiteout = matches!(file_type, None | Some(FileType::CharDevice));
            let hidden = may_be_whiteout && tree.lookup(&name).is_ok_and(|e| is_whiteout(&e));
            let shown = (!hidden).then(|| (dir.union.number(InodeKey { dev, ino }), file_type));
            merged.insert(name, shown);
        }
    }
    Ok(merged.into_iter().filter_map(|(name, shown)| shown.map(|(ino, t)| (name, ino, t))).collect())
}

/// An open directory of the union: a listing taken when reading starts at its beginning.
pub struct MergedDir {
    inode: Arc<OverlayInode>,
    listing: Mutex<Option<Arc<Vec<Name>>>>,
}

impl MergedDir {
    pub(crate) fn new(inode: Arc<OverlayInode>) -> MergedDir {
        MergedDir { inode, listing: Mutex::new(LockClass::FileData, None) }
    }
}

impl File for MergedDir {
    fn save(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        saver.by_path(f, Compare::Type)
    }

    fn read(&self, _f: &OpenFile, _buf: &mut [u8], _pos: u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn seekable(&self) -> Seekable {
        Seekable::Yes
    }

    fn readdir(&self, _f: &OpenFile, pos: u64, sink: &mut DirSink<'_>) -> Result<u64> {
        // rewinddir(3) takes a fresh listing.
        let known = if pos == FIRST_ENTRY { None } else { self.listing_now() };
        let listing = match known {
            Some(l) => l,
            None => {
                let fresh = Arc::new(merged_names(&self.inode)?);
                *self.listing.lock() = Some(fresh.clone());
                fresh
            }
        };
        let mut pos = pos;
        let start = usize::try_from(pos - FIRST_ENTRY).unwrap_or(usize::MAX);
        for (name, ino, file_type) in listing.iter().skip(start) {
            let entry = DirEntry { name, ino: (*ino).max(1), file_type: *file_type, next: pos + 1 };
            if sink(entry).is_break() {
                break;
            }
            pos += 1;
        }
        Ok(pos)
    }

    fn sync(&self, _f: &OpenFile, _kind: SyncKind) -> Result<()> {
        Ok(())
    }
}

impl MergedDir {
    fn listing_now(&self) -> Option<Arc<Vec<Name>>> {
        self.listing.lock().clone()
    }
}
