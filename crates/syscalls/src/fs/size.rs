//! truncate(2), ftruncate(2), fallocate(2), and advice about ranges.

use std::time::{Duration, Instant};

use moat_abi::fs::{
    FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_UNSHARE_RANGE, FALLOC_FL_ZERO_RANGE, FileType, InotifyMask, POSIX_FADV_NOREUSE,
};
use moat_abi::signal::Signal;
use moat_abi::stat::TMPFS_MAGIC;
use moat_abi::{Errno, Result};
use moat_identity::Resource;
use moat_kernel::task::work::Work;
use moat_kernel::{CurrentTask, SyscallResult};
use moat_sync::executor::{end_turn, is_turn_over};
use moat_vfs::inode::SetAttr;
use moat_vfs::leases::Breaker;
use moat_vfs::walk::LookupFlags;
use moat_vfs::{Access, Fd, OpenFile, ops};

use super::at::find;
use super::leases;
use crate::PathArg;

syscalls! { pub static TABLE;
    76 truncate(path: PathArg, len: i64) async sys_truncate, full;
    77 ftruncate(fd: Fd, len: i64) sys_ftruncate, full;
    285 fallocate(fd: Fd, mode: u32, offset: i64, len: i64) async sys_fallocate, full;
    221 fadvise64(fd: Fd, offset: i64, len: i64, advice: u32) sys_fadvise64, stub("checked, and left to the host's page cache");
    187 readahead(fd: Fd, offset: i64, count: usize) sys_readahead, stub("checked, and left to the host's page cache");
}

/// Checks RLIMIT_FSIZE for a file that is to grow to `len`.
fn check_limit(t: &mut CurrentTask, old: u64, len: u64) -> Result<()> {
    if len > old && len > t.group.limits.get(Resource::FileSize).soft {
        t.send_to_self(Signal::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(())
}

async fn sys_truncate(t: &mut CurrentTask, path: PathArg, len: i64) -> SyscallResult {
    let len = u64::try_from(len).map_err(|_| Errno::EINVAL)?;
    let at = find(t, Fd::CWD, path, LookupFlags::FOLLOW)?;
    // The type decides before any right does.
    let inode = at.inode();
    match inode.file_type() {
        FileType::Directory => return Err(Errno::EISDIR.into()),
        FileType::Regular => {}
        _ => return Err(Errno::EINVAL.into()),
    }
    inode.permission(t.creds(), Access::WRITE)?;
    at.mount.check_writable()?;
    // After the rights: the signal is not for a file that could not be written anyway.
    check_limit(t, inode.metadata()?.size, len)?;
    if !t.kernel().vfs.leases.is_empty() {
        let key = inode.metadata()?.key();
        // One lease after another may be in the way.
        while let Some(leases) = t.kernel().vfs.leases.break_for(key, Breaker::Writer) {
            leases::wait(t, &leases, Breaker::Writer).await?;
        }
    }
    ops::set_size(t.creds(), &at, len)?;
    Ok(0)
}

fn sys_ftruncate(t: &mut CurrentTask, fd: Fd, len: i64) -> SyscallResult {
    let len = u64::try_from(len).map_err(|_| Errno::EINVAL)?;
    let f = t.fds().get(fd)?;
    if f.inode().file_type() != FileType::Regular || f.check_writable().is_err() {
        return Err(Errno::EINVAL.into());
    }
    check_limit(t, f.metadata()?.size, len)?;
    f.file().truncate(&f, len)?;
    f.notify_attributes(&SetAttr::size(len));
    Ok(0)
}

fn check_mode(mode: u32) -> Result<()> {
    let kinds = FALLOC_FL_PUNCH_HOLE
        | FALLOC_FL_COLLAPSE_RANGE
        | FALLOC_FL_ZERO_RANGE
        | FALLOC_FL_INSERT_RANGE
        | FALLOC_FL_UNSHARE_RANGE;
    // The modes exclude one another; KEEP_SIZE goes with some.
    if mode & !(kinds | FALLOC_FL_KEEP_SIZE) != 0 || (mode & kinds).count_ones() > 1 {
        return Err(Errno::EOPNOTSUPP);
    }
    let keep = mode & FALLOC_FL_KEEP_SIZE != 0;
    // A hole never changes the size.
    if mode & FALLOC_FL_PUNCH_HOLE != 0 && !keep {
        return Err(Errno::EOPNOTSUPP);
    }
    // They are about the size.
    if mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE) != 0 && keep {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

async fn sys_fallocate(t: &mut CurrentTask, fd: Fd, mode: u32, offset: i64, len: i64) -> SyscallResult {
    let f = t.fds().get(fd)?;
    let offset = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
    let len = u64::try_from(len).ok().filter(|l| *l > 0).ok_or(Errno::EINVAL)?;
    check_mode(mode)?;
    // EBADF comes after the arguments' own errors (`vfs_fallocate`).
    f.check_writable()?;
    match f.inode().file_type() {
        FileType::Regular => {}
        FileType::Fifo => return Err(Errno::ESPIPE.into()),
        FileType::Directory => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::ENODEV.into()),
    }
    let end = offset.checked_add(len).filter(|e| i64::try_from(*e).is_ok()).ok_or(Errno::EFBIG)?;
    if mode & FALLOC_FL_KEEP_SIZE == 0 {
        check_limit(t, f.metadata()?.size, end)?;
    }
    if mode & !FALLOC_FL_KEEP_SIZE == 0 {
        reserve(t, &f, mode, offset, end).await?;
    } else {
        f.file().fallocate(&f, mode, offset, len)?;
    }
    f.notify(InotifyMask::MODIFY);
    Ok(0)
}

/// Bytes that are reserved at a time at first: of memory, some milliseconds. A disk takes more in less.
const RESERVE_BYTES: u64 = 16 << 20;
/// A piece that took no longer is followed by one of twice the size.
const SHORT: Duration = Duration::from_micros(500);

/// Reserves `offset..end`, unless its task is killed. The file is as long as before if there is not enough, and one in memory as
/// large: what was reserved may be all that there was (`shmem_fallocate`).
async fn reserve(t: &mut CurrentTask, f: &OpenFile, mode: u32, offset: u64, end: u64) -> Result<()> {
    let size = f.metadata()?.size;
    let in_memory = f.path().mount.fs().statfs()?.f_type == TMPFS_MAGIC;
    let (mut at, mut piece) = (offset, RESERVE_BYTES);
    while at < end {
        let (len, start) = (end.saturating_sub(at).min(piece), Instant::now());
        let reserved = match at > offset && t.task().work().contains(Work::KILL) {
            true => Err(Errno::EINTR),
            false => f.file().fallocate(f, mode, at, len),
        };
        if let Err(errno) = reserved {
            if at > offset && (in_memory || f.metadata()?.size > size) {
                f.file().truncate(f, size)?;
            }
            return Err(errno);
        }
        at = at.saturating_add(len);
        if start.elapsed() <= SHORT {
            piece = piece.saturating_mul(2);
        }
        if at < end && is_turn_over() {
            end_turn().await;
        }
    }
    Ok(())
}

fn sys_fadvise64(t: &mut CurrentTask, fd: Fd, _offset: i64, len: i64, advice: u32) -> SyscallResult {
    let f = t.fds().get(fd)?;
    if f.inode().file_type() == FileType::Fifo {
        return Err(Errno::ESPIPE.into());
    }
    if len < 0 || advice > POSIX_FADV_NOREUSE {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}

fn sys_readahead(t: &mut CurrentTask, fd: Fd, _offset: i64, _count: usize) -> SyscallResult {
    let f = t.fds().get(fd)?;
    f.check_readable()?;
    if f.inode().file_type() != FileType::Regular {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}
