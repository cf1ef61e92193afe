//! [`TaskTable`]: which task a [`Pid`] stands for.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use moat_identity::Pid;
use moat_sync::{LockClass, RwLock};

use crate::process::allowance::TaskCharge;
use crate::task::Task;

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
        let gone = self.by_pid.write().remove(&pid.id);
        drop(gone);
    }
}
