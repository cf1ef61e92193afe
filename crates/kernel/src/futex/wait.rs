//! FUTEX_WAIT and FUTEX_WAIT_BITSET.

use std::sync::Arc;

use moat_abi::{Errno, Result};
use moat_mm::{FutexKey, FutexScope, UserAddr};
use moat_sync::Listener;

use super::Futexes;
use super::table::{Purpose, Waiter};
use crate::error::SyscallError;
use crate::task::CurrentTask;
use crate::task::wait::{Deadline, Interrupted, WaitError};

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
}

/// How a wait ended without a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitEnd {
    /// EAGAIN for another value, ETIMEDOUT, EFAULT, EINVAL.
    Errno(Errno),
    /// By a signal; how the call restarts is the caller's business.
    Interrupted,
}

impl From<Errno> for WaitEnd {
    fn from(errno: Errno) -> Self {
        WaitEnd::Errno(errno)
    }
}

impl From<WaitEnd> for SyscallError {
    fn from(end: WaitEnd) -> Self {
        match end {
            WaitEnd::Errno(errno) => errno.into(),
            WaitEnd::Interrupted => Interrupted.into(),
        }
    }
}

impl From<WaitError> for WaitEnd {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Interrupted => WaitEnd::Interrupted,
            WaitError::TimedOut => WaitEnd::Errno(Errno::ETIMEDOUT),
        }
    }
}

/// Waits until the word is woken.
///
/// # Errors
/// EAGAIN if the word has another value; ETIMEDOUT; EINVAL for the address or an empty bitset; EFAULT; interrupted.
pub async fn wait(t: &mut CurrentTask, request: &WaitRequest) -> Result<(), WaitEnd> {
    if request.bitset == 0 {
        return Err(Errno::EINVAL.into());
    }
    let key = t.mm().futex_key(request.addr, request.scope)?;
    let mut listener = Listener::new();
    let futexes = t.kernel().futexes.clone();
    let waiter = futexes.waiter(request.bitset, Purpose::Plain, &listener);
    let queued = Queued::join(&futexes, key, &waiter);
    let found = t.mm().read::<u32>(request.addr.cast());
    if found != Ok(request.value) {
        // Woken meanwhile: a wake was spent on this waiter and must not be lost.
        return if queued.leave() { Err(found.map_or_else(Into::into, |_| Errno::EAGAIN.into())) } else { Ok(()) };
    }
    loop {
        let ended = t.wait(&mut listener, request.deadline, "futex_wait").await;
        if !queued.is_queued() {
            return Ok(());
        }
        if let Err(error) = ended {
            return if queued.leave() { Err(error.into()) } else { Ok(()) };
        }
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

    /// Whether it has not been woken.
    pub(super) fn is_queued(&self) -> bool {
        matches!(self.waiter.place(), super::table::Place::Queued(_))
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
