//! Scheduling: parameters are checked and kept as on Linux. The host's scheduler is told of the affinity only, where the guest
//! has all of the host's CPUs.

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::clone::{PRIO_PGRP, PRIO_PROCESS, PRIO_USER};
use moat_abi::prctl::{SCHED_ATTR_SIZE_VER0, SCHED_FLAG_RESET_ON_FORK, SCHED_RESET_ON_FORK, SchedAttr, SchedParam};
use moat_abi::prctl::{SCHED_BATCH, SCHED_DEADLINE, SCHED_FIFO, SCHED_IDLE, SCHED_NORMAL, SCHED_RR};
use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_kernel::{CurrentTask, Resource, SyscallResult, Task};
use moat_mm::{UserAddr, UserPtr};
use zerocopy::IntoBytes;

use crate::process::read_versioned;

syscalls! { pub static TABLE;
    24 sched_yield() async sys_sched_yield, full;
    203 sched_setaffinity(pid: i32, len: u32, mask: UserAddr) sys_sched_setaffinity, partial("enforced where the guest has all CPUs of the host, on another task from its next execve");
    204 sched_getaffinity(pid: i32, len: u32, mask: UserAddr) sys_sched_getaffinity, full;
    142 sched_setparam(pid: i32, param: UserPtr<SchedParam>) sys_sched_setparam, partial("checked and kept; the host schedules all alike");
    143 sched_getparam(pid: i32, param: UserPtr<SchedParam>) sys_sched_getparam, full;
    144 sched_setscheduler(pid: i32, policy: u32, param: UserPtr<SchedParam>) sys_sched_setscheduler, partial("checked and kept; the host schedules all alike");
    145 sched_getscheduler(pid: i32) sys_sched_getscheduler, full;
    146 sched_get_priority_max(policy: u32) sys_sched_get_priority_max, full;
    147 sched_get_priority_min(policy: u32) sys_sched_get_priority_min, full;
    148 sched_rr_get_interval(pid: i32, interval: UserPtr<Timespec>) sys_sched_rr_get_interval, full;
    314 sched_setattr(pid: i32, attr: UserAddr, flags: u32) sys_sched_setattr, partial("checked and kept; the host schedules all alike; SCHED_DEADLINE: EPERM");
    315 sched_getattr(pid: i32, attr: UserAddr, size: u32, flags: u32) sys_sched_getattr, full;
    140 getpriority(which: i32, who: i32) sys_getpriority, full;
    141 setpriority(which: i32, who: i32, nice: i32) sys_setpriority, partial("checked and kept; the host schedules all alike");
    309 getcpu(cpu: UserPtr<u32>, node: UserPtr<u32>, unused: u64) sys_getcpu, full;
    251 ioprio_set(which: i32, who: i32, priority: u32) sys_ioprio_set, partial("checked and kept; the host gets no priority");
    252 ioprio_get(which: i32, who: i32) sys_ioprio_get, full;
}

async fn sys_sched_yield(_t: &mut CurrentTask) -> SyscallResult {
    // Back of the executor's queue: other runnable tasks go first.
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            // Woken before it waits: it is queued behind what is runnable.
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
    Ok(0)
}

fn find(t: &CurrentTask, pid: i32) -> Result<Arc<Task>> {
    match pid {
        0 => Ok(t.task().clone()),
        p if p < 0 => Err(Errno::EINVAL),
        p => t.kernel().task(&t.pid_ns(), p).ok_or(Errno::ESRCH),
    }
}

/// Whether the caller may change the scheduling of `target` (`check_same_owner`, CAP_SYS_NICE).
fn check_owner(t: &CurrentTask, target: &Task) -> Result<()> {
    let (c, o) = (t.creds(), target.creds());
    let fine = c.euid == o.euid || c.euid == o.uid || c.has_cap_in(&o.user_ns, Cap::SYS_NICE);
    if fine { Ok(()) } else { Err(Errno::EPERM) }
}

/// Words of a CPU mask.
fn mask_words(cpus: usize) -> usize {
    cpus.div_ceil(64)
}

fn all_cpus(cpus: usize) -> Vec<u64> {
    (0..mask_words(cpus))
        .map(|w| {
            let left = cpus - w * 64;
            if left >= 64 { u64::MAX } else { (1 << left) - 1 }
        })
        .collect()
}

fn sys_sched_setaffinity(t: &mut CurrentTask, pid: i32, len: u32, mask: UserAddr) -> SyscallResult {
    let cpus = t.group.container.allowance().cpu_count();
    let words = mask_words(cpus);
    // Bytes beyond the CPUs that there are, are ignored; a short mask has no others.
    let len = usize::try_from(len).unwrap_or(0).min(words * 8);
    let mut bytes = vec![0u8; words * 8];
    t.mm().read_bytes(mask, bytes.get_mut(..len).unwrap_or_default())?;
    let task = find(t, pid)?;
    check_owner(t, &task)?;
    let wanted: Vec<u64> = bytes
        .chunks_exact(8)
        .zip(all_cpus(cpus))
        .map(|(b, all)| b.try_into().map_or(0, u64::from_ne_bytes) & all)
        .collect();
    // A task has to have a CPU to run on.
    if wanted.iter().all(|w| *w == 0) {
        return Err(Errno::EINVAL.into());
    }
    task.state().sched.affinity = Some(wanted);
    if task.id == t.id {
        t.apply_affinity();
    }
    Ok(0)
}

fn sys_sched_getaffinity(t: &mut CurrentTask, pid: i32, len: u32, mask: UserAddr) -> SyscallResult {
    let cpus = t.group.container.allowance().cpu_count();
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    // The buffer has to take all CPUs, in whole words (sched_getaffinity(2)).
    if len % 8 != 0 || len * 8 < cpus {
        return Err(Errno::EINVAL.into());
    }
    let task = find(t, pid)?;
    let set = task.state().sched.affinity.clone().unwrap_or_else(|| all_cpus(cpus));
    t.mm().write_array(mask, &set)?;
    Ok((set.len() * 8) as u64)
}

fn priority_range(policy: u32) -> Result<(u32, u32)> {
    match policy {
        SCHED_FIFO | SCHED_RR => Ok((1, 99)),
        SCHED_NORMAL | SCHED_BATCH | SCHED_IDLE | SCHED_DEADLINE => Ok((0, 0)),
        _ => Err(Errno::EINVAL),
    }
}

fn sys_sched_get_priority_max(_t: &mut CurrentTask, policy: u32) -> SyscallResult {
    Ok(u64::from(priority_range(policy)?.1))
}

fn sys_sched_get_priority_min(_t: &mut CurrentTask, policy: u32) -> SyscallResult {
    Ok(u64::from(priority_range(policy)?.0))
}

/// Sets policy, priority and nice value, with the checks of `__sched_setscheduler`.
fn set(t: &CurrentTask, task: &Task, policy: u32, priority: u32, nice: Option<i32>, reset: bool) -> Result<()> {
    let (min, max) = priority_range(policy)?;
    if !(min..=max).contains(&priority) {
        return Err(Errno::EINVAL);
    }
    check_owner(t, task)?;
    let capable = t.creds().has_root_cap(Cap::SYS_NICE);
    let old = task.state().sched.clone();
    if !capable {
        let rt_limit = task.group.limits.get(Resource::RtPriority).soft;
        // RLIMIT_RTPRIO bounds what may be asked for, but not what one has.
        let raises = priority > old.rt_priority && u64::from(priority) > rt_limit;
        let realtime = matches!(policy, SCHED_FIFO | SCHED_RR) && policy != old.policy && rt_limit == 0;
        if raises || realtime || policy == SCHED_DEADLINE || (old.reset_on_fork && !reset) {
            return Err(Errno::EPERM);
        }
        if let Some(n) = nice
            && n < old.nice
            && !may_lower_nice(task, n)
        {
            return Err(Errno::EPERM);
        }
    } else if policy == SCHED_DEADLINE {
        // SCHED_DEADLINE promises time, which the host has not given.
        return Err(Errno::EPERM);
    }
    let mut s = task.state();
    s.sched.policy = policy;
    s.sched.rt_priority = priority;
    s.sched.reset_on_fork = reset;
    if let Some(n) = nice {
        s.sched.nice = n;
    }
    Ok(())
}

/// RLIMIT_NICE: 20 less the lowest nice value allowed.
fn may_lower_nice(task: &Task, nice: i32) -> bool {
    let limit = task.group.limits.get(Resource::Nice).soft;
    u64::try_from(20 - nice).is_ok_and(|wanted| wanted <= limit)
}

fn sys_sched_setscheduler(t: &mut CurrentTask, pid: i32, policy: u32, param: UserPtr<SchedParam>) -> SyscallResult {
    if policy.cast_signed() < 0 || param.is_null() || pid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let p = t.mm().read(param)?;
    let task = find(t, pid)?;
    let reset = policy & SCHED_RESET_ON_FORK != 0;
    let priority = u32::try_from(p.sched_priority).map_err(|_| Errno::EINVAL)?;
    set(t, &task, policy & !SCHED_RESET_ON_FORK, priority, None, reset)?;
    Ok(0)
}

fn sys_sched_setparam(t: &mut CurrentTask, pid: i32, param: UserPtr<SchedParam>) -> SyscallResult {
    if param.is_null() || pid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let p = t.mm().read(param)?;
    let task = find(t, pid)?;
    let old = task.state().sched.clone();
    let priority = u32::try_from(p.sched_priority).map_err(|_| Errno::EINVAL)?;
    set(t, &task, old.policy, priority, None, old.reset_on_fork)?;
    Ok(0)
}

fn sys_sched_getparam(t: &mut CurrentTask, pid: i32, param: UserPtr<SchedParam>) -> SyscallResult {
    if param.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let task = find(t, pid)?;
    let priority = task.state().sched.rt_priority;
    t.mm().write(param, &SchedParam { sched_priority: priority.cast_signed() })?;
    Ok(0)
}

fn sys_sched_getscheduler(t: &mut CurrentTask, pid: i32) -> SyscallResult {
    let task = find(t, pid)?;
    let s = task.state().sched.clone();
    let reset = if s.reset_on_fork { SCHED_RESET_ON_FORK } else { 0 };
    Ok(u64::from(s.policy | reset))
}

fn sys_sched_rr_get_interval(t: &mut CurrentTask, pid: i32, interval: UserPtr<Timespec>) -> SyscallResult {
    let task = find(t, pid)?;
    let policy = task.state().sched.policy;
    let ns = match policy {
        // A time slice in nanoseconds: what Linux has by default.
        SCHED_RR => 100_000_000,
        SCHED_FIFO => 0,
        _ => 4_000_000,
    };
    t.mm().write(interval, &Timespec::from_nanos(ns))?;
    Ok(0)
}

fn sys_sched_setattr(t: &mut CurrentTask, pid: i32, attr: UserAddr, flags: u32) -> SyscallResult {
    if attr.is_null() || pid < 0 || flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    // The size comes first, and says which version the caller knows.
    let size = t.mm().read(UserPtr::<u32>::new(attr))?;
    let size = if size == 0 { SCHED_ATTR_SIZE_VER0 } else { usize::try_from(size).map_err(|_| Errno::E2BIG)? };
    let a: SchedAttr = match read_versioned(t, attr, size, SCHED_ATTR_SIZE_VER0) {
        // E2BIG also for one that is too short (`sched_copy_attr`).
        Err(Errno::EINVAL) => return Err(Errno::E2BIG.into()),
        r => r?,
    };
    let task = find(t, pid)?;
    // Only these policies have a nice value.
    let nice = matches!(a.sched_policy, SCHED_NORMAL | SCHED_BATCH).then(|| a.sched_nice.clamp(-20, 19));
    set(t, &task, a.sched_policy, a.sched_priority, nice, a.sched_flags & SCHED_FLAG_RESET_ON_FORK != 0)?;
    Ok(0)
}

fn sys_sched_getattr(t: &mut CurrentTask, pid: i32, attr: UserAddr, size: u32, flags: u32) -> SyscallResult {
    let len = usize::try_from(size).unwrap_or(usize::MAX);
    if attr.is_null() || pid < 0 || flags != 0 || !(SCHED_ATTR_SIZE_VER0..=4096).contains(&len) {
        return Err(Errno::EINVAL.into());
    }
    let task = find(t, pid)?;
    let s = task.state().sched.clone();
    let n = len.min(size_of::<SchedAttr>());
    let a = SchedAttr {
        size: u32::try_from(n).unwrap_or(0),
        sched_policy: s.policy,
        sched_flags: if s.reset_on_fork { SCHED_FLAG_RESET_ON_FORK } else { 0 },
        sched_nice: s.nice,
        sched_priority: s.rt_priority,
        ..SchedAttr::default()
    };
    t.mm().write_bytes(attr, a.as_bytes().get(..n).unwrap_or_default())?;
    Ok(0)
}

/// The tasks that `which` and `who` name.
fn select(t: &CurrentTask, which: i32, who: i32) -> Result<Vec<Arc<Task>>> {
    let threads_of =
        |groups: Vec<Arc<moat_kernel::ThreadGroup>>| groups.iter().flat_map(|g| g.threads()).collect::<Vec<_>>();
    let found = match which {
        PRIO_PROCESS => find(t, who).map(|x| vec![x]).unwrap_or_default(),
        PRIO_PGRP => {
            let pgrp = if who == 0 { t.group.process_group().map(|p| p.pid().clone()) } else { t.pid_ns().lookup(who) };
            threads_of(pgrp.map(|p| t.kernel().group_members(&p)).unwrap_or_default())
        }
        PRIO_USER => {
            let uid = if who == 0 {
                t.creds().uid
            } else {
                t.creds().user_ns.kernel_uid(who.cast_unsigned()).ok_or(Errno::EINVAL)?
            };
            threads_of(t.kernel().processes()).into_iter().filter(|x| x.creds().uid == uid).collect()
        }
        _ => return Err(Errno::EINVAL),
    };
    if found.is_empty() { Err(Errno::ESRCH) } else { Ok(found) }
}

/// Gives 20 less the nice value: errors and values must not meet.
fn sys_getpriority(t: &mut CurrentTask, which: i32, who: i32) -> SyscallResult {
    // The most favourable of all of them.
    let lowest = select(t, which, who)?.iter().map(|x| x.state().sched.nice).min().unwrap_or(0);
    Ok(u64::from((20 - lowest).unsigned_abs()))
}

fn sys_setpriority(t: &mut CurrentTask, which: i32, who: i32, nice: i32) -> SyscallResult {
    // Values out of range are cut, not refused (setpriority(2)).
    let nice = nice.clamp(-20, 19);
    let mut result = Ok(0);
    for task in select(t, which, who)? {
        let lowers = nice < task.state().sched.nice;
        if check_owner(t, &task).is_err() {
            // The others are changed all the same; the last error is told.
            result = Err(Errno::EPERM);
        } else if lowers && !t.creds().has_root_cap(Cap::SYS_NICE) && !may_lower_nice(&task, nice) {
            result = Err(Errno::EACCES);
        } else {
            task.state().sched.nice = nice;
        }
    }
    Ok(result?)
}

fn sys_getcpu(t: &mut CurrentTask, cpu: UserPtr<u32>, node: UserPtr<u32>, _unused: u64) -> SyscallResult {
    let here = u32::try_from(rustix::thread::sched_getcpu() % t.group.container.allowance().cpu_count()).unwrap_or(0);
    if !cpu.is_null() {
        t.mm().write(cpu, &here)?;
    }
    if !node.is_null() {
        t.mm().write(node, &0)?;
    }
    Ok(0)
}

fn sys_ioprio_set(t: &mut CurrentTask, which: i32, who: i32, priority: u32) -> SyscallResult {
    let class = priority >> 13;
    // Best effort and idle are everybody's, real time is not.
    if class > 3 || (class == 1 && !t.creds().has_root_cap(Cap::SYS_ADMIN)) {
        return Err(if class > 3 { Errno::EINVAL } else { Errno::EPERM }.into());
    }
    // The numbers are those of getpriority(2), but from 1.
    let which = which.checked_sub(1).ok_or(Errno::EINVAL)?;
    for task in select(t, which, who)? {
        check_owner(t, &task)?;
        task.state().sched.io_priority = priority;
    }
    Ok(0)
}

fn sys_ioprio_get(t: &mut CurrentTask, which: i32, who: i32) -> SyscallResult {
    let which = which.checked_sub(1).ok_or(Errno::EINVAL)?;
    let tasks = select(t, which, who)?;
    Ok(u64::from(tasks.first().map_or(0, |x| x.state().sched.io_priority)))
}
