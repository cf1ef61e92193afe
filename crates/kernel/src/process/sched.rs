//! Scheduling parameters: kept as on Linux. Of these only the affinity reaches the host ([`crate::CurrentTask::apply_affinity`]).

use moat_abi::prctl::{SCHED_DEADLINE, SCHED_FIFO, SCHED_NORMAL, SCHED_RR};

/// What sched_setattr(2), setpriority(2) and sched_setaffinity(2) set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedState {
    /// `SCHED_*`.
    pub policy: u32,
    /// Real-time priority, 1 to 99, or 0.
    pub rt_priority: u32,
    /// Nice value, -20 to 19.
    pub nice: i32,
    /// `SCHED_FLAG_RESET_ON_FORK`.
    pub reset_on_fork: bool,
    /// CPUs, one bit each; `None` for all.
    pub affinity: Option<Vec<u64>>,
    /// ioprio_set(2).
    pub io_priority: u32,
}

impl Default for SchedState {
    fn default() -> Self {
        SchedState {
            policy: SCHED_NORMAL,
            rt_priority: 0,
            nice: 0,
            reset_on_fork: false,
            affinity: None,
            io_priority: 0,
        }
    }
}

impl SchedState {
    /// What a child starts with (`sched_fork`).
    #[must_use]
    pub fn for_child(&self) -> SchedState {
        let mut child = self.clone();
        if self.reset_on_fork {
            child.policy =
                if matches!(self.policy, SCHED_FIFO | SCHED_RR | SCHED_DEADLINE) { SCHED_NORMAL } else { self.policy };
            child.rt_priority = 0;
            // A better nice value is a privilege as well.
            child.nice = child.nice.max(0);
            child.reset_on_fork = false;
        }
        child
    }
}
