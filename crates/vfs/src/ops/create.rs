//! mkdir(2), mknod(2), symlink(2), link(2).

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::fs::{FileType, InotifyMask, PATH_MAX, S_IALLUGO, S_ISGID, S_ISUID, S_ISVTX, S_IXGRP};
use moat_abi::{Errno, Result};

use super::{check_create, check_device, created, is_owner, new_node};
use crate::cred::Credentials;
use crate::device_rules::DeviceAccess;
use crate::inode::{Access, Inode, NodeKind};
use crate::path::Path;
use crate::walk::{Last, LookupFlags, Parent, Trailing, View, resolve_parent};

/// Finds where a new entry goes (`filename_create`).
fn prepare_new_entry(view: &View<'_>, path: &[u8], kind: NodeKind<'_>) -> Result<(Path, Vec<u8>)> {
    let Parent { dir, last, trailing } = resolve_parent(view, path, LookupFlags::empty())?;
    // `.`, `..` and `/` exist always.
    let Last::Name(name) = last else {
        return Err(Errno::EEXIST);
    };
    // EEXIST wins over a missing right or a read-only mount.
    match dir.dentry.lookup(&name) {
        Ok(_) => return Err(Errno::EEXIST),
        Err(Errno::ENOENT) => {}
        Err(e) => return Err(e),
    }
    // Only a directory may be named with a slash.
    if trailing == Trailing::Slash && !matches!(kind, NodeKind::Dir) {
        return Err(Errno::ENOENT);
    }
    dir.mount.check_writable()?;
    Ok((dir, name))
}

fn make(view: &View<'_>, dir: &Path, name: &[u8], mode: u32, kind: NodeKind<'_>) -> Result<Path> {
    check_create(dir, view.creds())?;
    let node = new_node(view, dir.inode().as_ref(), mode, kind)?;
    // From the check to the cache: rmdir(2) of the directory takes this lock too.
    let _entries = dir.dentry.lock_entries();
    if dir.dentry.is_dead() {
        return Err(Errno::ENOENT);
    }
    let inode = dir.inode().create(name, &node)?;
    let dentry = dir.dentry.add_child(name, inode);
    created(dir, name, dentry.inode());
    Ok(Path { mount: dir.mount.clone(), dentry })
}

/// Makes a directory.
///
/// # Errors
/// Those of mkdir(2).
pub fn mkdir(view: &View<'_>, path: &[u8], mode: u32) -> Result<Path> {
    let (dir, name) = prepare_new_entry(view, path, NodeKind::Dir)?;
    make(view, &dir, &name, mode & (0o777 | S_ISVTX), NodeKind::Dir)
}

/// Makes a file, FIFO, socket node or device node.
///
/// # Errors
/// Those of mknod(2).
pub fn mknod(view: &View<'_>, path: &[u8], mode: u32, kind: NodeKind<'_>) -> Result<Path> {
    let (dir, name) = prepare_new_entry(view, path, kind)?;
    // Before the privilege for devices, as Linux orders it.
    check_create(&dir, view.creds())?;
    // Overlay whiteouts (0:0) are everybody's, as on Linux.
    if let NodeKind::Device { rdev, file_type } = kind
        && !(file_type == FileType::CharDevice && rdev.major == 0 && rdev.minor == 0)
    {
        if !view.creds().has_root_cap(Cap::MKNOD) {
            return Err(Errno::EPERM);
        }
        check_device(view, file_type, rdev, DeviceAccess::MAKE)?;
    }
    make(view, &dir, &name, mode & S_IALLUGO, kind)
}

/// Makes a symbolic link.
///
/// # Errors
/// Those of symlink(2).
pub fn symlink(view: &View<'_>, target: &[u8], path: &[u8]) -> Result<Path> {
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    if target.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let kind = NodeKind::Symlink(target);
    let (dir, name) = prepare_new_entry(view, path, kind)?;
    make(view, &dir, &name, 0o777, kind)
}

/// Whether a file of somebody else may get another name (`/proc/sys/fs/protected_hardlinks` is 1).
fn check_link_source(creds: &Credentials, inode: &dyn Inode) -> Result<()> {
    let meta = inode.metadata()?;
    let set_id = meta.mode & S_ISUID != 0 || meta.mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP;
    // Write access to somebody's file is all that a link could add to.
    let harmless = inode.file_type() == FileType::Regular
        && !set_id
        && inode.permission(creds, Access::READ | Access::WRITE).is_ok();
    if harmless || is_owner(creds, &meta) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Makes another name of `old`, which the caller has resolved.
///
/// # Errors
/// Those of link(2).
pub fn link(view: &View<'_>, old: &Path, path: &[u8]) -> Result<()> {
    let kind = NodeKind::File;
    let (dir, name) = prepare_new_entry(view, path, kind)?;
    // By mount, not by file system: a link across two mounts of one file system is EXDEV too (link(2)).
    if !Arc::ptr_eq(&old.mount, &dir.mount) {
        return Err(Errno::EXDEV);
    }
    let inode: &Arc<dyn Inode> = old.inode();
    check_link_source(view.creds(), inode.as_ref())?;
    check_create(&dir, view.creds())?;
    // It would make a circle.
    if inode.file_type() == FileType::Directory {
        return Err(Errno::EPERM);
    }
    let _entries = dir.dentry.lock_entries();
    if dir.dentry.is_dead() {
        return Err(Errno::ENOENT);
    }
    dir.inode().link(&name, inode)?;
    dir.dentry.add_child(&name, inode.clone());
    // The number of its names has changed.
    dir.mount.tables().watches.inode_event(inode, InotifyMask::ATTRIB);
    created(&dir, &name, inode);
    Ok(())
}
