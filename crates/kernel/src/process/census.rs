//! Who there is: questions about all processes, process groups and sessions, answered from the one `Tasks` lock.

use std::sync::Arc;

use moat_abi::clone::WaitStatus;
use moat_identity::{Pid, PidNamespace, ProcessGroup, Session};

use crate::kernel::Kernel;
use crate::process::group::ThreadGroup;
use crate::task::Task;

impl Kernel {
    /// All processes, zombies included, eldest first.
    #[must_use]
    pub fn processes(&self) -> Vec<Arc<ThreadGroup>> {
        self.family.lock().nodes().map(|n| n.group.clone()).collect()
    }

    /// The processes that `ns` can see, eldest first.
    #[must_use]
    pub fn processes_in(&self, ns: &PidNamespace) -> Vec<Arc<ThreadGroup>> {
        let family = self.family.lock();
        family.nodes().filter(|n| n.group.pid().number_in(ns) > 0).map(|n| n.group.clone()).collect()
    }

    /// How many processes there are, zombies included.
    #[must_use]
    pub fn process_count(&self) -> usize {
        self.family.lock().len()
    }

    /// The members of the process group named `pid`.
    #[must_use]
    pub fn group_members(&self, pid: &Pid) -> Vec<Arc<ThreadGroup>> {
        self.family.lock().members(pid.id)
    }
}

impl ThreadGroup {
    /// Its process group; `None` once it has been reaped.
    #[must_use]
    pub fn process_group(&self) -> Option<Arc<ProcessGroup>> {
        self.kernel().family.lock().node(self.id).map(|n| n.pgrp.clone())
    }

    /// Its session; `None` once it has been reaped.
    #[must_use]
    pub fn session(&self) -> Option<Arc<Session>> {
        self.kernel().family.lock().session_of(self.id)
    }

    /// How it ended, if it has and nobody has waited for it.
    #[must_use]
    pub fn zombie_status(&self) -> Option<WaitStatus> {
        self.kernel().family.lock().node(self.id).and_then(|n| n.zombie)
    }

    /// The thread that wait(2) names, also of a zombie; `None` once it has been reaped.
    #[must_use]
    pub fn main_thread(&self) -> Option<Arc<Task>> {
        self.kernel().family.lock().node(self.id).map(|n| n.leader.clone())
    }
}
