//! Which processes the host's kernel ends first when it is out of memory: `/proc/PID/oom_score_adj`.
//!
//! It is set where it is passed on from: for a sandbox's first container on the sandbox process before that runs, for a later one on
//! the template that its processes descend from.

use std::fs;

/// Sets a process's, best effort: lowering it takes a privilege that a sandbox's creator need not have.
pub(crate) fn set(pid: i32, score: i32) {
    if let Err(error) = fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
        tracing::warn!(%error, score, "cannot set oom_score_adj");
    }
}

/// This process's own, which its children get if nobody says otherwise.
pub(crate) fn own() -> Option<i32> {
    fs::read_to_string("/proc/self/oom_score_adj").ok()?.trim().parse().ok()
}
