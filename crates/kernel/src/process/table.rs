//! [`TaskTable`]: which task a [`Pid`] stands for.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use moat_identity::Pid;
use moat_sync::{LockClass, RwLock};

use crate::task::Task;

/// The tasks by the ids of their pids, from their making until they are reaped.
pub(crate) struct TaskTable {
    by_pid: RwLock<HashMap<u64, Weak<Task>>>,
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
        let task = self.by_pid.read().get(&pid.id).cloned();
        task?.upgrade()
    }

    /// Lets `pid` stand for `task`.
    pub(crate) fn bind(&self, pid: &Pid, task: &Arc<Task>) {
        self.by_pid.write().insert(pid.id, Arc::downgrade(task));
    }

    /// Lets `pid` stand for nobody: its task has been reaped, or has taken another pid.
    pub(crate) fn unbind(&self, pid: &Pid) {
        self.by_pid.write().remove(&pid.id);
    }
}
