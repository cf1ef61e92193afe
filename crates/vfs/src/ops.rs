//! The operations on names and attributes: one implementation of Linux's rules for all who need them.
//!
//! Each takes a [`View`] (who, from where) and paths. File systems are asked only for what the rules allow.

mod attr;
mod create;
mod mount;
mod open;
mod remove;
mod rename;
mod xattr;

pub use attr::{AccessIds, Times, access, check_times, chmod, chown, mode_after_write, set_size, set_times};
pub use create::{link, mkdir, mknod, symlink};
pub use mount::{Attach, mount, unmount};
pub use open::{Executable, OpenHow, lease_that_blocks, open, open_path};
pub use remove::{rmdir, unlink};
pub use rename::rename;
pub use xattr::{get_xattr, list_xattr, remove_xattr, set_xattr};

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::fs::{FileType, InotifyMask, S_ISGID, S_ISVTX, S_IXGRP};
use moat_abi::stat::DeviceId;
use moat_abi::{Errno, Result};

use crate::acl::AclKind;
use crate::cred::Credentials;
use crate::device_rules::DeviceAccess;
use crate::inode::{Access, Cache, Inode, Metadata, NewNode, NodeKind};
use crate::path::Path;
use crate::walk::View;

/// Tells those who watch `dir` of a new entry.
fn created(dir: &Path, name: &[u8], inode: &Arc<dyn Inode>) {
    dir.mount.tables().watches.entry_event(&dir.dentry, name, inode, InotifyMask::CREATE, 0);
}

/// Checks that an entry may be made in `dir` (`may_create`).
fn check_create(dir: &Path, creds: &Credentials) -> Result<()> {
    // A directory of generated entries (proc) has said that there is none of the name.
    if dir.dentry.is_dead() || dir.inode().cache_policy() == Cache::None {
        return Err(Errno::ENOENT);
    }
    dir.inode().permission(creds, Access::WRITE | Access::EXEC)
}

/// Checks that the caller's container may use a device (`devcgroup_check_permission`).
fn check_device(view: &View<'_>, file_type: FileType, device: DeviceId, access: DeviceAccess) -> Result<()> {
    let rules = view.caller.task().and_then(|task| task.device_rules());
    if rules.is_none_or(|rules| rules.allow(file_type, device, access)) { Ok(()) } else { Err(Errno::EPERM) }
}

/// What an entry to be removed must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Directory,
    Other,
}

impl Victim {
    fn of(inode: &dyn Inode) -> Victim {
        if inode.file_type() == FileType::Directory { Victim::Directory } else { Victim::Other }
    }
}

/// Checks that an entry may be taken out of `dir` (`may_delete`).
fn check_delete(dir: &Path, creds: &Credentials, victim: &dyn Inode, expected: Victim) -> Result<()> {
    dir.inode().permission(creds, Access::WRITE | Access::EXEC)?;
    check_sticky(dir.inode().as_ref(), creds, victim)?;
    // The type is checked after the permissions, and the type's errno is what rmdir(2) and unlink(2) have.
    match (expected, Victim::of(victim)) {
        (Victim::Directory, Victim::Other) => Err(Errno::ENOTDIR),
        (Victim::Other, Victim::Directory) => Err(Errno::EISDIR),
        _ if dir.dentry.is_dead() => Err(Errno::ENOENT),
        _ => Ok(()),
    }
}

/// In a sticky directory only the owner of the file, or of the directory, removes it.
fn check_sticky(dir: &dyn Inode, creds: &Credentials, victim: &dyn Inode) -> Result<()> {
    let d = dir.ownership()?;
    // The directory's owner may remove anything in it.
    if d.mode & S_ISVTX == 0 || d.uid == creds.fsuid {
        return Ok(());
    }
    let v = victim.metadata()?;
    if v.uid == creds.fsuid || creds.has_cap_for(v.uid, v.gid, Cap::FOWNER) { Ok(()) } else { Err(Errno::EPERM) }
}

/// The new file's owner and mode, by umask and the directory's setgid bit (`inode_init_owner`).
fn new_node<'a>(view: &View<'_>, dir: &dyn Inode, mode: u32, kind: NodeKind<'a>) -> Result<NewNode<'a>> {
    let creds = view.creds();
    let parent = dir.ownership()?;
    let mut mode = match kind {
        // A link's permissions are never asked.
        NodeKind::Symlink(_) => 0o777,
        // A directory's default list takes the umask's place.
        _ => match dir.get_acl(AclKind::Default)? {
            Some(acl) => acl.mode_of_new(mode),
            None => mode & !view.umask,
        },
    };
    let mut gid = creds.fsgid;
    // BSD's group rule: files get the directory's group, and directories pass it on.
    if parent.mode & S_ISGID != 0 {
        gid = parent.gid;
        if matches!(kind, NodeKind::Dir) {
            mode |= S_ISGID;
        } else if mode & (S_ISGID | S_IXGRP) == (S_ISGID | S_IXGRP)
            && !creds.in_group(gid)
            && !creds.has_cap_for(parent.uid, parent.gid, Cap::FSETID)
        {
            mode &= !S_ISGID;
        }
    }
    Ok(NewNode { mode, uid: creds.fsuid, gid, kind })
}

/// Whether the caller owns the file or may act as if (`inode_owner_or_capable`).
#[must_use]
pub fn is_owner(creds: &Credentials, meta: &Metadata) -> bool {
    creds.fsuid == meta.uid || creds.has_cap_for(meta.uid, meta.gid, Cap::FOWNER)
}

/// Whether the file type is one that a read-only mount protects.
fn is_stored(t: FileType) -> bool {
    matches!(t, FileType::Regular | FileType::Directory | FileType::Symlink)
}
