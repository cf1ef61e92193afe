//! close(2), dup(2) and its like, close_range(2), umask(2).

use std::sync::Arc;

use moat_abi::Errno;
use moat_abi::fs::{CLOSE_RANGE_CLOEXEC, CLOSE_RANGE_UNSHARE, OpenFlags};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_vfs::Fd;
use moat_vfs::fd_table::OnExec;

use super::open::{fd_limit, install};

syscalls! { pub static TABLE;
    3 close(fd: Fd) sys_close, full;
    32 dup(fd: Fd) sys_dup, full;
    33 dup2(old: Fd, new: Fd) sys_dup2, full;
    292 dup3(old: Fd, new: Fd, flags: OpenFlags) sys_dup3, full;
    436 close_range(first: u32, last: u32, flags: u32) sys_close_range, full;
    95 umask(mask: u32) sys_umask, full;
}

fn sys_close(t: &mut CurrentTask, fd: Fd) -> SyscallResult {
    t.fds().close(fd)?;
    Ok(0)
}

fn sys_dup(t: &mut CurrentTask, fd: Fd) -> SyscallResult {
    let f = t.fds().get_any(fd)?;
    install(t, f, OnExec::Keep)
}

fn replace(t: &CurrentTask, old: Fd, new: Fd, on_exec: OnExec) -> SyscallResult {
    let f = t.fds().get_any(old)?;
    t.fds().replace(new, f, fd_limit(t), on_exec)?;
    Ok(i64::from(new.0).cast_unsigned())
}

fn sys_dup2(t: &mut CurrentTask, old: Fd, new: Fd) -> SyscallResult {
    // Nothing is closed, but the descriptor has to be open (dup2(2)).
    if old == new {
        t.fds().get_any(old)?;
        return Ok(i64::from(new.0).cast_unsigned());
    }
    replace(t, old, new, OnExec::Keep)
}

fn sys_dup3(t: &mut CurrentTask, old: Fd, new: Fd, flags: OpenFlags) -> SyscallResult {
    // Unlike dup2(2), which does nothing.
    if !OpenFlags::CLOEXEC.contains(flags) || old == new {
        return Err(Errno::EINVAL.into());
    }
    replace(t, old, new, OnExec::close_if(flags.contains(OpenFlags::CLOEXEC)))
}

fn sys_close_range(t: &mut CurrentTask, first: u32, last: u32, flags: u32) -> SyscallResult {
    if flags & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 || first > last {
        return Err(Errno::EINVAL.into());
    }
    if flags & CLOSE_RANGE_UNSHARE != 0 {
        // A table of its own first, so that nobody who shares the old one loses descriptors.
        let own = Arc::new(t.fds().copy());
        t.replace_fds(own);
    }
    if flags & CLOSE_RANGE_CLOEXEC != 0 {
        t.fds().cloexec_range(first, last);
    } else {
        t.fds().close_range(first, last);
    }
    Ok(0)
}

fn sys_umask(t: &mut CurrentTask, mask: u32) -> SyscallResult {
    let mut fs = t.fs().lock();
    Ok(u64::from(std::mem::replace(&mut fs.umask, mask & 0o777)))
}
