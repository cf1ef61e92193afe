//! Priority-inheritance futexes: FUTEX_LOCK_PI, FUTEX_LOCK_PI2, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI (`kernel/futex/pi.c`).
//!
//! The word holds the owner's thread id and the WAITERS bit; the sentry holds the queue of who waits. A lock is handed
//! over: who unlocks writes the next owner's id.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::task::Poll;

use moat_abi::futex::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS};
use moat_abi::{Errno, Result};
use moat_mm::{FutexKey, FutexScope, UserAddr};
use moat_platform::Atomic32;
use moat_sync::async_mutex::{AsyncGuard, AsyncMutex};
use moat_sync::{Listener, LockClass, Mutex};

use super::table::{PiTask, Purpose, Waiter, WaiterPlace};
use super::{Futexes, atomic, compare_exchange};
use crate::error::{Restart, SyscallError};
use crate::task::wait::{Deadline, Wait};
use crate::task::{CurrentTask, TaskId};

/// Whether FUTEX_LOCK_PI may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// FUTEX_LOCK_PI, until the deadline.
    Wait(Option<Deadline>),
    /// FUTEX_TRYLOCK_PI.
    Try,
}

/// A PI futex that tasks wait for.
struct PiQueue {
    owner: TaskId,
    waiters: VecDeque<Arc<Waiter>>,
}

type Queues = BTreeMap<FutexKey, PiQueue>;

/// The PI futexes that tasks wait for.
pub struct PiTable {
    queues: Mutex<Queues>,
    turns: Vec<AsyncMutex>,
}

/// Futexes whose keys fall on one number share a turn.
const TURNS: usize = 64;

impl Default for PiTable {
    fn default() -> PiTable {
        PiTable {
            queues: Mutex::new(LockClass::Futex, BTreeMap::new()),
            turns: (0..TURNS).map(|_| AsyncMutex::new()).collect(),
        }
    }
}

impl PiTable {
    /// The right to change a PI futex: its word and its queue together. A task holds one at a time.
    pub(super) async fn turn(&self, key: &FutexKey) -> AsyncGuard {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % TURNS as u64).unwrap_or(0);
        self.turns[at].lock().await
    }

    /// Adds a waiter, in the caller's turn.
    ///
    /// # Errors
    /// ESRCH if the owner is past the point where it hands its locks over.
    pub(super) fn join(&self, key: FutexKey, owner: Arc<crate::task::Task>, waiter: &Arc<Waiter>) -> Result<()> {
        let mut queues = self.queues.lock();
        // `hand_over_all` sets this under the same lock.
        if owner.futexes_released.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Errno::ESRCH);
        }
        let queue = queues.entry(key).or_insert_with(|| PiQueue { owner: owner.id, waiters: VecDeque::new() });
        waiter.set_place(WaiterPlace::QueuedPi(key));
        queue.waiters.push_back(waiter.clone());
        Ok(())
    }

    fn is_waited_for(&self, key: &FutexKey) -> bool {
        self.queues.lock().contains_key(key)
    }

    fn set_owner(&self, key: &FutexKey, owner: TaskId) {
        if let Some(queue) = self.queues.lock().get_mut(key) {
            queue.owner = owner;
        }
    }

    /// Takes a waiter out of its PI queue, if it is in one, in the caller's turn.
    fn withdraw(&self, waiter: &Arc<Waiter>) {
        let mut queues = self.queues.lock();
        let WaiterPlace::QueuedPi(key) = waiter.place() else { return };
        waiter.set_place(WaiterPlace::Away);
        if let Some(queue) = queues.get_mut(&key) {
            queue.waiters.retain(|w| !Arc::ptr_eq(w, waiter));
            if queue.waiters.is_empty() {
                queues.remove(&key);
            }
        }
    }

    /// A task ends: the first waiter of each lock it has inherits it (`exit_pi_state_list`).
    pub(super) fn hand_over_all(&self, task: &crate::task::Task) {
        let mut new_owners = Vec::new();
        {
            let mut queues = self.queues.lock();
            task.futexes_released.store(true, std::sync::atomic::Ordering::Relaxed);
            let owned: Vec<_> = queues.iter().filter(|(_, q)| q.owner == task.id).map(|(key, _)| *key).collect();
            for key in owned {
                let first = queues.get(&key).and_then(|q| q.waiters.front().cloned());
                if let Some(waiter) = first
                    && let Some(owner) = waiter.purpose().pi_task()
                {
                    pass_on(&mut queues, &key, &waiter, owner.task, WaiterPlace::Inherited);
                    new_owners.push(waiter);
                }
            }
        }
        new_owners.iter().for_each(|w| w.notify());
    }
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
        let _turn = futexes.pi.turn(&key).await;
        match claim(t, addr, key, me(t), mode == LockMode::Try).await? {
            Claim::Taken => return Ok(()),
            Claim::OwnedBy(owner) => futexes.pi.join(key, owner, &waiter)?,
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
            let waited_for = if t.kernel().futexes.pi.is_waited_for(&key) { FUTEX_WAITERS } else { 0 };
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
    match waiter.place() {
        WaiterPlace::Inherited => Ok(inherit(t, addr, waiter).await?),
        _ => Ok(()),
    }
}

/// Leaves whatever queue the waiter is in; gives false if it has been made the owner.
async fn give_up(futexes: &Futexes, waiter: &Arc<Waiter>) -> bool {
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
        let next = futexes.pi.queues.lock().get(&key).and_then(|q| q.waiters.front().cloned());
        let next_task = next.as_ref().and_then(|w| w.purpose().pi_task());
        let new = next_task.map_or(0, |n| n.tid | FUTEX_WAITERS);
        if !compare_exchange(t, addr, word, new).await? {
            continue;
        }
        if let (Some(waiter), Some(owner)) = (next, next_task) {
            let mut queues = futexes.pi.queues.lock();
            // Waiters leave in their turn only, which is this task's: it is still the first.
            pass_on(&mut queues, &key, &waiter, owner.task, WaiterPlace::Granted);
            drop(queues);
            waiter.notify();
        }
        return Ok(());
    }
}

/// Makes the first waiter of `key` the owner.
fn pass_on(queues: &mut Queues, key: &FutexKey, waiter: &Arc<Waiter>, owner: TaskId, place: WaiterPlace) {
    waiter.set_place(place);
    if let Some(queue) = queues.get_mut(key) {
        queue.waiters.retain(|w| !Arc::ptr_eq(w, waiter));
        queue.owner = owner;
        if queue.waiters.is_empty() {
            queues.remove(key);
        }
    }
}
