//! From processes to an image: see [`super`].

mod filters;

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use moat_abi::clone::WaitStatus;
use moat_abi::signal::Signal;
use moat_identity::{Pid, ProcessGroup, Resource, Session};
use moat_image::state::{
    AioPollState, ContainerIndex, ContainerState, ControllingTerminalState, EndedThreadState, MemoryState, PidState,
    ProcessGroupState, ProcessState, SandboxState, SeccompFilterState, SessionState, SharedState, SignalHandlersState,
    SystemVState, TaskState, ZombieState,
};
use moat_image::{ImageError, Interner, Met, Ref, Refusal};
use moat_mm::{MemoryManager, SavedMemory};
use moat_vfs::OpenFile;
use moat_vfs::persist::{SaveFiles, Saver as FileSaver};

use super::{Configured, KnownProcesses, convert, namespaces, signals, trace};
use crate::kernel::Kernel;
use crate::process::group::{Dumpable, GroupId, ThreadGroup};
use crate::signal::state::GroupReport;
use crate::task::{Task, TaskId};

/// What was saved, but for the pages of address spaces.
pub struct Saved {
    /// The state; its memories lack their pages.
    pub state: SandboxState,
    /// The address spaces in the order of [`SandboxState::memories`].
    pub memories: Vec<(Arc<MemoryManager>, SavedMemory)>,
    /// Where pages go.
    pub pages: Option<moat_image::pages::PagesWriter>,
}

/// Looks for what can't be saved, while the containers run; they are all that there are, and what is known of each.
///
/// # Errors
/// What it is.
pub fn survey(containers: &[Configured], known: &[KnownProcesses], files: FileSaver) -> Result<(), Refusal> {
    Walk::new(containers, files, Pass::Survey)?.all(known)?;
    Ok(())
}

/// Saves containers whose tasks have all said what only they know.
///
/// # Errors
/// What can't be saved.
pub fn save(containers: &[Configured], known: &[KnownProcesses], files: FileSaver) -> Result<Saved, Refusal> {
    let mut walk = Walk::new(containers, files, Pass::Save)?;
    let state = walk.all(known)?;
    walk.finish(state).map_err(|e: ImageError| Refusal::new(e.to_string()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Survey,
    Save,
}

/// A process as the family knows it.
struct Node {
    group: Arc<ThreadGroup>,
    parent: Option<GroupId>,
    parent_task: TaskId,
    pgrp: Arc<ProcessGroup>,
    zombie: Option<WaitStatus>,
    leader: Arc<Task>,
    tracees: Vec<Arc<Task>>,
    container: ContainerIndex,
}

struct Walk<'a> {
    containers: &'a [Configured],
    kernel: Arc<Kernel>,
    pass: Pass,
    files: FileSaver,
    pids: Interner<PidState>,
    sessions: Interner<SessionState>,
    process_groups: Interner<ProcessGroupState>,
    processes: Interner<ProcessState>,
    tasks: Interner<TaskState>,
    handlers: Interner<SignalHandlersState>,
    filters: Interner<SeccompFilterState>,
    memories: Interner<MemoryState>,
    saved_memories: Vec<(Arc<MemoryManager>, SavedMemory)>,
    task_names: trace::TaskNames,
    /// Threads that have ended and are still known.
    ended: Vec<Arc<Task>>,
    process_names: HashMap<GroupId, Ref<ProcessState>>,
    now_boot_ns: u64,
}

fn address<T: ?Sized>(object: &Arc<T>) -> usize {
    Arc::as_ptr(object).addr()
}

fn number(signal: Option<Signal>) -> i32 {
    signal.map_or(0, Signal::number)
}

impl<'a> Walk<'a> {
    fn new(containers: &'a [Configured], files: FileSaver, pass: Pass) -> Result<Walk<'a>, Refusal> {
        let first = containers.first().ok_or_else(|| Refusal::new("a sandbox without a container"))?;
        Ok(Walk {
            containers,
            kernel: first.processes.kernel().clone(),
            pass,
            files,
            pids: Interner::default(),
            sessions: Interner::default(),
            process_groups: Interner::default(),
            processes: Interner::default(),
            tasks: Interner::default(),
            handlers: Interner::default(),
            filters: Interner::default(),
            memories: Interner::default(),
            saved_memories: Vec::new(),
            task_names: HashMap::new(),
            ended: Vec::new(),
            process_names: HashMap::new(),
            now_boot_ns: moat_host::clock::boottime_ns(),
        })
    }

    fn all(&mut self, known: &[KnownProcesses]) -> Result<SandboxState, Refusal> {
        // Before address spaces show it. It belongs to no process: a walk over processes would pass it by.
        let own = super::ipc::own(self.containers);
        let mut count = 0;
        let mut shms = Vec::new();
        let mut of_those = Vec::new();
        // Of the first container, and of later ones that have their own.
        for ipc in &own {
            shms.push(super::ipc::segments(ipc, &mut count, &mut self.files)?);
        }
        for ipc in self.files.namespaces().ipcs().to_vec() {
            of_those.push((super::ipc::segments(&ipc, &mut count, &mut self.files)?, ipc));
        }
        // All of them, whether a process has a path there or not: what was changed in them would be lost.
        self.files.mounts()?;
        let nodes = self.nodes()?;
        let mut tasks: Vec<Arc<Task>> = nodes.iter().flat_map(|n| n.group.threads()).collect();
        // Ids go up with age; a restore gives new ones in the same order.
        tasks.sort_by_key(|t| t.id);
        // Before an open file of theirs is met somewhere else: whose they are, is whose configuration bounds them.
        for node in &nodes {
            self.files.namespaces().enter(node.container);
            node.group.threads().iter().try_for_each(|task| self.files.credentials(&task.creds()).map(|_| ()))?;
        }
        let is_known = |id| nodes.iter().any(|n| n.group.id == id);
        let tracees = nodes.iter().flat_map(|n| n.tracees.iter());
        self.ended = trace::ended(nodes.iter().map(|n| &n.leader), tracees, is_known)?;
        // First all names, so that objects can refer to each other in circles.
        self.name_pids(&nodes, &tasks)?;
        for node in &nodes {
            let (Met::First(name) | Met::Before(name)) = self.processes.meet(address(&node.group));
            self.process_names.insert(node.group.id, name);
        }
        for task in &tasks {
            let (Met::First(name) | Met::Before(name)) = self.tasks.meet(address(task));
            self.task_names.insert(task.id, name);
        }
        for node in &nodes {
            let place = format!("process {}", node.group.pid().number());
            self.files.namespaces().enter(node.container);
            let state = self.process(node).map_err(|refusal| refusal.at(place))?;
            self.processes.fill(self.process_names[&node.group.id], state);
        }
        for task in &tasks {
            let place = format!("task {}", task.tid());
            let node = nodes.iter().find(|node| Arc::ptr_eq(&node.group, &task.group));
            self.files.namespaces().enter(node.map_or(0, |node| node.container));
            match self.task(task).map_err(|refusal| refusal.at(place))? {
                Some(state) => self.tasks.fill(self.task_names[&task.id], state),
                // It is ending, and will have ended when the others are saved.
                None if self.pass == Pass::Survey => {}
                None => return Err(Refusal::new("a thread that is ending").at(format!("task {}", task.tid()))),
            }
        }
        // While the guest runs locks come and go.
        if self.pass == Pass::Save {
            self.files.all_locks_met(self.kernel.vfs.tables())?;
        }
        // Those that are known by nothing else any more: their numbers stay taken.
        for pid in self.files.take_remembered() {
            self.pid(&pid)?;
        }
        let containers = self.containers.iter().zip(known).map(|(container, known)| self.container(container, known));
        let mut containers = containers.collect::<Result<Vec<_>, _>>()?;
        let mut system_v =
            shms.into_iter().zip(&own).map(|(shm, ipc)| super::ipc::others(ipc, shm, &self.process_names));
        let first = system_v.next().unwrap_or_default();
        for (container, objects) in containers.iter_mut().skip(1).filter(|c| !c.shared.ipc).zip(system_v) {
            container.system_v = objects;
        }
        // In the order of their namespaces' names.
        let of_those = of_those.into_iter().map(|(shm, ipc)| super::ipc::others(&ipc, shm, &self.process_names));
        let system_v_of_those = of_those.collect();
        Ok(SandboxState { containers, system_v: first, system_v_of_those, ..SandboxState::default() })
    }

    fn container(&self, container: &Configured, known: &KnownProcesses) -> Result<ContainerState, Refusal> {
        // A process that was reaped meanwhile has nothing left to say.
        let named = |p: &crate::spawn::Process| self.process_names.get(&p.group().id).copied();
        let names = container.place.namespaces.uts.names();
        Ok(ContainerState {
            // Whoever keeps containers knows what they are called, and what is set for them.
            id: String::new(),
            name: String::new(),
            settings: Vec::new(),
            init: named(&known.init).ok_or_else(|| Refusal::new("a container whose init has ended"))?,
            last_pid: container.place.pid_ns.last_pid(),
            executed: known.executed.iter().filter_map(named).collect(),
            hostname: names.host,
            domainname: names.domain,
            shared: self.containers.first().map_or_else(SharedState::default, |first| container.shared_with(first)),
            system_v: SystemVState::default(),
        })
    }

    fn finish(self, mut state: SandboxState) -> Result<Saved, ImageError> {
        state.pids = self.pids.finish()?;
        state.sessions = self.sessions.finish()?;
        state.process_groups = self.process_groups.finish()?;
        state.processes = self.processes.finish()?;
        state.tasks = self.tasks.finish()?;
        state.signal_handlers = self.handlers.finish()?;
        state.seccomp_filters = self.filters.finish()?;
        let pages = self.files.finish(&mut state)?;
        Ok(Saved { state, memories: self.saved_memories, pages })
    }

    fn nodes(&self) -> Result<Vec<Node>, Refusal> {
        let family = self.kernel.family.lock();
        let nodes: Vec<Node> = family
            .nodes()
            .map(|n| Node {
                group: n.group.clone(),
                parent: n.parent,
                parent_task: n.parent_task,
                pgrp: n.pgrp.clone(),
                zombie: n.zombie,
                leader: n.leader.clone(),
                tracees: n.tracees.clone(),
                container: (0..)
                    .zip(self.containers)
                    .find(|(_, c)| Arc::ptr_eq(&n.group.container, &c.processes))
                    .map_or(ContainerIndex::MAX, |(container, _)| container),
            })
            .collect();
        drop(family);
        match nodes.iter().find(|n| n.container == ContainerIndex::MAX) {
            Some(_) => Err(Refusal::new("a container that is being made in the sandbox")),
            None => Ok(nodes),
        }
    }

    /// Names the pids in the order of their age, which is that of their numbers' order.
    fn name_pids(&mut self, nodes: &[Node], tasks: &[Arc<Task>]) -> Result<(), Refusal> {
        let mut pids: Vec<Arc<Pid>> = tasks.iter().chain(&self.ended).map(|t| t.pid()).collect();
        for node in nodes {
            pids.extend([node.group.pid(), node.pgrp.pid(), node.pgrp.session.pid()].map(Clone::clone));
        }
        pids.sort_by_key(|pid| pid.id);
        pids.iter().try_for_each(|pid| self.pid(pid).map(|_| ()))
    }

    fn pid(&mut self, pid: &Arc<Pid>) -> Result<Ref<PidState>, Refusal> {
        let (container, namespace) = self.files.namespaces().pid_of_any(pid.namespace())?;
        // In the sandbox's outermost namespace too, whose numbers locks and logs show.
        let numbers = pid.numbers_from(&self.kernel.root_pid_ns);
        self.pids.save(address(pid), || Ok(PidState { numbers, namespace, container }))
    }

    fn session(&mut self, session: &Arc<Session>) -> Result<Ref<SessionState>, Refusal> {
        let ns = self.files.namespaces().numbers().clone();
        let terminal = match moat_tty::terminal_of(session) {
            None => None,
            // Session and terminal point at each other: one without the other would be a lie.
            Some(tty) => {
                let terminal = tty.save(&mut self.files)?;
                Some(ControllingTerminalState { terminal, foreground: tty.job_control().save_foreground(&ns) })
            }
        };
        let hung_up = moat_tty::job_control::hung_up_foreground(session, &ns);
        let pid = self.pid(session.pid())?;
        self.sessions.save(address(session), || Ok(SessionState { pid, terminal, hung_up }))
    }

    fn process_group(&mut self, pgrp: &Arc<ProcessGroup>) -> Result<Ref<ProcessGroupState>, Refusal> {
        let (pid, session) = (self.pid(pgrp.pid())?, self.session(&pgrp.session)?);
        self.process_groups.save(address(pgrp), || Ok(ProcessGroupState { pid, session }))
    }

    fn process(&mut self, node: &Node) -> Result<ProcessState, Refusal> {
        let group = &node.group;
        let (pending, sighand, stop_signal, stop_complete, stop_report, unkillable, leader_status, exit) = {
            let s = group.signals.lock();
            // Everything under one lock: a stop is complete with the last thread that takes part.
            let report = match s.stop.report {
                None => 0,
                Some(GroupReport::Stopped(signal)) => signal.number(),
                Some(GroupReport::Continued) => -1,
            };
            let (signal, complete) = (s.stop.signal.map(Signal::number), s.stop.complete);
            let (led, exit) = (s.leader_status.map(convert::status), s.exit.map(|e| convert::status(e.status)));
            (signals::queue(&s.shared), s.sighand.clone(), signal, complete, report, s.unkillable, led, exit)
        };
        // Nothing but what wait(2) gives is left of a zombie, and what ps(1) shows.
        let zombie = match node.zombie {
            None => None,
            Some(status) => Some(ZombieState {
                status: convert::status(status),
                credentials: self.files.credentials(&node.leader.creds())?,
                comm: node.leader.comm(),
            }),
        };
        let names = &self.task_names;
        let (next_posix_timer, posix_timers) = signals::posix_timers(group, |id| names.get(&id).copied());
        // Each lock is given up before the next is taken.
        let dead_threads = convert::usage(group.dead_threads.lock().known());
        let children_usage = convert::usage(group.children_usage.lock().known());
        let limit = |r: Resource| group.limits.get(r);
        Ok(ProcessState {
            pid: self.pid(group.pid())?,
            parent: node.parent.and_then(|id| self.process_names.get(&id).copied()),
            parent_task: self.task_names.get(&node.parent_task).copied(),
            process_group: self.process_group(&node.pgrp)?,
            zombie,
            pending,
            handlers: self.handlers.save(address(&sighand), || Ok(signals::handlers(&sighand)))?,
            stop_signal,
            stop_complete,
            stop_report,
            unkillable,
            limits: Resource::ALL.map(limit).map(|l| (l.soft, l.hard)).to_vec(),
            interval_timers: signals::interval_timers(group),
            posix_timers,
            next_posix_timer,
            exit_signal: number(group.exit_signal()),
            dumpable: group.dumpable() == Dumpable::Yes,
            child_subreaper: group.child_subreaper.load(std::sync::atomic::Ordering::Relaxed),
            did_exec: group.did_exec.load(std::sync::atomic::Ordering::Relaxed),
            oom_score_adj: group.oom_score_adj.load(std::sync::atomic::Ordering::Relaxed),
            coredump_filter: group.coredump_filter.load(std::sync::atomic::Ordering::Relaxed),
            dead_threads,
            children_usage,
            exe: match group.exe() {
                Some(exe) => Some(self.files.path(exe.path()).map_err(|refusal| refusal.at("the program"))?),
                None => None,
            },
            ended: self.ended_threads(group)?,
            leader_status,
            exit,
            container: node.container,
            exec_user: self.files.namespaces().user(&group.exec_user_ns())?,
        })
    }

    /// The threads of a process that have ended and are still known.
    fn ended_threads(&mut self, group: &Arc<ThreadGroup>) -> Result<Vec<EndedThreadState>, Refusal> {
        let own = self.ended.iter().filter(|task| Arc::ptr_eq(&task.group, group));
        let tasks: Vec<_> = own.cloned().collect();
        let mut ended = Vec::new();
        for task in tasks {
            let (status, tracer) = trace::end_of(&task, &self.task_names);
            ended.push(EndedThreadState {
                pid: self.pid(&task.pid())?,
                credentials: self.files.credentials(&task.creds())?,
                comm: task.comm(),
                usage: convert::usage(task.usage.get()),
                status,
                tracer,
            });
        }
        Ok(ended)
    }

    /// A thread; `None` for one that is ending.
    fn task(&mut self, task: &Arc<Task>) -> Result<Option<TaskState>, Refusal> {
        // Taken out before the task's own lock: it has the class of a leaf.
        let thread = match (task.saved.lock().clone(), self.pass) {
            (Some(thread), _) => thread,
            (None, Pass::Survey) => Default::default(),
            (None, Pass::Save) => return Ok(None),
        };
        let (mm, fds, fs, creds, seccomp) = {
            let s = task.state();
            let (Some(mm), Some(fds), Some(fs)) = (s.mm.clone(), s.fds.clone(), s.fs.clone()) else { return Ok(None) };
            (mm, fds, fs, s.creds.clone(), s.seccomp.clone())
        };
        let (pending, blocked, saved_mask, stop_pending, stopped, trace) = {
            let s = task.group.signals.lock();
            let Some(t) = s.threads.get(&task.id) else { return Ok(None) };
            let trace = t.trace.as_ref().and_then(|trace| trace::save(trace, &self.task_names));
            (signals::queue(&t.pending), t.blocked.0, t.saved_mask.map(|m| m.0), t.stop_pending, t.stopped, trace)
        };
        let Some(process) = self.process_names.get(&task.group.id).copied() else { return Ok(None) };
        let memory = self.memory(&mm)?;
        let mut state = TaskState {
            process,
            pid: self.pid(&task.pid())?,
            credentials: self.files.credentials(&creds)?,
            comm: task.comm(),
            memory,
            fd_table: self.files.fd_table(&fds)?,
            fs_context: self.files.fs_context(&fs)?,
            seccomp: self.seccomp(seccomp.as_ref())?,
            pending,
            blocked,
            saved_mask,
            stop_pending,
            stopped,
            trace,
            usage: convert::usage(task.usage.get()),
            age_ns: self.now_boot_ns.saturating_sub(task.start_boot_ns),
            thread,
            ..plain(task)
        };
        namespaces::save(task, self.files.namespaces(), &mut state)?;
        Ok(Some(state))
    }

    fn memory(&mut self, mm: &Arc<MemoryManager>) -> Result<Ref<MemoryState>, Refusal> {
        let name = match self.memories.meet(address(mm)) {
            Met::Before(name) => return Ok(name),
            Met::First(name) => name,
        };
        let files = &mut self.files;
        let mut saved = mm.save(|object| files.mappable(object))?;
        for poll in std::mem::take(&mut saved.polls) {
            let mut place = |file: Arc<dyn Any + Send + Sync>| {
                let file = file.downcast::<OpenFile>();
                let file = file.map_err(|_| Refusal::new("a request of io_submit(2) that waits for something else"))?;
                files.open_file(&file).map(|name| name.index())
            };
            let (file, counter) = (place(poll.file)?, poll.counter.map(&mut place).transpose()?);
            let state = AioPollState { file, events: poll.events, data: poll.data, object: poll.object, counter };
            if let Some(context) = saved.state.aio.contexts.get_mut(poll.context) {
                context.polls.push(state);
            }
        }
        // In the order of their names: this is the only place that gives them.
        self.saved_memories.push((mm.clone(), saved));
        Ok(name)
    }
}

/// The state of `task` that refers to nothing else.
fn plain(task: &Task) -> TaskState {
    let s = task.state();
    TaskState {
        clear_child_tid: s.clear_child_tid,
        robust_list: s.robust_list,
        pdeath_signal: number(s.pdeath_signal),
        sched: convert::sched(&s.sched),
        timer_slack_ns: s.timer_slack_ns,
        login: (s.login.uid, s.login.session),
        personality: s.personality,
        thp_disabled: s.thp_disabled,
        no_new_privs_by_sync: s.no_new_privs_by_sync,
        ..TaskState::nothing()
    }
}
