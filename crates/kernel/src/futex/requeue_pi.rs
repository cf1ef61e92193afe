//! FUTEX_WAIT_REQUEUE_PI and FUTEX_CMP_REQUEUE_PI: a condition variable whose waiters go on to wait for a PI mutex.

use moat_abi::{Errno, Result};
use moat_mm::UserAddr;
use moat_sync::Listener;

use super::pi::{Claim, await_grant, claim, me};
use super::table::{Purpose, Waiter, WaiterPlace};
use super::wait::{Queued, WaitRequest};
use super::wake::RequeueRequest;
use crate::error::SyscallError;
use crate::task::CurrentTask;
use crate::task::wait::Wait;

/// Waits to be moved to the PI futex at `target` and for its lock.
///
/// # Errors
/// As [`super::wait::wait`] before the move; EAGAIN if interrupted or timed out after it without the lock.
pub async fn wait(
    t: &mut CurrentTask,
    request: &WaitRequest,
    target: UserAddr,
) -> std::result::Result<(), SyscallError> {
    if request.bitset == 0 {
        return Err(Errno::EINVAL.into());
    }
    let key = t.mm().futex_key(request.addr, request.scope)?;
    let target_key = t.mm().futex_key(target, request.scope)?;
    if key == target_key {
        return Err(Errno::EINVAL.into());
    }
    let mut listener = Listener::new();
    let futexes = t.kernel().futexes.clone();
    let waiter = futexes.waiter(request.bitset, Purpose::Requeue(me(t), target_key), &listener);
    // Queued before the word is read: see the invariants of [`super`].
    let queued = Queued::join(&futexes, key, &waiter);
    let found = t.mm().read::<u32>(request.addr.cast());
    if found != Ok(request.value) {
        // A requeue under way holds the turn of the target: the waiter leaves before it or is part of it.
        let _turn = futexes.pi.turn(&target_key).await;
        if queued.leave() {
            return Err(found.map_or_else(Into::into, |_| Errno::EAGAIN.into()));
        }
    }
    let wait = Wait::restarting("futex_wait_requeue_pi", request.restart).until(request.deadline);
    if let Err(error) = t.wait_with(&mut listener, &wait, |_| queued.look()).await {
        // As above: a requeue under way has moved it already, or won't.
        let _turn = futexes.pi.turn(&target_key).await;
        if queued.leave() {
            return Err(error.or_timed_out(Errno::ETIMEDOUT));
        }
    }
    if waiter.place() == WaiterPlace::Granted {
        return Ok(());
    }
    match await_grant(t, target, &waiter, &mut listener, request.deadline).await {
        // The wait proper was over: only the lock is missing, so restarting would wait twice.
        Err(SyscallError::Restart(_)) => Err(Errno::EAGAIN.into()),
        done => done,
    }
}

/// Moves waiters to a PI futex; the first is given its lock if it is free. Gives how many were moved or woken.
///
/// # Errors
/// EINVAL for `wake` other than 1, equal words, or waiters of another kind; EAGAIN for another value; EFAULT; ESRCH if the
/// owner of the PI futex does not exist.
pub async fn requeue(t: &mut CurrentTask, r: &RequeueRequest) -> Result<usize> {
    let requeue = usize::try_from(r.requeue).map_err(|_| Errno::EINVAL)?;
    let from = t.mm().futex_key(r.from, r.scope)?;
    let to = t.mm().futex_key(r.to, r.scope)?;
    // More than one waiter could not get the mutex anyway.
    if r.wake != 1 || from == to {
        return Err(Errno::EINVAL);
    }
    let futexes = t.kernel().futexes.clone();
    let _turn = futexes.pi.turn(&to).await;
    let before = futexes.table.ticket();
    if let Some(expected) = r.expected
        && t.mm().read::<u32>(r.from.cast())? != expected
    {
        return Err(Errno::EAGAIN);
    }
    // Waiters must have named this very mutex (`futex_requeue`).
    let check = |w: &Waiter| match w.purpose() {
        Purpose::Requeue(_, target) if target == to => Ok(()),
        _ => Err(Errno::EINVAL),
    };
    let mut count = 0;
    // The waiter that gets the lock counts besides.
    let limit = requeue.saturating_add(1);
    let Some(first) = futexes.table.first(&from, before) else { return Ok(0) };
    check(&first)?;
    let Some(claimant) = first.purpose().pi_task() else { return Err(Errno::EINVAL) };
    // On behalf of the first waiter. It can't leave meanwhile: that takes the turn that is held.
    let mut owner = match claim(t, r.to, to, claimant, false).await? {
        Claim::Taken => {
            if let Some(taken) = futexes.table.take_first(&from, before, WaiterPlace::Granted, check)? {
                taken.notify();
                count += 1;
            }
            None
        }
        Claim::OwnedBy(task) => Some(task),
    };
    while count < limit {
        let Some(next) = futexes.table.first(&from, before) else { break };
        check(&next)?;
        if owner.is_none() {
            // The others wait for the one that was given the lock.
            let Some(claimant) = next.purpose().pi_task() else { break };
            match claim(t, r.to, to, claimant, false).await? {
                Claim::OwnedBy(task) => owner = Some(task),
                // Unlocked at once without a system call: this one has it.
                Claim::Taken => {
                    if let Some(taken) = futexes.table.take_first(&from, before, WaiterPlace::Granted, check)? {
                        taken.notify();
                        count += 1;
                    }
                    continue;
                }
            }
        }
        let Some(task) = owner.clone() else { break };
        // Joined to the new queue first: the place must never say "away" while it is in between.
        let Some(moved) = futexes.table.take_first(&from, before, WaiterPlace::QueuedPi(to), check)? else { break };
        if let Err(errno) = futexes.pi.join(to, task.id, &task.futexes_released, &moved) {
            // The owner is gone: the waiter goes back and the caller gets the error.
            futexes.table.enqueue(from, &moved);
            return if count > 0 { Ok(count) } else { Err(errno) };
        }
        // It waits for the PI futex from here on; it looks at its place again.
        moved.notify();
        count += 1;
    }
    Ok(count)
}
