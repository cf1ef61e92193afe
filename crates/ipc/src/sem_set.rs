//! [`Set`]: the semaphores of one set, operations on them, and those who wait for them.
//!
//! Source: `perform_atomic_semop`, `do_smart_update`, `count_semcnt` in `ipc/sem.c`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use moat_abi::ipc::{SEM_UNDO, SEMAEM, SEMVMX, Sembuf};
use moat_abi::{Errno, Result};
use moat_sync::{LockClass, Mutex, WaitQueue};

use crate::now;
use moat_identity::GroupId;

/// One semaphore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sem {
    pub(super) value: i32,
    pub(super) pid: i32,
}

/// A semop(2) that waits.
pub struct Waiter {
    /// Woken when `outcome` has a value.
    pub queue: WaitQueue,
    outcome: Mutex<Option<Result<()>>>,
}

impl Waiter {
    pub(super) fn new() -> Arc<Waiter> {
        Arc::new(Waiter { queue: WaitQueue::new(), outcome: Mutex::new(LockClass::Leaf, None) })
    }

    /// How the operation ended; None while it waits.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<()>> {
        *self.outcome.lock()
    }

    pub(super) fn finish(&self, outcome: Result<()>) {
        *self.outcome.lock() = Some(outcome);
        self.queue.wake_all();
    }
}

/// The operations of one waiter.
pub(super) struct Pending {
    pub(super) ops: Vec<Sembuf>,
    pub(super) group: GroupId,
    pub(super) pid: i32,
    pub(super) waiter: Arc<Waiter>,
    // The operation that can't be done.
    pub(super) blocked_at: usize,
}

impl Pending {
    /// The semaphore of the operation that can't be done, and what that waits for.
    fn blocked_by(&self) -> Option<(usize, WaitKind)> {
        let op = self.ops.get(self.blocked_at)?;
        let kind = if op.sem_op == 0 { WaitKind::Zero } else { WaitKind::Increase };
        Some((usize::from(op.sem_num), kind))
    }
}

/// The semaphores whose values these operations change.
pub(super) fn altered(ops: &[Sembuf]) -> impl Iterator<Item = usize> {
    ops.iter().filter(|op| op.sem_op != 0).map(|op| usize::from(op.sem_num))
}

/// The semaphores of one id.
pub(super) struct Set {
    pub(super) sems: Vec<Sem>,
    // What the end of each process adds to each semaphore.
    pub(super) undo: BTreeMap<GroupId, Vec<i16>>,
    pub(super) otime: i64,
    pub(super) ctime: i64,
    // In order of arrival.
    pub(super) pending: BTreeMap<u64, Pending>,
    // By the semaphore and the kind of the operation that blocks each of them: it can't be done before that one changes.
    pub(super) blocked: BTreeSet<(usize, WaitKind, u64)>,
    pub(super) arrivals: u64,
}

/// What an attempt at a semop(2) gives.
pub(super) enum Attempt {
    Done,
    /// The operation at this place of the array has to wait.
    Blocked(usize),
}

impl Set {
    /// `count` semaphores of value zero.
    pub(super) fn new(count: usize) -> Set {
        Set {
            sems: vec![Sem::default(); count],
            undo: BTreeMap::new(),
            otime: 0,
            ctime: now(),
            pending: BTreeMap::new(),
            blocked: BTreeSet::new(),
            arrivals: 0,
        }
    }

    /// Carries all operations out, or none (`perform_atomic_semop`).
    pub(super) fn attempt(&mut self, ops: &[Sembuf], group: GroupId, pid: i32) -> Result<Attempt> {
        let mut done = 0;
        let mut outcome = Ok(Attempt::Done);
        for (i, op) in ops.iter().enumerate() {
            match self.apply(op, group) {
                Ok(true) => done = i + 1,
                Ok(false) => outcome = Ok(Attempt::Blocked(i)),
                Err(e) => outcome = Err(e),
            }
            if done != i + 1 {
                break;
            }
        }
        if matches!(outcome, Ok(Attempt::Done)) {
            // Also of those that were only waited on for zero.
            for op in ops {
                if let Some(sem) = self.sems.get_mut(usize::from(op.sem_num)) {
                    sem.pid = pid;
                }
            }
            self.otime = now();
            return outcome;
        }
        // In reverse order, with what was noted of it.
        for op in ops.iter().take(done).rev() {
            if let Some(sem) = self.sems.get_mut(usize::from(op.sem_num)) {
                sem.value -= i32::from(op.sem_op);
            }
            if let Some(adjust) = self.adjustment(op, group) {
                *adjust = adjust.wrapping_add(op.sem_op);
            }
        }
        outcome
    }

    /// One operation; false if it has to wait.
    fn apply(&mut self, op: &Sembuf, group: GroupId) -> Result<bool> {
        let sem = self.sems.get(usize::from(op.sem_num)).ok_or(Errno::EFBIG)?;
        if op.sem_op == 0 && sem.value != 0 {
            return Ok(false);
        }
        let value = sem.value + i32::from(op.sem_op);
        if value < 0 {
            return Ok(false);
        }
        if value > SEMVMX {
            return Err(Errno::ERANGE);
        }
        if let Some(adjust) = self.adjustment(op, group) {
            let new = i32::from(*adjust) - i32::from(op.sem_op);
            if !(-SEMAEM - 1..=SEMAEM).contains(&new) {
                return Err(Errno::ERANGE);
            }
            *adjust = i16::try_from(new).map_err(|_| Errno::ERANGE)?;
        }
        if let Some(sem) = self.sems.get_mut(usize::from(op.sem_num)) {
            sem.value = value;
        }
        Ok(true)
    }

    /// Where `op` is noted for the end of the process, if it is.
    fn adjustment(&mut self, op: &Sembuf, group: GroupId) -> Option<&mut i16> {
        if i32::from(op.sem_flg) & SEM_UNDO == 0 {
            return None;
        }
        let count = self.sems.len();
        self.undo.entry(group).or_insert_with(|| vec![0; count]).get_mut(usize::from(op.sem_num))
    }

    /// Adds a waiter; gives its place.
    pub(super) fn add(&mut self, pending: Pending) -> u64 {
        let arrival = self.arrivals;
        self.arrivals = self.arrivals.wrapping_add(1);
        self.put(arrival, pending);
        arrival
    }

    fn put(&mut self, arrival: u64, pending: Pending) {
        self.blocked.extend(pending.blocked_by().map(|(number, kind)| (number, kind, arrival)));
        self.pending.insert(arrival, pending);
    }

    /// Takes a waiter out, if it is still there.
    pub(super) fn give_up(&mut self, arrival: u64) -> Option<Pending> {
        let pending = self.pending.remove(&arrival)?;
        if let Some((number, kind)) = pending.blocked_by() {
            self.blocked.remove(&(number, kind, arrival));
        }
        Some(pending)
    }

    /// Those who wait, when the set is gone.
    pub(super) fn into_pending(self) -> impl Iterator<Item = Pending> {
        self.pending.into_values()
    }

    /// Carries out what waiters can do after these semaphores have changed; gives who is to be told (`do_smart_update`).
    pub(super) fn update(&mut self, changed: impl IntoIterator<Item = usize>) -> Woken {
        let mut woken = Woken::default();
        if self.pending.is_empty() {
            return woken;
        }
        let mut changed: BTreeSet<usize> = changed.into_iter().collect();
        let mut from = 0;
        while let Some(arrival) = self.candidate(&changed, from) {
            from = arrival.saturating_add(1);
            let Some(mut p) = self.give_up(arrival) else { continue };
            let outcome = match self.attempt(&p.ops, p.group, p.pid) {
                Ok(Attempt::Blocked(at)) => {
                    p.blocked_at = at;
                    self.put(arrival, p);
                    continue;
                }
                Ok(Attempt::Done) => Ok(()),
                Err(e) => Err(e),
            };
            if outcome.is_ok() {
                for number in altered(&p.ops) {
                    changed.insert(number);
                    // Those who came before may go now.
                    from = 0;
                }
            }
            woken.0.push((p.waiter, outcome));
        }
        woken
    }

    /// The first waiter from `from` on that may go after these semaphores have changed.
    fn candidate(&self, changed: &BTreeSet<usize>, from: u64) -> Option<u64> {
        let first = |number: usize, kind: WaitKind| {
            let mut waiters = self.blocked.range((number, kind, from)..=(number, kind, u64::MAX));
            waiters.next().map(|(_, _, arrival)| *arrival)
        };
        let of = |number: &usize| {
            // Whoever waits for an increase was blocked by a value at least as high as none.
            let none = self.sems.get(*number).is_none_or(|sem| sem.value == 0);
            let increase = if none { None } else { first(*number, WaitKind::Increase) };
            [increase, first(*number, WaitKind::Zero)].into_iter().flatten().min()
        };
        changed.iter().filter_map(of).min()
    }

    /// How many wait for an operation on semaphore `number` of this kind (`count_semcnt`): those that it blocks.
    pub(super) fn count_waiters(&self, number: usize, kind: WaitKind) -> usize {
        let blocks = |p: &&Pending| {
            let mut values: BTreeMap<usize, i32> = BTreeMap::new();
            for op in &p.ops {
                let at = usize::from(op.sem_num);
                let value = values.entry(at).or_insert_with(|| self.sems.get(at).map_or(0, |s| s.value));
                let next = *value + i32::from(op.sem_op);
                let blocked = if op.sem_op == 0 { *value != 0 } else { next < 0 };
                // A call waits for the first of its operations that can't be done.
                if blocked {
                    let is_zero = op.sem_op == 0;
                    return at == number && is_zero == (kind == WaitKind::Zero);
                }
                *value = next;
            }
            false
        };
        self.pending.values().filter(blocks).count()
    }
}

/// Waiters whose operations have ended, to be told outside the lock.
#[derive(Default)]
#[must_use]
pub(super) struct Woken(Vec<(Arc<Waiter>, Result<()>)>);

impl Woken {
    pub(super) fn tell(self) {
        for (waiter, outcome) in self.0 {
            waiter.finish(outcome);
        }
    }
}

/// What a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitKind {
    /// A higher value: GETNCNT.
    Increase,
    /// The value zero: GETZCNT.
    Zero,
}
