//! Resource limits and usage: prlimit64(2), getrusage(2), times(2).

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::clone::{RUSAGE_CHILDREN, RUSAGE_SELF, RUSAGE_THREAD, Rusage};
use moat_abi::prctl::Rlimit;
use moat_abi::time::Tms;
use moat_abi::{Errno, Result};
use moat_identity::Limit;
use moat_kernel::process::group::ThreadGroup;
use moat_kernel::task::exec::mm_limits;
use moat_kernel::{CurrentTask, Resource, SyscallResult, Task};
use moat_mm::UserPtr;

syscalls! { pub static TABLE;
    97 getrlimit(resource: u32, limit: UserPtr<Rlimit>) sys_getrlimit, full;
    160 setrlimit(resource: u32, limit: UserPtr<Rlimit>) sys_setrlimit, full;
    302 prlimit64(pid: i32, resource: u32, new: UserPtr<Rlimit>, old: UserPtr<Rlimit>) sys_prlimit64, full;
    98 getrusage(who: i32, usage: UserPtr<Rusage>) async sys_getrusage, partial("system time is the wall time of workers; faults and blocks are not counted");
    100 times(buffer: UserPtr<Tms>) sys_times, partial("as getrusage");
}

/// `sysctl_nr_open`: the most that RLIMIT_NOFILE can be.
const NR_OPEN: u64 = 1 << 20;

fn resource(n: u32) -> Result<Resource> {
    Resource::from_number(n).ok_or(Errno::EINVAL)
}

fn sys_getrlimit(t: &mut CurrentTask, number: u32, limit: UserPtr<Rlimit>) -> SyscallResult {
    let l = t.group.limits.get(resource(number)?);
    t.mm().write(limit, &Rlimit { rlim_cur: l.soft, rlim_max: l.hard })?;
    Ok(0)
}

fn sys_setrlimit(t: &mut CurrentTask, number: u32, limit: UserPtr<Rlimit>) -> SyscallResult {
    let new = t.mm().read(limit)?;
    let group = t.group.clone();
    set(t, &group, resource(number)?, new)?;
    Ok(0)
}

fn sys_prlimit64(
    t: &mut CurrentTask,
    pid: i32,
    number: u32,
    new: UserPtr<Rlimit>,
    old: UserPtr<Rlimit>,
) -> SyscallResult {
    let resource = resource(number)?;
    let new = if new.is_null() { None } else { Some(t.mm().read(new)?) };
    let group = if pid == 0 {
        t.group.clone()
    } else {
        let task = t.kernel().task(&t.pid_ns(), pid).ok_or(Errno::ESRCH)?;
        check_permission(t, &task)?;
        task.group.clone()
    };
    let before = group.limits.get(resource);
    if let Some(n) = new {
        set(t, &group, resource, n)?;
    }
    if !old.is_null() {
        t.mm().write(old, &Rlimit { rlim_cur: before.soft, rlim_max: before.hard })?;
    }
    Ok(0)
}

/// `check_prlimit_permission`: all ids equal, or CAP_SYS_RESOURCE.
fn check_permission(t: &CurrentTask, target: &Arc<Task>) -> Result<()> {
    if Arc::ptr_eq(&target.group, &t.group) {
        return Ok(());
    }
    let (c, o) = (t.creds(), target.creds());
    let same =
        // The real ids of the caller against all three of the target.
        [o.uid, o.euid, o.suid].iter().all(|u| *u == c.uid) && [o.gid, o.egid, o.sgid].iter().all(|g| *g == c.gid);
    if same || c.has_cap_in(&o.user_ns, Cap::SYS_RESOURCE) { Ok(()) } else { Err(Errno::EPERM) }
}

fn set(t: &CurrentTask, group: &Arc<ThreadGroup>, resource: Resource, new: Rlimit) -> Result<()> {
    if new.rlim_cur > new.rlim_max {
        return Err(Errno::EINVAL);
    }
    if resource == Resource::OpenFiles && new.rlim_max > NR_OPEN {
        return Err(Errno::EPERM);
    }
    let old = group.limits.get(resource);
    // A hard limit can only be lowered without the privilege.
    if new.rlim_max > old.hard && !t.creds().has_root_cap(Cap::SYS_RESOURCE) {
        return Err(Errno::EPERM);
    }
    // Replaced as a whole: a reader never sees a soft limit above the hard one.
    group.limits.set(resource, Limit { soft: new.rlim_cur, hard: new.rlim_max });
    // A time that has passed already is to be noticed.
    if resource == Resource::Cpu {
        moat_kernel::timer::itimer::watch_cpu_limit(group);
    }
    let mm = group.any_thread().and_then(|x| x.mm_of());
    if let Some(mm) = mm {
        mm.set_limits(mm_limits(group));
    }
    Ok(())
}

async fn sys_getrusage(t: &mut CurrentTask, who: i32, usage: UserPtr<Rusage>) -> SyscallResult {
    let mut sum = match who {
        RUSAGE_SELF => t.group.usage(),
        RUSAGE_CHILDREN => {
            let children = t.group.children_usage.lock().clone();
            t.settled(children).await
        }
        RUSAGE_THREAD => t.usage.get(),
        _ => return Err(Errno::EINVAL.into()),
    };
    // Waited-for children had their peak noted when they ended.
    if who != RUSAGE_CHILDREN {
        sum.max_rss_kib = sum.max_rss_kib.max(t.mm().peak_rss() / 1024);
    }
    t.mm().write(usage, &sum.to_rusage())?;
    Ok(0)
}

fn sys_times(t: &mut CurrentTask, buffer: UserPtr<Tms>) -> SyscallResult {
    if !buffer.is_null() {
        let own = t.group.usage();
        let children = t.group.children_usage.lock().known();
        let tms = Tms {
            tms_utime: own.user_ticks(),
            tms_stime: own.system_ticks(),
            tms_cutime: children.user_ticks(),
            tms_cstime: children.system_ticks(),
        };
        t.mm().write(buffer, &tms)?;
    }
    // Ticks of 10 ms, of a clock that began at no point in particular (times(2)).
    Ok(t.kernel().uptime_ns() / (1_000_000_000 / moat_abi::time::USER_HZ))
}
