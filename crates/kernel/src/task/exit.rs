//! The end of a task: giving back what it used, finding new parents for its children, telling its own parent.
//!
//! Source: `do_exit`, `exit_notify`, `forget_original_parent`, `release_task` in `kernel/exit.c`, `zap_pid_ns_processes`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::PollEvents;
use moat_abi::clone::{CoreDump, WaitStatus};
use moat_abi::siginfo::{SI_KERNEL, SigInfo};
use moat_abi::signal::{SigSet, Signal};
use moat_identity::ProcessGroup;
use moat_platform::{Order, execute};
use moat_sync::wait::Listener;
use moat_tty::job_control::{Leave, disassociate};

use crate::process::family::Family;
use crate::process::group::{GroupId, ThreadGroup};
use crate::process::reap::{reap, tell_parent};
use crate::process::session::hang_up_if_orphaned;
use crate::ptrace;
use crate::signal::send::{Origin, Target, send_to_process};
use crate::signal::state::GroupExit;
use crate::signal::stop;
use crate::task::past_usage::PastUsage;
use crate::task::{CurrentTask, Task};

const KILLED: WaitStatus = WaitStatus::Signaled { signal: 9, core: CoreDump::NotDumped };

impl CurrentTask {
    /// Ends the task.
    pub(crate) async fn exit(mut self) {
        let status = {
            let s = self.group.signals.lock();
            // The status of a group exit beats that of the thread.
            s.exit.map(|e| e.status).or(self.exit_status).unwrap_or(KILLED)
        };
        // While its memory is still there: the tracer may look at it.
        if self.task().traced.load(Ordering::Relaxed) || self.group.signals.lock().dump.is_some() {
            self.whole().await;
        }
        ptrace::stop::exit_event(&mut self, status).await;
        self.end(status).await;
    }

    /// Ends the task, which has told its tracer.
    pub(crate) async fn end(mut self, status: WaitStatus) {
        crate::monitor::task_exits(&self, status);
        crate::core_dump::leave_image(&mut self);
        self.release_rseq().await;
        crate::futex::exit_thread(&mut self).await;
        // Completed only after the memory has been let go: the parent then has it for itself again.
        let vfork = self.vfork.take();
        let (task, thread, mm, fds, fs) = self.into_parts();
        // From here on nobody may kick the host thread or ask for its time.
        task.set_kicker(None);
        let last = mm.users() <= 1;
        task.drop_resources();
        mm.remove_user();
        if task.is_leader() || last {
            task.group.note_peak_rss(&mm);
        }
        drop(thread);
        drop(mm);
        if let Some(v) = vfork {
            v.complete();
        }
        drop(fds);
        drop(fs);
        leave(&task, status).await;
    }

    /// Takes the rseq area back from the host before others may free its memory: the host writes to it whenever the host
    /// thread goes on, be it to end. A process that ends as a whole is killed instead.
    async fn release_rseq(&mut self) {
        const UNREGISTER: u32 = 1;
        let Some(area) = self.rseq.take() else { return };
        if self.mm().users() > 1 && self.group.signals.lock().exit.is_none() {
            let order = Order::Rseq { addr: area.addr, len: area.len, flags: UNREGISTER, sig: area.sig };
            // The guest may have undone it behind our back, or be dead.
            let _ = execute(self.thread(), order).await;
        }
    }

    /// Undoes a clone whose child never ran.
    pub fn abandon(self) {
        let (task, thread, mm, fds, fs) = self.into_parts();
        task.set_kicker(None);
        task.drop_resources();
        mm.remove_user();
        drop((thread, mm, fds, fs));
        let last = {
            let mut s = task.group.signals.lock();
            s.threads.remove(&task.id);
            s.threads.is_empty()
        };
        if last {
            task.kernel().family.lock().remove(task.group.id);
        }
        task.kernel().tasks.unbind(&task.pid());
    }
}

/// Takes the task out of its group, and the group out of the living if it was the last.
async fn leave(task: &Arc<Task>, status: WaitStatus) {
    let group = task.group.clone();
    let used = task.usage.get();
    group.dead_threads.lock().add(&used);
    group.container.add_dead(&PastUsage::new(used));
    if group.thread_count() <= 1 {
        // A zombie executes nothing: its file may be written again.
        group.set_exe(None);
    }
    let leader = task.is_leader();
    let (last, trace, notifications) = {
        let mut s = group.signals.lock();
        let gone = s.threads.remove(&task.id);
        // The signals it was to take are for the others.
        let shared = s.shared.set();
        s.retarget(task.id, shared);
        let last = s.threads.is_empty();
        if leader {
            s.leader_status = Some(status);
        }
        let n = if last { stop::Notifications::default() } else { stop::participate(&mut s) };
        if last {
            s.shared.discard(SigSet::FULL);
            // Without a group exit the status is the leader's, whichever thread was last.
            let status = s.leader_status.unwrap_or(status);
            s.exit.get_or_insert(GroupExit { status });
        }
        (last, gone.and_then(|g| g.trace), n)
    };
    // After it has left the group: see `is_gone` there.
    ptrace::bond::tracer_exits(task);
    notifications.deliver(&group);
    if last {
        if group.pid().is_init() {
            end_namespace(&group).await;
        }
        group_dead(task, &group);
    } else {
        let other = group.any_thread();
        thread_dead(task, other.as_ref());
    }
    let tracer = trace.as_ref().and_then(|t| t.tracer.upgrade());
    let traced = tracer.is_some();
    // For a leader that is the last thread, `end_of_group` does it.
    if let Some(tracer) = &tracer
        && (!last || !leader)
    {
        ptrace::bond::thread_ended(task, tracer, status);
    }
    if last {
        let status = group.signals.lock().exit.map_or(status, |e| e.status);
        crate::monitor::process_ended(&group, task, status);
        end_of_group(&group, status, tracer.filter(|_| leader));
    }
    // A leader's number stays until the process is reaped, a tracee's until its tracer has waited.
    if !leader && !traced {
        task.kernel().tasks.unbind(&task.pid());
    }
    // Not for those who wait for the end of the process.
    group.exit_queue.wake(PollEvents::IN | PollEvents::RDNORM);
}

/// A thread that leaves siblings behind: its children are told if they asked, and belong to a sibling.
fn thread_dead(task: &Arc<Task>, sibling: Option<&Arc<Task>>) {
    let Some(sibling) = sibling else { return };
    let orphans = {
        let mut family = task.kernel().family.lock();
        let Some(children) = family.node(task.group.id).map(|n| n.children.clone()) else { return };
        let mut orphans = Vec::new();
        for c in children {
            if let Some(n) = family.node_mut(c)
                && n.parent_task == task.id
            {
                n.parent_task = sibling.id;
                orphans.push(n.group.clone());
            }
        }
        orphans
    };
    orphans.iter().for_each(send_pdeath);
}

fn send_pdeath(child: &Arc<ThreadGroup>) {
    for thread in child.threads() {
        let signal = thread.state().pdeath_signal;
        if let Some(s) = signal {
            let _ = child.send(Target::Process, SigInfo::new(s, SI_KERNEL), Origin::Outside);
        }
    }
}

/// A process without threads: its children go to a reaper, its terminal and its group lose it.
fn group_dead(task: &Arc<Task>, group: &Arc<ThreadGroup>) {
    crate::timer::itimer::cancel_all(group);
    crate::timer::posix::delete_all(group);
    let kernel = group.kernel();
    // SEM_UNDO, while the process still has the number that semctl(GETPID) shows.
    moat_ipc::SystemV::of(&task.namespaces().ipc).sem.exit(group.id, group.pid().number());
    let session = kernel.family.lock().session_of(group.id);
    if let Some(s) = session.filter(|s| s.is_led_by(group.pid())) {
        disassociate(&s, Leave::Exits);
    }
    let (moved, own_pgrp) = {
        let mut family = kernel.family.lock();
        let ns = task.pid_ns();
        let reaper = family.reaper(group.id, &ns);
        let new_parent = reaper.and_then(|r| family.node(r)).map(|n| n.leader.id);
        let ids = family.reparent(group.id, reaper, new_parent.unwrap_or(crate::task::TaskId(0)));
        let moved: Vec<_> = ids.iter().filter_map(|id| describe(&family, *id)).collect();
        let parent_pgrp = family.parent(group.id).and_then(|p| family.node(p.id)).map(|n| n.pgrp.clone());
        (moved, family.node(group.id).map(|n| (n.pgrp.clone(), parent_pgrp)))
    };
    // Without the family's lock: each of these sends signals.
    for child in &moved {
        child.group.threads().iter().for_each(|task| task.ask_again());
        send_pdeath(&child.group);
        // Who is adopted reports by SIGCHLD, whatever clone(2) asked for.
        child.group.exit_signal.store(Signal::SIGCHLD.number(), std::sync::atomic::Ordering::Relaxed);
        if let Some(status) = child.zombie {
            tell_parent(&child.group, status);
        }
    }
    let Some((own_pgrp, parent_pgrp)) = own_pgrp else { return };
    for child in &moved {
        hang_up_if_orphaned(kernel, &child.pgrp, Some(&own_pgrp), None);
    }
    hang_up_if_orphaned(kernel, &own_pgrp, parent_pgrp.as_ref(), Some(group.id));
}

struct Moved {
    group: Arc<ThreadGroup>,
    pgrp: Arc<ProcessGroup>,
    zombie: Option<WaitStatus>,
}

fn describe(family: &Family, id: GroupId) -> Option<Moved> {
    family.node(id).map(|n| Moved { group: n.group.clone(), pgrp: n.pgrp.clone(), zombie: n.zombie })
}

/// Makes the process a zombie and tells who waits for it. `tracer` is that of the leader, if the leader was last.
fn end_of_group(group: &Arc<ThreadGroup>, status: WaitStatus, tracer: Option<Arc<Task>>) {
    let (parent, leader) = {
        let mut family = group.kernel().family.lock();
        let Some(node) = family.node_mut(group.id) else { return };
        node.zombie = Some(status);
        let leader = node.leader.clone();
        (family.parent(group.id), leader)
    };
    // A leader that ended before its threads has been kept for its tracer.
    let kept = leader.ended_for_tracer.lock().as_ref().and_then(|e| e.tracer.upgrade());
    let Some(tracer) = tracer.or(kept) else {
        tell_parent(group, status);
        return;
    };
    if parent.is_some_and(|p| Arc::ptr_eq(&p, &tracer.group)) {
        ptrace::bond::forget_tracee(&leader, &tracer);
        tell_parent(group, status);
    } else {
        // The tracer comes first; the parent is told when the tracer has taken note.
        ptrace::bond::thread_ended(&leader, &tracer, status);
    }
}

/// The init of a pid namespace ends: everybody in it dies first (`zap_pid_ns_processes`).
async fn end_namespace(init: &Arc<ThreadGroup>) {
    let ns = init.pid().namespace().clone();
    // No process can be added from here on, so the loop ends.
    ns.close();
    loop {
        let mut listener = Listener::new();
        // Registered before the look: an end in between wakes it.
        listener.add(&init.kernel().exits, PollEvents::all());
        let others: Vec<_> = {
            let family = init.kernel().family.lock();
            let inside = |g: &ThreadGroup| g.id != init.id && g.pid().number_in(&ns) != 0;
            family
                .nodes()
                .filter(|n| inside(&n.group))
                .map(|n| (n.group.clone(), n.parent == Some(init.id), n.zombie.is_some()))
                .collect()
        };
        if others.is_empty() {
            return;
        }
        let mut living = false;
        for (group, child, zombie) in &others {
            if !zombie {
                living = true;
                send_to_process(group, SigInfo::new(Signal::SIGKILL, SI_KERNEL));
            } else if *child {
                reap(group);
            }
        }
        // Zombies of parents that are dying come to the init when these are gone.
        if living || others.iter().any(|(_, child, zombie)| *zombie && !*child) {
            listener.await;
        }
    }
}
