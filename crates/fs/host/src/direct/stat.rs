//! The host's attributes of files and file systems.

use std::os::fd::{AsFd, BorrowedFd};

use moat_abi::stat::{DeviceId, Statfs, TMPFS_MAGIC};
use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_vfs::inode::Metadata;
use rustix::fs::{self, AtFlags, Statx, StatxFlags, StatxTimestamp};

const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Attributes of the file that `fd` refers to.
pub(crate) fn metadata_of(fd: impl AsFd) -> Result<Metadata> {
    fs::statx(fd, c"", AtFlags::EMPTY_PATH, WANTED).map(|st| metadata(&st)).map_err(Errno::from)
}

/// lstat(2) of an entry of `dir`.
pub(super) fn entry(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Metadata> {
    fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, WANTED).map(|st| metadata(&st)).map_err(Errno::from)
}

fn time(t: StatxTimestamp) -> Timespec {
    Timespec { tv_sec: t.tv_sec, tv_nsec: i64::from(t.tv_nsec) }
}

fn metadata(st: &Statx) -> Metadata {
    // Not every file system knows when a file was made.
    let has_birth = st.stx_mask & StatxFlags::BTIME.bits() != 0;
    Metadata {
        dev: DeviceId::new(st.stx_dev_major, st.stx_dev_minor),
        ino: st.stx_ino,
        mode: u32::from(st.stx_mode),
        nlink: st.stx_nlink,
        uid: st.stx_uid,
        gid: st.stx_gid,
        rdev: DeviceId::new(st.stx_rdev_major, st.stx_rdev_minor),
        size: st.stx_size,
        blksize: st.stx_blksize,
        blocks: st.stx_blocks,
        atime: time(st.stx_atime),
        mtime: time(st.stx_mtime),
        ctime: time(st.stx_ctime),
        btime: has_birth.then(|| time(st.stx_btime)),
    }
}

/// OVERLAYFS_SUPER_MAGIC.
const OVERLAYFS_MAGIC: rustix::fs::FsWord = 0x794c_7630;

/// The smallest logical block of a disk.
const SECTOR: u64 = 512;

/// What O_DIRECT wants positions and lengths in the open file `fd` to be multiples of: what the host's file system says (Linux 6.1), else a
/// sector; nothing on tmpfs, which transfers from memory to memory.
pub(crate) fn direct_block(fd: impl AsFd) -> u64 {
    match fs::statx(&fd, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) {
        Ok(st) if st.stx_mask & StatxFlags::DIOALIGN.bits() != 0 => st.stx_dio_offset_align.max(1).into(),
        _ if fs::fstatfs(&fd).is_ok_and(|fs| fs.f_type == TMPFS_MAGIC) => 1,
        _ => SECTOR,
    }
}

/// Whether the open file `fd` is one of an overlayfs, which passes RWF_APPEND on to nobody before Linux 6.12 or a little earlier, and
/// writes at the offset.
pub(crate) fn may_not_append(fd: impl AsFd) -> bool {
    fs::fstatfs(fd).is_ok_and(|fs| fs.f_type == OVERLAYFS_MAGIC)
}

/// statfs(2) by descriptor.
pub(super) fn file_system(fd: BorrowedFd<'_>) -> Result<Statfs> {
    let s = fs::fstatfs(fd).map_err(Errno::from)?;
    Ok(Statfs {
        f_type: s.f_type,
        f_bsize: s.f_bsize,
        f_blocks: s.f_blocks,
        f_bfree: s.f_bfree,
        f_bavail: s.f_bavail,
        f_files: s.f_files,
        f_ffree: s.f_ffree,
        f_namelen: 255,
        f_frsize: s.f_frsize,
        ..Statfs::default()
    })
}
