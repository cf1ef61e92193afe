//! FUTEX_WAIT and FUTEX_WAIT_BITSET.

use std::sync::Arc;
use std::task::Poll;

use moat_abi::Errno;
use moat_mm::{FutexKey, FutexScope, UserAddr};
use moat_sync::Listener;

use super::Futexes;
use super::table::{Purpose, Waiter};
use crate::error::{Restart, SyscallError};
use crate::task::CurrentTask;
use crate::task::wait::{Deadline, Wait};

/// What FUTEX_WAIT is asked for.
#[derive(Clone, Copy, Debug)]
pub struct WaitRequest {
    /// The word.
    pub addr: UserAddr,
    /// FUTEX_PRIVATE_FLAG.
    pub scope: FutexScope,
    /// The value the word must have.
    pub value: u32,
    /// Which wakes count; not zero.
    pub bitset: u32,
    /// When to give up.
    pub deadline: Option<Deadline>,
    /// How the call goes on after a signal.
    pub restart: Restart,
}

/// Waits until the word is woken.
///
/// # Errors
/// EAGAIN if the word has another value; ETIMEDOUT; EINVAL for the address or an empty bitset; EFAULT; interrupted.
pub async fn wait(t: &mut CurrentTask, request: &WaitRequest) -> Result<(), SyscallError> {
    if request.bitset == 0 {
        return Err(Errno::EINVAL.into());
    }
    let key = t.mm().futex_key(request.addr, request.scope)?;
    let mut listener = Listener::new();
    let futexes = t.kernel().futexes.clone();
    let waiter = futexes.waiter(request.bitset, Purpose::Plain, &listener);
    // Queued before the word is read; a waker stores first and then looks for waiters.
    let queued = Queued::join(&futexes, key, &waiter);
    let found = t.mm().read::<u32>(request.addr.cast());
    if found != Ok(request.value) {
        // Woken meanwhile: a wake was spent on this waiter and must not be lost.
        return if queued.leave() { Err(found.map_or_else(Into::into, |_| Errno::EAGAIN.into())) } else { Ok(()) };
    }
    let wait = Wait::restarting("futex_wait", request.restart).until(request.deadline);
    match t.wait_with(&mut listener, &wait, |_| queued.look()).await {
        Err(error) if queued.leave() => Err(error.or_timed_out(Errno::ETIMEDOUT)),
        _ => Ok(()),
    }
}

/// A waiter in the table, taken out when dropped.
pub(super) struct Queued<'a> {
    futexes: &'a Futexes,
    waiter: &'a Arc<Waiter>,
}

impl<'a> Queued<'a> {
    /// Puts the waiter into the queue of `key`.
    pub(super) fn join(futexes: &'a Futexes, key: FutexKey, waiter: &'a Arc<Waiter>) -> Queued<'a> {
        futexes.table.enqueue(key, waiter);
        Queued { futexes, waiter }
    }

    /// The look of a wait for its wake.
    pub(super) fn look(&self) -> Poll<()> {
        if self.is_queued() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Whether it has not been woken.
    pub(super) fn is_queued(&self) -> bool {
        matches!(self.waiter.place(), super::table::WaiterPlace::Queued(_))
    }

    /// Takes it out; gives false if it had been woken before.
    pub(super) fn leave(&self) -> bool {
        self.futexes.table.leave(self.waiter)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
