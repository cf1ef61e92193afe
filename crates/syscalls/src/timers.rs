//! Timers that send signals: alarm(2), setitimer(2), timer_create(2) and their like.

use moat_abi::siginfo::{SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD_ID, Sigevent};
use moat_abi::signal::Signal;
use moat_abi::time::{Itimerspec, Itimerval, NSEC_PER_SEC, TIMER_ABSTIME, Timespec, Timeval};
use moat_abi::{Errno, Result};
use moat_kernel::timer::itimer::{self, Setting, Which};
use moat_kernel::timer::posix::{self, Event, When};
use moat_kernel::{CurrentTask, SyscallResult, TaskId};
use moat_mm::UserPtr;

use crate::time::clock_of;

syscalls! { pub static TABLE;
    36 getitimer(which: i32, value: UserPtr<Itimerval>) sys_getitimer, full;
    37 alarm(seconds: u32) sys_alarm, full;
    38 setitimer(which: i32, new: UserPtr<Itimerval>, old: UserPtr<Itimerval>) sys_setitimer, full;
    222 timer_create(clock: i32, event: UserPtr<Sigevent>, id: UserPtr<i32>) sys_timer_create, full;
    223 timer_settime(id: i32, flags: u32, new: UserPtr<Itimerspec>, old: UserPtr<Itimerspec>) sys_timer_settime, full;
    224 timer_gettime(id: i32, value: UserPtr<Itimerspec>) sys_timer_gettime, full;
    225 timer_getoverrun(id: i32) sys_timer_getoverrun, full;
    226 timer_delete(id: i32) sys_timer_delete, full;
}

fn from_val(v: &Itimerval) -> Result<Setting> {
    Ok(Setting { value_ns: v.it_value.to_nanos()?, interval_ns: v.it_interval.to_nanos()? })
}

fn to_val(s: Setting) -> Itimerval {
    let val = |ns| Timeval::from_duration(std::time::Duration::from_nanos(ns));
    Itimerval { it_interval: val(s.interval_ns), it_value: val(s.value_ns) }
}

fn sys_getitimer(t: &mut CurrentTask, which: i32, value: UserPtr<Itimerval>) -> SyscallResult {
    let which = Which::from_number(which).ok_or(Errno::EINVAL)?;
    let setting = itimer::get(&t.group, which);
    t.mm().write(value, &to_val(setting))?;
    Ok(0)
}

fn sys_setitimer(t: &mut CurrentTask, which: i32, new: UserPtr<Itimerval>, old: UserPtr<Itimerval>) -> SyscallResult {
    // A null pointer stops the timer, as Linux still allows.
    let setting = if new.is_null() { Setting::default() } else { from_val(&t.mm().read(new)?)? };
    let which = Which::from_number(which).ok_or(Errno::EINVAL)?;
    let before = itimer::set(&t.group, which, setting);
    if !old.is_null() {
        t.mm().write(old, &to_val(before))?;
    }
    Ok(0)
}

/// Gives the seconds that were left, rounded to the nearest, but never a running timer as 0.
fn sys_alarm(t: &mut CurrentTask, seconds: u32) -> SyscallResult {
    let setting = Setting { value_ns: u64::from(seconds) * NSEC_PER_SEC, interval_ns: 0 };
    let old = itimer::set(&t.group, Which::Real, setting).value_ns;
    let (whole, rest) = (old / NSEC_PER_SEC, old % NSEC_PER_SEC);
    let up = (whole == 0 && rest != 0) || rest >= NSEC_PER_SEC / 2;
    Ok(whole + u64::from(up))
}

fn decode_event(t: &CurrentTask, e: &Sigevent) -> Result<Event> {
    let notify = e.sigev_notify;
    if notify == SIGEV_NONE {
        // The timer only counts (timer_create(2)).
        return Ok(Event::Nothing);
    }
    // SIGEV_THREAD is the C library's and reaches the kernel as a plain signal.
    if notify & !SIGEV_THREAD_ID != SIGEV_SIGNAL && notify & !SIGEV_THREAD_ID != 2 {
        return Err(Errno::EINVAL);
    }
    let signal = Signal::new(e.sigev_signo).ok_or(Errno::EINVAL)?;
    let thread = if notify & SIGEV_THREAD_ID != 0 { Some(own_thread(t, e.sigev_notify_thread_id)?) } else { None };
    Ok(Event::Signal { signal, value: e.sigev_value, thread })
}

// A thread of another process can't be named.
fn own_thread(t: &CurrentTask, tid: i32) -> Result<TaskId> {
    let task = t.kernel().task(&t.pid_ns(), tid).ok_or(Errno::EINVAL)?;
    if std::sync::Arc::ptr_eq(&task.group, &t.group) { Ok(task.id) } else { Err(Errno::EINVAL) }
}

fn sys_timer_create(t: &mut CurrentTask, clock: i32, event: UserPtr<Sigevent>, id: UserPtr<i32>) -> SyscallResult {
    let event = if event.is_null() { None } else { Some(t.mm().read(event)?) };
    let clock = clock_of(t, clock)?;
    let event = event.map(|e| decode_event(t, &e)).transpose()?;
    let new = posix::create(&t.group, clock, |id| {
        event.unwrap_or(Event::Signal { signal: Signal::SIGALRM, value: u64::from(id.cast_unsigned()), thread: None })
    })?;
    // Nobody knows the timer's number, so it goes again.
    if let Err(e) = t.mm().write(id, &new) {
        posix::delete(&t.group, new)?;
        return Err(e.into());
    }
    Ok(0)
}

fn to_spec(s: Setting) -> Itimerspec {
    Itimerspec { it_interval: Timespec::from_nanos(s.interval_ns), it_value: Timespec::from_nanos(s.value_ns) }
}

fn sys_timer_settime(
    t: &mut CurrentTask,
    id: i32,
    flags: u32,
    new: UserPtr<Itimerspec>,
    old: UserPtr<Itimerspec>,
) -> SyscallResult {
    if new.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let spec = t.mm().read(new)?;
    let setting = Setting { value_ns: spec.it_value.to_nanos()?, interval_ns: spec.it_interval.to_nanos()? };
    let when = if flags & TIMER_ABSTIME != 0 { When::Absolute } else { When::Relative };
    let before = posix::set(&t.group, id, setting, when)?;
    if !old.is_null() {
        t.mm().write(old, &to_spec(before))?;
    }
    Ok(0)
}

fn sys_timer_gettime(t: &mut CurrentTask, id: i32, value: UserPtr<Itimerspec>) -> SyscallResult {
    let setting = posix::get(&t.group, id)?;
    t.mm().write(value, &to_spec(setting))?;
    Ok(0)
}

fn sys_timer_getoverrun(t: &mut CurrentTask, id: i32) -> SyscallResult {
    Ok(u64::from(posix::overrun(&t.group, id)?.unsigned_abs()))
}

fn sys_timer_delete(t: &mut CurrentTask, id: i32) -> SyscallResult {
    posix::delete(&t.group, id)?;
    Ok(0)
}
