//! [`Pid`] and [`PidNamespace`]: the numbers by which guests name tasks, process groups and sessions.
//!
//! A `Pid` is the identity of one task (and of the process group or session that it founded), with one number in its
//! own namespace and one in each ancestor. Its numbers stay taken for as long as anything refers to it: the task until
//! it is reaped, its group, its session, a pidfd. Which task a pid stands for is known to the kernel alone
//! (`moat_kernel::process::table`).

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use moat_abi::{Errno, Result};
use moat_sync::{LockClass, Mutex};

use crate::ids::Counter;
use crate::quota::{Charge, NamespaceId};
use crate::user_ns::UserNamespace;

/// Highest number plus one (`kernel.pid_max` of a 64-bit Linux).
pub const PID_MAX: i32 = 4_194_304;
/// Numbers below are given once only: after a wrap the search starts here (`RESERVED_PIDS`).
const RESERVED_PIDS: i32 = 300;
/// Levels of nesting that Linux allows (`MAX_PID_NS_LEVEL`).
pub const MAX_LEVEL: usize = 32;

/// A pid namespace.
pub struct PidNamespace {
    /// The inode number of `/proc/PID/ns/pid`.
    pub id: u64,
    /// The user namespace whose capabilities rule here.
    pub user_ns: Arc<UserNamespace>,
    /// The namespace in which this one was made.
    pub parent: Option<Arc<PidNamespace>>,
    /// How many namespaces are above it.
    pub level: usize,
    table: Mutex<Numbers>,
    /// Where the ids of pids come from: one counter for all namespaces of a kernel.
    pid_ids: Arc<Counter>,
    /// What it counts as.
    _charge: Option<Charge>,
}

struct Numbers {
    last: i32,
    used: BTreeMap<i32, Weak<Pid>>,
    /// Set when init has died: no further task can be made.
    dead: bool,
}

impl PidNamespace {
    /// A namespace below `parent`.
    ///
    /// # Errors
    /// ENOSPC beyond the 32nd level.
    pub fn new(
        id: impl Into<NamespaceId>,
        user_ns: Arc<UserNamespace>,
        parent: Option<Arc<PidNamespace>>,
    ) -> Result<Arc<PidNamespace>> {
        let NamespaceId { number: id, charge } = id.into();
        let level = parent.as_ref().map_or(0, |p| p.level + 1);
        // Each process has a number in every namespace above, so depth costs all of them.
        if level > MAX_LEVEL {
            return Err(Errno::ENOSPC);
        }
        let numbers = Numbers { last: 0, used: BTreeMap::new(), dead: false };
        // One count for the whole tree: an id tells pids apart wherever they are seen from.
        let pid_ids = parent.as_ref().map_or_else(|| Arc::new(Counter::starting_at(1)), |p| p.pid_ids.clone());
        Ok(Arc::new(PidNamespace {
            id,
            user_ns,
            parent,
            level,
            table: Mutex::new(LockClass::Table, numbers),
            pid_ids,
            _charge: charge,
        }))
    }

    /// The pid with this number here.
    #[must_use]
    pub fn lookup(&self, number: i32) -> Option<Arc<Pid>> {
        // Upgraded with the table unlocked: the last reference to a pid locks it.
        let found = self.table.lock().used.get(&number).cloned();
        found?.upgrade()
    }

    /// All numbers in ascending order, for /proc and kill(-1).
    #[must_use]
    pub fn pids(&self) -> Vec<Arc<Pid>> {
        // Upgraded unlocked, as in `lookup`.
        let all: Vec<_> = self.table.lock().used.values().cloned().collect();
        all.iter().filter_map(Weak::upgrade).collect()
    }

    /// Lets no further task into the namespace: its init has died (`disable_pid_allocation`).
    pub fn close(&self) {
        self.table.lock().dead = true;
    }

    /// Whether no further task can come into it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.table.lock().dead
    }

    /// Whether `self` is `other` or above it.
    #[must_use]
    pub fn contains(&self, other: &PidNamespace) -> bool {
        let mut ns = Some(other);
        while let Some(n) = ns {
            if n.id == self.id {
                return true;
            }
            ns = n.parent.as_deref();
        }
        false
    }

    /// The number given last (`/proc/loadavg`, `ns_last_pid`).
    #[must_use]
    pub fn last_pid(&self) -> i32 {
        self.table.lock().last
    }

    /// Goes on giving numbers behind `last`: the namespace is one out of an image.
    pub fn set_last_pid(&self, last: i32) {
        self.table.lock().last = last.clamp(0, PID_MAX - 1);
    }

    fn take(&self, wanted: Option<i32>, pid: &Weak<Pid>) -> Result<i32> {
        let mut t = self.table.lock();
        // What Linux gives then (pid_namespaces(7)).
        if t.dead {
            return Err(Errno::ENOMEM);
        }
        let number = match wanted {
            Some(n) if t.used.contains_key(&n) => return Err(Errno::EEXIST),
            Some(n) => n,
            None => {
                let n = free_number(&t.used, t.last).ok_or(Errno::EAGAIN)?;
                t.last = n;
                n
            }
        };
        t.used.insert(number, pid.clone());
        Ok(number)
    }
}

/// The first free number after `last`, wrapping to [`RESERVED_PIDS`].
fn free_number<V>(used: &BTreeMap<i32, V>, last: i32) -> Option<i32> {
    // Numbers in use are in order: the first that is missing is free.
    let first_gap = |from: i32, to: i32| {
        let mut candidate = from;
        for &n in used.range(from..to).map(|(n, _)| n) {
            if n != candidate {
                break;
            }
            candidate += 1;
        }
        (candidate < to).then_some(candidate)
    };
    first_gap(last + 1, PID_MAX).or_else(|| first_gap(if last < RESERVED_PIDS { 1 } else { RESERVED_PIDS }, last + 1))
}

/// Names a thread group for ever: the id of its [`Pid`], in the order of their making.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

/// Names a task for ever: in the order of their making, never used again, in no namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// One identity, with a number in each namespace that can see it.
pub struct Pid {
    /// Unique and never used again.
    pub id: u64,
    /// Outermost namespace first, the own namespace last.
    numbers: Vec<(Arc<PidNamespace>, i32)>,
}

impl Pid {
    /// Takes a number in `ns` and in all of its ancestors; `wanted` gives numbers from the innermost outwards (`set_tid`).
    ///
    /// # Errors
    /// EAGAIN without a free number, EEXIST for a wanted one that is taken, ENOMEM if the namespace's init is dead.
    pub fn allocate(ns: &Arc<PidNamespace>, wanted: &[i32]) -> Result<Arc<Pid>> {
        let mut chain = Vec::with_capacity(ns.level + 1);
        let mut at = Some(ns.clone());
        while let Some(n) = at {
            at = n.parent.clone();
            chain.push(n);
        }
        let (id, mut failed) = (ns.pid_ids.next(), None);
        // While it is being made: the tables take weak references to it.
        let pid = Arc::new_cyclic(|weak| {
            let mut numbers = Vec::with_capacity(chain.len());
            for (i, ns) in chain.into_iter().enumerate() {
                match ns.take(wanted.get(i).copied(), weak) {
                    Ok(n) => numbers.push((ns, n)),
                    Err(e) => {
                        failed = Some(e);
                        break;
                    }
                }
            }
            numbers.reverse();
            Pid { id, numbers }
        });
        // Dropping the half-made pid gives its numbers back.
        failed.map_or(Ok(pid), Err)
    }

    /// The number in `ns`; 0 if the namespace can't see this pid.
    #[must_use]
    pub fn number_in(&self, ns: &PidNamespace) -> i32 {
        // Levels are places in the list; a namespace of the same level may be another one.
        match self.numbers.get(ns.level) {
            Some((n, number)) if n.id == ns.id => *number,
            _ => 0,
        }
    }

    /// The innermost namespace.
    #[must_use]
    pub fn namespace(&self) -> &Arc<PidNamespace> {
        &self.numbers.last().expect("a pid has at least one number").0
    }

    /// Whether it is the first of its namespace, whose death is the namespace's.
    #[must_use]
    pub fn is_init(&self) -> bool {
        self.number() == 1
    }

    /// The number in the innermost namespace.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.numbers.last().map_or(0, |(_, n)| *n)
    }

    /// The numbers from the outermost namespace inwards, starting with `ns` (`NSpid` of /proc/PID/status).
    #[must_use]
    pub fn numbers_from(&self, ns: &PidNamespace) -> Vec<i32> {
        self.numbers.iter().skip(ns.level).map(|(_, n)| *n).collect()
    }
}

impl Drop for Pid {
    fn drop(&mut self) {
        for (ns, number) in &self.numbers {
            ns.table.lock().used.remove(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_up_wrap_and_come_back() {
        let ns = PidNamespace::new(1, UserNamespace::root(), None).unwrap();
        let a = Pid::allocate(&ns, &[]).unwrap();
        let b = Pid::allocate(&ns, &[]).unwrap();
        assert_eq!((a.number(), b.number()), (1, 2));
        drop(a);
        let c = Pid::allocate(&ns, &[]).unwrap();
        assert_eq!(c.number(), 3);
        assert_eq!(Pid::allocate(&ns, &[2]).err(), Some(Errno::EEXIST));
        assert_eq!(Pid::allocate(&ns, &[77]).unwrap().number(), 77);
        let used: BTreeMap<i32, ()> = [(300, ()), (301, ())].into();
        assert_eq!(free_number(&used, PID_MAX - 1), Some(302));
    }

    #[test]
    fn nested_namespaces_number_twice() {
        let outer = PidNamespace::new(1, UserNamespace::root(), None).unwrap();
        let _first = Pid::allocate(&outer, &[]).unwrap();
        let inner = PidNamespace::new(2, outer.user_ns.clone(), Some(outer.clone())).unwrap();
        let p = Pid::allocate(&inner, &[]).unwrap();
        assert_eq!((p.number(), p.number_in(&outer), p.number_in(&inner)), (1, 2, 1));
        assert_eq!(_first.number_in(&inner), 0);
        assert_eq!(Pid::allocate(&inner, &[5, 2]).err(), Some(Errno::EEXIST));
        assert!(inner.lookup(5).is_none());
    }
}
