//! chmod(2), chown(2), utimensat(2), truncate(2), access(2): who may change what.

use moat_abi::cap::{Cap, SECBIT_NO_SETUID_FIXUP};
use moat_abi::fs::{FileType, S_IALLUGO, S_ISGID, S_ISUID, S_IXGRP};
use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};

use super::{is_owner, is_stored};
use crate::cred::Credentials;
use crate::inode::{Access, Metadata, SetAttr, SetTime};
use crate::mount::MountFlags;
use crate::path::Path;

/// Changes the permission bits.
///
/// # Errors
/// EPERM, EROFS; EOPNOTSUPP for a symbolic link.
pub fn chmod(creds: &Credentials, path: &Path, mode: u32) -> Result<()> {
    path.mount.check_writable()?;
    let inode = path.inode();
    // It has no permissions of its own to change.
    if inode.file_type() == FileType::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    let meta = inode.metadata()?;
    if !is_owner(creds, &meta) {
        return Err(Errno::EPERM);
    }
    let mut mode = mode & S_IALLUGO;
    // Not an error: the bit is left out without a word (chmod(2)).
    if !creds.in_group(meta.gid) && !creds.has_cap_for(meta.uid, meta.gid, Cap::FSETID) {
        mode &= !S_ISGID;
    }
    set(path, &SetAttr { mode: Some(mode), ..SetAttr::default() })
}

/// Changes attributes, and tells those who watch the file.
fn set(path: &Path, change: &SetAttr) -> Result<()> {
    path.inode().set_attr(change)?;
    path.mount.tables().watches.attributes_event(&path.dentry, change);
    Ok(())
}

/// Changes owner and group; `None` leaves one as it is.
///
/// # Errors
/// EPERM, EROFS.
pub fn chown(creds: &Credentials, path: &Path, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    path.mount.check_writable()?;
    let inode = path.inode();
    let meta = inode.metadata()?;
    let owner = creds.fsuid == meta.uid;
    let capable = creds.has_cap_for(meta.uid, meta.gid, Cap::CHOWN);
    // Giving a file away takes CAP_CHOWN; an owner may only name itself.
    let uid_fine = uid.is_none_or(|u| capable || (owner && u == meta.uid));
    // An owner may choose among its own groups.
    let gid_fine = gid.is_none_or(|g| capable || (owner && (g == meta.gid || creds.in_group(g))));
    if !uid_fine || !gid_fine {
        return Err(Errno::EPERM);
    }
    let mut change = SetAttr { uid, gid, ..SetAttr::default() };
    if meta.file_type() != FileType::Directory {
        // Whoever does it, even root: the new owner did not ask for a set-id program.
        let keeps_sgid = creds.in_group(meta.gid) || creds.has_cap_for(meta.uid, meta.gid, Cap::FSETID);
        change.mode = without_set_id(meta.mode, keeps_sgid);
    }
    set(path, &change)
}

/// The mode without set-id bits; `None` if it has none to lose.
fn without_set_id(mode: u32, keeps_plain_sgid: bool) -> Option<u32> {
    let mut kill = S_ISUID;
    // Without group execution the bit once meant mandatory locking, and stays for those who may set it.
    if mode & S_IXGRP != 0 || !keeps_plain_sgid {
        kill |= S_ISGID;
    }
    (mode & kill != 0).then_some(mode & !kill & S_IALLUGO)
}

/// The mode that a write or truncation leaves, if it must change (`file_remove_privs`).
#[must_use]
pub fn mode_after_write(creds: &Credentials, meta: &Metadata) -> Option<u32> {
    if meta.mode & (S_ISUID | S_ISGID) == 0 || creds.has_cap_for(meta.uid, meta.gid, Cap::FSETID) {
        return None;
    }
    without_set_id(meta.mode, creds.in_group(meta.gid))
}

/// Sets the size of a regular file; permission has been checked.
///
/// # Errors
/// ETXTBSY while it is executed; those of the file system.
pub fn set_size(creds: &Credentials, path: &Path, len: u64) -> Result<()> {
    // Held until the size is set, so that no execution begins in between.
    let (_writing, inode) = (path.write_access()?, path.inode());
    let mode = mode_after_write(creds, &inode.metadata()?);
    set(path, &SetAttr { mode, size: Some(len), ..SetAttr::default() })
}

/// The times of utimensat(2); `None` is UTIME_OMIT.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Times {
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

/// Decodes the two timespecs of utimensat(2); without them both are the current time.
///
/// # Errors
/// EINVAL.
pub fn check_times(times: Option<[Timespec; 2]>) -> Result<Times> {
    use moat_abi::fs::{UTIME_NOW, UTIME_OMIT};
    // utimensat(2) without times.
    let Some([a, m]) = times else {
        return Ok(Times { atime: Some(SetTime::Now), mtime: Some(SetTime::Now) });
    };
    let one = |t: Timespec| match t.tv_nsec {
        UTIME_NOW => Ok(Some(SetTime::Now)),
        UTIME_OMIT => Ok(None),
        0..1_000_000_000 => Ok(Some(SetTime::At(t))),
        _ => Err(Errno::EINVAL),
    };
    Ok(Times { atime: one(a)?, mtime: one(m)? })
}

/// Sets the times.
///
/// # Errors
/// EPERM, EACCES, EROFS as utimensat(2).
pub fn set_times(creds: &Credentials, path: &Path, times: Times) -> Result<()> {
    // UTIME_OMIT twice: nothing is checked, not even that the mount is writable.
    if times.atime.is_none() && times.mtime.is_none() {
        return Ok(());
    }
    path.mount.check_writable()?;
    let inode = path.inode();
    let meta = inode.metadata()?;
    // A writer may set both times to the present, as writing does anyway; other times are the owner's.
    if !is_owner(creds, &meta) {
        let both_now = times.atime == Some(SetTime::Now) && times.mtime == Some(SetTime::Now);
        if !both_now {
            return Err(Errno::EPERM);
        }
        inode.permission(creds, Access::WRITE)?;
    }
    set(path, &SetAttr { atime: times.atime, mtime: times.mtime, ..SetAttr::default() })
}

/// Whose ids access(2) checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessIds {
    /// The real ids (access, faccessat).
    Real,
    /// The effective ids (AT_EACCESS).
    Effective,
}

/// Checks the permissions of a file; an empty `access` only that it exists.
///
/// # Errors
/// EACCES, EROFS.
pub fn access(creds: &Credentials, path: &Path, access: Access, ids: AccessIds) -> Result<()> {
    let inode = path.inode();
    let real;
    let creds = match ids {
        AccessIds::Effective => creds,
        AccessIds::Real => {
            let mut c = creds.clone();
            (c.fsuid, c.fsgid) = (c.uid, c.gid);
            // access(2) asks what the real user could do: capabilities count as setuid(2) to it would leave them.
            if c.securebits & SECBIT_NO_SETUID_FIXUP == 0 {
                // For uid 0 of the namespace all permitted capabilities count (`access_override_creds`).
                let root = c.user_ns.kernel_uid(0) == Some(c.uid);
                c.effective = if root { c.permitted } else { moat_abi::cap::CapSet::EMPTY };
            }
            real = c;
            &real
        }
    };
    // F_OK: that the path was found is the answer.
    if access.is_empty() {
        return Ok(());
    }
    let file_type = inode.file_type();
    if access.contains(Access::EXEC)
        && file_type == FileType::Regular
        && path.mount.flags().contains(MountFlags::NOEXEC)
    {
        return Err(Errno::EACCES);
    }
    inode.permission(creds, access)?;
    // After the mode bits: EACCES comes before EROFS. Devices, FIFOs and sockets are written to on read-only mounts too.
    if access.contains(Access::WRITE) && is_stored(file_type) {
        path.mount.check_writable()?;
    }
    Ok(())
}
