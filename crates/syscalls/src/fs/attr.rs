//! chmod(2), chown(2), utimensat(2) and their families.

use moat_abi::fs::AtFlags;
use moat_abi::time::{Timespec, Timeval, Utimbuf};
use moat_abi::{Errno, Result};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::UserPtr;
use moat_vfs::walk::LookupFlags;
use moat_vfs::{Fd, Path, ops};

use super::at::{find, lookup_flags};
use crate::PathArg;

syscalls! { pub static TABLE;
    90 chmod(path: PathArg, mode: u32) sys_chmod, full;
    91 fchmod(fd: Fd, mode: u32) sys_fchmod, full;
    268 fchmodat(dirfd: Fd, path: PathArg, mode: u32) sys_fchmodat, full;
    452 fchmodat2(dirfd: Fd, path: PathArg, mode: u32, flags: u32) sys_fchmodat2, full;
    92 chown(path: PathArg, uid: u32, gid: u32) sys_chown, full;
    93 fchown(fd: Fd, uid: u32, gid: u32) sys_fchown, full;
    94 lchown(path: PathArg, uid: u32, gid: u32) sys_lchown, full;
    260 fchownat(dirfd: Fd, path: PathArg, uid: u32, gid: u32, flags: u32) sys_fchownat, full;
    132 utime(path: PathArg, times: UserPtr<Utimbuf>) sys_utime, full;
    235 utimes(path: PathArg, times: UserPtr<[Timeval; 2]>) sys_utimes, full;
    261 futimesat(dirfd: Fd, path: PathArg, times: UserPtr<[Timeval; 2]>) sys_futimesat, full;
    280 utimensat(dirfd: Fd, path: PathArg, times: UserPtr<[Timespec; 2]>, flags: u32) sys_utimensat, full;
}

const AT_FLAGS: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::EMPTY_PATH);

fn sys_chmod(t: &mut CurrentTask, path: PathArg, mode: u32) -> SyscallResult {
    sys_fchmodat2(t, Fd::CWD, path, mode, 0)
}

fn sys_fchmod(t: &mut CurrentTask, fd: Fd, mode: u32) -> SyscallResult {
    let f = t.fds().get(fd)?;
    ops::chmod(t.creds(), f.path(), mode)?;
    Ok(0)
}

fn sys_fchmodat(t: &mut CurrentTask, dirfd: Fd, path: PathArg, mode: u32) -> SyscallResult {
    sys_fchmodat2(t, dirfd, path, mode, 0)
}

fn sys_fchmodat2(t: &mut CurrentTask, dirfd: Fd, path: PathArg, mode: u32, flags: u32) -> SyscallResult {
    let at = find(t, dirfd, path, lookup_flags(flags, AT_FLAGS)?)?;
    ops::chmod(t.creds(), &at, mode)?;
    Ok(0)
}

/// Changes the owner; -1 leaves an id as it is, and an id without a mapping is EINVAL.
fn change_owner(t: &CurrentTask, at: &Path, uid: u32, gid: u32) -> SyscallResult {
    let ns = &t.creds().user_ns;
    // -1 is "leave as it is" even where an id of that number is mapped.
    let uid = if uid == u32::MAX { None } else { Some(ns.kernel_uid(uid).ok_or(Errno::EINVAL)?) };
    let gid = if gid == u32::MAX { None } else { Some(ns.kernel_gid(gid).ok_or(Errno::EINVAL)?) };
    ops::chown(t.creds(), at, uid, gid)?;
    Ok(0)
}

fn sys_chown(t: &mut CurrentTask, path: PathArg, uid: u32, gid: u32) -> SyscallResult {
    sys_fchownat(t, Fd::CWD, path, uid, gid, 0)
}

fn sys_lchown(t: &mut CurrentTask, path: PathArg, uid: u32, gid: u32) -> SyscallResult {
    sys_fchownat(t, Fd::CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW.bits())
}

fn sys_fchown(t: &mut CurrentTask, fd: Fd, uid: u32, gid: u32) -> SyscallResult {
    let f = t.fds().get(fd)?;
    change_owner(t, f.path(), uid, gid)
}

fn sys_fchownat(t: &mut CurrentTask, dirfd: Fd, path: PathArg, uid: u32, gid: u32, flags: u32) -> SyscallResult {
    let at = find(t, dirfd, path, lookup_flags(flags, AT_FLAGS)?)?;
    change_owner(t, &at, uid, gid)
}

fn sys_utime(t: &mut CurrentTask, path: PathArg, times: UserPtr<Utimbuf>) -> SyscallResult {
    let times = match times.non_null() {
        None => None,
        Some(p) => {
            let u = t.mm().read(p)?;
            Some([Timespec { tv_sec: u.actime, tv_nsec: 0 }, Timespec { tv_sec: u.modtime, tv_nsec: 0 }])
        }
    };
    let at = find(t, Fd::CWD, path, LookupFlags::FOLLOW)?;
    set_times(t, &at, times)
}

fn sys_utimes(t: &mut CurrentTask, path: PathArg, times: UserPtr<[Timeval; 2]>) -> SyscallResult {
    sys_futimesat(t, Fd::CWD, path, times)
}

fn from_timeval(v: Timeval) -> Result<Timespec> {
    // One is checked before the path, so EINVAL wins over ENOENT.
    if !(0..1_000_000).contains(&v.tv_usec) {
        return Err(Errno::EINVAL);
    }
    Ok(Timespec { tv_sec: v.tv_sec, tv_nsec: v.tv_usec.saturating_mul(1000) })
}

fn sys_futimesat(t: &mut CurrentTask, dirfd: Fd, path: PathArg, times: UserPtr<[Timeval; 2]>) -> SyscallResult {
    let times = match times.non_null() {
        None => None,
        Some(p) => {
            let [a, m] = t.mm().read(p)?;
            Some([from_timeval(a)?, from_timeval(m)?])
        }
    };
    let at = place(t, dirfd, path, LookupFlags::FOLLOW)?;
    set_times(t, &at, times)
}

/// The file of a path or, without a path, of the descriptor itself.
fn place(t: &CurrentTask, dirfd: Fd, path: PathArg, lookup: LookupFlags) -> Result<Path> {
    // glibc's futimes(3) and futimens(3) give no path.
    if path.0.is_null() && dirfd != Fd::CWD {
        return Ok(t.fds().get(dirfd)?.path().clone());
    }
    find(t, dirfd, path, lookup)
}

fn set_times(t: &CurrentTask, at: &Path, times: Option<[Timespec; 2]>) -> SyscallResult {
    ops::set_times(t.creds(), at, ops::check_times(times)?)?;
    Ok(0)
}

fn sys_utimensat(
    t: &mut CurrentTask,
    dirfd: Fd,
    path: PathArg,
    times: UserPtr<[Timespec; 2]>,
    flags: u32,
) -> SyscallResult {
    let times = match times.non_null() {
        None => None,
        Some(p) => Some(t.mm().read(p)?),
    };
    let checked = ops::check_times(times)?;
    // Nothing to do: not even the path is looked at.
    if checked.atime.is_none() && checked.mtime.is_none() {
        return Ok(0);
    }
    // Without a path there is no link that could be left alone (`do_utimes`).
    if path.0.is_null() && flags & !AtFlags::SYMLINK_NOFOLLOW.bits() == 0 && flags != 0 && dirfd != Fd::CWD {
        return Err(Errno::EINVAL.into());
    }
    let at = place(t, dirfd, path, lookup_flags(flags, AT_FLAGS)?)?;
    ops::set_times(t.creds(), &at, checked)?;
    Ok(0)
}
