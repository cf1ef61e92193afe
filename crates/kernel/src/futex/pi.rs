//! Priority-inheritance futexes: FUTEX_LOCK_PI, FUTEX_LOCK_PI2, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI (`kernel/futex/pi.c`).
//!
//! The word holds the owner's thread id and the WAITERS bit; the sentry holds the queue of who waits. A lock is handed
//! over: who unlocks writes the next owner's id.

use std::sync::Arc;
use std::task::Poll;

use moat_abi::futex::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS};
use moat_abi::{Errno, Result};
use moat_mm::{FutexKey, FutexScope, UserAddr};
use moat_platform::Atomic32;
use moat_sync::Listener;

use super::Futexes;
use super::table::{PiTask, Purpose, Waiter, WaiterPlace};
use super::word::{atomic, compare_exchange};
use crate::error::{Restart, SyscallError};
use crate::task::CurrentTask;
use crate::task::wait::{Deadline, Wait};

/// Whether FUTEX_LOCK_PI may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// FUTEX_LOCK_PI, until the deadline.
    Wait(Option<Deadline>),
    /// FUTEX_TRYLOCK_PI.
    Try,
}

/// The current task, as a PI futex knows it.
pub(super) fn me(t: &CurrentTask) -> PiTask {
    PiTask { task: t.id, tid: u32::try_from(t.tid()).unwrap_or(0) & FUTEX_TID_MASK }
}

/// Takes the lock.
///
/// # Errors
/// EDEADLK if the caller has it; ESRCH if the owner does not exist; EAGAIN (try) or ETIMEDOUT if another has it; EFAULT,
/// EINVAL for the address; interrupted.
pub async fn lock(
    t: &mut CurrentTask,
    addr: UserAddr,
    scope: FutexScope,
    mode: LockMode,
) -> std::result::Result<(), SyscallError> {
    let key = t.mm().futex_key(addr, scope)?;
    let mut listener = Listener::new();
    let futexes = t.kernel().futexes.clone();
    let waiter = futexes.waiter(u32::MAX, Purpose::Lock(me(t)), &listener);
    {
        // Joined in the turn: an unlock in between would find no waiter and free the word.
        let _turn = futexes.pi.turn(&key).await;
        match claim(t, addr, key, me(t), mode == LockMode::Try).await? {
            Claim::Taken => return Ok(()),
            Claim::OwnedBy(owner) => {
                futexes.pi.join(key, owner.id, &owner.futexes_released, &waiter)?;
            }
        }
    }
    let LockMode::Wait(deadline) = mode else { return Err(Errno::EAGAIN.into()) };
    await_grant(t, addr, &waiter, &mut listener, deadline).await
}

/// What [`claim`] found.
pub(super) enum Claim {
    /// The word names the claimant.
    Taken,
    /// It names this task, and has the WAITERS bit.
    OwnedBy(Arc<crate::task::Task>),
}

/// Takes a free lock for `claimant`, or marks one that is taken as waited for (`futex_lock_pi_atomic`), in the caller's turn.
///
/// # Errors
/// EDEADLK, ESRCH, EAGAIN (only tried), EFAULT.
pub(super) async fn claim(
    t: &mut CurrentTask,
    addr: UserAddr,
    key: FutexKey,
    claimant: PiTask,
    only_try: bool,
) -> Result<Claim> {
    loop {
        let word = atomic(t, addr, Atomic32::Load).await?;
        let owner = word & FUTEX_TID_MASK;
        if owner == claimant.tid {
            return Err(Errno::EDEADLK);
        }
        if owner == 0 {
            // While others wait, the new owner must unlock by a system call.
            let waited_for = if t.kernel().futexes.pi.is_waited_for(&key) { FUTEX_WAITERS } else { 0 };
            // OWNER_DIED stays: the new owner must know that the data may be inconsistent.
            let new = claimant.tid | (word & FUTEX_OWNER_DIED) | waited_for;
            if compare_exchange(t, addr, word, new).await? {
                t.kernel().futexes.pi.set_owner(&key, claimant.task);
                return Ok(Claim::Taken);
            }
            continue;
        }
        let task = i32::try_from(owner).ok().and_then(|tid| t.kernel().task(&t.pid_ns(), tid));
        let Some(task) = task else {
            // It may have ended and left the word changed.
            if atomic(t, addr, Atomic32::Load).await? == word {
                return Err(Errno::ESRCH);
            }
            continue;
        };
        if only_try {
            return Err(Errno::EAGAIN);
        }
        // The bit makes the owner unlock by a system call, which finds this waiter.
        if word & FUTEX_WAITERS != 0 || compare_exchange(t, addr, word, word | FUTEX_WAITERS).await? {
            return Ok(Claim::OwnedBy(task));
        }
    }
}

/// Waits until `waiter`, which has joined, is the owner.
pub(super) async fn await_grant(
    t: &mut CurrentTask,
    addr: UserAddr,
    waiter: &Arc<Waiter>,
    listener: &mut Listener,
    deadline: Option<Deadline>,
) -> std::result::Result<(), SyscallError> {
    // The deadline is absolute: the call is simply made again.
    let wait = Wait::restarting("futex_lock_pi", Restart::NoIntr).until(deadline);
    let granted = |_: &mut CurrentTask| match waiter.place() {
        WaiterPlace::Granted | WaiterPlace::Inherited => Poll::Ready(()),
        _ => Poll::Pending,
    };
    if let Err(error) = t.wait_with(listener, &wait, granted).await
        && give_up(&t.kernel().futexes.clone(), waiter).await
    {
        return Err(error.or_timed_out(Errno::ETIMEDOUT));
    }
    // Granted in the same moment: the caller has the lock, whatever ended the wait.
    match waiter.place() {
        WaiterPlace::Inherited => Ok(inherit(t, addr, waiter).await?),
        _ => Ok(()),
    }
}

/// Leaves whatever queue the waiter is in; gives false if it has been made the owner.
async fn give_up(futexes: &Futexes, waiter: &Arc<Waiter>) -> bool {
    // Only in its turn: `PiTable::grant` relies on it.
    if let WaiterPlace::QueuedPi(key) = waiter.place() {
        let _turn = futexes.pi.turn(&key).await;
        futexes.pi.withdraw(waiter);
    }
    // A requeue that failed has put it back.
    futexes.table.leave(waiter);
    !matches!(waiter.place(), WaiterPlace::Granted | WaiterPlace::Inherited)
}

/// Writes the new owner of a lock whose owner died into the word (`fixup_pi_state_owner`).
async fn inherit(t: &mut CurrentTask, addr: UserAddr, waiter: &Arc<Waiter>) -> Result<()> {
    let Some(PiTask { tid, .. }) = waiter.purpose().pi_task() else { return Err(Errno::EINVAL) };
    loop {
        let word = atomic(t, addr, Atomic32::Load).await?;
        // Those queued behind it still need the bit.
        let new = tid | FUTEX_OWNER_DIED | (word & FUTEX_WAITERS);
        if compare_exchange(t, addr, word, new).await? {
            return Ok(());
        }
    }
}

/// Gives the lock to the next waiter, or frees it.
///
/// # Errors
/// EPERM if the caller does not have it; EFAULT, EINVAL for the address.
pub async fn unlock(t: &mut CurrentTask, addr: UserAddr, scope: FutexScope) -> Result<()> {
    let key = t.mm().futex_key(addr, scope)?;
    let own = me(t).tid;
    let futexes = t.kernel().futexes.clone();
    let _turn = futexes.pi.turn(&key).await;
    loop {
        let word = atomic(t, addr, Atomic32::Load).await?;
        if word & FUTEX_TID_MASK != own {
            return Err(Errno::EPERM);
        }
        let next = futexes.pi.first(&key);
        let next_task = next.as_ref().and_then(|w| w.purpose().pi_task());
        // WAITERS is set even for the last waiter: its own unlock comes here again and clears it.
        let new = next_task.map_or(0, |n| n.tid | FUTEX_WAITERS);
        if !compare_exchange(t, addr, word, new).await? {
            continue;
        }
        if let (Some(waiter), Some(owner)) = (next, next_task) {
            futexes.pi.grant(&key, &waiter, owner.task);
        }
        return Ok(());
    }
}
