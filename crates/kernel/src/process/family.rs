//! [`Family`]: who is whose parent, and the members of process groups and sessions, under the one `Tasks` lock; [`TaskTable`]:
//! which task a [`Pid`] stands for, under a lock of its own.
//!
//! Source: `kernel/exit.c` (reparenting, orphaned groups), `kernel/pid.c`, setpgid(2), setsid(2).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use moat_abi::clone::WaitStatus;
use moat_identity::{Pid, PidNamespace, ProcessGroup, Session};
use moat_sync::{LockClass, RwLock};

use crate::process::allowance::TaskCharge;
use crate::process::group::{GroupId, ThreadGroup};
use crate::task::{Task, TaskId};

/// One process in the family.
pub struct Node {
    /// The process.
    pub group: Arc<ThreadGroup>,
    /// Its parent; `None` for the first process of a container.
    pub parent: Option<GroupId>,
    /// The thread that made it, whose death PR_SET_PDEATHSIG reports.
    pub parent_task: TaskId,
    /// Its children, eldest first.
    pub children: BTreeSet<GroupId>,
    /// Threads of other processes that its threads trace.
    pub tracees: Vec<Arc<Task>>,
    /// Its process group.
    pub pgrp: Arc<ProcessGroup>,
    /// Set when all threads have ended: what wait(2) gives.
    pub zombie: Option<WaitStatus>,
    /// The zombie's thread that wait(2) names; keeps the pid taken.
    pub leader: Arc<Task>,
}

struct PgrpEntry {
    pgrp: Arc<ProcessGroup>,
    members: BTreeSet<GroupId>,
}

/// All processes of the sandbox that have not been reaped.
#[derive(Default)]
pub struct Family {
    nodes: BTreeMap<GroupId, Node>,
    pgrps: BTreeMap<u64, PgrpEntry>,
}

impl Family {
    /// The node of a process.
    #[must_use]
    pub fn node(&self, id: GroupId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// The node of a process.
    pub fn node_mut(&mut self, id: GroupId) -> Option<&mut Node> {
        self.nodes.get_mut(&id)
    }

    /// All processes, eldest first.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// How many processes there are, zombies included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Adds a process.
    pub fn add(
        &mut self,
        group: Arc<ThreadGroup>,
        leader: Arc<Task>,
        parent: Option<(GroupId, TaskId)>,
        pgrp: Arc<ProcessGroup>,
    ) {
        let id = group.id;
        let (parent, parent_task) = parent.unzip();
        if let Some(p) = parent.and_then(|p| self.nodes.get_mut(&p)) {
            p.children.insert(id);
        }
        self.join(id, &pgrp);
        // Ids of tasks start at 1.
        let parent_task = parent_task.unwrap_or(TaskId(0));
        let node = Node {
            group,
            parent,
            parent_task,
            children: BTreeSet::new(),
            tracees: Vec::new(),
            pgrp,
            zombie: None,
            leader,
        };
        self.nodes.insert(id, node);
    }

    /// Takes a reaped process out.
    pub fn remove(&mut self, id: GroupId) -> Option<Node> {
        let node = self.nodes.remove(&id)?;
        if let Some(p) = node.parent.and_then(|p| self.nodes.get_mut(&p)) {
            p.children.remove(&id);
        }
        self.leave(id, &node.pgrp);
        Some(node)
    }

    /// The parent of a process.
    #[must_use]
    pub fn parent(&self, id: GroupId) -> Option<Arc<ThreadGroup>> {
        let parent = self.nodes.get(&id)?.parent?;
        self.nodes.get(&parent).map(|n| n.group.clone())
    }

    fn join(&mut self, id: GroupId, pgrp: &Arc<ProcessGroup>) {
        let entry =
            self.pgrps.entry(pgrp.id()).or_insert_with(|| PgrpEntry { pgrp: pgrp.clone(), members: BTreeSet::new() });
        entry.members.insert(id);
    }

    fn leave(&mut self, id: GroupId, pgrp: &Arc<ProcessGroup>) {
        if let Some(entry) = self.pgrps.get_mut(&pgrp.id()) {
            entry.members.remove(&id);
            if entry.members.is_empty() {
                self.pgrps.remove(&pgrp.id());
            }
        }
    }

    /// Moves a process to another group.
    pub fn change_pgrp(&mut self, id: GroupId, to: Arc<ProcessGroup>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let from = std::mem::replace(&mut node.pgrp, to.clone());
        if from.id() != to.id() {
            self.leave(id, &from);
            self.join(id, &to);
        }
    }

    /// The process group with this identity, if it has members.
    #[must_use]
    pub fn pgrp(&self, id: u64) -> Option<Arc<ProcessGroup>> {
        self.pgrps.get(&id).map(|e| e.pgrp.clone())
    }

    /// The members of a process group.
    #[must_use]
    pub fn members(&self, pgrp: u64) -> Vec<Arc<ThreadGroup>> {
        let Some(e) = self.pgrps.get(&pgrp) else { return Vec::new() };
        e.members.iter().filter_map(|id| self.nodes.get(id)).map(|n| n.group.clone()).collect()
    }

    /// The session of a process.
    #[must_use]
    pub fn session_of(&self, id: GroupId) -> Option<Arc<Session>> {
        self.nodes.get(&id).map(|n| n.pgrp.session.clone())
    }

    /// Whether no living member of the group has a parent in another group of the same session (`will_become_orphaned_pgrp`).
    ///
    /// `ignored` is a process that is about to leave.
    #[must_use]
    pub fn is_orphaned(&self, pgrp: &ProcessGroup, ignored: Option<GroupId>) -> bool {
        let Some(e) = self.pgrps.get(&pgrp.id()) else { return true };
        !e.members.iter().filter(|id| Some(**id) != ignored).filter_map(|id| self.nodes.get(id)).any(|n| {
            let parent = n.parent.and_then(|p| self.nodes.get(&p));
            n.zombie.is_none()
                && parent.is_some_and(|p| p.pgrp.id() != pgrp.id() && p.pgrp.session.id() == pgrp.session.id())
        })
    }

    /// Who adopts the children of `id`: the nearest subreaper among its ancestors, or the init of its namespace.
    #[must_use]
    pub fn reaper(&self, id: GroupId, ns: &PidNamespace) -> Option<GroupId> {
        // One that is about to end would only pass them on.
        let alive = |n: &&Node| n.zombie.is_none() && n.group.signals.lock().exit.is_none();
        let node = self.nodes.get(&id)?;
        if !node.children.is_empty() {
            let mut at = node.parent;
            while let Some(n) = at.and_then(|p| self.nodes.get(&p)) {
                // A subreaper adopts only inside its own namespace.
                if n.group.pid().number_in(ns) == 0 || n.group.pid().namespace().id != ns.id {
                    break;
                }
                if n.group.child_subreaper.load(Ordering::Relaxed) && alive(&n) {
                    return Some(n.group.id);
                }
                at = n.parent;
            }
        }
        let init = GroupId(ns.lookup(1)?.id);
        (init != id && self.nodes.contains_key(&init)).then_some(init)
    }

    /// Gives the children of `id` to `to`; gives those that moved.
    pub fn reparent(&mut self, id: GroupId, to: Option<GroupId>, to_task: TaskId) -> BTreeSet<GroupId> {
        let children = self.nodes.get_mut(&id).map(|n| std::mem::take(&mut n.children)).unwrap_or_default();
        for c in &children {
            if let Some(n) = self.nodes.get_mut(c) {
                n.parent = to;
                n.parent_task = to_task;
            }
        }
        if let Some(n) = to.and_then(|t| self.nodes.get_mut(&t)) {
            n.children.extend(&children);
        }
        children
    }
}

/// The tasks by the ids of their pids, from their making until they are reaped.
pub(crate) struct TaskTable {
    by_pid: RwLock<HashMap<u64, Entry>>,
}

struct Entry {
    task: Weak<Task>,
    /// It counts as one of its container's for as long.
    _charge: TaskCharge,
}

impl Default for TaskTable {
    fn default() -> TaskTable {
        TaskTable { by_pid: RwLock::new(LockClass::Table, HashMap::new()) }
    }
}

impl TaskTable {
    /// The task that `pid` stands for.
    pub(crate) fn get(&self, pid: &Pid) -> Option<Arc<Task>> {
        // Upgraded without the lock: what is dropped last may lock anything.
        let task = self.by_pid.read().get(&pid.id).map(|entry| entry.task.clone());
        task?.upgrade()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Task>> {
        let tasks: Vec<_> = self.by_pid.read().values().map(|entry| entry.task.clone()).collect();
        tasks.into_iter().filter_map(|task| task.upgrade()).collect()
    }

    /// Lets `pid` stand for the new `task`.
    pub(crate) fn bind(&self, pid: &Pid, task: &Arc<Task>, charge: TaskCharge) {
        self.by_pid.write().insert(pid.id, Entry { task: Arc::downgrade(task), _charge: charge });
    }

    /// Lets `pid` stand for another task than before.
    pub(crate) fn rebind(&self, pid: &Pid, task: &Arc<Task>) {
        if let Some(entry) = self.by_pid.write().get_mut(&pid.id) {
            entry.task = Arc::downgrade(task);
        }
    }

    /// Lets `pid` stand for nobody: its task has been reaped, or has taken another pid.
    pub(crate) fn unbind(&self, pid: &Pid) {
        // Dropped unlocked, as in `get`.
        let gone = self.by_pid.write().remove(&pid.id);
        drop(gone);
    }
}
