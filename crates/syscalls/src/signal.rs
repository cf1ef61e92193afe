//! Signals: sending, actions, masks, waiting.
//!
//! Source: kill(2), sigaction(2), sigprocmask(2), sigsuspend(2), sigtimedwait(2), `kernel/signal.c`.

use std::sync::Arc;

use moat_abi::siginfo::{SI_TKILL, SI_USER, SigInfo};
use moat_abi::signal::{
    NSIG, SIG_BLOCK, SIG_IGN, SIG_SETMASK, SIG_UNBLOCK, SIGSET_SIZE, SaFlags, SigAction, SigSet, Signal, StackT,
};
use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_host::clock::deadline_after;
use moat_kernel::process::group::ThreadGroup;
use moat_kernel::process::pidfd::{PidFd, Scope};
use moat_kernel::signal::frame::altstack_flags;
use moat_kernel::signal::queue::Queued;
use moat_kernel::signal::send::{Origin, Target, check_permission};
use moat_kernel::{CurrentTask, Restart, SyscallResult, Task, Wait};
use moat_mm::UserPtr;
use moat_vfs::Fd;

syscalls! { pub static TABLE;
    13 rt_sigaction(signal: i32, new: UserPtr<SigAction>, old: UserPtr<SigAction>, size: u64) sys_rt_sigaction, full;
    14 rt_sigprocmask(how: u32, new: UserPtr<SigSet>, old: UserPtr<SigSet>, size: u64) sys_rt_sigprocmask, full;
    15 rt_sigreturn() sys_rt_sigreturn, full;
    34 pause() async sys_pause, full;
    62 kill(pid: i32, signal: i32) sys_kill, full;
    127 rt_sigpending(set: UserPtr<SigSet>, size: u64) sys_rt_sigpending, full;
    128 rt_sigtimedwait(set: UserPtr<SigSet>, info: UserPtr<SigInfo>, timeout: UserPtr<Timespec>, size: u64) async sys_rt_sigtimedwait, full;
    129 rt_sigqueueinfo(pid: i32, signal: i32, info: UserPtr<SigInfo>) sys_rt_sigqueueinfo, full;
    130 rt_sigsuspend(mask: UserPtr<SigSet>, size: u64) async sys_rt_sigsuspend, full;
    131 sigaltstack(new: UserPtr<StackT>, old: UserPtr<StackT>) sys_sigaltstack, full;
    200 tkill(tid: i32, signal: i32) sys_tkill, full;
    234 tgkill(pid: i32, tid: i32, signal: i32) sys_tgkill, full;
    297 rt_tgsigqueueinfo(pid: i32, tid: i32, signal: i32, info: UserPtr<SigInfo>) sys_rt_tgsigqueueinfo, full;
    424 pidfd_send_signal(pidfd: Fd, signal: i32, info: UserPtr<SigInfo>, flags: u32) sys_pidfd_send_signal, full;
    219 restart_syscall() async sys_restart_syscall, full;
}

fn check_size(size: u64) -> Result<()> {
    if size == SIGSET_SIZE { Ok(()) } else { Err(Errno::EINVAL) }
}

fn sys_rt_sigaction(
    t: &mut CurrentTask,
    signal: i32,
    new: UserPtr<SigAction>,
    old: UserPtr<SigAction>,
    size: u64,
) -> SyscallResult {
    check_size(size)?;
    let new = if new.is_null() { None } else { Some(t.mm().read(new)?) };
    let signal = Signal::new(signal).ok_or(Errno::EINVAL)?;
    // SIGKILL and SIGSTOP may be looked at only.
    if new.is_some() && SigSet::UNBLOCKABLE.contains(signal) {
        return Err(Errno::EINVAL.into());
    }
    let new = new.map(|mut action: SigAction| {
        // Unknown flags are cleared, so that a program can see what the kernel knows (sigaction(2)).
        let known = SaFlags::all() - SaFlags::UNSUPPORTED;
        action.sa_flags = action.flags().intersection(known).bits();
        action.sa_mask = action.sa_mask.as_mask();
        action
    });
    let previous = t.group.sigaction(signal, new);
    if !old.is_null() {
        t.mm().write(old, &previous)?;
    }
    Ok(0)
}

fn sys_rt_sigprocmask(
    t: &mut CurrentTask,
    how: u32,
    new: UserPtr<SigSet>,
    old: UserPtr<SigSet>,
    size: u64,
) -> SyscallResult {
    check_size(size)?;
    let current = t.blocked();
    if !new.is_null() {
        let set = t.mm().read(new)?;
        let mask = match how {
            SIG_BLOCK => current.union(set),
            SIG_UNBLOCK => current.difference(set),
            SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL.into()),
        };
        t.set_blocked(mask.as_mask());
    }
    if !old.is_null() {
        t.mm().write(old, &current)?;
    }
    Ok(0)
}

fn sys_rt_sigreturn(t: &mut CurrentTask) -> SyscallResult {
    // A handler's return ends whatever restart was pending.
    t.restart_block = None;
    match t.sigreturn() {
        Ok(rax) => Ok(rax),
        Err(_) => {
            // The frame can't be trusted: the process gets what a bad stack access gives.
            t.force_segv(None);
            Ok(0)
        }
    }
}

async fn sys_pause(t: &mut CurrentTask) -> SyscallResult {
    // Only an interruption ends it.
    t.sleep(&Wait::restarting("pause", Restart::NoHand)).await?;
    Ok(0)
}

/// Signal 0 checks whether the target exists and may be signalled.
fn signal_or_check(signal: i32) -> Result<Option<Signal>> {
    if signal == 0 {
        return Ok(None);
    }
    Signal::new(signal).map(Some).ok_or(Errno::EINVAL)
}

fn origin(t: &CurrentTask, target: &ThreadGroup) -> Origin {
    // A sender that the target can't see comes from an ancestor namespace.
    let visible = t.group.pid().number_in(target.pid().namespace()) != 0;
    if visible { Origin::Inside } else { Origin::Outside }
}

/// The sender's pid and uid as the target sees them.
fn sender(t: &CurrentTask, target: &ThreadGroup) -> (i32, u32) {
    (t.group.pid().number_in(target.pid().namespace()), t.creds().uid)
}

fn kill_info(t: &CurrentTask, target: &ThreadGroup, signal: Signal, code: i32) -> SigInfo {
    let (pid, uid) = sender(t, target);
    SigInfo::kill(signal, code, pid, uid)
}

/// Sends to one process, after the check of permission.
fn kill_process(t: &CurrentTask, group: &Arc<ThreadGroup>, signal: Option<Signal>) -> Result<()> {
    // A process without threads is a zombie: it exists, and takes signals without effect.
    let Some(task) = group.leader().or_else(|| group.any_thread()) else { return Ok(()) };
    check_permission(t.task(), t.creds(), &task, signal)?;
    match signal {
        Some(s) => group.send(Target::Process, kill_info(t, group, s, SI_USER), origin(t, group)),
        None => Ok(()),
    }
}

fn kill_many(t: &CurrentTask, groups: &[Arc<ThreadGroup>], signal: Option<Signal>) -> Result<()> {
    // One success is success; else the last error (`__kill_pgrp_info`).
    let mut result = Err(Errno::ESRCH);
    for g in groups {
        match kill_process(t, g, signal) {
            Ok(()) => result = Ok(()),
            Err(e) if result.is_err() => result = Err(e),
            Err(_) => {}
        }
    }
    result
}

fn sys_kill(t: &mut CurrentTask, pid: i32, signal: i32) -> SyscallResult {
    let signal = signal_or_check(signal)?;
    let ns = t.pid_ns();
    match pid {
        i32::MIN => return Err(Errno::ESRCH.into()),
        1.. => {
            // A thread's id names its process.
            let task = t.kernel().task(&ns, pid).ok_or(Errno::ESRCH)?;
            kill_process(t, &task.group, signal)?;
        }
        -1 => {
            let groups: Vec<_> = {
                // All but the caller, and init of the namespace (kill(2)).
                let wanted = |g: &Arc<ThreadGroup>| g.id != t.group.id && g.pid().number_in(&ns) > 1;
                t.kernel().processes_in(&ns).into_iter().filter(wanted).collect()
            };
            // EPERM for all of them is success, as long as there was one.
            match kill_many(t, &groups, signal) {
                Err(Errno::EPERM) if !groups.is_empty() => {}
                r => r?,
            }
        }
        _ => {
            let pgrp =
                if pid == 0 { t.group.process_group().map(|p| p.pid().clone()) } else { ns.lookup(pid.wrapping_neg()) };
            let members = pgrp.map(|p| t.kernel().group_members(&p)).unwrap_or_default();
            kill_many(t, &members, signal)?;
        }
    }
    Ok(0)
}

fn send_to_thread(
    t: &CurrentTask,
    task: &Arc<Task>,
    signal: Option<Signal>,
    entry: impl FnOnce(Signal) -> SigInfo,
) -> Result<()> {
    check_permission(t.task(), t.creds(), task, signal)?;
    match signal {
        Some(s) => task.group.send(Target::Thread(task.id), Queued::from(entry(s)), origin(t, &task.group)),
        None => Ok(()),
    }
}

fn sys_tkill(t: &mut CurrentTask, tid: i32, signal: i32) -> SyscallResult {
    if tid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let signal = signal_or_check(signal)?;
    let task = t.kernel().task(&t.pid_ns(), tid).ok_or(Errno::ESRCH)?;
    send_to_thread(t, &task, signal, |s| kill_info(t, &task.group, s, SI_TKILL))?;
    Ok(0)
}

fn thread_of(t: &CurrentTask, pid: i32, tid: i32) -> Result<Arc<Task>> {
    if pid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    let ns = t.pid_ns();
    let task = t.kernel().task(&ns, tid).ok_or(Errno::ESRCH)?;
    // The thread may have exited and its number been given to another process (tgkill(2)).
    if task.group.pid().number_in(&ns) == pid { Ok(task) } else { Err(Errno::ESRCH) }
}

fn sys_tgkill(t: &mut CurrentTask, pid: i32, tid: i32, signal: i32) -> SyscallResult {
    if pid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let signal = signal_or_check(signal)?;
    let task = thread_of(t, pid, tid)?;
    send_to_thread(t, &task, signal, |s| kill_info(t, &task.group, s, SI_TKILL))?;
    Ok(0)
}

/// Reads a `siginfo_t` that the guest made; it may not pretend to come from the kernel, unless it is for itself.
fn read_info(t: &CurrentTask, info: UserPtr<SigInfo>, signal: i32, to_self: bool) -> Result<SigInfo> {
    let mut info = t.mm().read(info)?;
    // Overwritten: what is sent is what the argument says.
    info.si_signo = signal;
    if !to_self && (info.si_code >= 0 || info.si_code == SI_TKILL) {
        return Err(Errno::EPERM);
    }
    Ok(info)
}

fn sys_rt_sigqueueinfo(t: &mut CurrentTask, pid: i32, signal: i32, info: UserPtr<SigInfo>) -> SyscallResult {
    let info = read_info(t, info, signal, t.tgid() == pid)?;
    let signal = signal_or_check(signal)?;
    let task = t.kernel().task(&t.pid_ns(), pid).ok_or(Errno::ESRCH)?;
    check_permission(t.task(), t.creds(), &task, signal)?;
    if signal.is_some() {
        task.group.send(Target::Process, Queued::from(info), origin(t, &task.group))?;
    }
    Ok(0)
}

fn sys_rt_tgsigqueueinfo(
    t: &mut CurrentTask,
    pid: i32,
    tid: i32,
    signal: i32,
    info: UserPtr<SigInfo>,
) -> SyscallResult {
    let info = read_info(t, info, signal, t.tid() == tid)?;
    if pid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let signal = signal_or_check(signal)?;
    let task = thread_of(t, pid, tid)?;
    send_to_thread(t, &task, signal, |_| info)?;
    Ok(0)
}

fn sys_pidfd_send_signal(
    t: &mut CurrentTask,
    pidfd: Fd,
    signal: i32,
    info: UserPtr<SigInfo>,
    flags: u32,
) -> SyscallResult {
    /// Sends to the thread, the process or the process group (`PIDFD_SIGNAL_*`).
    const THREAD: u32 = 1;
    const PROCESS: u32 = 2;
    const GROUP: u32 = 4;
    if flags & !(THREAD | PROCESS | GROUP) != 0 || flags.count_ones() > 1 {
        return Err(Errno::EINVAL.into());
    }
    let file = t.fds().get(pidfd)?;
    let (pid, scope) = match file.downcast::<PidFd>() {
        Some(fd) => (fd.pid().clone(), fd.scope()),
        // A process's directory in /proc will do.
        None => (moat_fs_proc::process_of(file.inode()).ok_or(Errno::EBADF)?, Scope::Process),
    };
    let task = t.kernel().task_of(&pid).ok_or(Errno::ESRCH)?;
    let checked = signal_or_check(signal)?;
    let given = if info.is_null() {
        None
    } else {
        let raw = t.mm().read(info)?;
        if raw.si_signo != signal {
            return Err(Errno::EINVAL.into());
        }
        let to_self = Arc::ptr_eq(&task.group, &t.group);
        // Only the kernel itself may claim to be the kernel, or another sender by tgkill(2).
        if !to_self && (raw.si_code >= 0 || raw.si_code == SI_TKILL) {
            return Err(Errno::EPERM.into());
        }
        Some(raw)
    };
    if flags == GROUP {
        let members = t.kernel().group_members(&pid);
        kill_many(t, &members, checked)?;
        return Ok(0);
    }
    check_permission(t.task(), t.creds(), &task, checked)?;
    if let Some(s) = checked {
        let info = given.unwrap_or_else(|| kill_info(t, &task.group, s, SI_USER));
        // Without flags the pidfd says what it stands for.
        let by_thread = flags == THREAD || (flags == 0 && scope == Scope::Thread);
        let target = if by_thread { Target::Thread(task.id) } else { Target::Process };
        task.group.send(target, Queued::from(info), origin(t, &task.group))?;
    }
    Ok(0)
}

fn sys_rt_sigpending(t: &mut CurrentTask, set: UserPtr<SigSet>, size: u64) -> SyscallResult {
    // Linux accepts smaller sets here and nowhere else.
    if size > SIGSET_SIZE {
        return Err(Errno::EINVAL.into());
    }
    let pending = t.pending_blocked();
    let bytes = pending.0.to_ne_bytes();
    let n = usize::try_from(size).unwrap_or(0).min(bytes.len());
    t.mm().write_bytes(set.addr(), bytes.get(..n).unwrap_or_default())?;
    Ok(0)
}

async fn sys_rt_sigsuspend(t: &mut CurrentTask, mask: UserPtr<SigSet>, size: u64) -> SyscallResult {
    check_size(size)?;
    let mask = t.mm().read(mask)?;
    // Put back after the handler, or before the call is made again.
    t.set_temporary_mask(mask.as_mask());
    t.sleep(&Wait::restarting("sigsuspend", Restart::NoHand)).await?;
    Ok(0)
}

async fn sys_rt_sigtimedwait(
    t: &mut CurrentTask,
    set: UserPtr<SigSet>,
    info: UserPtr<SigInfo>,
    timeout: UserPtr<Timespec>,
    size: u64,
) -> SyscallResult {
    check_size(size)?;
    let set = t.mm().read(set)?.as_mask();
    let timeout = if timeout.is_null() { None } else { Some(t.mm().read(timeout)?.to_nanos()?) };
    let (signal, taken) = match t.take_signal(set) {
        Some(x) => x,
        None if timeout == Some(0) => return Err(Errno::EAGAIN.into()),
        None => {
            // Let through for the time of the wait, so that one of them wakes it instead of being handled.
            t.open_mask(set);
            let wait = Wait::failing("sigtimedwait").until(timeout.map(deadline_after));
            // The signals of the set interrupt the sleep.
            let ended = t.sleep(&wait).await;
            // Under one lock: a signal that came as the time ended is taken, not lost.
            match t.close_mask(set) {
                Some(x) => x,
                None => {
                    ended?;
                    return Err(Errno::EAGAIN.into());
                }
            }
        }
    };
    if !info.is_null() {
        t.mm().write(info, &taken)?;
    }
    Ok(u64::from(signal.number().unsigned_abs()))
}

fn sys_sigaltstack(t: &mut CurrentTask, new: UserPtr<StackT>, old: UserPtr<StackT>) -> SyscallResult {
    let new = if new.is_null() { None } else { Some(t.mm().read(new)?) };
    let sp = t.thread().regs().rsp;
    let current = t.altstack;
    let autodisarm = current.ss_flags.cast_unsigned() & moat_abi::signal::SS_AUTODISARM;
    // Shown as it was before the change; whether the task runs on it depends on its stack pointer.
    let shown = StackT { ss_flags: (altstack_flags(&current, sp) | autodisarm).cast_signed(), ..current };
    if let Some(n) = new {
        t.set_altstack(n, sp)?;
    }
    if !old.is_null() {
        t.mm().write(old, &shown)?;
    }
    Ok(0)
}

async fn sys_restart_syscall(t: &mut CurrentTask) -> SyscallResult {
    t.restart_syscall().await
}

const _: () = assert!(NSIG == 64 && SIG_IGN == 1);
