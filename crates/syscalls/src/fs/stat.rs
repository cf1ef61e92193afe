//! stat(2), statx(2), statfs(2): attributes as guests read them.

use moat_abi::fs::AtFlags;
use moat_abi::stat::{
    ST_NOATIME, ST_NODEV, ST_NODIRATIME, ST_NOEXEC, ST_NOSUID, ST_NOSYMFOLLOW, ST_RDONLY, ST_RELATIME, ST_VALID,
    STATX_ATTR_MOUNT_ROOT, Stat, Statfs, Statx, StatxMask, StatxTimestamp,
};
use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::UserPtr;
use moat_vfs::walk::LookupFlags;
use moat_vfs::{Fd, Metadata, MountFlags, Path, UserNamespace};

use super::at::{find, is_empty, lookup_flags};
use crate::PathArg;

syscalls! { pub static TABLE;
    4 stat(path: PathArg, out: UserPtr<Stat>) sys_stat, full;
    5 fstat(fd: Fd, out: UserPtr<Stat>) sys_fstat, full;
    6 lstat(path: PathArg, out: UserPtr<Stat>) sys_lstat, full;
    262 newfstatat(dirfd: Fd, path: PathArg, out: UserPtr<Stat>, flags: u32) sys_newfstatat, full;
    332 statx(dirfd: Fd, path: PathArg, flags: u32, mask: u32, out: UserPtr<Statx>) sys_statx, full;
    137 statfs(path: PathArg, out: UserPtr<Statfs>) sys_statfs, full;
    138 fstatfs(fd: Fd, out: UserPtr<Statfs>) sys_fstatfs, full;
}

const AT_FLAGS: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::EMPTY_PATH).union(AtFlags::NO_AUTOMOUNT);
const STATX_FLAGS: AtFlags = AT_FLAGS.union(AtFlags::STATX_FORCE_SYNC).union(AtFlags::STATX_DONT_SYNC);

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn encode(m: &Metadata, ns: &UserNamespace) -> Stat {
    Stat {
        st_dev: m.dev.to_raw(),
        st_ino: m.ino,
        st_nlink: u64::from(m.nlink),
        st_mode: m.mode,
        st_uid: ns.show_uid(m.uid),
        st_gid: ns.show_gid(m.gid),
        st_rdev: m.rdev.to_raw(),
        st_size: signed(m.size),
        st_blksize: i64::from(m.blksize),
        st_blocks: signed(m.blocks),
        st_atime: m.atime.tv_sec,
        st_atime_nsec: m.atime.tv_nsec.cast_unsigned(),
        st_mtime: m.mtime.tv_sec,
        st_mtime_nsec: m.mtime.tv_nsec.cast_unsigned(),
        st_ctime: m.ctime.tv_sec,
        st_ctime_nsec: m.ctime.tv_nsec.cast_unsigned(),
        ..Stat::default()
    }
}

fn give(t: &CurrentTask, m: &Metadata, out: UserPtr<Stat>) -> SyscallResult {
    t.mm().write(out, &encode(m, &t.creds().user_ns))?;
    Ok(0)
}

fn sys_stat(t: &mut CurrentTask, path: PathArg, out: UserPtr<Stat>) -> SyscallResult {
    let m = find(t, Fd::CWD, path, LookupFlags::FOLLOW)?.inode().metadata()?;
    give(t, &m, out)
}

fn sys_lstat(t: &mut CurrentTask, path: PathArg, out: UserPtr<Stat>) -> SyscallResult {
    let m = find(t, Fd::CWD, path, LookupFlags::empty())?.inode().metadata()?;
    give(t, &m, out)
}

fn sys_fstat(t: &mut CurrentTask, fd: Fd, out: UserPtr<Stat>) -> SyscallResult {
    let m = t.fds().get_any(fd)?.metadata()?;
    give(t, &m, out)
}

/// The attributes of a name or, for an empty one, of the descriptor, and where it is.
fn look(t: &CurrentTask, dirfd: Fd, path: PathArg, lookup: LookupFlags) -> Result<(Metadata, Path)> {
    let empty = lookup.contains(LookupFlags::EMPTY_PATH) && (path.0.is_null() || is_empty(t, path));
    // Attributes of a file without a name come from the description (fstat(2)).
    if empty && dirfd != Fd::CWD {
        let f = t.fds().get_any(dirfd)?;
        return Ok((f.metadata()?, f.path().clone()));
    }
    let found = find(t, dirfd, path, lookup)?;
    Ok((found.inode().metadata()?, found))
}

fn sys_newfstatat(t: &mut CurrentTask, dirfd: Fd, path: PathArg, out: UserPtr<Stat>, flags: u32) -> SyscallResult {
    let lookup = lookup_flags(flags, AT_FLAGS)?;
    let (m, _) = look(t, dirfd, path, lookup)?;
    give(t, &m, out)
}

fn timestamp(t: Timespec) -> StatxTimestamp {
    StatxTimestamp { tv_sec: t.tv_sec, tv_nsec: u32::try_from(t.tv_nsec).unwrap_or(0), reserved: 0 }
}

fn sys_statx(
    t: &mut CurrentTask,
    dirfd: Fd,
    path: PathArg,
    flags: u32,
    mask: u32,
    out: UserPtr<Statx>,
) -> SyscallResult {
    let sync = AtFlags::STATX_FORCE_SYNC | AtFlags::STATX_DONT_SYNC;
    // A wish for the newest and for whatever is cached contradict each other.
    if mask & StatxMask::RESERVED.bits() != 0 || AtFlags::from_bits_retain(flags).contains(sync) {
        return Err(Errno::EINVAL.into());
    }
    let lookup = lookup_flags(flags, STATX_FLAGS)?;
    let (m, at) = look(t, dirfd, path, lookup)?;
    let ns = &t.creds().user_ns;
    let mut have = StatxMask::BASIC_STATS | StatxMask::MNT_ID;
    // Only file systems that keep it can tell.
    have.set(StatxMask::BTIME, m.btime.is_some());
    let x = Statx {
        stx_mask: have.bits(),
        stx_blksize: m.blksize,
        stx_attributes: if at.is_mount_root() { STATX_ATTR_MOUNT_ROOT } else { 0 },
        stx_attributes_mask: STATX_ATTR_MOUNT_ROOT,
        stx_nlink: m.nlink,
        stx_uid: ns.show_uid(m.uid),
        stx_gid: ns.show_gid(m.gid),
        stx_mode: u16::try_from(m.mode).unwrap_or(0),
        stx_ino: m.ino,
        stx_size: m.size,
        stx_blocks: m.blocks,
        stx_atime: timestamp(m.atime),
        stx_btime: timestamp(m.btime.unwrap_or_default()),
        stx_ctime: timestamp(m.ctime),
        stx_mtime: timestamp(m.mtime),
        stx_rdev_major: m.rdev.major,
        stx_rdev_minor: m.rdev.minor,
        stx_dev_major: m.dev.major,
        stx_dev_minor: m.dev.minor,
        stx_mnt_id: at.mount.id(),
        ..Statx::default()
    };
    t.mm().write(out, &x)?;
    Ok(0)
}

fn statfs(t: &CurrentTask, at: &Path, out: UserPtr<Statfs>) -> SyscallResult {
    let mut s = at.inode().statfs().unwrap_or_else(|| at.mount.fs().statfs())?;
    let flags = at.mount.flags();
    let pairs = [
        (MountFlags::RDONLY, ST_RDONLY),
        (MountFlags::NOSUID, ST_NOSUID),
        (MountFlags::NODEV, ST_NODEV),
        (MountFlags::NOEXEC, ST_NOEXEC),
        (MountFlags::NOSYMFOLLOW, ST_NOSYMFOLLOW),
        (MountFlags::NOATIME, ST_NOATIME),
        (MountFlags::NODIRATIME, ST_NODIRATIME),
        (MountFlags::RELATIME, ST_RELATIME),
    ];
    s.f_flags |= pairs.iter().filter(|p| flags.contains(p.0)).fold(ST_VALID, |all, p| all | p.1);
    t.mm().write(out, &s)?;
    Ok(0)
}

fn sys_statfs(t: &mut CurrentTask, path: PathArg, out: UserPtr<Statfs>) -> SyscallResult {
    let at = find(t, Fd::CWD, path, LookupFlags::FOLLOW)?;
    statfs(t, &at, out)
}

fn sys_fstatfs(t: &mut CurrentTask, fd: Fd, out: UserPtr<Statfs>) -> SyscallResult {
    let f = t.fds().get_any(fd)?;
    statfs(t, f.path(), out)
}
