//! [`RestartBlock`]: what a call with a relative timeout needs to go on after a stop (restart_syscall(2)).

use std::time::Instant;

/// The call that restart_syscall(2) goes on with.
///
/// The call is made again with the same arguments and finds its deadline by [`crate::CurrentTask::take_restart_deadline`]
/// instead of computing a new one from the timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartBlock {
    /// The system call's number.
    pub nr: u64,
    /// Its arguments.
    pub args: [u64; 6],
    /// When it is to end.
    pub deadline: Option<Instant>,
}
