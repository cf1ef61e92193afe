//! futex(2), futex_waitv(2), set_robust_list(2), get_robust_list(2).

use moat_abi::futex::{
    FUTEX_BITSET_MATCH_ANY, FUTEX_CLOCK_REALTIME, FUTEX_CMD_MASK, FUTEX_CMP_REQUEUE, FUTEX_CMP_REQUEUE_PI,
    FUTEX_LOCK_PI, FUTEX_LOCK_PI2, FUTEX_PRIVATE_FLAG, FUTEX_REQUEUE, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI, FUTEX_WAIT,
    FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI, FUTEX_WAITV_MAX, FUTEX_WAKE, FUTEX_WAKE_BITSET, FUTEX_WAKE_OP,
    FutexWaitv, RobustListHead, WakeOp,
};
use moat_abi::time::{CLOCK_MONOTONIC, CLOCK_REALTIME, Timespec};
use moat_abi::{Errno, Result};
use moat_host::clock::{deadline_after, deadline_at};
use moat_kernel::error::RestartBlock;
use moat_kernel::futex::own::{self, OwnFutex};
use moat_kernel::futex::pi::LockMode;
use moat_kernel::futex::wait::WaitRequest;
use moat_kernel::futex::wake::RequeueRequest;
use moat_kernel::futex::{pi, requeue_pi, wait, waitv, wake};
use moat_kernel::{CurrentTask, Deadline, Restart, SyscallError, SyscallResult, ptrace};
use moat_mm::{FutexScope, UserAddr, UserPtr};

syscalls! { pub static TABLE;
    202 futex(addr: UserAddr, op: u32, value: u32, timeout: u64, addr2: UserAddr, value3: u32) async sys_futex, partial("no priority is inherited");
    273 set_robust_list(head: u64, len: u64) sys_set_robust_list, full;
    274 get_robust_list(pid: i32, head: UserPtr<u64>, len: UserPtr<u64>) sys_get_robust_list, full;
    449 futex_waitv(waiters: UserAddr, count: u32, flags: u32, timeout: UserPtr<Timespec>, clock: i32) async sys_futex_waitv, full;
}

/// The length that set_robust_list(2) must be given.
const HEAD_LEN: u64 = size_of::<RobustListHead>() as u64;

/// The arguments of futex(2) as its operations read them.
#[derive(Clone, Copy)]
struct FutexCall {
    addr: UserAddr,
    command: u32,
    scope: FutexScope,
    value: u32,
    /// The fourth argument where it is a count.
    value2: i32,
    addr2: UserAddr,
    value3: u32,
}

async fn sys_futex(
    t: &mut CurrentTask,
    addr: UserAddr,
    op: u32,
    value: u32,
    timeout: u64,
    addr2: UserAddr,
    value3: u32,
) -> SyscallResult {
    let command = op & FUTEX_CMD_MASK;
    let takes_clock = matches!(command, FUTEX_WAIT_BITSET | FUTEX_WAIT_REQUEUE_PI | FUTEX_LOCK_PI2);
    // Before the command is known to be one: a bad timeout is the first error.
    let deadline = read_deadline(t, command, op, timeout)?;
    if op & FUTEX_CLOCK_REALTIME != 0 && !takes_clock {
        return Err(Errno::ENOSYS.into());
    }
    let scope = if op & FUTEX_PRIVATE_FLAG != 0 { FutexScope::Private } else { FutexScope::Shared };
    // The low half, as C's `(u32)(unsigned long)utime`.
    let value2 = ((timeout & u64::from(u32::MAX)) as u32).cast_signed();
    let call = FutexCall { addr, command, scope, value, value2, addr2, value3 };
    let args = [addr.get(), u64::from(op), u64::from(value), timeout, addr2.get(), u64::from(value3)];
    // A wait with a deadline goes on by restart_syscall(2).
    let restart = match deadline {
        None => Restart::Sys,
        Some(_) => Restart::Block(RestartBlock { nr: 202, args, deadline }),
    };
    if own::is_host(t, command, scope) {
        let own = OwnFutex { command, args, deadline, restart };
        return own::call(t, &own).await;
    }
    run(t, &call, deadline, restart).await
}

/// The timeout of the commands that take one (`futex_init_timeout`); relative for FUTEX_WAIT only.
fn read_deadline(t: &mut CurrentTask, command: u32, op: u32, timeout: u64) -> Result<Option<Deadline>> {
    let timed =
        matches!(command, FUTEX_WAIT | FUTEX_WAIT_BITSET | FUTEX_LOCK_PI | FUTEX_LOCK_PI2 | FUTEX_WAIT_REQUEUE_PI);
    if !timed || timeout == 0 {
        return Ok(None);
    }
    let time: Timespec = t.mm().read(UserPtr::new(UserAddr::new(timeout)))?;
    let ns = time.to_nanos()?;
    Ok(match command {
        FUTEX_WAIT => t.deadline_or(|| Some(deadline_after(ns))),
        FUTEX_LOCK_PI => Some(deadline_at(CLOCK_REALTIME, ns)),
        _ if op & FUTEX_CLOCK_REALTIME != 0 => Some(deadline_at(CLOCK_REALTIME, ns)),
        _ => Some(deadline_at(CLOCK_MONOTONIC, ns)),
    })
}

async fn run(t: &mut CurrentTask, c: &FutexCall, deadline: Option<Deadline>, restart: Restart) -> SyscallResult {
    let count = c.value.cast_signed();
    let wait_request =
        |bitset, restart| WaitRequest { addr: c.addr, scope: c.scope, value: c.value, bitset, deadline, restart };
    let requeue_request = |expected| RequeueRequest {
        from: c.addr,
        to: c.addr2,
        scope: c.scope,
        wake: count,
        requeue: c.value2,
        expected,
    };
    match c.command {
        FUTEX_WAIT => done(wait::wait(t, &wait_request(FUTEX_BITSET_MATCH_ANY, restart)).await),
        FUTEX_WAIT_BITSET => done(wait::wait(t, &wait_request(c.value3, restart)).await),
        FUTEX_WAKE => counted(wake::wake(t, c.addr, c.scope, count, FUTEX_BITSET_MATCH_ANY)),
        FUTEX_WAKE_BITSET => counted(wake::wake(t, c.addr, c.scope, count, c.value3)),
        FUTEX_WAKE_OP => {
            let op = WakeOp::decode(c.value3);
            counted(wake::wake_op(t, c.scope, (c.addr, count), (c.addr2, c.value2), op).await)
        }
        FUTEX_REQUEUE => counted(wake::requeue(t, &requeue_request(None))),
        FUTEX_CMP_REQUEUE => counted(wake::requeue(t, &requeue_request(Some(c.value3)))),
        FUTEX_LOCK_PI | FUTEX_LOCK_PI2 => done(pi::lock(t, c.addr, c.scope, LockMode::Wait(deadline)).await),
        FUTEX_TRYLOCK_PI => done(pi::lock(t, c.addr, c.scope, LockMode::Try).await),
        FUTEX_UNLOCK_PI => {
            pi::unlock(t, c.addr, c.scope).await?;
            Ok(0)
        }
        FUTEX_WAIT_REQUEUE_PI => {
            let request = wait_request(FUTEX_BITSET_MATCH_ANY, Restart::NoIntr);
            done(requeue_pi::wait(t, &request, c.addr2).await)
        }
        FUTEX_CMP_REQUEUE_PI => counted(requeue_pi::requeue(t, &requeue_request(Some(c.value3))).await),
        _ => Err(Errno::ENOSYS.into()),
    }
}

fn counted(count: Result<usize>) -> SyscallResult {
    Ok(count? as u64)
}

fn done(ended: Result<(), SyscallError>) -> SyscallResult {
    ended.map(|()| 0)
}

async fn sys_futex_waitv(
    t: &mut CurrentTask,
    waiters: UserAddr,
    count: u32,
    flags: u32,
    timeout: UserPtr<Timespec>,
    clock: i32,
) -> SyscallResult {
    if flags != 0 || count == 0 || count > FUTEX_WAITV_MAX || waiters.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let deadline = match timeout.non_null() {
        None => None,
        // The clock matters only with a timeout.
        Some(_) if clock != CLOCK_MONOTONIC && clock != CLOCK_REALTIME => return Err(Errno::EINVAL.into()),
        Some(ptr) => Some(deadline_at(clock, t.mm().read(ptr)?.to_nanos()?)),
    };
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    let raw: Vec<FutexWaitv> = t.mm().read_array(waiters, count, count)?;
    let targets = waitv::parse(&raw)?;
    Ok(waitv::wait(t, waiters, &targets, deadline).await? as u64)
}

fn sys_set_robust_list(t: &mut CurrentTask, head: u64, len: u64) -> SyscallResult {
    if len != HEAD_LEN {
        return Err(Errno::EINVAL.into());
    }
    // Only a number: the list is read at the task's exit, whatever it holds then.
    t.task().state().robust_list = head;
    Ok(0)
}

fn sys_get_robust_list(t: &mut CurrentTask, pid: i32, head: UserPtr<u64>, len: UserPtr<u64>) -> SyscallResult {
    let task = if pid == 0 { t.task().clone() } else { t.kernel().task(&t.pid_ns(), pid).ok_or(Errno::ESRCH)? };
    // It tells addresses of another process (get_robust_list(2)).
    ptrace::access::check(t.task(), t.creds(), &task, ptrace::access::Ids::Real)?;
    let list = task.state().robust_list;
    t.mm().write(len, &HEAD_LEN)?;
    t.mm().write(head, &list)?;
    Ok::<u64, SyscallError>(0)
}
