//! [`PiTable`]: who waits for which PI futex, and whose it is. It knows tasks by their ids only.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use moat_abi::{Errno, Result};
use moat_identity::TaskId;
use moat_mm::FutexKey;
use moat_sync::async_mutex::{AsyncGuard, AsyncMutex};
use moat_sync::{LockClass, Mutex};

use super::table::{Waiter, WaiterPlace};

/// A PI futex that tasks wait for.
struct PiQueue {
    owner: TaskId,
    waiters: VecDeque<Arc<Waiter>>,
}

type Queues = BTreeMap<FutexKey, PiQueue>;

/// The PI futexes that tasks wait for.
pub struct PiTable {
    queues: Mutex<Queues>,
    // Held while a guest word is changed, which takes an await.
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

    /// Adds a waiter, in the caller's turn. `released` is the owner's mark that it has handed its locks over.
    ///
    /// # Errors
    /// ESRCH if it has.
    pub(super) fn join(&self, key: FutexKey, owner: TaskId, released: &AtomicBool, waiter: &Arc<Waiter>) -> Result<()> {
        let mut queues = self.queues.lock();
        // `hand_over_all` sets this under the same lock.
        if released.load(Ordering::Relaxed) {
            return Err(Errno::ESRCH);
        }
        let queue = queues.entry(key).or_insert_with(|| PiQueue { owner, waiters: VecDeque::new() });
        waiter.set_place(WaiterPlace::QueuedPi(key));
        queue.waiters.push_back(waiter.clone());
        Ok(())
    }

    /// Whether anybody waits for it.
    pub(super) fn is_waited_for(&self, key: &FutexKey) -> bool {
        self.queues.lock().contains_key(key)
    }

    /// Says whose it is, in the caller's turn.
    pub(super) fn set_owner(&self, key: &FutexKey, owner: TaskId) {
        // Without waiters there is no queue: the word alone names the owner.
        if let Some(queue) = self.queues.lock().get_mut(key) {
            queue.owner = owner;
        }
    }

    /// Takes a waiter out of its PI queue, if it is in one, in the caller's turn.
    pub(super) fn withdraw(&self, waiter: &Arc<Waiter>) {
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

    /// The waiter that is served next, in the caller's turn.
    pub(super) fn first(&self, key: &FutexKey) -> Option<Arc<Waiter>> {
        self.queues.lock().get(key).and_then(|q| q.waiters.front().cloned())
    }

    /// Makes `waiter`, the first of `key`, the owner as `owner`, and tells it. The word says so already.
    pub(super) fn grant(&self, key: &FutexKey, waiter: &Waiter, owner: TaskId) {
        // Waiters leave in their turn only, which is the caller's: it is still the first.
        pass_on(&mut self.queues.lock(), key, waiter, owner, WaiterPlace::Granted);
        waiter.notify();
    }

    /// A task ends: the first waiter of each lock it has inherits it (`exit_pi_state_list`), and nobody joins any more.
    pub(super) fn hand_over_all(&self, task: TaskId, released: &AtomicBool) {
        let mut new_owners = Vec::new();
        {
            let mut queues = self.queues.lock();
            // Under the lock: who enqueues from here on sees that the owner has gone.
            released.store(true, Ordering::Relaxed);
            let owned: Vec<_> = queues.iter().filter(|(_, q)| q.owner == task).map(|(key, _)| *key).collect();
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
        // With the table unlocked, for they look at it.
        new_owners.iter().for_each(|w| w.notify());
    }
}

/// Makes the first waiter of `key` the owner.
fn pass_on(queues: &mut Queues, key: &FutexKey, waiter: &Waiter, owner: TaskId, place: WaiterPlace) {
    waiter.set_place(place);
    if let Some(queue) = queues.get_mut(key) {
        queue.waiters.retain(|w| !std::ptr::eq(&**w, waiter));
        queue.owner = owner;
        if queue.waiters.is_empty() {
            queues.remove(key);
        }
    }
}
