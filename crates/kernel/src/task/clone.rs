//! clone(2), clone3(2), fork(2), vfork(2).
//!
//! Source: `copy_process`, `kernel_clone` in `kernel/fork.c`; clone(2).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use moat_abi::cap::Cap;
use moat_abi::clone::CloneFlags;
use moat_abi::ptrace::{PTRACE_EVENT_CLONE, PTRACE_EVENT_FORK, PTRACE_EVENT_VFORK, PTRACE_EVENT_VFORK_DONE};
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::{Credentials, Namespaces, Pid, PidNamespace, Resource};
use moat_mm::{MemoryManager, UserAddr};
use moat_platform::GuestThread;
use moat_sync::{LockClass, Mutex};
use moat_vfs::fd_table::OnExec;

use crate::error::{Restart, SyscallError, SyscallResult};
use crate::metrics::{Event, ForkLimit};
use crate::process::allowance::TaskCharge;
use crate::process::group::ThreadGroup;
use crate::process::pidfd;
use crate::ptrace;
use crate::ptrace::after::After;
use crate::signal::SigHand;
use crate::signal::state::ThreadSignals;
use crate::task::current::{NO_ALTSTACK, Resources};
use crate::task::rest::Resume;
use crate::task::unshare;
use crate::task::vfork::{VforkChild, VforkDone};
use crate::task::wait::Wait;
use crate::task::{CurrentTask, Task, TaskId, TaskState};

/// What clone3(2) is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloneRequest {
    /// What is shared.
    pub flags: CloneFlags,
    /// The signal for the parent at the child's end, 0 for none.
    pub exit_signal: i32,
    /// The child's stack pointer; 0 keeps the parent's.
    pub stack: u64,
    /// Where `CLONE_PARENT_SETTID` writes.
    pub parent_tid: u64,
    /// Where `CLONE_CHILD_SETTID` and `CLONE_CHILD_CLEARTID` write.
    pub child_tid: u64,
    /// Where `CLONE_PIDFD` writes.
    pub pidfd: u64,
    /// The child's `fs` base with `CLONE_SETTLS`.
    pub tls: u64,
    /// Wanted numbers, innermost namespace first.
    pub set_tid: Vec<i32>,
}

impl CloneRequest {
    /// fork(2).
    #[must_use]
    pub fn fork() -> CloneRequest {
        CloneRequest { exit_signal: 17, ..CloneRequest::default() }
    }

    /// vfork(2).
    #[must_use]
    pub fn vfork() -> CloneRequest {
        CloneRequest { flags: CloneFlags::VFORK | CloneFlags::VM, ..CloneRequest::fork() }
    }
}

/// Makes a child; gives its id in the caller's namespace.
///
/// # Errors
/// Those of clone(2); a restart if a signal came first.
pub async fn clone(t: &mut CurrentTask, request: CloneRequest) -> SyscallResult {
    check(t, &request)?;
    // The caller takes what is pending first: a child made now would escape a signal to the whole process group.
    if t.is_interrupted() {
        return Err(Restart::NoIntr.into());
    }
    let flags = request.flags;
    let event = trace_event(t, &request);
    let creds = unshare::new_credentials(t, flags)?;
    unshare::check_privilege(t, flags, &creds.user_ns)?;
    let namespaces = unshare::child_namespaces(t, flags, &creds.user_ns)?;
    may_choose_numbers(t, &namespaces.pid_for_children, request.set_tid.len())?;
    let pid_ns = if flags.contains(CloneFlags::THREAD) { t.pid_ns() } else { namespaces.pid_for_children.clone() };
    let (charge, pid) = count_and_number(t, &pid_ns, &request.set_tid)?;
    let (mm, mut thread) = copy_memory(t, flags).await.inspect_err(|errno| {
        if *errno == Errno::EAGAIN {
            refused(t, ForkLimit::Host, None);
        }
    })?;
    prepare_registers(&mut *thread, &request);

    let made = make_task(t, &request, (creds, namespaces), &pid, mm.clone(), thread, charge);
    let mut child = match made {
        Ok(child) => child,
        Err(e) => {
            // Undone by hand: there is no task yet that could be abandoned.
            mm.remove_user();
            t.kernel().tasks.unbind(&pid);
            return Err(e);
        }
    };
    let number = pid.number_in(&t.pid_ns());
    if let Err(e) = hand_out(t, &request, &mut child, &pid) {
        child.abandon();
        return Err(e.into());
    }
    // Before the child runs, which may end the wait at once.
    if flags.contains(CloneFlags::VFORK) {
        let done = VforkDone::new();
        child.vfork = Some(done.clone());
        t.vfork_child = Some(VforkChild { number, done });
    }
    t.kernel().forks.fetch_add(1, Ordering::Relaxed);
    crate::monitor::cloned(t, &child, flags.bits());
    // Before the child runs: it is traced from its first instruction on.
    if event.is_some() || flags.contains(CloneFlags::PTRACE) {
        ptrace::bond::attach_child(t, &child);
    }
    crate::task::run::start(child);
    if let Some(event) = event {
        let value = u64::try_from(number).unwrap_or(0);
        let after = After::Result { value, vfork: flags.contains(CloneFlags::VFORK) };
        ptrace::stop::event(t, event, value, after).await;
    }
    await_vfork(t).await;
    Ok(u64::try_from(number).unwrap_or(0))
}

/// The rules of `copy_process` about flags.
fn check(t: &CurrentTask, r: &CloneRequest) -> Result<()> {
    let f = r.flags;
    let both = |a: CloneFlags, b: CloneFlags| f.contains(a) && f.intersects(b);
    // Each pair would share what its other flag separates (clone(2)).
    if both(CloneFlags::FS, CloneFlags::NEWNS | CloneFlags::NEWUSER)
        || (f.contains(CloneFlags::THREAD) && !f.contains(CloneFlags::SIGHAND))
        || (f.contains(CloneFlags::SIGHAND) && !f.contains(CloneFlags::VM))
        || both(CloneFlags::THREAD, CloneFlags::NEWUSER | CloneFlags::NEWPID)
        || both(CloneFlags::CLEAR_SIGHAND, CloneFlags::SIGHAND)
        || both(CloneFlags::PIDFD, CloneFlags::DETACHED)
        || both(CloneFlags::NEWIPC, CloneFlags::SYSVSEM)
    {
        return Err(Errno::EINVAL);
    }
    // Nobody in the namespace could wait for a sibling of its init.
    if f.contains(CloneFlags::PARENT) && t.group.signals.lock().unkillable {
        return Err(Errno::EINVAL);
    }
    // Threads are in the pid namespace of their process.
    if f.contains(CloneFlags::THREAD) && t.namespaces().pid_for_children.id != t.pid_ns().id {
        return Err(Errno::EINVAL);
    }
    check_process_limit(t)
}

/// Whether the caller may choose numbers in `innermost` and the namespaces above, `levels` in all.
fn may_choose_numbers(t: &CurrentTask, innermost: &Arc<PidNamespace>, levels: usize) -> Result<()> {
    let mut at = Some(innermost);
    for _ in 0..levels {
        // More numbers than namespaces.
        let ns = at.ok_or(Errno::EINVAL)?;
        let may = |cap| t.creds().has_cap_in(&ns.user_ns, cap);
        if !may(Cap::SYS_ADMIN) && !may(Cap::CHECKPOINT_RESTORE) {
            return Err(Errno::EPERM);
        }
        at = ns.parent.as_ref();
    }
    Ok(())
}

/// RLIMIT_NPROC counts the threads of a user; the privileged may exceed it.
fn check_process_limit(t: &CurrentTask) -> Result<()> {
    let limit = t.group.limits.get(Resource::Processes).soft;
    let creds = t.creds();
    if creds.uid == 0 || creds.has_root_cap(Cap::SYS_RESOURCE) || creds.has_root_cap(Cap::SYS_ADMIN) {
        return Ok(());
    }
    let uid = creds.uid;
    let groups: Vec<_> = t.kernel().family.lock().nodes().map(|n| n.group.clone()).collect();
    let mut count = 0u64;
    for g in groups {
        for task in g.threads() {
            count += u64::from(task.creds().uid == uid);
        }
    }
    if count < limit {
        return Ok(());
    }
    refused(t, ForkLimit::User, Some(limit));
    Err(Errno::EAGAIN)
}

/// A fork of `t` was refused by `limit`. The log has the first of a container, the second, the fourth, ...: a program that forks in
/// a loop must not fill it.
fn refused(t: &CurrentTask, limit: ForkLimit, value: Option<u64>) {
    let metrics = &t.group.container.metrics;
    metrics.count(Event::ForkRefused(limit), 1);
    let times = metrics.read().event(Event::ForkRefused(limit));
    if times.is_power_of_two() {
        let (tid, name, uid) = (t.tid(), limit.name(), t.creds().uid);
        tracing::warn!(tid, uid, limit = name, value, times, "{}", limit.advice());
    }
}

/// A place among the container's tasks, and a number.
fn count_and_number(t: &CurrentTask, pid_ns: &Arc<PidNamespace>, chosen: &[i32]) -> Result<(TaskCharge, Arc<Pid>)> {
    let allowance = t.group.container.allowance();
    let charge = allowance.charge().inspect_err(|_| refused(t, ForkLimit::Container, allowance.tasks_max()))?;
    let pid = Pid::allocate(pid_ns, chosen).inspect_err(|errno| {
        if *errno == Errno::EAGAIN {
            refused(t, ForkLimit::Numbers, None);
        }
    })?;
    Ok((charge, pid))
}

/// The event that the tracer of `t` wants to be told of.
fn trace_event(t: &CurrentTask, r: &CloneRequest) -> Option<u32> {
    if r.flags.contains(CloneFlags::UNTRACED) {
        return None;
    }
    let event = if r.flags.contains(CloneFlags::VFORK) {
        PTRACE_EVENT_VFORK
    } else if r.exit_signal != 17 {
        PTRACE_EVENT_CLONE
    } else {
        PTRACE_EVENT_FORK
    };
    ptrace::stop::wants_event(t, event).then_some(event)
}

async fn copy_memory(t: &mut CurrentTask, flags: CloneFlags) -> Result<(Arc<MemoryManager>, Box<dyn GuestThread>)> {
    let (mm, thread) = t.mm_and_thread();
    if flags.contains(CloneFlags::VM) {
        let mm = mm.clone();
        let new = std::future::poll_fn(|cx| thread.poll_spawn(cx)).await?;
        mm.add_user();
        return Ok((mm, new));
    }
    mm.fork(thread).await
}

fn prepare_registers(thread: &mut dyn GuestThread, r: &CloneRequest) {
    if r.stack == 0 && !r.flags.contains(CloneFlags::SETTLS) {
        thread.set_ret(0);
        return;
    }
    let mut regs = thread.regs();
    regs.rax = 0;
    if r.stack != 0 {
        regs.rsp = r.stack;
    }
    if r.flags.contains(CloneFlags::SETTLS) {
        regs.fs_base = r.tls;
    }
    thread.set_regs(&regs);
}

/// Makes the task and makes it known: from here on it can be signalled and waited for.
fn make_task(
    t: &CurrentTask,
    r: &CloneRequest,
    (creds, namespaces): (Arc<Credentials>, Arc<Namespaces>),
    pid: &Arc<Pid>,
    mm: Arc<MemoryManager>,
    thread: Box<dyn GuestThread>,
    charge: TaskCharge,
) -> Result<CurrentTask, SyscallError> {
    let flags = r.flags;
    let fds = if flags.contains(CloneFlags::FILES) { t.fds().clone() } else { Arc::new(t.fds().copy()) };
    let fs = if flags.contains(CloneFlags::FS) {
        t.fs().clone()
    } else {
        Arc::new(Mutex::new(LockClass::Process, unshare::child_fs(t, flags, &creds.user_ns)?))
    };
    // The id orders tasks by age: later ones never come before it in the group's map of threads.
    let id = TaskId(t.kernel().ids.tasks.next());
    let state = {
        let s = t.state();
        TaskState {
            creds,
            comm: s.comm.clone(),
            mm: Some(mm.clone()),
            fds: Some(fds.clone()),
            fs: Some(fs.clone()),
            namespaces: if flags.contains(CloneFlags::THREAD) { s.namespaces.clone() } else { namespaces },
            clear_child_tid: if flags.contains(CloneFlags::CHILD_CLEARTID) { r.child_tid } else { 0 },
            // Of the caller's memory and parent, not of the child's.
            robust_list: 0,
            pdeath_signal: None,
            sched: s.sched.for_child(),
            timer_slack_ns: s.timer_slack_ns,
            login: s.login,
            personality: s.personality,
            thp_disabled: s.thp_disabled,
            seccomp: s.seccomp.clone(),
            no_new_privs_by_sync: s.no_new_privs_by_sync,
        }
    };
    let group = if flags.contains(CloneFlags::THREAD) { t.group.clone() } else { child_group(t, r, pid) };
    let task = Task::new(id, group, pid.clone(), state, charge);
    // Read before the group is locked: the mask is the caller's own, and nobody else changes it.
    let blocked = t.blocked();
    if flags.contains(CloneFlags::THREAD) {
        let mut s = t.group.signals.lock();
        // A signal, stop or exec that came meanwhile must reach the new thread too: start again after it.
        if !t.work().is_empty() || s.exit.is_some() || s.exec.is_some() {
            return Err(Restart::NoIntr.into());
        }
        s.threads.insert(id, ThreadSignals::new(task.clone(), blocked));
    } else {
        // Signals can reach the child by its group from here on; its parent learns of it last.
        task.group.set_leader(&task);
        task.group.signals.lock().threads.insert(id, ThreadSignals::new(task.clone(), blocked));
        if let Err(e) = join_family(t, r, &task) {
            // Task and group hold each other: undo that, or the child's descriptors would stay open for ever.
            task.group.signals.lock().threads.clear();
            task.drop_resources();
            return Err(e);
        }
        // RLIMIT_CPU is inherited, the time used is not: the child's watch starts from zero.
        crate::timer::itimer::watch_cpu_limit(&task.group);
    }
    let mut child = CurrentTask::new(task, Resources { syscalls: t.syscalls, mm, thread, fds, fs });
    // A thread that shares memory must not share the stack for signals; a vfork(2) child borrows its parent's while that sleeps.
    if !flags.contains(CloneFlags::VM) || flags.contains(CloneFlags::VFORK) {
        child.altstack = t.altstack;
    } else {
        child.altstack = NO_ALTSTACK;
    }
    // A copy of the memory has the same area; a thread registers its own.
    if !flags.contains(CloneFlags::VM) {
        child.rseq = t.rseq;
    }
    Ok(child)
}

fn child_group(t: &CurrentTask, r: &CloneRequest, pid: &Arc<Pid>) -> Arc<ThreadGroup> {
    let sighand = {
        let own = t.group.signals.lock().sighand.clone();
        if r.flags.contains(CloneFlags::SIGHAND) {
            own
        } else if r.flags.contains(CloneFlags::CLEAR_SIGHAND) {
            Arc::new(own.without_handlers())
        } else {
            Arc::new(SigHand::duplicate(&own))
        }
    };
    // A sibling reports to the same parent in the same way.
    let exit_signal =
        if r.flags.contains(CloneFlags::PARENT) { t.group.exit_signal.load(Ordering::Relaxed) } else { r.exit_signal };
    let group = ThreadGroup::new(
        t.kernel().clone(),
        pid.clone(),
        sighand,
        t.group.limits.duplicate(),
        exit_signal,
        t.group.container.clone(),
    );
    group.set_exe(t.group.exe());
    group.set_dumpable(t.group.dumpable());
    group.set_exec_user_ns(t.group.exec_user_ns());
    group.oom_score_adj.store(t.group.oom_score_adj.load(Ordering::Relaxed), Ordering::Relaxed);
    group.coredump_filter.store(t.group.coredump_filter.load(Ordering::Relaxed), Ordering::Relaxed);
    // Signals with the default action don't reach an init from inside its namespace (pid_namespaces(7)).
    if pid.is_init() {
        group.signals.lock().unkillable = true;
    }
    group
}

fn join_family(t: &CurrentTask, r: &CloneRequest, task: &Arc<Task>) -> Result<(), SyscallError> {
    let mut family = t.kernel().family.lock();
    let own = family.node(t.group.id).ok_or(Errno::EAGAIN)?;
    let pgrp = own.pgrp.clone();
    // A sibling of the caller: its end is reported to the parent, not to the caller.
    let parent = if r.flags.contains(CloneFlags::PARENT) {
        own.parent.map(|p| (p, own.parent_task))
    } else {
        Some((t.group.id, t.id))
    };
    // A signal to the whole process group that was sent before this point has not reached the child.
    if !t.work().is_empty() {
        return Err(Restart::NoIntr.into());
    }
    family.add(task.group.clone(), task.clone(), parent, pgrp);
    Ok(())
}

/// Writes the ids and the pidfd that the flags ask for.
fn hand_out(t: &mut CurrentTask, r: &CloneRequest, child: &mut CurrentTask, pid: &Arc<Pid>) -> Result<()> {
    if r.flags.contains(CloneFlags::PIDFD) {
        let scope = if r.flags.contains(CloneFlags::THREAD) { pidfd::Scope::Thread } else { pidfd::Scope::Process };
        let file = pidfd::open(t.kernel(), pid, scope, t.creds(), pidfd::Blocking::Yes);
        let limit = t.group.limits.get(Resource::OpenFiles).soft;
        let fd = t.fds().install(file, limit, OnExec::Close)?;
        if let Err(e) = t.mm().write_bytes(UserAddr::new(r.pidfd), &fd.0.to_ne_bytes()) {
            let _ = t.fds().close(fd);
            return Err(e);
        }
    }
    if r.flags.contains(CloneFlags::PARENT_SETTID) {
        // As on Linux a bad address is nobody's error.
        let number = pid.number_in(&t.pid_ns());
        let _ = t.mm().write_bytes(UserAddr::new(r.parent_tid), &number.to_ne_bytes());
    }
    // In the child's memory, which may be a copy.
    if r.flags.contains(CloneFlags::CHILD_SETTID) {
        let _ = child.mm().write_bytes(UserAddr::new(r.child_tid), &pid.number().to_ne_bytes());
    }
    Ok(())
}

/// Waits until the task's vfork(2) child, if it has one, has given its memory back: from the state of the task alone.
pub(crate) async fn await_vfork(t: &mut CurrentTask) {
    let Some(child) = t.vfork_child.clone() else { return };
    let done = &child.done;
    let look = |_: &mut CurrentTask| if done.is_complete() { Poll::Ready(()) } else { Poll::Pending };
    let wait = Wait::resumable("vfork", Resume::Vfork { child: child.number });
    // Only a task that dies gives up.
    let _ = t.wait_for(&(done.queue(), PollEvents::all()), &wait, look).await;
    t.vfork_child = None;
    let value = u64::try_from(child.number).unwrap_or(0);
    ptrace::stop::event_if(t, PTRACE_EVENT_VFORK_DONE, value, After::Result { value, vfork: false }).await;
}
