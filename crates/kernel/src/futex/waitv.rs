//! futex_waitv(2): waiting for one of many words.

use std::task::Poll;

use moat_abi::futex::{FUTEX_BITSET_MATCH_ANY, FUTEX_WAITV_MAX, FUTEX2_PRIVATE, FUTEX2_SIZE_U32, FutexWaitv};
use moat_abi::{Errno, Result};
use moat_mm::{FutexKey, FutexScope, UserAddr};
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

/// Waits until one of the words is woken; gives its index.
///
/// # Errors
/// As [`super::wait::wait`].
pub async fn wait(
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
