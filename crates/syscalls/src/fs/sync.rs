//! sync(2), fsync(2) and their like.

use moat_abi::Errno;
use moat_abi::fs::{FileType, SYNC_FILE_RANGE_WAIT_AFTER, SYNC_FILE_RANGE_WAIT_BEFORE, SYNC_FILE_RANGE_WRITE};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_vfs::{Fd, SyncKind};

use super::at::LookupStart;

syscalls! { pub static TABLE;
    74 fsync(fd: Fd) sys_fsync, full;
    75 fdatasync(fd: Fd) sys_fdatasync, full;
    162 sync() sys_sync, full;
    306 syncfs(fd: Fd) sys_syncfs, full;
    277 sync_file_range(fd: Fd, offset: i64, len: i64, flags: u32) sys_sync_file_range, partial("writes out the whole file");
}

fn sys_fsync(t: &mut CurrentTask, fd: Fd) -> SyscallResult {
    let f = t.fds().get(fd)?;
    f.file().sync(&f, SyncKind::All)?;
    Ok(0)
}

fn sys_fdatasync(t: &mut CurrentTask, fd: Fd) -> SyscallResult {
    let f = t.fds().get(fd)?;
    f.file().sync(&f, SyncKind::Data)?;
    Ok(0)
}

fn sys_sync(t: &mut CurrentTask) -> SyscallResult {
    for m in LookupStart::cwd(t).namespace.mounts() {
        // sync(2) has no way to report an error.
        let _ = m.fs().sync();
    }
    Ok(0)
}

fn sys_syncfs(t: &mut CurrentTask, fd: Fd) -> SyscallResult {
    let f = t.fds().get(fd)?;
    f.inode().sync_fs().unwrap_or_else(|| f.path().mount.fs().sync())?;
    Ok(0)
}

fn sys_sync_file_range(t: &mut CurrentTask, fd: Fd, offset: i64, len: i64, flags: u32) -> SyscallResult {
    let known = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    if flags & !known != 0 || offset < 0 || len < 0 || offset.checked_add(len).is_none() {
        return Err(Errno::EINVAL.into());
    }
    let f = t.fds().get(fd)?;
    match f.inode().file_type() {
        FileType::Regular => f.file().sync(&f, SyncKind::Data)?,
        FileType::Directory | FileType::BlockDevice => {}
        _ => return Err(Errno::ESPIPE.into()),
    }
    Ok(0)
}
