//! Semaphore sets: [`Semaphores`] of a namespace, and [`SemWait`], a semop(2) that has to wait.
//!
//! A semop(2) that cannot proceed stays with its set; whoever changes the set carries out, in the order of their coming, the
//! operations that have become possible (`do_smart_update`), so that waiters are served first come, first served.

mod persist;

use std::sync::Arc;

use moat_abi::ipc::{IPC_NOWAIT, SEMMNI, SEMMNS, SEMMSL, SEMOPM, SEMVMX, Sembuf, Semid64Ds};
use moat_abi::{Errno, Result};
use moat_identity::{Setting, UserNamespace};
use moat_sync::{LockClass, Mutex};
use moat_vfs::cred::Credentials;

use crate::now;
use crate::registry::{Entry, Found, READ, Registry, Stat, WRITE};
use crate::sem_set::{Attempt, Pending, Sem, Set, Woken, altered};
pub use crate::sem_set::{WaitKind, Waiter};
use moat_identity::GroupId;

/// Who calls semop(2).
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The process, whose end undoes operations.
    pub group: GroupId,
    /// Its id, for GETPID.
    pub pid: i32,
    /// Its credentials.
    pub creds: &'a Credentials,
}

/// How a semop(2) went at first.
pub enum Started {
    /// It is done.
    Done,
    /// It waits in its set.
    Waits(SemWait),
}

/// A place among the waiters of a set, given up when dropped.
pub struct SemWait {
    objects: Arc<crate::SystemV>,
    id: i32,
    /// Its place in the set.
    arrival: u64,
    /// What to wait for.
    pub waiter: Arc<Waiter>,
}

impl Drop for SemWait {
    fn drop(&mut self) {
        let gone = {
            let mut registry = self.objects.sem.registry.lock();
            let Ok(entry) = registry.get_mut(self.id) else { return };
            entry.object.give_up(self.arrival)
        };
        // Dropped unlocked.
        drop(gone);
    }
}

/// The semaphore sets of a namespace.
pub struct Semaphores {
    pub(super) registry: Mutex<Registry<Set>>,
    /// Most semaphores of a set: the first number of `kernel.sem`.
    pub max_in_set: Setting,
    /// Most semaphores of all: the second.
    pub max_of_all: Setting,
    /// Most operations of a call: the third.
    pub max_operations: Setting,
    /// Most sets: the fourth.
    pub max_sets: Setting,
}

impl Semaphores {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.registry.lock().count() == 0
    }

    /// A namespace without semaphores, owned by `user_ns`.
    #[must_use]
    pub fn new(user_ns: Arc<UserNamespace>) -> Semaphores {
        let setting = |value: i32, most: i32| Setting::new(value.unsigned_abs().into(), 0, most.unsigned_abs().into());
        Semaphores {
            registry: Mutex::new(LockClass::Table, Registry::new(usize::try_from(SEMMNI).unwrap_or(0), user_ns)),
            max_in_set: setting(SEMMSL, 65536),
            max_of_all: setting(SEMMNS, i32::MAX),
            max_operations: setting(SEMOPM, 1024),
            max_sets: setting(SEMMNI, 32768),
        }
    }
}

fn show(entry: &Entry<Set>) -> Semid64Ds {
    Semid64Ds {
        sem_perm: entry.perm.show(),
        sem_otime: entry.object.otime,
        sem_ctime: entry.object.ctime,
        sem_nsems: u64::try_from(entry.object.sems.len()).unwrap_or(u64::MAX),
        ..Semid64Ds::default()
    }
}

impl Semaphores {
    /// semget(2).
    ///
    /// # Errors
    /// EINVAL for the number; ENOSPC for limits; those of [`Registry::find`].
    pub fn get(&self, key: i32, count: i32, flags: i32, creds: &Credentials) -> Result<i32> {
        let count = usize::try_from(count).ok().filter(|_| count <= self.max_in_set.get_i32()).ok_or(Errno::EINVAL)?;
        let mut registry = self.registry.lock();
        let fits = |s: &Set| if s.sems.len() < count { Err(Errno::EINVAL) } else { Ok(()) };
        if let Found::Existing(id) = registry.find(key, flags, creds, fits)? {
            return Ok(id);
        }
        // 0 only asks for a set that exists.
        if count == 0 {
            return Err(Errno::EINVAL);
        }
        if registry.weight() + count > usize::try_from(self.max_of_all.get()).unwrap_or(usize::MAX) {
            return Err(Errno::ENOSPC);
        }
        registry.set_capacity(self.max_sets.get());
        registry.add(key, flags, creds, count, |_| Set::new(count))
    }

    /// GETVAL and GETPID of one semaphore: value and process id.
    ///
    /// # Errors
    /// EINVAL, EACCES.
    pub fn value(&self, id: i32, number: i32, creds: &Credentials) -> Result<(i32, i32)> {
        let registry = self.registry.lock();
        let entry = registry.get(id)?;
        entry.perm.check(creds, READ)?;
        let number = usize::try_from(number).map_err(|_| Errno::EINVAL)?;
        entry.object.sems.get(number).map(|s| (s.value, s.pid)).ok_or(Errno::EINVAL)
    }

    /// GETNCNT and GETZCNT.
    ///
    /// # Errors
    /// EINVAL, EACCES.
    pub fn waiters(&self, id: i32, number: i32, kind: WaitKind, creds: &Credentials) -> Result<usize> {
        let registry = self.registry.lock();
        let entry = registry.get(id)?;
        entry.perm.check(creds, READ)?;
        let number = usize::try_from(number).ok().filter(|n| *n < entry.object.sems.len()).ok_or(Errno::EINVAL)?;
        Ok(entry.object.count_waiters(number, kind))
    }

    /// GETALL.
    ///
    /// # Errors
    /// EINVAL, EACCES.
    pub fn values(&self, id: i32, creds: &Credentials) -> Result<Vec<u16>> {
        let registry = self.registry.lock();
        let entry = registry.get(id)?;
        entry.perm.check(creds, READ)?;
        Ok(entry.object.sems.iter().map(|s| u16::try_from(s.value).unwrap_or(0)).collect())
    }

    /// The number of semaphores of a set whose values `creds` may set: how many values SETALL reads.
    ///
    /// # Errors
    /// EINVAL, EACCES.
    pub fn count_to_set(&self, id: i32, creds: &Credentials) -> Result<usize> {
        let registry = self.registry.lock();
        let entry = registry.get(id)?;
        entry.perm.check(creds, WRITE)?;
        Ok(entry.object.sems.len())
    }

    /// SETVAL.
    ///
    /// # Errors
    /// ERANGE for the value; EINVAL, EACCES.
    pub fn set_value(&self, id: i32, number: i32, value: i32, caller: &Caller) -> Result<()> {
        if !(0..=SEMVMX).contains(&value) {
            return Err(Errno::ERANGE);
        }
        let woken = {
            let mut registry = self.registry.lock();
            let entry = registry.get_mut(id)?;
            let at = usize::try_from(number).ok().filter(|n| *n < entry.object.sems.len()).ok_or(Errno::EINVAL)?;
            entry.perm.check(caller.creds, WRITE)?;
            let set = &mut entry.object;
            // What processes have noted for their end is void (semctl(2)).
            for adjust in set.undo.values_mut().filter_map(|u| u.get_mut(at)) {
                *adjust = 0;
            }
            if let Some(sem) = set.sems.get_mut(at) {
                *sem = Sem { value, pid: caller.pid };
            }
            set.ctime = now();
            set.update([at])
        };
        woken.tell();
        Ok(())
    }

    /// SETALL.
    ///
    /// # Errors
    /// ERANGE for a value; EIDRM if the set is gone or another; EACCES.
    pub fn set_values(&self, id: i32, values: &[u16], caller: &Caller) -> Result<()> {
        if values.iter().any(|v| i32::from(*v) > SEMVMX) {
            return Err(Errno::ERANGE);
        }
        let woken = {
            let mut registry = self.registry.lock();
            // It was there when the number of values was asked for.
            let entry = registry.get_mut(id).map_err(|_| Errno::EIDRM)?;
            entry.perm.check(caller.creds, WRITE)?;
            let set = &mut entry.object;
            for (sem, value) in set.sems.iter_mut().zip(values) {
                *sem = Sem { value: i32::from(*value), pid: caller.pid };
            }
            set.undo.values_mut().for_each(|u| u.fill(0));
            set.ctime = now();
            set.update(0..set.sems.len())
        };
        woken.tell();
        Ok(())
    }

    /// IPC_STAT and its like: the id and the state.
    ///
    /// # Errors
    /// EINVAL, EACCES.
    pub fn stat(&self, id: i32, how: Stat, creds: &Credentials) -> Result<(i32, Semid64Ds)> {
        let registry = self.registry.lock();
        let entry = registry.stat(id, how, creds)?;
        Ok((entry.id(), show(entry)))
    }

    /// IPC_SET.
    ///
    /// # Errors
    /// EINVAL, EPERM.
    pub fn set(&self, id: i32, new: &Semid64Ds, creds: &Credentials) -> Result<()> {
        let mut registry = self.registry.lock();
        let entry = registry.get_mut(id)?;
        entry.perm.check_control(creds)?;
        entry.perm.set(&new.sem_perm)?;
        entry.object.ctime = now();
        Ok(())
    }

    /// IPC_RMID: those who wait get EIDRM.
    ///
    /// # Errors
    /// EINVAL, EPERM.
    pub fn remove(&self, id: i32, creds: &Credentials) -> Result<()> {
        let removed = self.registry.lock().remove_by(id, creds)?;
        for p in removed.object.into_pending() {
            p.waiter.finish(Err(Errno::EIDRM));
        }
        Ok(())
    }

    /// How many sets and semaphores there are, and the highest index in use.
    #[must_use]
    pub fn usage(&self) -> (usize, usize, u32) {
        let registry = self.registry.lock();
        (registry.count(), registry.weight(), registry.highest_index())
    }

    /// All sets, for `/proc/sysvipc/sem`.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(i32, Semid64Ds)> {
        self.registry.lock().iter().map(|e| (e.id(), show(e))).collect()
    }
}

impl crate::SystemV {
    /// semop(2): does the operations, or leaves a waiter. There is at least one operation.
    ///
    /// # Errors
    /// EINVAL, EFBIG, EACCES, ERANGE; EAGAIN with IPC_NOWAIT.
    pub fn semop(self: &Arc<Self>, id: i32, ops: Vec<Sembuf>, caller: &Caller) -> Result<Started> {
        let (started, woken) = {
            let mut registry = self.sem.registry.lock();
            let entry = registry.get_mut(id)?;
            let set = &mut entry.object;
            // Before the permission, as on Linux.
            if ops.iter().any(|op| usize::from(op.sem_num) >= set.sems.len()) {
                return Err(Errno::EFBIG);
            }
            let alters = ops.iter().any(|op| op.sem_op != 0);
            entry.perm.check(caller.creds, if alters { WRITE } else { READ })?;
            match set.attempt(&ops, caller.group, caller.pid)? {
                Attempt::Done => (Started::Done, set.update(altered(&ops))),
                Attempt::Blocked(at) => {
                    // The flag of the operation that blocks counts.
                    if ops.get(at).is_some_and(|op| i32::from(op.sem_flg) & IPC_NOWAIT != 0) {
                        return Err(Errno::EAGAIN);
                    }
                    let waiter = Waiter::new();
                    let (group, pid) = (caller.group, caller.pid);
                    let pending = Pending { ops, group, pid, waiter: waiter.clone(), blocked_at: at };
                    let arrival = set.add(pending);
                    (Started::Waits(SemWait { objects: self.clone(), id, arrival, waiter }), Woken::default())
                }
            }
        };
        woken.tell();
        Ok(started)
    }
}

#[cfg(test)]
mod tests {
    use moat_abi::ipc::SEM_UNDO;

    use super::*;
    use crate::SystemV;

    fn op(sem_num: u16, sem_op: i16, flags: i32) -> Sembuf {
        Sembuf { sem_num, sem_op, sem_flg: i16::try_from(flags).unwrap() }
    }

    fn waiting(started: Result<Started>) -> SemWait {
        match started.unwrap() {
            Started::Waits(w) => w,
            Started::Done => panic!("it should wait"),
        }
    }

    #[test]
    fn waiters_are_served_in_order_and_all_or_nothing() {
        let root = Credentials::root(moat_identity::UserNamespace::root());
        let caller = Caller { group: GroupId(1), pid: 1, creds: &root };
        let ns = Arc::new(SystemV::new(1, &UserNamespace::root()));
        let id = ns.sem.get(0, 2, 0o600, &root).unwrap();
        let wait = |ops| waiting(ns.semop(id, ops, &caller));
        let both = wait(vec![op(0, -1, 0), op(1, -1, 0)]);
        let first = wait(vec![op(0, -1, 0)]);
        assert_eq!(ns.sem.waiters(id, 0, WaitKind::Increase, &root), Ok(2));
        assert!(matches!(ns.semop(id, vec![op(0, 1, 0)], &caller), Ok(Started::Done)));
        assert_eq!((both.waiter.outcome(), first.waiter.outcome()), (None, Some(Ok(()))));
        assert_eq!(ns.sem.values(id, &root), Ok(vec![0, 0]));
        ns.sem.set_values(id, &[1, 1], &caller).unwrap();
        assert_eq!((both.waiter.outcome(), ns.sem.values(id, &root)), (Some(Ok(())), Ok(vec![0, 0])));
        let last = wait(vec![op(1, -1, 0)]);
        assert!(matches!(ns.semop(id, vec![op(1, 1, 0), op(0, -1, IPC_NOWAIT)], &caller), Err(Errno::EAGAIN)));
        assert_eq!(last.waiter.outcome(), None, "a failed attempt changes nothing");
        ns.sem.remove(id, &root).unwrap();
        assert_eq!(last.waiter.outcome(), Some(Err(Errno::EIDRM)));
    }

    #[test]
    fn what_a_waiter_does_lets_earlier_ones_go() {
        let root = Credentials::root(moat_identity::UserNamespace::root());
        let caller = Caller { group: GroupId(1), pid: 1, creds: &root };
        let ns = Arc::new(SystemV::new(1, &UserNamespace::root()));
        let id = ns.sem.get(0, 2, 0o600, &root).unwrap();
        let wait = |ops| waiting(ns.semop(id, ops, &caller));
        let given_up = wait(vec![op(1, -1, 0)]);
        let early = wait(vec![op(1, -2, 0)]);
        let late = wait(vec![op(0, -1, 0), op(1, 2, 0)]);
        // Its first operation that can't be done is the other one after this.
        let zero = wait(vec![op(0, -2, 0), op(1, 0, 0)]);
        drop(given_up);
        assert!(matches!(ns.semop(id, vec![op(0, 1, 0)], &caller), Ok(Started::Done)));
        assert_eq!((early.waiter.outcome(), late.waiter.outcome()), (Some(Ok(())), Some(Ok(()))));
        assert_eq!((ns.sem.values(id, &root), zero.waiter.outcome()), (Ok(vec![0, 0]), None));
        ns.sem.set_values(id, &[2, 1], &caller).unwrap();
        assert_eq!((zero.waiter.outcome(), ns.sem.waiters(id, 1, WaitKind::Zero, &root)), (None, Ok(1)));
        ns.sem.set_value(id, 1, 0, &caller).unwrap();
        assert_eq!((zero.waiter.outcome(), ns.sem.values(id, &root)), (Some(Ok(())), Ok(vec![0, 0])));
        drop((early, late));
    }

    #[test]
    fn the_end_of_a_process_takes_back_what_it_did() {
        let root = Credentials::root(moat_identity::UserNamespace::root());
        let caller = Caller { group: GroupId(5), pid: 5, creds: &root };
        let ns = Arc::new(SystemV::new(1, &UserNamespace::root()));
        let id = ns.sem.get(0, 1, 0o600, &root).unwrap();
        ns.sem.set_value(id, 0, 1, &caller).unwrap();
        assert!(matches!(ns.semop(id, vec![op(0, -1, SEM_UNDO)], &caller), Ok(Started::Done)));
        assert!(matches!(ns.semop(id, vec![op(0, 0, 0)], &caller), Ok(Started::Done)));
        ns.sem.exit(GroupId(5), 5);
        assert_eq!(ns.sem.value(id, 0, &root), Ok((1, 5)));
        ns.sem.exit(GroupId(5), 5);
        assert_eq!(ns.sem.value(id, 0, &root), Ok((1, 5)), "once");
    }
}
