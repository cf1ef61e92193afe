//! eventfd(2), timerfd_create(2), signalfd(2).

use moat_abi::fs::OpenFlags;
use moat_abi::poll::{EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE, SFD_CLOEXEC, SFD_NONBLOCK};
use moat_abi::signal::SigSet;
use moat_abi::time::{Itimerspec, TFD_CLOEXEC, TFD_NONBLOCK, TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET};
use moat_abi::{Errno, Result};
use moat_fs_anon::eventfd::Take;
use moat_fs_anon::timerfd::When;
use moat_fs_anon::{EventFd, SignalFd, TimerFd};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::UserPtr;
use moat_vfs::Fd;
use moat_vfs::fd_table::OnExec;

use super::open::install;

syscalls! { pub static TABLE;
    284 eventfd(initial: u32) sys_eventfd, full;
    290 eventfd2(initial: u32, flags: u32) sys_eventfd2, full;
    283 timerfd_create(clock: i32, flags: u32) sys_timerfd_create, full;
    286 timerfd_settime(fd: Fd, flags: u32, new: UserPtr<Itimerspec>, old: UserPtr<Itimerspec>) sys_timerfd_settime, partial("the clock is never set, so nothing is ever cancelled");
    287 timerfd_gettime(fd: Fd, out: UserPtr<Itimerspec>) sys_timerfd_gettime, full;
    282 signalfd(fd: Fd, mask: UserPtr<SigSet>, size: usize) sys_signalfd, full;
    289 signalfd4(fd: Fd, mask: UserPtr<SigSet>, size: usize, flags: u32) sys_signalfd4, partial("signals of the process that made it, also after fork");
}

fn sys_eventfd(t: &mut CurrentTask, initial: u32) -> SyscallResult {
    sys_eventfd2(t, initial, 0)
}

fn nonblock(set: bool) -> OpenFlags {
    if set { OpenFlags::NONBLOCK } else { OpenFlags::empty() }
}

fn sys_eventfd2(t: &mut CurrentTask, initial: u32, flags: u32) -> SyscallResult {
    if flags & !(EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let take = if flags & EFD_SEMAPHORE != 0 { Take::One } else { Take::All };
    let file = EventFd::open(&t.kernel().vfs, initial, take, nonblock(flags & EFD_NONBLOCK != 0), t.creds());
    install(t, file, OnExec::close_if(flags & EFD_CLOEXEC != 0))
}

fn sys_timerfd_create(t: &mut CurrentTask, clock: i32, flags: u32) -> SyscallResult {
    if flags & !(TFD_NONBLOCK | TFD_CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = TimerFd::open(&t.kernel().vfs, clock, nonblock(flags & TFD_NONBLOCK != 0), t.creds())?;
    install(t, file, OnExec::close_if(flags & TFD_CLOEXEC != 0))
}

fn with_timer<R>(t: &CurrentTask, fd: Fd, body: impl FnOnce(&TimerFd) -> Result<R>) -> Result<R> {
    let f = t.fds().get(fd)?;
    // EINVAL for a descriptor of another kind, EBADF for none.
    body(f.downcast().ok_or(Errno::EINVAL)?)
}

fn sys_timerfd_settime(
    t: &mut CurrentTask,
    fd: Fd,
    flags: u32,
    new: UserPtr<Itimerspec>,
    old: UserPtr<Itimerspec>,
) -> SyscallResult {
    let spec = t.mm().read(new)?;
    if flags & !(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let when = if flags & TFD_TIMER_ABSTIME != 0 { When::Absolute } else { When::Relative };
    let before = with_timer(t, fd, |timer| timer.set(&spec, when))?;
    // Written after the timer is set: with a bad pointer the call has had its effect, as on Linux.
    if let Some(old) = old.non_null() {
        t.mm().write(old, &before)?;
    }
    Ok(0)
}

fn sys_timerfd_gettime(t: &mut CurrentTask, fd: Fd, out: UserPtr<Itimerspec>) -> SyscallResult {
    let now = with_timer(t, fd, |timer| Ok(timer.get()))?;
    t.mm().write(out, &now)?;
    Ok(0)
}

fn sys_signalfd(t: &mut CurrentTask, fd: Fd, mask: UserPtr<SigSet>, size: usize) -> SyscallResult {
    sys_signalfd4(t, fd, mask, size, 0)
}

fn sys_signalfd4(t: &mut CurrentTask, fd: Fd, mask: UserPtr<SigSet>, size: usize, flags: u32) -> SyscallResult {
    if size != size_of::<SigSet>() || flags & !(SFD_NONBLOCK | SFD_CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    // SIGKILL and SIGSTOP are left out without an error (signalfd(2)).
    let mask = t.mm().read(mask)?.difference(SigSet::UNBLOCKABLE);
    if fd.0 == -1 {
        let file = SignalFd::open(mask, t, nonblock(flags & SFD_NONBLOCK != 0));
        return install(t, file, OnExec::close_if(flags & SFD_CLOEXEC != 0));
    }
    let f = t.fds().get(fd)?;
    f.downcast::<SignalFd>().ok_or(Errno::EINVAL)?.set_mask(mask);
    Ok(i64::from(fd.0).cast_unsigned())
}
