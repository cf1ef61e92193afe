//! epoll_create(2), epoll_ctl(2), epoll_wait(2).

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use moat_abi::fs::OpenFlags;
use moat_abi::poll::{EP_MAX_EVENTS, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EpollEvent};
use moat_abi::signal::SigSet;
use moat_abi::time::Timespec;
use moat_abi::{Errno, PollEvents};
use moat_kernel::{CurrentTask, Deadline, SyscallResult, Wait, WaitError};
use moat_mm::{UserAddr, UserPtr};
use moat_vfs::epoll::Epoll;
use moat_vfs::fd_table::OnExec;
use moat_vfs::{Fd, OpenFile};
use zerocopy::IntoBytes;

use super::open::install;
use super::poll::{deadline, set_mask, unset_mask};

syscalls! { pub static TABLE;
    213 epoll_create(size: i32) sys_epoll_create, full;
    291 epoll_create1(flags: u32) sys_epoll_create1, full;
    233 epoll_ctl(epfd: Fd, op: u32, fd: Fd, event: UserPtr<EpollEvent>) sys_epoll_ctl, full;
    232 epoll_wait(epfd: Fd, events: UserAddr, max: i32, timeout_ms: i32) async sys_epoll_wait, full;
    281 epoll_pwait(epfd: Fd, events: UserAddr, max: i32, timeout_ms: i32, mask: UserPtr<SigSet>, size: usize) async sys_epoll_pwait, full;
    441 epoll_pwait2(epfd: Fd, events: UserAddr, max: i32, timeout: UserPtr<Timespec>, mask: UserPtr<SigSet>, size: usize) async sys_epoll_pwait2, full;
}

fn sys_epoll_create(t: &mut CurrentTask, size: i32) -> SyscallResult {
    if size <= 0 {
        return Err(Errno::EINVAL.into());
    }
    sys_epoll_create1(t, 0)
}

fn sys_epoll_create1(t: &mut CurrentTask, flags: u32) -> SyscallResult {
    if flags & !EPOLL_CLOEXEC != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = t.kernel().vfs.open_anon("[eventpoll]", Epoll::new(), OpenFlags::RDWR, t.creds());
    install(t, file, OnExec::close_if(flags & EPOLL_CLOEXEC != 0))
}

fn sys_epoll_ctl(t: &mut CurrentTask, epfd: Fd, op: u32, fd: Fd, event: UserPtr<EpollEvent>) -> SyscallResult {
    // The event means nothing to EPOLL_CTL_DEL, and its pointer may be bad.
    let event = if op == EPOLL_CTL_DEL { EpollEvent::default() } else { t.mm().read(event)? };
    let own = t.fds().get(epfd)?;
    let target = t.fds().get(fd)?;
    // An epoll cannot watch itself; deeper circles are found by `add`.
    let epoll = own.downcast::<Epoll>().filter(|_| !Arc::ptr_eq(&own, &target)).ok_or(Errno::EINVAL)?;
    match op {
        EPOLL_CTL_ADD => epoll.add(fd, &target, event)?,
        EPOLL_CTL_MOD => epoll.modify(fd, &target, event)?,
        EPOLL_CTL_DEL => epoll.remove(fd, &target)?,
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// Events taken at a time: what is not taken stays ready.
const MOST: usize = 1024;

async fn wait(
    t: &mut CurrentTask,
    own: &OpenFile,
    events: UserAddr,
    max: i32,
    until: Option<Deadline>,
) -> SyscallResult {
    if max <= 0 || max > EP_MAX_EVENTS {
        return Err(Errno::EINVAL.into());
    }
    let max = usize::try_from(max).unwrap_or(MOST).min(MOST);
    let epoll = own.downcast::<Epoll>().ok_or(Errno::EINVAL)?;
    // Runs at once and after each wake-up; events are taken only as they are copied out.
    let look = |t: &mut CurrentTask| match epoll.deliver(max, |found| write_events(t, events, found)) {
        Ok(0) => Poll::Pending,
        done => Poll::Ready(done),
    };
    // Never restarted, whatever the handler's flags.
    let how = Wait::failing("ep_poll").until(until);
    match t.wait_for(&(own, PollEvents::IN), &how, look).await {
        Ok(done) => Ok(done? as u64),
        Err(WaitError::TimedOut) => Ok(0),
        Err(e) => Err(e.into()),
    }
}

/// Copies events out; gives how many could be copied whole.
fn write_events(t: &CurrentTask, to: UserAddr, events: &[EpollEvent]) -> usize {
    // Only whole events are given; what did not fit is put back.
    t.mm().write_partial(to, events.as_bytes()).unwrap_or(0) / size_of::<EpollEvent>()
}

fn milliseconds(timeout_ms: i32) -> Option<Deadline> {
    deadline(u64::try_from(timeout_ms).ok().map(Duration::from_millis))
}

async fn sys_epoll_wait(t: &mut CurrentTask, epfd: Fd, events: UserAddr, max: i32, timeout_ms: i32) -> SyscallResult {
    let own = t.fds().get(epfd)?;
    wait(t, &own, events, max, milliseconds(timeout_ms)).await
}

async fn masked(
    t: &mut CurrentTask,
    epfd: Fd,
    events: UserAddr,
    max: i32,
    until: Option<Deadline>,
    mask: (UserPtr<SigSet>, usize),
) -> SyscallResult {
    // Before the descriptor: a bad mask is the first error.
    set_mask(t, mask.0, mask.1)?;
    let result = match t.fds().get(epfd) {
        Ok(own) => wait(t, &own, events, max, until).await,
        Err(e) => Err(e.into()),
    };
    // Also after an error, but not after a signal, which is to be handled under the temporary mask.
    unset_mask(t, &result);
    result
}

async fn sys_epoll_pwait(
    t: &mut CurrentTask,
    epfd: Fd,
    events: UserAddr,
    max: i32,
    timeout_ms: i32,
    mask: UserPtr<SigSet>,
    size: usize,
) -> SyscallResult {
    masked(t, epfd, events, max, milliseconds(timeout_ms), (mask, size)).await
}

async fn sys_epoll_pwait2(
    t: &mut CurrentTask,
    epfd: Fd,
    events: UserAddr,
    max: i32,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<SigSet>,
    size: usize,
) -> SyscallResult {
    let span = match timeout.non_null() {
        None => None,
        Some(p) => Some(t.mm().read(p)?.to_duration()?),
    };
    masked(t, epfd, events, max, deadline(span), (mask, size)).await
}
