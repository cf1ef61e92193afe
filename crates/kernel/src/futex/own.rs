//! Words that are a process's alone, where the host carries out what is asked of them ([`HostFutex`]).
//!
//! Then its queues are the only ones: the stub has the host carry out most calls, and the sentry, which is asked where a tracer, a filter or
//! a log is to see them, gives them to the host on the thread that made them. On other platforms such words are as shared ones are.

use std::time::Instant;

use moat_abi::futex::{
    FUTEX_BITSET_MATCH_ANY, FUTEX_CLOCK_REALTIME, FUTEX_CMD_MASK, FUTEX_CMP_REQUEUE, FUTEX_PRIVATE_FLAG, FUTEX_REQUEUE,
    FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAKE, FUTEX_WAKE_BITSET, FUTEX_WAKE_OP,
};
use moat_abi::time::{CLOCK_MONOTONIC, CLOCK_REALTIME, NSEC_PER_SEC, Timespec};
use moat_abi::{Errno, Result};
use moat_host::clock::{deadline_at, monotonic_ns};
use moat_mm::{FutexScope, UserAddr, UserPtr};
use moat_platform::{Atomic32, HostFutex, host_futex};

use crate::error::{Restart, RestartBlock, SyscallError, SyscallResult};
use crate::task::CurrentTask;
use crate::task::wait::{Deadline, Wait};

/// A call of futex(2) about words of the process's own.
#[derive(Clone, Copy, Debug)]
pub struct OwnFutex {
    /// What is asked for: FUTEX_WAIT or another.
    pub command: u32,
    /// All arguments.
    pub args: [u64; 6],
    /// When it is to give up.
    pub deadline: Option<Deadline>,
    /// How it goes on after a signal.
    pub restart: Restart,
}

/// Whether the host carries out `command`, for words of `scope`, where `t` runs.
pub fn is_host(t: &mut CurrentTask, command: u32, scope: FutexScope) -> bool {
    scope == FutexScope::Private && (waits(command) || changes(command)) && t.thread().has_host_futexes()
}

fn waits(command: u32) -> bool {
    matches!(command, FUTEX_WAIT | FUTEX_WAIT_BITSET)
}

fn changes(command: u32) -> bool {
    matches!(command, FUTEX_WAKE | FUTEX_WAKE_BITSET | FUTEX_WAKE_OP | FUTEX_REQUEUE | FUTEX_CMP_REQUEUE)
}

/// Has the host carry it out.
///
/// # Errors
/// The host's; interrupted.
pub async fn call(t: &mut CurrentTask, own: &OwnFutex) -> SyscallResult {
    let command = own.command;
    let mut tried = false;
    // One that goes on with the time that was left of it.
    let deadline = t.take_restart_deadline().unwrap_or(own.deadline);
    let own = &OwnFutex { deadline, ..*own };
    loop {
        let result = if waits(command) {
            let wait = Wait::restarting("futex_wait", own.restart).until(own.deadline);
            let call = timed(own, command);
            t.wait_in_host(&wait, &call, |_| false).await.map_err(|error| error.or_timed_out(Errno::ETIMEDOUT))?
        } else {
            let call = HostFutex { nr: moat_abi::nr::FUTEX, args: own.args, until: None };
            // A kick leaves it unmade.
            loop {
                match host_futex(t.thread(), &call).await {
                    Err(Errno::EINTR) if t.is_interrupted() => return Err(Restart::NoIntr.into()),
                    Err(Errno::EINTR) => {}
                    result => break result,
                }
            }
        };
        match result {
            // Memory that has yet to be mapped, as where the stack grows.
            Err(Errno::EFAULT) if !tried => {
                touch(t, own, command).await?;
                tried = true;
            }
            result => return Ok(result?),
        }
    }
}

/// The call with its deadline as a point on the monotonic clock, which the host has in common with the sentry.
fn timed(own: &OwnFutex, command: u32) -> HostFutex {
    let mut args = own.args;
    let until = own.deadline.map(|deadline| {
        if command == FUTEX_WAIT {
            args[5] = u64::from(FUTEX_BITSET_MATCH_ANY);
        }
        args[1] = u64::from(FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG);
        time_of(deadline)
    });
    HostFutex { nr: moat_abi::nr::FUTEX, args, until }
}

/// A deadline as seconds and nanoseconds of the monotonic clock.
pub(super) fn time_of(deadline: Deadline) -> [u64; 2] {
    let left = deadline.saturating_duration_since(Instant::now());
    let ns = monotonic_ns().saturating_add(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX));
    [ns / NSEC_PER_SEC, ns % NSEC_PER_SEC]
}

/// Makes the words accessible that the call uses.
async fn touch(t: &mut CurrentTask, own: &OwnFutex, command: u32) -> Result<()> {
    let (addr, addr2) = (UserAddr::new(own.args[0]), UserAddr::new(own.args[4]));
    if command != FUTEX_WAKE_OP {
        return t.mm().read::<u32>(addr.cast()).map(drop);
    }
    // The same value, by an access that finds out whether it can be written. No stack grows by it.
    super::word::atomic(t, addr2, Atomic32::Or(0)).await.map(drop)
}

/// How a call goes on that the stub had the host carry out, and that a kick has ended; it may have waited since `began_ns`.
pub(crate) fn interrupted(t: &CurrentTask, nr: u64, args: [u64; 6], began_ns: u64) -> SyscallError {
    let op = u32::try_from(args[1] & u64::from(u32::MAX)).unwrap_or(0);
    let command = op & FUTEX_CMD_MASK;
    if nr != u64::from(moat_abi::nr::FUTEX) || !waits(command) {
        // It has not been made.
        return Restart::NoIntr.into();
    }
    if args[3] == 0 {
        return Restart::Sys.into();
    }
    let time = UserPtr::<Timespec>::new(UserAddr::new(args[3]));
    // A time that is not there any more: the call is made again, and finds that.
    let Ok(ns) = t.mm().read(time).and_then(Timespec::to_nanos) else { return Restart::NoIntr.into() };
    let deadline = match command {
        FUTEX_WAIT => deadline_at(CLOCK_MONOTONIC, began_ns.saturating_add(ns)),
        _ if op & FUTEX_CLOCK_REALTIME != 0 => deadline_at(CLOCK_REALTIME, ns),
        _ => deadline_at(CLOCK_MONOTONIC, ns),
    };
    Restart::Block(RestartBlock { nr, args, deadline: Some(deadline) }).into()
}
