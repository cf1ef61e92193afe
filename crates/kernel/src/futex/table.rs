//! [`FutexTable`]: who waits for which futex word.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use moat_abi::{Errno, PollEvents, Result};
use moat_identity::TaskId;
use moat_mm::FutexKey;
use moat_sync::{LockClass, Mutex, MutexGuard, Notify};

const SHARDS: usize = 64;

/// A point in the order of all waiters' arrivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Where a waiter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaiterPlace {
    /// Nowhere yet, or it has left by itself.
    Away,
    /// In the queue of this word.
    Queued(FutexKey),
    /// In the queue of this PI futex (see [`super::pi`]).
    QueuedPi(FutexKey),
    /// It has been woken.
    Woken,
    /// It has been made the owner of the PI futex; the word says so.
    Granted,
    /// As `Granted`, by the death of the owner; the word does not say so yet.
    Inherited,
}

/// A task as a PI futex knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PiTask {
    /// The task.
    pub task: TaskId,
    /// Its thread id in its own pid namespace, as it stands in the word.
    pub tid: u32,
}

/// What a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// FUTEX_WAIT and its like.
    Plain,
    /// FUTEX_LOCK_PI.
    Lock(PiTask),
    /// FUTEX_WAIT_REQUEUE_PI: to be moved to this PI futex.
    Requeue(PiTask, FutexKey),
}

impl Purpose {
    /// Who is to own a PI futex.
    #[must_use]
    pub fn pi_task(self) -> Option<PiTask> {
        match self {
            Purpose::Plain => None,
            Purpose::Lock(task) | Purpose::Requeue(task, _) => Some(task),
        }
    }
}

/// One wait for one word.
pub struct Waiter {
    ticket: Ticket,
    bitset: u32,
    purpose: Purpose,
    notify: Arc<dyn Notify>,
    place: Mutex<WaiterPlace>,
}

impl Waiter {
    /// A waiter that `notify` is told of when it is woken.
    #[must_use]
    pub fn new(ticket: Ticket, bitset: u32, purpose: Purpose, notify: Arc<dyn Notify>) -> Arc<Waiter> {
        Arc::new(Waiter { ticket, bitset, purpose, notify, place: Mutex::new(LockClass::Leaf, WaiterPlace::Away) })
    }

    /// Where it is; may be out of date at once while it is queued.
    #[must_use]
    pub fn place(&self) -> WaiterPlace {
        *self.place.lock()
    }

    /// What it waits for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Says where it is; the caller holds the lock of the queue it leaves and of the one it joins.
    pub(crate) fn set_place(&self, place: WaiterPlace) {
        *self.place.lock() = place;
    }

    /// Tells its task; no lock need be held.
    pub(crate) fn notify(&self) {
        self.notify.notify(PollEvents::IN);
    }
}

type Queue = VecDeque<Arc<Waiter>>;
type Queues = BTreeMap<FutexKey, Queue>;

struct Shard {
    /// Waiters in `queues`; lets a wake without waiters go without the lock.
    waiting: AtomicUsize,
    queues: Mutex<Queues>,
}

/// The waiters of all words.
pub struct FutexTable {
    shards: [Shard; SHARDS],
    next_ticket: AtomicU64,
}

impl FutexTable {
    /// A table without waiters.
    #[must_use]
    pub const fn new() -> FutexTable {
        let shards = [const { Shard { waiting: AtomicUsize::new(0), queues: Mutex::new(LockClass::Futex, BTreeMap::new()) } };
            SHARDS];
        FutexTable { shards, next_ticket: AtomicU64::new(1) }
    }

    /// A point in the order of arrivals, later than all before.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket(self.next_ticket.fetch_add(1, Ordering::SeqCst))
    }

    fn index(key: &FutexKey) -> usize {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or(0)
    }

    fn shard(&self, key: &FutexKey) -> &Shard {
        &self.shards[Self::index(key)]
    }

    /// Adds a waiter, which must be away. The caller looks at the word afterwards.
    pub fn enqueue(&self, key: FutexKey, waiter: &Arc<Waiter>) {
        let shard = self.shard(&key);
        let mut queues = shard.queues.lock();
        waiter.set_place(WaiterPlace::Queued(key));
        queues.entry(key).or_default().push_back(waiter.clone());
        // SeqCst, before the caller reads the word: see `wake`.
        shard.waiting.fetch_add(1, Ordering::SeqCst);
    }

    /// Takes a waiter out of the queue of its word; gives false if it is not in one.
    pub fn leave(&self, waiter: &Arc<Waiter>) -> bool {
        loop {
            let WaiterPlace::Queued(key) = waiter.place() else { return false };
            let shard = self.shard(&key);
            let mut queues = shard.queues.lock();
            // It may have been requeued before the lock was taken.
            if waiter.place() != WaiterPlace::Queued(key) {
                continue;
            }
            waiter.set_place(WaiterPlace::Away);
            shard.remove(&mut queues, &key, waiter);
            return true;
        }
    }

    /// Wakes up to `max` plain waiters of `key` whose bitset meets `bitset`; gives how many.
    ///
    /// # Errors
    /// EINVAL if a waiter is one that only a PI operation may wake.
    pub fn wake(&self, key: &FutexKey, max: usize, bitset: u32) -> Result<usize> {
        let shard = self.shard(key);
        // The guest stored the new value before this call; a waiter counts itself before it reads the value.
        if shard.waiting.load(Ordering::SeqCst) == 0 {
            return Ok(0);
        }
        let mut woken = Vec::new();
        let outcome =
            shard.take(&mut shard.queues.lock(), key, max, WaiterPlace::Woken, |w| w.bitset & bitset != 0, &mut woken);
        woken.iter().for_each(|w| w.notify());
        outcome.map(|()| woken.len())
    }

    /// Wakes up to `wake` plain waiters of `from` and moves up to `requeue` more to `to`, of those that came before `before`;
    /// gives how many in all.
    ///
    /// # Errors
    /// As [`FutexTable::wake`].
    pub fn requeue(&self, from: FutexKey, to: FutexKey, wake: usize, requeue: usize, before: Ticket) -> Result<usize> {
        let source = self.shard(&from);
        if source.waiting.load(Ordering::SeqCst) == 0 {
            return Ok(0);
        }
        let mut woken = Vec::new();
        let mut moved = Vec::new();
        let outcome = {
            let (mut first, mut second) = self.lock_both(&from, &to);
            // A waiter that came later saw another value: see `wake::requeue`.
            let early = |w: &Waiter| w.ticket < before;
            let done = source.take(&mut first, &from, wake, WaiterPlace::Woken, early, &mut woken);
            let done =
                done.and_then(|()| source.take(&mut first, &from, requeue, WaiterPlace::Queued(to), early, &mut moved));
            // What has been taken is moved even if a waiter of another kind ended it.
            let target = self.shard(&to);
            // One guard serves for both keys of one shard.
            let queues = second.as_mut().unwrap_or(&mut first);
            for w in &moved {
                queues.entry(to).or_default().push_back(w.clone());
                target.waiting.fetch_add(1, Ordering::SeqCst);
            }
            done
        };
        woken.iter().for_each(|w| w.notify());
        outcome.map(|()| woken.len() + moved.len())
    }

    /// Takes the first waiter of `key` that came before `before` out for `purpose`'s sake; `check` may refuse it.
    ///
    /// # Errors
    /// Those of `check`.
    pub fn take_first(
        &self,
        key: &FutexKey,
        before: Ticket,
        place: WaiterPlace,
        check: impl Fn(&Waiter) -> Result<()>,
    ) -> Result<Option<Arc<Waiter>>> {
        let shard = self.shard(key);
        let mut queues = shard.queues.lock();
        let first = queues.get(key).and_then(|q| q.iter().find(|w| w.ticket < before)).cloned();
        let Some(waiter) = first else { return Ok(None) };
        check(&waiter)?;
        waiter.set_place(place);
        shard.remove(&mut queues, key, &waiter);
        Ok(Some(waiter))
    }

    /// The first waiter of `key` that came before `before`.
    #[must_use]
    pub fn first(&self, key: &FutexKey, before: Ticket) -> Option<Arc<Waiter>> {
        let queues = self.shard(key).queues.lock();
        queues.get(key).and_then(|q| q.iter().find(|w| w.ticket < before)).cloned()
    }

    /// How many wait for `key`.
    #[must_use]
    pub fn waiting(&self, key: &FutexKey) -> usize {
        self.shard(key).queues.lock().get(key).map_or(0, Queue::len)
    }

    /// Locks the shards of two keys, in the order of their numbers; one guard if it is the same.
    fn lock_both(&self, a: &FutexKey, b: &FutexKey) -> (MutexGuard<'_, Queues>, Option<MutexGuard<'_, Queues>>) {
        let (i, j) = (Self::index(a), Self::index(b));
        if i == j {
            return (self.shards[i].queues.lock(), None);
        }
        let low = self.shards[i.min(j)].queues.lock();
        let high = self.shards[i.max(j)].queues.lock();
        if i < j { (low, Some(high)) } else { (high, Some(low)) }
    }
}

impl Default for FutexTable {
    fn default() -> Self {
        FutexTable::new()
    }
}

impl Shard {
    fn remove(&self, queues: &mut Queues, key: &FutexKey, waiter: &Arc<Waiter>) {
        let Some(queue) = queues.get_mut(key) else { return };
        if let Some(at) = queue.iter().position(|w| Arc::ptr_eq(w, waiter)) {
            queue.remove(at);
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        if queue.is_empty() {
            queues.remove(key);
        }
    }

    /// Takes up to `max` plain waiters that `wanted` names out of a queue, to `place`.
    fn take(
        &self,
        queues: &mut Queues,
        key: &FutexKey,
        max: usize,
        place: WaiterPlace,
        wanted: impl Fn(&Waiter) -> bool,
        taken: &mut Vec<Arc<Waiter>>,
    ) -> Result<()> {
        let Some(queue) = queues.get_mut(key) else { return Ok(()) };
        let mut left = max;
        let mut outcome = Ok(());
        queue.retain(|w| {
            if left == 0 || outcome.is_err() || !wanted(w) {
                return true;
            }
            // A waiter woken by a plain wake would believe it had the lock.
            if w.purpose != Purpose::Plain {
                outcome = Err(Errno::EINVAL);
                return true;
            }
            w.set_place(place);
            taken.push(w.clone());
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            left -= 1;
            false
        });
        if queue.is_empty() {
            queues.remove(key);
        }
        outcome
    }
}

#[cfg(test)]
mod tests;
