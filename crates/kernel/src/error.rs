//! [`SyscallError`]: how a syscall handler ends without a result, and [`Restart`]: Linux's ERESTART codes.
//!
//! The restart codes are a type of their own, so that they cannot leak to a guest as error numbers.

use std::time::Instant;

use moat_abi::Errno;

/// What a handler gives: the value of `rax`, or an error.
pub type SyscallResult = Result<u64, SyscallError>;

/// Why a system call gives no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyscallError {
    /// An error for the guest.
    Errno(Errno),
    /// A signal came first; whether the guest sees EINTR depends on the signal's action.
    Restart(Restart),
}

/// The ERESTART codes of Linux (`include/linux/errno.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// ERESTARTSYS: restarts, unless a handler without SA_RESTART runs (then EINTR).
    Sys,
    /// ERESTARTNOHAND: restarts, unless any handler runs (then EINTR).
    NoHand,
    /// ERESTARTNOINTR: always restarts.
    NoIntr,
    /// ERESTART_RESTARTBLOCK: goes on by restart_syscall(2), unless any handler runs (then EINTR).
    Block(RestartBlock),
    /// The task is being saved: the call is made again when it goes on, before anything else and unseen by anybody. It never
    /// gets as far as the end of the call.
    Again,
}

impl Restart {
    /// What a tracer reads in `rax` at the exit of an interrupted call: 512 and up, negated.
    #[must_use]
    pub fn traced_value(&self) -> u64 {
        let code: i64 = match self {
            Restart::Sys => 512,
            Restart::NoIntr | Restart::Again => 513,
            Restart::NoHand => 514,
            Restart::Block(_) => 516,
        };
        (-code).cast_unsigned()
    }
}

/// A point on the host's monotonic clock at which a wait ends.
pub type Deadline = Instant;

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
    pub deadline: Option<Deadline>,
}

/// A system call that was interrupted and may be restarted.
#[derive(Clone, Copy, Debug)]
pub struct PendingRestart {
    /// By which rule.
    pub kind: Restart,
    /// The call.
    pub nr: u64,
}

impl From<Errno> for SyscallError {
    fn from(e: Errno) -> Self {
        SyscallError::Errno(e)
    }
}

impl From<Restart> for SyscallError {
    fn from(r: Restart) -> Self {
        SyscallError::Restart(r)
    }
}

impl SyscallError {
    /// The value of `rax` if the call is not restarted.
    #[must_use]
    pub fn to_errno(&self) -> Errno {
        match self {
            SyscallError::Errno(e) => *e,
            SyscallError::Restart(_) => Errno::EINTR,
        }
    }
}
