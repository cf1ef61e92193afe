//! Small values: usage, scheduling, exit statuses.

use moat_abi::clone::WaitStatus;
use moat_image::ImageError;
use moat_image::state::{SchedState as SavedSched, UsageState};

use crate::process::sched::SchedState;
use crate::task::usage::Usage;

pub(super) fn usage(u: Usage) -> UsageState {
    UsageState {
        user_ns: u.user_ns,
        system_ns: u.system_ns,
        voluntary_switches: u.voluntary_switches,
        max_rss_kib: u.max_rss_kib,
    }
}

pub(super) fn usage_of(u: UsageState) -> Usage {
    Usage {
        user_ns: u.user_ns,
        system_ns: u.system_ns,
        voluntary_switches: u.voluntary_switches,
        max_rss_kib: u.max_rss_kib,
    }
}

pub(super) fn sched(s: &SchedState) -> SavedSched {
    SavedSched {
        policy: s.policy,
        rt_priority: s.rt_priority,
        nice: s.nice,
        reset_on_fork: s.reset_on_fork,
        affinity: s.affinity.clone(),
        io_priority: s.io_priority,
    }
}

/// CPUs of the longest mask of sched_setaffinity(2), in words.
const MAX_CPU_WORDS: usize = 128;

pub(super) fn sched_of(s: &SavedSched) -> SchedState {
    SchedState {
        policy: s.policy,
        rt_priority: s.rt_priority.min(99),
        nice: s.nice.clamp(-20, 19),
        reset_on_fork: s.reset_on_fork,
        affinity: s.affinity.clone().filter(|words| words.len() <= MAX_CPU_WORDS),
        io_priority: s.io_priority,
    }
}

pub(super) fn status(s: WaitStatus) -> i32 {
    s.to_raw().cast_signed()
}

/// # Errors
/// A status that is no end.
pub(super) fn end_of(raw: i32) -> Result<WaitStatus, ImageError> {
    match WaitStatus::from_raw(raw.cast_unsigned()) {
        status @ (WaitStatus::Exited(_) | WaitStatus::Signaled { .. }) => Ok(status),
        _ => Err(ImageError::state(format!("a process has ended with status {raw:#x}"))),
    }
}
