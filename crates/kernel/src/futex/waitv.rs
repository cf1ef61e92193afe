//! futex_waitv(2): waiting for one of many words.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use moat_abi::futex::{FUTEX_BITSET_MATCH_ANY, FUTEX_WAITV_MAX, FUTEX2_PRIVATE, FUTEX2_SIZE_U32, FutexWaitv};
use moat_abi::time::CLOCK_MONOTONIC;
use moat_abi::{Errno, Result, nr};
use moat_mm::{FutexKey, FutexScope, UserAddr};
use moat_platform::HostFutex;
use moat_sync::Listener;

use super::table::Purpose;
use super::wait::Queued;
use crate::error::{Restart, SyscallError};
use crate::task::CurrentTask;
use crate::task::wait::{Deadline, Wait};

/// One word of a futex_waitv(2) call, checked.
#[derive(Clone, Copy, Debug)]
pub struct WaitTarget {
    addr: UserAddr,
    value: u32,
    scope: FutexScope,
}

/// Checks the words of a call (`futex_parse_waitv`).
///
/// # Errors
/// EINVAL for none or too many, unknown flags, sizes other than 32 bits.
pub fn parse(raw: &[FutexWaitv]) -> Result<Vec<WaitTarget>> {
    if raw.is_empty() || raw.len() > FUTEX_WAITV_MAX as usize {
        return Err(Errno::EINVAL);
    }
    let target = |w: &FutexWaitv| {
        if w.flags & !FUTEX2_PRIVATE != FUTEX2_SIZE_U32 || w.reserved != 0 {
            return Err(Errno::EINVAL);
        }
        let scope = if w.flags & FUTEX2_PRIVATE != 0 { FutexScope::Private } else { FutexScope::Shared };
        // Values beyond 32 bits are cut, as Linux does.
        Ok(WaitTarget { addr: UserAddr::new(w.uaddr), value: (w.val & u64::from(u32::MAX)) as u32, scope })
    };
    raw.iter().map(target).collect()
}

/// Waits until one of the words is woken; gives its index. They were read from `array`.
///
/// # Errors
/// As [`super::wait::wait`]; ENOSYS if the host keeps the waiters of some and has no such call (before Linux 5.16).
pub async fn wait(
    t: &mut CurrentTask,
    array: UserAddr,
    targets: &[WaitTarget],
    deadline: Option<Deadline>,
) -> std::result::Result<usize, SyscallError> {
    let in_host = t.thread().has_host_futexes();
    let is_hosts = |target: &&WaitTarget| in_host && target.scope == FutexScope::Private;
    let own: Vec<&WaitTarget> = targets.iter().filter(is_hosts).collect();
    if own.is_empty() {
        wait_here(t, targets, deadline).await
    } else {
        wait_there(t, array, targets, &own, deadline).await
    }
}

/// Where the host keeps the waiters of the words in `own`: it waits for those, and the sentry for the others.
async fn wait_there(
    t: &mut CurrentTask,
    array: UserAddr,
    targets: &[WaitTarget],
    own: &[&WaitTarget],
    deadline: Option<Deadline>,
) -> std::result::Result<usize, SyscallError> {
    let count = u64::try_from(targets.len()).map_err(|_| Errno::EINVAL)?;
    let deadline = t.take_restart_deadline().unwrap_or(deadline);
    // The host looks at all the words, and queues the task for all: nobody wakes it there for those that are shared.
    let args = [array.get(), count, 0, 0, u64::from(CLOCK_MONOTONIC.unsigned_abs()), 0];
    let call = HostFutex { nr: nr::FUTEX_WAITV, args, until: deadline.map(super::own::time_of) };
    let mut listener = Listener::new();
    let futexes = t.kernel().futexes.clone();
    let shared = targets.iter().enumerate().filter(|(_, target)| target.scope == FutexScope::Shared);
    let shared: Vec<(usize, FutexKey)> =
        shared.map(|(i, w)| Ok((i, t.mm().futex_key(w.addr, w.scope)?))).collect::<Result<_>>()?;
    let waiters: Vec<_> =
        shared.iter().map(|_| futexes.waiter(FUTEX_BITSET_MATCH_ANY, Purpose::Plain, &listener)).collect();
    let queued: Vec<_> = shared.iter().zip(&waiters).map(|((_, key), w)| Queued::join(&futexes, *key, w)).collect();
    let wait = Wait::restarting("futex_waitv", Restart::Sys).until(deadline);
    let mut tried = false;
    loop {
        let woken = |cx: &mut Context<'_>| {
            !queued.iter().all(Queued::is_queued) || !queued.is_empty() && Pin::new(&mut listener).poll(cx).is_ready()
        };
        let ended = t.wait_in_host(&wait, &call, woken).await;
        if ended == Ok(Err(Errno::EFAULT)) && !std::mem::replace(&mut tried, true) {
            // Memory that has yet to be mapped.
            own.iter().try_for_each(|target| t.mm().read::<u32>(target.addr.cast()).map(drop))?;
            continue;
        }
        // A filter around the sandbox: it has no such call.
        if ended == Ok(Err(Errno::EPERM)) {
            return Err(Errno::ENOSYS.into());
        }
        // A word that was told of nothing new, and the listener has.
        if ended == Ok(Err(Errno::EINTR)) && queued.iter().all(Queued::is_queued) {
            continue;
        }
        let leave =
            shared.iter().zip(&queued).fold(None, |woken, ((i, _), q)| if q.leave() { woken } else { Some(*i) });
        return match (leave, ended) {
            (Some(i), _) => Ok(i),
            (None, Ok(result)) => Ok(usize::try_from(result?).unwrap_or(0)),
            (None, Err(error)) => Err(error.or_timed_out(Errno::ETIMEDOUT)),
        };
    }
}

/// Where the sentry keeps the waiters of all.
async fn wait_here(
    t: &mut CurrentTask,
    targets: &[WaitTarget],
    deadline: Option<Deadline>,
) -> std::result::Result<usize, SyscallError> {
    let keys: Vec<FutexKey> = targets.iter().map(|w| t.mm().futex_key(w.addr, w.scope)).collect::<Result<_>>()?;
    let mut listener = Listener::new();
    let futexes = t.kernel().futexes.clone();
    let waiters: Vec<_> =
        keys.iter().map(|_| futexes.waiter(FUTEX_BITSET_MATCH_ANY, Purpose::Plain, &listener)).collect();
    // All are queued before the first word is read.
    let queued: Vec<_> = keys.iter().zip(&waiters).map(|(key, w)| Queued::join(&futexes, *key, w)).collect();
    // Leaves all queues; the last that had been woken is the result, as in unqueue_multiple().
    let leave = || queued.iter().enumerate().fold(None, |woken, (i, q)| if q.leave() { woken } else { Some(i) });
    for target in targets {
        let found = t.mm().read::<u32>(target.addr.cast());
        if found != Ok(target.value) {
            return leave().ok_or(found.map_or_else(Into::into, |_| Errno::EAGAIN.into()));
        }
    }
    let wait = Wait::restarting("futex_waitv", Restart::Sys).until(deadline);
    let woken = |_: &mut CurrentTask| {
        if queued.iter().all(Queued::is_queued) { Poll::Pending } else { Poll::Ready(()) }
    };
    let ended = t.wait_with(&mut listener, &wait, woken).await;
    // A wake that came with the signal or the deadline counts.
    leave().ok_or_else(|| ended.map_or_else(|e| e.or_timed_out(Errno::ETIMEDOUT), |()| Errno::EAGAIN.into()))
}
