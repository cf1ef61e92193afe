//! Clocks and sleeping: clock_gettime(2), nanosleep(2), gettimeofday(2) and their like.
//!
//! Setting a clock is refused as it is to a process without CAP_SYS_TIME: the clocks are the host's.

use moat_abi::time::{
    CLOCK_BOOTTIME_ALARM, CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_PROCESS_CPUTIME_ID, CLOCK_REALTIME,
    CLOCK_REALTIME_ALARM, CLOCK_REALTIME_COARSE, CLOCK_TAI, CLOCK_THREAD_CPUTIME_ID, CpuClockScope, DynamicClock,
    STA_UNSYNC, TIME_ERROR, TIMER_ABSTIME, Timespec, Timeval, Timex, Timezone, ktime_add,
};
use moat_abi::{Errno, Result};
use moat_host::clock;
use moat_kernel::error::RestartBlock;
use moat_kernel::timer::posix::Clock;
use moat_kernel::{CurrentTask, Deadline, Restart, SyscallResult, Wait};
use moat_mm::UserPtr;

syscalls! { pub static TABLE;
    35 nanosleep(request: UserPtr<Timespec>, remaining: UserPtr<Timespec>) async sys_nanosleep, full;
    230 clock_nanosleep(clock: i32, flags: u32, request: UserPtr<Timespec>, remaining: UserPtr<Timespec>) async sys_clock_nanosleep, full;
    228 clock_gettime(clock: i32, time: UserPtr<Timespec>) sys_clock_gettime, full;
    229 clock_getres(clock: i32, resolution: UserPtr<Timespec>) sys_clock_getres, full;
    227 clock_settime(clock: i32, time: UserPtr<Timespec>) sys_clock_settime, stub("EPERM: the clocks are the host's");
    96 gettimeofday(time: UserPtr<Timeval>, zone: UserPtr<Timezone>) sys_gettimeofday, full;
    164 settimeofday(time: UserPtr<Timeval>, zone: UserPtr<Timezone>) sys_settimeofday, stub("EPERM: the clocks are the host's");
    201 time(time: UserPtr<i64>) sys_time, full;
    159 adjtimex(buffer: UserPtr<Timex>) sys_adjtimex, partial("reading only");
    305 clock_adjtime(clock: i32, buffer: UserPtr<Timex>) sys_clock_adjtime, partial("reading only");
}

/// The clock that an id names, for timers and reading.
pub(crate) fn clock_of(t: &CurrentTask, id: i32) -> Result<Clock> {
    match id {
        CLOCK_PROCESS_CPUTIME_ID => return Ok(Clock::ProcessCpu),
        // A thread uses no CPU time while it sleeps: the sleep would never end.
        CLOCK_THREAD_CPUTIME_ID => return Ok(Clock::ThreadCpu(t.id)),
        _ => {}
    }
    match DynamicClock::decode(id) {
        // Numbers of clocks that devices give are of no use here: there are no such devices.
        None => clock::host_ns(id).map(|_| Clock::Host(id)).ok_or(Errno::EINVAL),
        Some(DynamicClock::Fd(_)) => Err(Errno::EINVAL),
        Some(DynamicClock::Cpu { pid: 0, scope: CpuClockScope::Process, .. }) => Ok(Clock::ProcessCpu),
        Some(DynamicClock::Cpu { pid: 0, scope: CpuClockScope::Thread, .. }) => Ok(Clock::ThreadCpu(t.id)),
        Some(DynamicClock::Cpu { pid, scope, .. }) => {
            // Of the process itself any thread will do; others may be read, not waited for.
            let task = t.kernel().task(&t.pid_ns(), pid).ok_or(Errno::EINVAL)?;
            match scope {
                CpuClockScope::Thread if std::sync::Arc::ptr_eq(&task.group, &t.group) => Ok(Clock::ThreadCpu(task.id)),
                CpuClockScope::Process if std::sync::Arc::ptr_eq(&task.group, &t.group) => Ok(Clock::ProcessCpu),
                CpuClockScope::Thread | CpuClockScope::Process => Err(Errno::EINVAL),
            }
        }
    }
}

/// The CPU time of another process may be read, but not waited for.
fn other_process_ns(t: &CurrentTask, id: i32) -> Option<u64> {
    let Some(DynamicClock::Cpu { pid, scope: CpuClockScope::Process, .. }) = DynamicClock::decode(id) else {
        return None;
    };
    let group = t.kernel().process(&t.pid_ns(), pid)?;
    Some(group.usage().cpu_ns())
}

fn read_clock(t: &CurrentTask, id: i32) -> Result<u64> {
    match clock_of(t, id) {
        Ok(Clock::Host(host)) => clock::host_ns(host).ok_or(Errno::EINVAL),
        Ok(Clock::ProcessCpu) => Ok(t.group.usage().cpu_ns()),
        Ok(Clock::ThreadCpu(thread)) => {
            let u = t.group.thread(thread).map_or_else(|| t.usage.get(), |x| x.usage.get());
            Ok(u.cpu_ns())
        }
        Err(e) => other_process_ns(t, id).ok_or(e),
    }
}

fn sys_clock_gettime(t: &mut CurrentTask, id: i32, time: UserPtr<Timespec>) -> SyscallResult {
    let now = read_clock(t, id)?;
    t.mm().write(time, &Timespec::from_nanos(now))?;
    Ok(0)
}

fn sys_clock_getres(t: &mut CurrentTask, id: i32, resolution: UserPtr<Timespec>) -> SyscallResult {
    read_clock(t, id)?;
    let ns = match id {
        // A tick of the host's timer interrupt.
        CLOCK_REALTIME_COARSE | CLOCK_MONOTONIC_COARSE => 4_000_000,
        _ => 1,
    };
    if !resolution.is_null() {
        t.mm().write(resolution, &Timespec::from_nanos(ns))?;
    }
    Ok(0)
}

fn sys_clock_settime(t: &mut CurrentTask, id: i32, time: UserPtr<Timespec>) -> SyscallResult {
    // No other clock can be set on Linux either.
    if id != CLOCK_REALTIME {
        return Err(Errno::EINVAL.into());
    }
    // A time that is none is EINVAL for everybody.
    t.mm().read(time)?.to_duration()?;
    Err(Errno::EPERM.into())
}

fn sys_settimeofday(t: &mut CurrentTask, time: UserPtr<Timeval>, zone: UserPtr<Timezone>) -> SyscallResult {
    if !time.is_null() {
        t.mm().read(time)?.to_duration()?;
    }
    if !zone.is_null() {
        t.mm().read(zone)?;
    }
    Err(Errno::EPERM.into())
}

fn sys_gettimeofday(t: &mut CurrentTask, time: UserPtr<Timeval>, zone: UserPtr<Timezone>) -> SyscallResult {
    if !time.is_null() {
        let now = std::time::Duration::from_nanos(clock::realtime_ns());
        t.mm().write(time, &Timeval::from_duration(now))?;
    }
    if !zone.is_null() {
        t.mm().write(zone, &Timezone::default())?;
    }
    Ok(0)
}

fn sys_time(t: &mut CurrentTask, time: UserPtr<i64>) -> SyscallResult {
    let now = clock::realtime_ns() / 1_000_000_000;
    if !time.is_null() {
        t.mm().write(time, &now.cast_signed())?;
    }
    Ok(now)
}

fn sys_adjtimex(t: &mut CurrentTask, buffer: UserPtr<Timex>) -> SyscallResult {
    let mut x = t.mm().read(buffer)?;
    // Reading is everybody's; any change is the administrator's.
    if x.modes != 0 {
        return Err(Errno::EPERM.into());
    }
    let now = std::time::Duration::from_nanos(clock::realtime_ns());
    // As of a clock that nobody disciplines: the host's service is not shown.
    x = Timex {
        modes: 0,
        status: STA_UNSYNC,
        tick: 10_000,
        maxerror: 16_000_000,
        esterror: 16_000_000,
        precision: 1,
        ..Timex::default()
    };
    x.tolerance = 32_768_000;
    x.time = Timeval::from_duration(now);
    t.mm().write(buffer, &x)?;
    Ok(u64::from(TIME_ERROR.unsigned_abs()))
}

fn sys_clock_adjtime(t: &mut CurrentTask, id: i32, buffer: UserPtr<Timex>) -> SyscallResult {
    if id != CLOCK_REALTIME {
        return Err(if clock_of(t, id).is_ok() { Errno::EOPNOTSUPP } else { Errno::EINVAL }.into());
    }
    sys_adjtimex(t, buffer)
}

async fn sys_nanosleep(t: &mut CurrentTask, request: UserPtr<Timespec>, remaining: UserPtr<Timespec>) -> SyscallResult {
    let ns = t.mm().read(request)?.to_nanos()?;
    let args = [request.addr().get(), remaining.addr().get(), 0, 0, 0, 0];
    sleep_for(t, ns, remaining, u64::from(moat_abi::nr::NANOSLEEP), args).await
}

/// A relative sleep: goes on after a stop, and says what is left when a handler ends it.
async fn sleep_for(
    t: &mut CurrentTask,
    ns: u64,
    remaining: UserPtr<Timespec>,
    nr: u64,
    args: [u64; 6],
) -> SyscallResult {
    // After a stop the end stays where it was.
    let deadline = t.deadline_or(|| Some(clock::deadline_after(ns)));
    let restart = Restart::Block(RestartBlock { nr, args, deadline });
    let Err(interrupted) = t.sleep(&Wait::restarting("hrtimer_nanosleep", restart).until(deadline)).await else {
        return Ok(0);
    };
    let left = deadline.map_or(0, |d| d.saturating_duration_since(Deadline::now()).as_nanos());
    // The signal came as the time ended: the sleep is over.
    if left == 0 {
        return Ok(0);
    }
    if !remaining.is_null() {
        t.mm().write(remaining, &Timespec::from_nanos(u64::try_from(left).unwrap_or(u64::MAX)))?;
    }
    Err(interrupted)
}

async fn sys_clock_nanosleep(
    t: &mut CurrentTask,
    id: i32,
    flags: u32,
    request: UserPtr<Timespec>,
    remaining: UserPtr<Timespec>,
) -> SyscallResult {
    match id {
        // These clocks can be read, but not slept on.
        CLOCK_THREAD_CPUTIME_ID => return Err(Errno::EINVAL.into()),
        CLOCK_REALTIME_COARSE | CLOCK_MONOTONIC_COARSE | moat_abi::time::CLOCK_MONOTONIC_RAW => {
            return Err(Errno::EOPNOTSUPP.into());
        }
        CLOCK_REALTIME_ALARM | CLOCK_BOOTTIME_ALARM if !t.creds().has_root_cap(moat_abi::cap::Cap::WAKE_ALARM) => {
            return Err(Errno::EPERM.into());
        }
        _ => {}
    }
    let kind = clock_of(t, id)?;
    let ns = t.mm().read(request)?.to_nanos()?;
    let absolute = flags & TIMER_ABSTIME != 0;
    // CPU time has no timer: it is looked at again when it may have passed.
    let Clock::Host(host) = kind else { return sleep_cpu(t, kind, ns, absolute).await };
    if !absolute {
        let args =
            [u64::from(id.cast_unsigned()), u64::from(flags), request.addr().get(), remaining.addr().get(), 0, 0];
        return sleep_for(t, ns, remaining, u64::from(moat_abi::nr::CLOCK_NANOSLEEP), args).await;
    }
    let steps = matches!(host, CLOCK_REALTIME | CLOCK_TAI | CLOCK_REALTIME_ALARM);
    loop {
        if clock::host_ns(host).unwrap_or(u64::MAX) >= ns {
            return Ok(0);
        }
        // The host's real-time clock can be set while a task sleeps: look again every minute.
        let mut deadline = clock::deadline_at(host, ns);
        if steps {
            deadline = deadline.min(clock::deadline_after(60_000_000_000));
        }
        t.sleep(&absolute_sleep(deadline)).await?;
    }
}

/// A sleep that ends at a point on a clock: it is made again as it was.
fn absolute_sleep(deadline: Deadline) -> Wait {
    Wait::restarting("hrtimer_nanosleep", Restart::NoHand).until(Some(deadline))
}

/// Sleeps until the process has used CPU time.
async fn sleep_cpu(t: &mut CurrentTask, kind: Clock, ns: u64, absolute: bool) -> SyscallResult {
    if kind == Clock::ThreadCpu(t.id) {
        return Err(Errno::EINVAL.into());
    }
    let used = |t: &CurrentTask| t.group.usage().cpu_ns();
    let end = if absolute { ns } else { ktime_add(used(t), ns) };
    loop {
        // Read once: other threads go on using time.
        let Some(left) = end.checked_sub(used(t)).filter(|left| *left > 0) else { return Ok(0) };
        let threads = u64::try_from(t.group.thread_count()).unwrap_or(1).max(1);
        // All threads could run at once, so it can't have passed any earlier; at least a millisecond.
        let wait = (left / threads).max(1_000_000);
        t.sleep(&absolute_sleep(clock::deadline_after(wait))).await?;
    }
}

const _: () = assert!(CLOCK_MONOTONIC == 1);
