//! Calls on files by descriptor alone: permission bits, extended attributes, ioctls and locks of file systems.
//!
//! An O_PATH descriptor is enough for the permission bits of anything by fchmodat2(2) (Linux 6.6), and for extended
//! attributes by getxattrat(2) and its like (6.13): ENOSYS before. They take the descriptor of a directory; anything else is
//! reached by its link in the procfs ([`crate::procfs`]), which leads to the file itself, be it a symbolic link, and
//! is ENOTDIR without one.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd};

use moat_abi::{Errno, Result};

use crate::result::check;

// Numbers that libc lacks: asm/unistd_64.h.
const SYS_SETXATTRAT: libc::c_long = 463;
pub(crate) const SYS_GETXATTRAT: libc::c_long = 464;
const SYS_LISTXATTRAT: libc::c_long = 465;
const SYS_REMOVEXATTRAT: libc::c_long = 466;

/// The calls of this module that work on O_PATH descriptors, for seccomp filters.
pub const CALLS_BY_PATH_DESCRIPTOR: [libc::c_long; 5] =
    [libc::SYS_fchmodat2, SYS_SETXATTRAT, SYS_GETXATTRAT, SYS_LISTXATTRAT, SYS_REMOVEXATTRAT];

/// `struct xattr_args` of setxattrat(2).
#[repr(C)]
struct XattrArgs {
    value: *const u8,
    size: u32,
    flags: u32,
}

/// The directory itself: an empty path would be refused with O_PATH.
const HERE: &CStr = c".";

/// Makes a call on what `fd` refers to, given a directory and a path.
fn on_object(fd: impl AsFd, call: impl Fn(libc::c_int, &CStr) -> Result<u64>) -> Result<u64> {
    let fd = fd.as_fd().as_raw_fd();
    match (call(fd, HERE), crate::procfs::dir_number()) {
        (Err(Errno::ENOTDIR), Some(proc)) => {
            let link = CString::new(format!("self/fd/{fd}")).map_err(|_| Errno::EINVAL)?;
            call(proc, &link)
        }
        (done, _) => done,
    }
}

/// Bytes of the longest value, XATTR_SIZE_MAX, and of the longest list of names.
const MAX_XATTR_BYTES: usize = 65536;

/// Sets the permission bits of what `fd` refers to.
///
/// # Errors
/// ENOSYS; those of fchmodat(2).
pub fn chmod(fd: impl AsFd, mode: u32) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the path is an empty C string.
    let done = unsafe { libc::syscall(libc::SYS_fchmodat2, fd, c"".as_ptr(), mode, libc::AT_EMPTY_PATH) };
    check(done).map(drop)
}

fn attribute_name(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|_| Errno::EINVAL)
}

/// Reads an extended attribute.
///
/// # Errors
/// ENOSYS; ENOTDIR; those of getxattr(2).
pub fn get_xattr(fd: impl AsFd, name: &[u8]) -> Result<Vec<u8>> {
    let name = attribute_name(name)?;
    let mut value: Vec<u8> = Vec::new();
    // Most values are short; a longer one costs another call.
    for room in [256, MAX_XATTR_BYTES] {
        value.resize(room, 0);
        let args =
            XattrArgs { value: value.as_mut_ptr().cast_const(), size: u32::try_from(room).unwrap_or(0), flags: 0 };
        match xattr_call(SYS_GETXATTRAT, &fd, &name, Some(&args)) {
            Err(Errno::ERANGE) => {}
            done => {
                value.truncate(usize::try_from(done?).unwrap_or(0));
                return Ok(value);
            }
        }
    }
    Err(Errno::E2BIG)
}

/// Sets an extended attribute; `flags` is 0, XATTR_CREATE or XATTR_REPLACE.
///
/// # Errors
/// ENOSYS; those of setxattr(2).
pub fn set_xattr(fd: impl AsFd, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
    let size = u32::try_from(value.len()).map_err(|_| Errno::E2BIG)?;
    let args = XattrArgs { value: value.as_ptr(), size, flags };
    xattr_call(SYS_SETXATTRAT, fd, &attribute_name(name)?, Some(&args)).map(drop)
}

/// Removes an extended attribute.
///
/// # Errors
/// ENOSYS; those of removexattr(2).
pub fn remove_xattr(fd: impl AsFd, name: &[u8]) -> Result<()> {
    xattr_call(SYS_REMOVEXATTRAT, fd, &attribute_name(name)?, None).map(drop)
}

fn xattr_call(call: libc::c_long, fd: impl AsFd, name: &CStr, args: Option<&XattrArgs>) -> Result<u64> {
    let args = args.map_or(std::ptr::null(), |args| &raw const *args);
    on_object(fd, |dir, path| {
        // SAFETY: path and name are C strings, `args` describes a live buffer for the two calls that look at it, which the
        // caller holds exclusively where it is written; removexattrat(2) takes four arguments.
        check(unsafe { libc::syscall(call, dir, path.as_ptr(), 0, name.as_ptr(), args, size_of::<XattrArgs>()) })
    })
}

/// The names of the extended attributes.
///
/// # Errors
/// ENOSYS; those of listxattr(2).
pub fn list_xattr(fd: impl AsFd) -> Result<Vec<Vec<u8>>> {
    let mut list = vec![0u8; MAX_XATTR_BYTES];
    let (start, room) = (list.as_mut_ptr(), list.len());
    let n = on_object(fd, |dir, path| {
        // SAFETY: the path is a C string, `list` is live and nothing else uses it, and its length is given.
        check(unsafe { libc::syscall(SYS_LISTXATTRAT, dir, path.as_ptr(), 0, start, room) })
    })?;
    list.truncate(usize::try_from(n).unwrap_or(0));
    Ok(split_names(&list))
}

/// The names in the result of listxattr(2).
#[must_use]
pub fn split_names(list: &[u8]) -> Vec<Vec<u8>> {
    list.split(|b| *b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

/// FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FIEMAP: linux/fs.h.
pub const FS_IOC_GETFLAGS: u64 = 0x8008_6601;
#[allow(missing_docs, reason = "as above")]
pub const FS_IOC_SETFLAGS: u64 = 0x4008_6602;
#[allow(missing_docs, reason = "as above")]
pub const FS_IOC_FIEMAP: u64 = 0xc020_660b;

/// The inode flags of ioctl_iflags(2).
///
/// # Errors
/// ENOTTY where the file system has none.
pub fn inode_flags(fd: impl AsFd) -> Result<u32> {
    let mut flags: u64 = 0;
    // SAFETY: the request writes an int (its number says long) to a live u64.
    check(i64::from(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), FS_IOC_GETFLAGS, &raw mut flags) }))?;
    Ok(u32::try_from(flags & u64::from(u32::MAX)).unwrap_or(0))
}

/// Sets the inode flags.
///
/// # Errors
/// ENOTTY, EPERM, EOPNOTSUPP.
pub fn set_inode_flags(fd: impl AsFd, flags: u32) -> Result<()> {
    let flags = u64::from(flags);
    // SAFETY: the request reads an int (its number says long) from a live u64.
    let done = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), FS_IOC_SETFLAGS, &raw const flags) };
    check(i64::from(done)).map(drop)
}

/// Bytes of `struct fiemap` without extents, and of one extent.
pub const FIEMAP_HEADER_BYTES: usize = 32;
#[allow(missing_docs, reason = "as above")]
pub const FIEMAP_EXTENT_BYTES: usize = 56;

/// FS_IOC_FIEMAP: `buf` is a `struct fiemap` with room for as many extents as its `fm_extent_count` says.
///
/// # Errors
/// EINVAL if the room is less than that; EOPNOTSUPP where the file system has no such map.
pub fn fiemap(fd: impl AsFd, buf: &mut [u8]) -> Result<()> {
    let count = buf.get(24..28).and_then(|b| b.first_chunk()).map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)?;
    let wanted = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(FIEMAP_EXTENT_BYTES);
    if buf.len() < wanted.saturating_add(FIEMAP_HEADER_BYTES) {
        return Err(Errno::EINVAL);
    }
    // SAFETY: `buf` is live and exclusively borrowed, and holds the header and the extents that the header asks for.
    let done = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), FS_IOC_FIEMAP, buf.as_mut_ptr()) };
    check(i64::from(done)).map(drop)
}

/// A record lock of an open file description: bytes `start` on, `len` of them or all for 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RecordLock {
    /// F_RDLCK, F_WRLCK or F_UNLCK.
    pub kind: i16,
    pub start: i64,
    pub len: i64,
    /// Who holds it, as F_OFD_GETLK says; -1 for a description.
    pub pid: i32,
}

fn ofd_lock(fd: impl AsFd, command: libc::c_int, lock: RecordLock) -> Result<RecordLock> {
    let mut raw = libc::flock { l_type: lock.kind, l_whence: 0, l_start: lock.start, l_len: lock.len, l_pid: 0 };
    // SAFETY: `raw` is a live `struct flock`, which is what both commands take.
    check(i64::from(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), command, &raw mut raw) }))?;
    Ok(RecordLock { kind: raw.l_type, start: raw.l_start, len: raw.l_len, pid: raw.l_pid })
}

/// F_OFD_SETLK: sets or gives up a lock without waiting.
///
/// # Errors
/// EAGAIN while somebody else has one in the way.
pub fn set_record_lock(fd: impl AsFd, lock: RecordLock) -> Result<()> {
    ofd_lock(fd, libc::F_OFD_SETLK, lock).map(drop)
}

/// F_OFD_GETLK: the lock in the way; its kind is F_UNLCK if there is none.
///
/// # Errors
/// Those of fcntl(2).
pub fn record_lock_in_the_way(fd: impl AsFd, lock: RecordLock) -> Result<RecordLock> {
    ofd_lock(fd, libc::F_OFD_GETLK, lock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};

    #[test]
    fn a_path_descriptor_is_enough() {
        let name = std::env::temp_dir().join(format!("moat-objects-{}", std::process::id()));
        std::fs::write(&name, "x").expect("write");
        let fd = rustix::fs::open(&name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("open");
        std::fs::remove_file(&name).expect("unlink");
        match chmod(&fd, 0o640) {
            Err(Errno::ENOSYS) => return,
            done => done.expect("chmod"),
        }
        assert_eq!(rustix::fs::fstat(&fd).expect("fstat").st_mode & 0o7777, 0o640);
        // By the link in /proc, though the file has no name any more.
        assert!(matches!(get_xattr(&fd, b"user.k"), Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::ENOSYS)));
        std::fs::create_dir(&name).expect("mkdir");
        let fd = rustix::fs::open(&name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("open");
        std::fs::remove_dir(&name).expect("rmdir");
        match set_xattr(&fd, b"user.k", b"value", 0) {
            Err(Errno::ENOSYS | Errno::EOPNOTSUPP) => return,
            done => done.expect("set"),
        }
        assert_eq!(get_xattr(&fd, b"user.k").expect("get"), b"value");
        assert!(list_xattr(&fd).expect("list").contains(&b"user.k".to_vec()));
        remove_xattr(&fd, b"user.k").expect("remove");
        assert_eq!(get_xattr(&fd, b"user.k"), Err(Errno::ENODATA));
    }
}
