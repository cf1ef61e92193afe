//! inotify_init(2), inotify_add_watch(2), inotify_rm_watch(2).

use std::any::Any;
use std::sync::Arc;

use moat_abi::fs::{IN_CLOEXEC, IN_NONBLOCK, InotifyMask, OpenFlags};
use moat_abi::{Errno, Result};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_vfs::fd_table::OnExec;
use moat_vfs::inotify::Inotify;
use moat_vfs::walk::LookupFlags;
use moat_vfs::{Access, Fd, OpenFile};

use super::at::find;
use super::open::install;
use crate::PathArg;

syscalls! { pub static TABLE;
    253 inotify_init() sys_inotify_init, full;
    294 inotify_init1(flags: u32) sys_inotify_init1, full;
    254 inotify_add_watch(fd: Fd, path: PathArg, mask: u32) sys_inotify_add_watch, full;
    255 inotify_rm_watch(fd: Fd, wd: i32) sys_inotify_rm_watch, full;
}

fn sys_inotify_init(t: &mut CurrentTask) -> SyscallResult {
    sys_inotify_init1(t, 0)
}

fn sys_inotify_init1(t: &mut CurrentTask, flags: u32) -> SyscallResult {
    if flags & !(IN_NONBLOCK | IN_CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let nonblock = if flags & IN_NONBLOCK != 0 { OpenFlags::NONBLOCK } else { OpenFlags::empty() };
    let file = Inotify::open(&t.kernel().vfs, nonblock, t.creds())?;
    install(t, file, OnExec::close_if(flags & IN_CLOEXEC != 0))
}

fn instance(f: &OpenFile) -> Result<Arc<Inotify>> {
    let any: Arc<dyn Any + Send + Sync> = f.file().clone();
    any.downcast().map_err(|_| Errno::EINVAL)
}

fn sys_inotify_add_watch(t: &mut CurrentTask, fd: Fd, path: PathArg, mask: u32) -> SyscallResult {
    let mask = InotifyMask::from_bits(mask).filter(|m| !m.is_empty()).ok_or(Errno::EINVAL)?;
    let f = t.fds().get(fd)?;
    // The two contradict each other.
    if mask.contains(InotifyMask::MASK_ADD | InotifyMask::MASK_CREATE) {
        return Err(Errno::EINVAL.into());
    }
    let instance = instance(&f)?;
    let mut lookup = LookupFlags::empty();
    lookup.set(LookupFlags::FOLLOW, !mask.contains(InotifyMask::DONT_FOLLOW));
    lookup.set(LookupFlags::DIRECTORY, mask.contains(InotifyMask::ONLYDIR));
    let at = find(t, Fd::CWD, path, lookup)?;
    // Whoever may not read a file may not watch it either.
    at.inode().permission(t.creds(), Access::READ)?;
    let wd = instance.watch(&at, mask)?;
    Ok(i64::from(wd).cast_unsigned())
}

fn sys_inotify_rm_watch(t: &mut CurrentTask, fd: Fd, wd: i32) -> SyscallResult {
    let f = t.fds().get(fd)?;
    instance(&f)?.unwatch(wd)?;
    Ok(0)
}
