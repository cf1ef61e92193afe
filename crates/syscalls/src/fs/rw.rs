//! read(2), write(2), their positional and vectored forms, lseek(2).

use std::sync::Arc;

use moat_abi::fs::{FileType, RwFlags};
use moat_abi::{Errno, Result};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::UserAddr;
use moat_mm::iovec::IoVec;
use moat_vfs::{Fd, OpenFile, SyncKind};

use super::io::{self, Append, At, Blocking};

syscalls! { pub static TABLE;
    0 read(fd: Fd, buf: UserAddr, count: usize) async sys_read, full;
    1 write(fd: Fd, buf: UserAddr, count: usize) async sys_write, full;
    8 lseek(fd: Fd, offset: i64, whence: u32) sys_lseek, full;
    17 pread64(fd: Fd, buf: UserAddr, count: usize, offset: i64) async sys_pread64, full;
    18 pwrite64(fd: Fd, buf: UserAddr, count: usize, offset: i64) async sys_pwrite64, full;
    19 readv(fd: Fd, vec: UserAddr, count: usize) async sys_readv, full;
    20 writev(fd: Fd, vec: UserAddr, count: usize) async sys_writev, full;
    295 preadv(fd: Fd, vec: UserAddr, count: usize, offset: i64) async sys_preadv, full;
    296 pwritev(fd: Fd, vec: UserAddr, count: usize, offset: i64) async sys_pwritev, full;
    327 preadv2(fd: Fd, vec: UserAddr, count: usize, offset: i64, high: u64, flags: u32) async sys_preadv2, full;
    328 pwritev2(fd: Fd, vec: UserAddr, count: usize, offset: i64, high: u64, flags: u32) async sys_pwritev2, full;
}

/// The file of `fd` for a call that reads at `at`, before anything else of the call is looked at.
///
/// # Errors
/// EBADF for what is not open for reading; ESPIPE for an offset in what has no positions, first.
fn source(t: &CurrentTask, fd: Fd, at: At) -> Result<Arc<OpenFile>> {
    let f = positional(t, fd, at)?;
    f.check_readable()?;
    Ok(f)
}

/// As [`source`], for a call that writes.
fn sink(t: &CurrentTask, fd: Fd, at: At) -> Result<Arc<OpenFile>> {
    let f = positional(t, fd, at)?;
    f.check_writable()?;
    Ok(f)
}

fn positional(t: &CurrentTask, fd: Fd, at: At) -> Result<Arc<OpenFile>> {
    let f = t.fds().get(fd)?;
    if at != At::Position {
        f.check_positional()?;
    }
    Ok(f)
}

async fn sys_read(t: &mut CurrentTask, fd: Fd, buf: UserAddr, count: usize) -> SyscallResult {
    let f = source(t, fd, At::Position)?;
    io::read(t, &f, &IoVec::single(buf, count)?, At::Position, Blocking::ByFlags).await
}

async fn sys_write(t: &mut CurrentTask, fd: Fd, buf: UserAddr, count: usize) -> SyscallResult {
    let f = sink(t, fd, At::Position)?;
    io::write(t, &f, &IoVec::single(buf, count)?, At::Position, Append::ByFlags, Blocking::ByFlags).await
}

fn sys_lseek(t: &mut CurrentTask, fd: Fd, offset: i64, whence: u32) -> SyscallResult {
    Ok(t.fds().get(fd)?.seek(offset, whence)?)
}

fn checked_offset(offset: i64) -> Result<At> {
    u64::try_from(offset).map(At::Offset).map_err(|_| Errno::EINVAL)
}

async fn sys_pread64(t: &mut CurrentTask, fd: Fd, buf: UserAddr, count: usize, offset: i64) -> SyscallResult {
    let at = checked_offset(offset)?;
    let f = source(t, fd, at)?;
    io::read(t, &f, &IoVec::single(buf, count)?, at, Blocking::ByFlags).await
}

async fn sys_pwrite64(t: &mut CurrentTask, fd: Fd, buf: UserAddr, count: usize, offset: i64) -> SyscallResult {
    let at = checked_offset(offset)?;
    let f = sink(t, fd, at)?;
    io::write(t, &f, &IoVec::single(buf, count)?, at, Append::ByFlags, Blocking::ByFlags).await
}

async fn sys_readv(t: &mut CurrentTask, fd: Fd, vec: UserAddr, count: usize) -> SyscallResult {
    read_vec(t, fd, vec, count, At::Position, Blocking::ByFlags).await
}

async fn sys_writev(t: &mut CurrentTask, fd: Fd, vec: UserAddr, count: usize) -> SyscallResult {
    write_vec(t, fd, vec, count, At::Position, Append::ByFlags, Blocking::ByFlags).await
}

async fn sys_preadv(t: &mut CurrentTask, fd: Fd, vec: UserAddr, count: usize, offset: i64) -> SyscallResult {
    read_vec(t, fd, vec, count, checked_offset(offset)?, Blocking::ByFlags).await
}

async fn sys_pwritev(t: &mut CurrentTask, fd: Fd, vec: UserAddr, count: usize, offset: i64) -> SyscallResult {
    write_vec(t, fd, vec, count, checked_offset(offset)?, Append::ByFlags, Blocking::ByFlags).await
}

/// Offset -1 is the position.
fn offset_or_position(offset: i64) -> Result<At> {
    if offset == -1 { Ok(At::Position) } else { checked_offset(offset) }
}

fn checked_flags(flags: u32) -> Result<RwFlags> {
    // RWF_ATOMIC and unknown flags are refused.
    let known = RwFlags::HIPRI | RwFlags::DSYNC | RwFlags::SYNC | RwFlags::NOWAIT | RwFlags::APPEND | RwFlags::NOAPPEND;
    RwFlags::from_bits(flags).filter(|f| known.contains(*f)).ok_or(Errno::EOPNOTSUPP)
}

fn blocking(flags: RwFlags) -> Blocking {
    if flags.contains(RwFlags::NOWAIT) { Blocking::Never } else { Blocking::ByFlags }
}

async fn sys_preadv2(
    t: &mut CurrentTask,
    fd: Fd,
    vec: UserAddr,
    count: usize,
    offset: i64,
    _high: u64,
    flags: u32,
) -> SyscallResult {
    let at = offset_or_position(offset)?;
    let f = source(t, fd, at)?;
    let iov = t.mm().read_iovecs(vec, count)?;
    read_into(t, &f, &iov, at, flags).await
}

/// Reads from a file that is open for reading, as the flags of preadv2(2) say.
pub(super) async fn read_into(
    t: &mut CurrentTask,
    f: &Arc<OpenFile>,
    iov: &IoVec,
    at: At,
    flags: u32,
) -> SyscallResult {
    let flags = checked_flags(flags)?;
    // Nothing can be read behind the end.
    if flags.contains(RwFlags::APPEND) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    io::read(t, f, iov, at, blocking(flags)).await
}

async fn sys_pwritev2(
    t: &mut CurrentTask,
    fd: Fd,
    vec: UserAddr,
    count: usize,
    offset: i64,
    _high: u64,
    flags: u32,
) -> SyscallResult {
    let at = offset_or_position(offset)?;
    let f = sink(t, fd, at)?;
    let iov = t.mm().read_iovecs(vec, count)?;
    write_from(t, &f, &iov, at, flags).await
}

/// Writes to a file that is open for writing, as the flags of pwritev2(2) say.
pub(super) async fn write_from(
    t: &mut CurrentTask,
    f: &Arc<OpenFile>,
    iov: &IoVec,
    at: At,
    flags: u32,
) -> SyscallResult {
    let flags = checked_flags(flags)?;
    // They contradict each other.
    if flags.contains(RwFlags::APPEND | RwFlags::NOAPPEND) {
        return Err(Errno::EINVAL.into());
    }
    let append = if flags.contains(RwFlags::APPEND) { Append::Yes } else { Append::ByFlags };
    let n = io::write(t, f, iov, at, append, blocking(flags)).await?;
    if flags.intersects(RwFlags::DSYNC | RwFlags::SYNC) {
        let kind = if flags.contains(RwFlags::SYNC) { SyncKind::All } else { SyncKind::Data };
        // A stream has nothing to write out.
        if f.inode().file_type() == FileType::Regular {
            f.file().sync(f, kind)?;
        }
    }
    Ok(n)
}

async fn read_vec(
    t: &mut CurrentTask,
    fd: Fd,
    vec: UserAddr,
    count: usize,
    at: At,
    blocking: Blocking,
) -> SyscallResult {
    let f = source(t, fd, at)?;
    let iov = t.mm().read_iovecs(vec, count)?;
    io::read(t, &f, &iov, at, blocking).await
}

async fn write_vec(
    t: &mut CurrentTask,
    fd: Fd,
    vec: UserAddr,
    count: usize,
    at: At,
    append: Append,
    blocking: Blocking,
) -> SyscallResult {
    let f = sink(t, fd, at)?;
    let iov = t.mm().read_iovecs(vec, count)?;
    io::write(t, &f, &iov, at, append, blocking).await
}
