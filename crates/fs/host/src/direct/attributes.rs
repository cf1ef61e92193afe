//! Changing attributes of what a descriptor refers to, whatever its names.

use std::os::fd::{AsFd, BorrowedFd};

use moat_abi::{Errno, Result};
use moat_host::objects;
use moat_vfs::inode::{SetAttr, SetTime};
use rustix::fs::{self, AtFlags, Gid, Mode, Timestamps, Uid, XattrFlags};

use super::DirectNode;

fn host_time(t: Option<SetTime>) -> fs::Timespec {
    match t {
        None => fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT },
        Some(SetTime::Now) => fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW },
        Some(SetTime::At(t)) => fs::Timespec { tv_sec: t.tv_sec, tv_nsec: t.tv_nsec },
    }
}

/// Owner, mode and times, in this order: a change of the owner clears bits of the mode.
pub(super) fn set(node: &DirectNode, attr: &SetAttr) -> Result<()> {
    if attr.uid.is_some() || attr.gid.is_some() {
        let (uid, gid) = (attr.uid.map(Uid::from_raw), attr.gid.map(Gid::from_raw));
        fs::chownat(node, c"", uid, gid, AtFlags::EMPTY_PATH).map_err(Errno::from)?;
    }
    // After the owner, because chown(2) takes the set-user-ID bits away.
    if let Some(mode) = attr.mode {
        if node.access.is_some() {
            fs::fchmod(node, Mode::from_raw_mode(mode)).map_err(Errno::from)?;
        } else {
            chmod_path(node, mode)?;
        }
    }
    // Last: what comes before changes no times but ctime, and this may say what those are.
    if attr.atime.is_some() || attr.mtime.is_some() {
        let times = Timestamps { last_access: host_time(attr.atime), last_modification: host_time(attr.mtime) };
        fs::utimensat(node, c"", &times, AtFlags::EMPTY_PATH).map_err(Errno::from)?;
    }
    Ok(())
}

fn chmod_path(node: &DirectNode, mode: u32) -> Result<()> {
    match objects::chmod(node, mode) {
        // Before Linux 6.6: a directory can be opened from itself; for a file the caller finds another way.
        Err(Errno::ENOSYS) => match super::open_dir(node) {
            Ok(fd) => fs::fchmod(fd, Mode::from_raw_mode(mode)).map_err(Errno::from),
            Err(_) => Err(Errno::ENOSYS),
        },
        done => done,
    }
}

/// What a sandbox may not set on the host is kept in the user's name space, under this prefix.
const KEPT: &[u8] = b"user.moat.";
const TRUSTED: &[u8] = b"trusted.";

/// The host's name of a guest's attribute.
///
/// `trusted.` needs a capability over the host that no sandbox has: what a guest sets there is kept under another
/// name, where only guests see it as theirs.
fn host_name(name: &[u8]) -> Result<Vec<u8>> {
    if name.starts_with(KEPT) {
        return Err(Errno::EPERM);
    }
    Ok(if name.starts_with(TRUSTED) { [KEPT, name].concat() } else { name.to_vec() })
}

/// The guest's name of a host's attribute.
fn guest_name(name: Vec<u8>) -> Vec<u8> {
    match name.strip_prefix(KEPT) {
        Some(kept) => kept.to_vec(),
        None => name,
    }
}

/// Carries out `by_path` on an O_PATH descriptor, or `by_fd` on one that is more.
///
/// ENOSYS for what can't be reached this way: without a procfs all but directories.
fn on<R>(
    node: &DirectNode,
    by_path: impl FnOnce(BorrowedFd<'_>) -> Result<R>,
    by_fd: impl FnOnce(BorrowedFd<'_>) -> std::result::Result<R, rustix::io::Errno>,
) -> Result<R> {
    if node.access.is_some() {
        return by_fd(node.as_fd()).map_err(Errno::from);
    }
    match by_path(node.as_fd()) {
        Err(Errno::ENOTDIR) => Err(Errno::ENOSYS),
        // Before Linux 6.13.
        Err(Errno::ENOSYS) => match super::open_dir(node) {
            Ok(fd) => by_fd(fd.as_fd()).map_err(Errno::from),
            Err(_) => Err(Errno::ENOSYS),
        },
        done => done,
    }
}

/// Bytes of the longest value, and of the longest list of names.
const MAX_BYTES: usize = 65536;

pub(super) fn get_xattr(node: &DirectNode, name: &[u8]) -> Result<Vec<u8>> {
    // The reserved names are nobody's.
    let name = host_name(name).map_err(|_| Errno::ENODATA)?;
    let by_fd = |fd: BorrowedFd<'_>| {
        let mut value = vec![0; MAX_BYTES];
        let n = fs::fgetxattr(fd, name.as_slice(), value.as_mut_slice())?;
        value.truncate(n);
        Ok(value)
    };
    on(node, |fd| objects::get_xattr(fd, &name), by_fd)
}

pub(super) fn set_xattr(node: &DirectNode, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
    let name = host_name(name)?;
    let by_fd = |fd: BorrowedFd<'_>| fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::from_bits_retain(flags));
    on(node, |fd| objects::set_xattr(fd, &name, value, flags), by_fd)
}

pub(super) fn list_xattr(node: &DirectNode) -> Result<Vec<Vec<u8>>> {
    let by_fd = |fd: BorrowedFd<'_>| {
        let mut list = vec![0u8; MAX_BYTES];
        let n = fs::flistxattr(fd, list.as_mut_slice())?;
        Ok(objects::split_names(list.get(..n).unwrap_or_default()))
    };
    let names = on(node, |fd| objects::list_xattr(fd), by_fd)?;
    Ok(names.into_iter().map(guest_name).collect())
}

pub(super) fn remove_xattr(node: &DirectNode, name: &[u8]) -> Result<()> {
    let name = host_name(name)?;
    on(node, |fd| objects::remove_xattr(fd, &name), |fd| fs::fremovexattr(fd, name.as_slice()))
}
