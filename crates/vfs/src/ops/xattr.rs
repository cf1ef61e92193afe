//! Extended attributes: xattr(7)'s rules by name space.

use moat_abi::cap::Cap;
use moat_abi::fs::{FileType, InotifyMask, S_IALLUGO, S_ISGID, S_ISVTX};
use moat_abi::{Errno, Result};

use super::is_owner;
use crate::acl::{Acl, AclKind};
use crate::cred::Credentials;
use crate::inode::{Access, Metadata, SetAttr};
use crate::inotify::Through;
use crate::path::Path;

fn check(creds: &Credentials, path: &Path, name: &[u8], access: Access) -> Result<()> {
    check_rights(creds, path, name, access)?;
    // The name space is there, but nothing has no name in it.
    if matches!(name, b"user." | b"trusted." | b"security.") { Err(Errno::EINVAL) } else { Ok(()) }
}

fn check_rights(creds: &Credentials, path: &Path, name: &[u8], access: Access) -> Result<()> {
    let inode = path.inode();
    let write = access.contains(Access::WRITE);
    if write {
        path.mount.check_writable()?;
    }
    // Security modules decide for themselves, so the mode bits play no part (`xattr_permission`).
    if name.starts_with(b"security.") || name.starts_with(b"system.") {
        return check_security(creds, name, write);
    }
    if name.starts_with(b"trusted.") {
        // Reading what one may not know of is as if it were not there.
        let denied = if write { Errno::EPERM } else { Errno::ENODATA };
        return if creds.has_root_cap(Cap::SYS_ADMIN) { Ok(()) } else { Err(denied) };
    }
    if !name.starts_with(b"user.") {
        // An unknown name space, which is noticed after the rights.
        inode.permission(creds, access)?;
        return Err(Errno::EOPNOTSUPP);
    }
    // Special files are everybody's to write to, so users' attributes could be placed there without limit.
    match inode.file_type() {
        FileType::Regular => {}
        FileType::Directory => {
            let meta = inode.metadata()?;
            // In a sticky directory like /tmp everybody may write, but only the owner describes the directory.
            if write && meta.mode & S_ISVTX != 0 && !is_owner(creds, &meta) {
                return Err(Errno::EPERM);
            }
        }
        _ => return Err(if write { Errno::EPERM } else { Errno::ENODATA }),
    }
    inode.permission(creds, access)
}

fn check_security(creds: &Credentials, name: &[u8], write: bool) -> Result<()> {
    // Only lists are known in this space, and those come another way.
    if name.starts_with(b"system.") {
        return Err(Errno::EOPNOTSUPP);
    }
    if !write {
        return Ok(());
    }
    let cap = if name == b"security.capability" { Cap::SETFCAP } else { Cap::SYS_ADMIN };
    if creds.has_root_cap(cap) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Reads an attribute.
///
/// # Errors
/// ENODATA, EOPNOTSUPP, EACCES.
pub fn get_xattr(creds: &Credentials, path: &Path, name: &[u8]) -> Result<Vec<u8>> {
    if AclKind::of_attribute(name).is_some() {
        check_has_lists(path)?;
    } else {
        check(creds, path, name, Access::READ)?;
    }
    path.inode().get_xattr(name)
}

/// Tells those who watch the file.
fn changed(path: &Path) {
    path.mount.tables().watches.file_event(&path.dentry, InotifyMask::ATTRIB, Through::Name);
}

/// A symbolic link has no access control lists.
fn check_has_lists(path: &Path) -> Result<()> {
    if path.inode().file_type() == FileType::Symlink { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
}

/// Whether `creds` may give the file a list, or take it away (`set_posix_acl`); its attributes.
fn check_set_list(creds: &Credentials, path: &Path) -> Result<Metadata> {
    path.mount.check_writable()?;
    check_has_lists(path)?;
    let meta = path.inode().metadata()?;
    if is_owner(creds, &meta) { Ok(meta) } else { Err(Errno::EPERM) }
}

fn set_list(creds: &Credentials, path: &Path, kind: AclKind, value: &[u8]) -> Result<()> {
    let Some(_list) = (if value.is_empty() { None } else { Acl::parse(value)? }) else {
        return remove_list(creds, path, kind);
    };
    // Rights come before the errno about the type.
    if kind == AclKind::Default && path.inode().file_type() != FileType::Directory {
        path.mount.check_writable()?;
        check_has_lists(path)?;
        return Err(Errno::EACCES);
    }
    let meta = check_set_list(creds, path)?;
    // A list replaces the one that is there, whatever the flags of setxattr(2) say (`do_set_acl`).
    path.inode().set_xattr(kind.attribute(), value, 0)?;
    changed(path);
    drop_set_gid(creds, path, kind, &meta)
}

fn remove_list(creds: &Credentials, path: &Path, kind: AclKind) -> Result<()> {
    let meta = check_set_list(creds, path)?;
    // A list that is not there is as good as removed.
    match path.inode().remove_xattr(kind.attribute()) {
        Ok(()) | Err(Errno::ENODATA) => drop_set_gid(creds, path, kind, &meta),
        Err(e) => Err(e),
    }
}

/// A change of the access list by who is not in the file's group takes the set-gid bit, as chmod(2) does.
fn drop_set_gid(creds: &Credentials, path: &Path, kind: AclKind, before: &Metadata) -> Result<()> {
    let keeps = creds.in_group(before.gid) || creds.has_cap_for(before.uid, before.gid, Cap::FSETID);
    // The default list is no permission on the directory itself.
    if kind == AclKind::Default || before.mode & S_ISGID == 0 || keeps {
        return Ok(());
    }
    let mode = path.inode().metadata()?.mode & S_IALLUGO & !S_ISGID;
    path.inode().set_attr(&SetAttr { mode: Some(mode), ..SetAttr::default() })
}

/// Sets an attribute; `flags` have been checked.
///
/// # Errors
/// EEXIST, ENODATA, EOPNOTSUPP, EPERM, EACCES, EROFS, ENOSPC.
pub fn set_xattr(creds: &Credentials, path: &Path, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
    if let Some(kind) = AclKind::of_attribute(name) {
        return set_list(creds, path, kind, value);
    }
    check(creds, path, name, Access::WRITE)?;
    path.inode().set_xattr(name, value, flags)?;
    changed(path);
    Ok(())
}

/// Removes an attribute.
///
/// # Errors
/// As [`set_xattr`].
pub fn remove_xattr(creds: &Credentials, path: &Path, name: &[u8]) -> Result<()> {
    if let Some(kind) = AclKind::of_attribute(name) {
        return remove_list(creds, path, kind);
    }
    check(creds, path, name, Access::WRITE)?;
    path.inode().remove_xattr(name)?;
    changed(path);
    Ok(())
}

/// The names that the caller may see, each ended by a NUL.
///
/// # Errors
/// Those of the file system; none where it has no attributes.
pub fn list_xattr(creds: &Credentials, path: &Path) -> Result<Vec<u8>> {
    let names = match path.inode().list_xattr() {
        Err(Errno::EOPNOTSUPP) => Vec::new(),
        other => other?,
    };
    let mut list = Vec::new();
    // Names that the caller could not read are not shown.
    for n in names.iter().filter(|n| !n.starts_with(b"trusted.") || creds.has_root_cap(Cap::SYS_ADMIN)) {
        list.extend_from_slice(n);
        list.push(0);
    }
    Ok(list)
}
