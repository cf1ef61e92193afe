//! Copying a file of a lower tree to the upper one, before its first change.

use std::sync::Arc;

use moat_abi::fs::{FileType, OpenFlags};
use moat_abi::{Errno, Result};
use moat_vfs::inode::{Inode, NewNode, NodeKind, SetAttr, SetTime};

use crate::fs::Core;
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
    let _one_at_a_time = inode.core.copying.lock();
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
    let new = dir.create(&place.name, &NewNode { mode: meta.mode & 0o7777, uid: meta.uid, gid: meta.gid, kind })?;
    let filled = fill(&file.core, &lower, &new, meta.size, contents).and_then(|()| {
        let times = SetAttr {
            atime: Some(SetTime::At(meta.atime)),
            mtime: Some(SetTime::At(meta.mtime)),
            ..SetAttr::default()
        };
        new.set_attr(&times)
    });
    if let Err(e) = filled {
        // Half a file must not hide the whole one below it.
        let _ = if new.file_type() == FileType::Directory { dir.rmdir(&place.name) } else { dir.unlink(&place.name) };
        return Err(e);
    }
    file.core.alias(new.metadata()?.key(), file);
    let mut layers = file.layers.lock();
    layers.upper = Some(new);
    if lower.file_type() != FileType::Directory {
        layers.lowers.clear();
    }
    Ok(())
}

fn fill(core: &Core, lower: &Arc<dyn Inode>, new: &Arc<dyn Inode>, size: u64, contents: Contents) -> Result<()> {
    for name in lower.list_xattr().unwrap_or_default() {
        if !name.starts_with(b"trusted.overlay.") {
            let value = lower.get_xattr(&name)?;
            new.set_xattr(&name, &value, 0)?;
        }
    }
    if lower.file_type() != FileType::Regular || contents == Contents::None || size == 0 {
        return Ok(());
    }
    let from = core.open_layer(lower, OpenFlags::empty())?;
    let to = core.open_layer(new, OpenFlags::WRONLY)?;
    let len = usize::try_from(size).unwrap_or(usize::MAX).min(CHUNK_BYTES);
    let mut buf = vec![0; len.max(1)];
    let mut pos = 0;
    loop {
        let n = from.read_at(&mut buf, pos)?;
        if n == 0 {
            return Ok(());
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
}
