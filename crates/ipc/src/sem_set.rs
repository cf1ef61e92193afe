//! [`Set`]: the semaphores of one set, operations on them, and those who wait for them.
//!
//! Source: `perform_atomic_semop`, `do_smart_update`, `count_semcnt` in `ipc/sem.c`.

use std::collections::BTreeMap;
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
}

/// The semaphores of one id.
pub(super) struct Set {
    pub(super) sems: Vec<Sem>,
    // What the end of each process adds to each semaphore.
    pub(super) undo: BTreeMap<GroupId, Vec<i16>>,
    pub(super) otime: i64,
    pub(super) ctime: i64,
    // In order of arrival.
    pub(super) pending: Vec<Pending>,
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
        Set { sems: vec![Sem::default(); count], undo: BTreeMap::new(), otime: 0, ctime: now(), pending: Vec::new() }
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

    /// Carries out what waiters can do after a change; gives who is to be told (`do_smart_update`).
    pub(super) fn update(&mut self) -> Woken {
        let mut woken = Woken::default();
        let mut at = 0;
        while at < self.pending.len() {
            let p = self.pending.remove(at);
            let outcome = match self.attempt(&p.ops, p.group, p.pid) {
                Ok(Attempt::Blocked(_)) => {
                    self.pending.insert(at, p);
                    at += 1;
                    continue;
                }
                Ok(Attempt::Done) => Ok(()),
                Err(e) => Err(e),
            };
            let changed = outcome.is_ok() && p.ops.iter().any(|op| op.sem_op != 0);
            woken.0.push((p.waiter, outcome));
            if changed {
                // Those who came before may go now.
                at = 0;
            }
        }
        woken
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
        self.pending.iter().filter(blocks).count()
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitKind {
    /// A higher value: GETNCNT.
    Increase,
    /// The value zero: GETZCNT.
    Zero,
}
