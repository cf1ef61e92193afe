//! Copying a file of a lower tree to the upper one, before its first change.

use std::sync::Arc;

use moat_abi::fs::{FileType, OpenFlags};
use moat_abi::{Errno, Result};
use moat_vfs::OpenFile;
use moat_vfs::acl::AclKind;
use moat_vfs::file::SparseSeek;
use moat_vfs::inode::{Inode, Metadata, NewNode, NodeKind, SetAttr, SetTime};

use crate::fs::Union;
use crate::inode::OverlayInode;

/// Whether the contents are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// All of them.
    All,
    /// None: the file is about to be truncated.
    None,
}

/// Bytes copied at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Gives `inode` an upper part, with its parents.
///
/// # Errors
/// EROFS without an upper tree; ENOENT if its name is gone; ENOSPC; those of the lower tree.
pub(crate) fn copy_up(inode: &Arc<OverlayInode>, contents: Contents) -> Result<Arc<dyn Inode>> {
    let _one_at_a_time = inode.union.copying.lock();
    copy_up_locked(inode, contents)
}

fn copy_up_locked(inode: &Arc<OverlayInode>, contents: Contents) -> Result<Arc<dyn Inode>> {
    // From the topmost ancestor that lacks an upper part down, without recursion: depth is the guest's choice.
    let mut chain = vec![inode.clone()];
    loop {
        let Some(last) = chain.last() else { return Err(Errno::EROFS) };
        let place = last.place.lock().clone().ok_or(Errno::EROFS)?;
        if place.parent.parts().upper.is_some() {
            break;
        }
        chain.push(place.parent);
    }
    for file in chain.into_iter().rev() {
        // It may have been copied while this one waited for the lock.
        if file.parts().upper.is_none() {
            copy_one(&file, contents)?;
        }
    }
    inode.parts().upper.ok_or(Errno::EROFS)
}

fn copy_one(file: &Arc<OverlayInode>, contents: Contents) -> Result<()> {
    let place = file.place.lock().clone().ok_or(Errno::EROFS)?;
    let dir = place.parent.parts().upper.ok_or(Errno::EROFS)?;
    let lower = file.parts().lowers.first().cloned().ok_or(Errno::ESTALE)?;
    let meta = lower.metadata()?;
    let target;
    let kind = match lower.file_type() {
        FileType::Regular => NodeKind::File,
        FileType::Directory => NodeKind::Dir,
        FileType::Symlink => {
            target = lower.read_link()?;
            NodeKind::Symlink(&target)
        }
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        file_type @ (FileType::CharDevice | FileType::BlockDevice) => NodeKind::Device { file_type, rdev: meta.rdev },
    };
    let dir_meta = dir.metadata()?;
    let new = dir.create(&place.name, &NewNode { mode: meta.mode & 0o7777, uid: meta.uid, gid: meta.gid, kind })?;
    let filled = fill(&file.union, &lower, &new, &meta, contents)
        .and_then(|()| new.set_attr(&times_of(&meta)))
        // Nothing has changed in the directory for whoever looks at the union.
        .and_then(|()| dir.set_attr(&times_of(&dir_meta)));
    if let Err(e) = filled {
        // Half a file must not hide the whole one below it.
        let _ = if new.file_type() == FileType::Directory { dir.rmdir(&place.name) } else { dir.unlink(&place.name) };
        return Err(e);
    }
    file.union.alias(new.metadata()?.key(), file);
    let mut layers = file.layers.lock();
    layers.upper = Some(new);
    // Only directories go on showing what is below.
    if lower.file_type() != FileType::Directory {
        layers.lowers.clear();
    }
    Ok(())
}

fn times_of(meta: &Metadata) -> SetAttr {
    SetAttr { atime: Some(SetTime::At(meta.atime)), mtime: Some(SetTime::At(meta.mtime)), ..SetAttr::default() }
}

/// Copies attributes and contents.
fn fill(
    union: &Union,
    lower: &Arc<dyn Inode>,
    new: &Arc<dyn Inode>,
    meta: &Metadata,
    contents: Contents,
) -> Result<()> {
    if lower.file_type() == FileType::Regular && contents == Contents::All && meta.size != 0 {
        copy_contents(union, lower, new, meta.size)?;
    }
    // After the contents, whose writing takes capabilities away. A default list of the upper directory is not for a copy.
    for kind in [AclKind::Access, AclKind::Default] {
        if new.get_acl(kind)?.is_some() {
            new.remove_xattr(kind.attribute())?;
            new.set_attr(&SetAttr { mode: Some(meta.mode & 0o7777), ..SetAttr::default() })?;
        }
    }
    for name in lower.list_xattr().unwrap_or_default() {
        // These are the union's own, not the file's.
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        match lower.get_xattr(&name) {
            Ok(value) => new.set_xattr(&name, &value, 0)?,
            // The host lists names whose values it does not give to everybody.
            Err(Errno::ENODATA | Errno::EPERM | Errno::EACCES | Errno::EOPNOTSUPP) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Copies data; what is a hole stays one.
fn copy_contents(union: &Union, lower: &Arc<dyn Inode>, new: &Arc<dyn Inode>, size: u64) -> Result<()> {
    let from = union.open_layer(lower, OpenFlags::empty())?;
    let to = union.open_layer(new, OpenFlags::WRONLY)?;
    let len = usize::try_from(size).unwrap_or(usize::MAX).min(CHUNK_BYTES);
    let mut buf = vec![0; len.max(1)];
    let mut pos = 0;
    loop {
        let start = match from.file().seek_sparse(&from, pos, SparseSeek::Data) {
            Ok(start) => start.max(pos),
            Err(Errno::ENXIO) => break,
            Err(e) => return Err(e),
        };
        let end = from.file().seek_sparse(&from, start, SparseSeek::Hole).unwrap_or(u64::MAX);
        pos = copy_range(&from, &to, start, end, &mut buf)?;
        // The file has ended.
        if pos < end {
            break;
        }
    }
    // A hole at the end counts as well.
    if to.metadata()?.size < size { to.file().truncate(&to, size) } else { Ok(()) }
}

/// Copies the bytes from `pos` to `end`, or to the end of the file; gives where it stopped.
fn copy_range(from: &OpenFile, to: &OpenFile, mut pos: u64, end: u64, buf: &mut [u8]) -> Result<u64> {
    while pos < end {
        let most = usize::try_from(end - pos).unwrap_or(usize::MAX).min(buf.len());
        let n = from.read_at(&mut buf[..most], pos)?;
        if n == 0 {
            break;
        }
        let mut done = 0;
        while done < n {
            let wrote = to.write_at(&buf[done..n], pos + done as u64)?;
            if wrote == 0 {
                return Err(Errno::EIO);
            }
            done += wrote;
        }
        pos += n as u64;
    }
    Ok(pos)
}
