//! wait4(2) and waitid(2): children that ended, stopped or went on, and tracees that stopped.
//!
//! Source: `do_wait`, `wait_consider_task`, `wait_task_zombie` in `kernel/exit.c`.

use std::ops::Bound;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use moat_abi::clone::{WaitFlags, WaitStatus};
use moat_abi::siginfo::{CLD_CONTINUED, CLD_STOPPED, CLD_TRAPPED};
use moat_abi::signal::Signal;
use moat_abi::{Errno, PollEvents};

use crate::error::{Restart, SyscallError};
use crate::process::family::{Family, Node};
use crate::process::group::{GroupId, ThreadGroup};
use crate::process::notify::{child_info, exit_code};
use crate::signal::state::GroupReport;
use crate::task::past_usage::PastUsage;
use crate::task::usage::Usage;
use crate::task::wait::Wait;
use crate::task::{CurrentTask, Task};

/// Whose end or stop is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Any child.
    Any,
    /// The child with this pid's id (see [`moat_identity::Pid::id`]).
    Pid(u64),
    /// A child in this process group.
    Group(u64),
}

/// What was found.
#[derive(Clone)]
pub struct Found {
    /// The child's number in the waiter's namespace.
    pub pid: i32,
    /// Its real user id, as the waiter sees it.
    pub uid: u32,
    /// What wait4(2) gives.
    pub status: WaitStatus,
    /// `si_code` of waitid(2).
    pub code: i32,
    /// `si_status` of waitid(2).
    pub value: i32,
    /// What it has used.
    pub usage: PastUsage,
}

enum Scan {
    Found(Box<Found>, After),
    Nothing,
    NoChild,
}

/// What remains to be done with the family unlocked.
enum After {
    Nothing,
    Reap(Arc<ThreadGroup>, PastUsage),
    /// A tracee that ended; its own parent is told of it now.
    Traced(Arc<Task>),
}

impl CurrentTask {
    /// Waits for a child; `None` with WNOHANG if none is ready.
    ///
    /// # Errors
    /// ECHILD without a child that could be meant; a restart.
    pub async fn wait_for_child(&mut self, who: Who, flags: WaitFlags) -> Result<Option<Found>, SyscallError> {
        let group = self.group.clone();
        let children = (&group.child_queue, PollEvents::all());
        let look = |t: &mut CurrentTask| match scan(t, who, flags) {
            Scan::Found(found, after) => {
                finish(t, after);
                Poll::Ready(Ok(Some(*found)))
            }
            Scan::NoChild => Poll::Ready(Err(Errno::ECHILD)),
            Scan::Nothing if flags.contains(WaitFlags::NOHANG) => Poll::Ready(Ok(None)),
            Scan::Nothing => Poll::Pending,
        };
        Ok(self.wait_for(&children, &Wait::restarting("do_wait", Restart::Sys), look).await??)
    }
}

/// A host process that takes longer to end is not waited for: it has nothing left to do but to free its memory.
const PATIENCE: Duration = Duration::from_secs(1);

impl CurrentTask {
    /// What has been used, with the peaks of memory that are still to come: waits for the host where it has to, but for no longer than
    /// [`PATIENCE`].
    pub async fn settled(&mut self, mut past: PastUsage) -> Usage {
        // No signal ends it: the child that this is about has been waited for already.
        let wait = Wait::killable("exit_mm").until(Instant::now().checked_add(PATIENCE));
        while let Some(peak) = past.next_peak() {
            let look = |_: &mut CurrentTask| match peak.get() {
                Some(_) => Poll::Ready(()),
                None => Poll::Pending,
            };
            if self.wait_for(&(peak.queue(), PollEvents::all()), &wait, look).await.is_err() {
                break;
            }
            // Takes it off the list.
            past.known();
        }
        past.known()
    }
}

fn finish(t: &CurrentTask, after: After) {
    match after {
        After::Nothing => {}
        After::Reap(child, usage) => {
            t.group.children_usage.lock().merge(&usage);
            crate::process::reap::reap(&child);
        }
        After::Traced(task) => crate::ptrace::bond::reaped_by_tracer(&task),
    }
}

fn scan(t: &CurrentTask, who: Who, flags: WaitFlags) -> Scan {
    let mut family = t.kernel().family.lock();
    let Some(own) = family.node(t.group.id) else { return Scan::NoChild };
    let tracees = own.tracees.clone();
    let mut any = false;
    let mut next = None;
    while let Some(id) = next_child(&family, t.group.id, who, next) {
        next = Some(id);
        let Some(n) = family.node(id) else { continue };
        let other_thread = flags.contains(WaitFlags::NOTHREAD) && n.parent_task != t.id;
        if other_thread || !matches(n, who) || !eligible(n, flags) {
            continue;
        }
        // Enough for a wait instead of ECHILD.
        any = true;
        // The tracer takes note of its end first. Until then it counts as a child that may still change state.
        if is_traced_elsewhere(n, &t.group) {
            continue;
        }
        if let Some((found, after)) = look_at_child(&mut family, t, id, flags) {
            return Scan::Found(Box::new(found), after);
        }
    }
    // Threads of other processes, which no list of children has.
    for task in tracees {
        let wanted = match who {
            Who::Any => true,
            Who::Pid(pid) => task.pid().id == pid,
            Who::Group(pgrp) => family.node(task.group.id).is_some_and(|n| n.pgrp.id() == pgrp),
        };
        if !wanted {
            continue;
        }
        any = true;
        if let Some((found, after)) = look_at_tracee(t, &family, &task, flags) {
            return Scan::Found(Box::new(found), after);
        }
    }
    if any { Scan::Nothing } else { Scan::NoChild }
}

/// The child behind `last`, of those that can be meant: one alone that has a name is not looked for.
fn next_child(family: &Family, parent: GroupId, who: Who, last: Option<GroupId>) -> Option<GroupId> {
    let children = &family.node(parent)?.children;
    match who {
        Who::Pid(pid) => last.is_none().then(|| children.get(&GroupId(pid)).copied()).flatten(),
        Who::Any | Who::Group(_) => {
            children.range((last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)).next().copied()
        }
    }
}

fn matches(n: &Node, who: Who) -> bool {
    match who {
        Who::Any => true,
        Who::Pid(pid) => n.group.pid().id == pid,
        Who::Group(pgrp) => n.pgrp.id() == pgrp,
    }
}

/// `__WALL`, `__WCLONE` (`eligible_child`).
fn eligible(n: &Node, flags: WaitFlags) -> bool {
    let is_clone = n.group.exit_signal() != Some(Signal::SIGCHLD);
    flags.contains(WaitFlags::ALL) || is_clone == flags.contains(WaitFlags::CLONE)
}

/// A zombie that its tracer has not yet seen is not for its parent.
fn is_traced_elsewhere(n: &Node, waiter: &Arc<ThreadGroup>) -> bool {
    let s = n.group.signals.lock();
    if n.zombie.is_some() {
        return n.leader.ended_for_tracer.lock().is_some();
    }
    let tracer = s.threads.get(&n.leader.id).and_then(|l| l.trace.as_ref()).and_then(|t| t.tracer.upgrade());
    tracer.is_some_and(|t| !Arc::ptr_eq(&t.group, waiter))
}

fn found(t: &CurrentTask, task: &Task, status: WaitStatus, code: i32, value: i32) -> Found {
    let info = child_info(task, &t.group, value);
    Found { pid: info.pid, uid: info.uid, status, code, value, usage: PastUsage::default() }
}

fn look_at_child(family: &mut Family, t: &CurrentTask, id: GroupId, flags: WaitFlags) -> Option<(Found, After)> {
    let node = family.node(id)?;
    let (group, leader) = (node.group.clone(), node.leader.clone());
    let keep = flags.contains(WaitFlags::NOWAIT);
    if let Some(status) = node.zombie {
        if !flags.contains(WaitFlags::EXITED) {
            return None;
        }
        let (code, value) = exit_code(status);
        let mut usage = group.past_usage();
        // times(2) counts descendants as well.
        usage.merge(&group.children_usage.lock());
        let mut f = found(t, &leader, status, code, value);
        f.usage = usage.clone();
        if keep {
            return Some((f, After::Nothing));
        }
        // The family stays locked until the caller has it: no other thread can find the zombie in between.
        if let Some(n) = family.node_mut(id) {
            n.zombie = None;
            n.parent = None;
        }
        detach_child(family, t.group.id, id);
        return Some((f, After::Reap(group, usage)));
    }
    let mut s = group.signals.lock();
    // A traced leader reports its stops as a tracee.
    if s.threads.get(&leader.id).is_some_and(|l| l.trace.is_some()) {
        return None;
    }
    match s.stop.report {
        Some(GroupReport::Stopped(signal)) if flags.contains(WaitFlags::STOPPED) => {
            if !keep {
                s.stop.report = None;
            }
            // `usage` takes this lock.
            drop(s);
            let number = signal.number();
            let mut f = found(t, &leader, WaitStatus::Stopped(number.unsigned_abs()), CLD_STOPPED, number);
            f.usage = group.past_usage();
            Some((f, After::Nothing))
        }
        Some(GroupReport::Continued) if flags.contains(WaitFlags::CONTINUED) => {
            if !keep {
                s.stop.report = None;
            }
            // As above.
            drop(s);
            let mut f = found(t, &leader, WaitStatus::Continued, CLD_CONTINUED, Signal::SIGCONT.number());
            f.usage = group.past_usage();
            Some((f, After::Nothing))
        }
        _ => None,
    }
}

fn detach_child(family: &mut Family, parent: GroupId, child: GroupId) {
    if let Some(p) = family.node_mut(parent) {
        p.children.remove(&child);
    }
}

fn look_at_tracee(t: &CurrentTask, family: &Family, task: &Arc<Task>, flags: WaitFlags) -> Option<(Found, After)> {
    let keep = flags.contains(WaitFlags::NOWAIT);
    let ended = task.ended_for_tracer.lock().as_ref().map(|e| e.status);
    if let Some(status) = ended {
        // A leader is reported after all of its threads.
        let group_lives = task.is_leader() && family.node(task.group.id).is_some_and(|n| n.zombie.is_none());
        if group_lives || !flags.contains(WaitFlags::EXITED) {
            return None;
        }
        let (code, value) = exit_code(status);
        let mut f = found(t, task, status, code, value);
        f.usage = PastUsage::new(task.usage.get());
        let after = if keep { After::Nothing } else { After::Traced(task.clone()) };
        return Some((f, after));
    }
    let mut s = task.group.signals.lock();
    let stop = s.threads.get_mut(&task.id)?.trace.as_mut()?.stop.as_mut()?;
    if stop.reported {
        return None;
    }
    if !keep {
        stop.reported = true;
    }
    let (code, value) = (stop.code, i32::try_from(stop.code).unwrap_or(0));
    drop(s);
    let mut f = found(t, task, WaitStatus::Stopped(code), CLD_TRAPPED, value);
    f.usage = PastUsage::new(task.usage.get());
    Some((f, After::Nothing))
}
