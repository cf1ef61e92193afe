//! From an image to processes that are ready to go on: see [`super`].

mod family;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::signal::{SigSet, Signal};
use moat_identity::{Limit, Limits, Pid, ProcessGroup, Resource, Session};
use moat_image::refs::find;
use moat_image::state::{
    ContainerIndex, EndedThreadState, ForegroundState, ProcessState, SandboxState, SeccompFilterState,
    TaskState as SavedTask, TerminalRef, of_container,
};
use moat_image::{ImageError, Ref};
use moat_mm::PageSource;
use moat_sync::{LockClass, Mutex};
use moat_tty::{JobControl, Terminal};
use moat_vfs::persist::Restorer;
use moat_vfs::{FdTable, FsContext, OpenFile};

use super::namespaces::{MadeNamespaces, check_names};
use super::threads::{Memories, Memory};
use super::{Configured, KnownProcesses, MostLimits, convert, signals};
use crate::kernel::Kernel;
use crate::process::group::{Dumpable, ThreadGroup};
use crate::seccomp::{Filter, Logged, Mode};
use crate::signal::SigHand;
use crate::signal::state::{GroupReport, ThreadSignals};
use crate::spawn::PreparedProcess;
use crate::syscall::SyscallTable;
use crate::task::current::Resources;
use crate::task::past_usage::PastUsage;
use crate::task::{CurrentTask, Login, Task, TaskId, TaskState};

/// What processes are restored with.
pub struct RestoreRequest<'a> {
    /// The system calls that they have.
    pub syscalls: &'static dyn SyscallTable,
    /// The containers as their configurations have made them, without processes, in the image's order.
    pub containers: &'a [Configured],
    /// Files, on its mounts.
    pub files: &'a Restorer<'a>,
    /// Makes the open files, by their numbers in the image. Called when the processes are there, whose files in /proc may be open.
    pub open_files: &'a (dyn Fn(&MadeNamespaces) -> Result<Opened, ImageError> + Sync),
    /// Guest memory.
    pub pages: &'a PageSource,
    /// Gives an address space its asynchronous I/O, which system calls know.
    pub aio: fn(&Kernel, &Arc<moat_mm::MemoryManager>, &moat_image::state::AioState) -> Result<(), ImageError>,
    /// Begins its requests again that waited for files.
    pub aio_polls: RestorePolls,
    /// What no limit may be beyond, of each container.
    pub limits: &'a [MostLimits],
}

/// Begins requests of asynchronous I/O again that waited for files, which are given by their numbers.
pub type RestorePolls =
    fn(&Arc<moat_mm::MemoryManager>, &moat_image::state::AioState, &[Arc<OpenFile>]) -> Result<(), ImageError>;

/// What has been opened out of an image, by their numbers in it.
pub struct Opened {
    /// The open files.
    pub files: Vec<Arc<OpenFile>>,
    /// The pseudo-terminals.
    pub terminals: Vec<Arc<dyn Terminal>>,
    /// The terminals of the host; none where it is gone.
    pub host_terminals: Vec<Option<GivenTerminal>>,
}

/// A terminal of the host in the place of another one.
pub struct GivenTerminal {
    /// It.
    pub terminal: Arc<dyn Terminal>,
    /// Its window has another size.
    pub resized: bool,
}

/// Makes the processes of an image, by container; nothing of them runs before [`PreparedProcess::start`].
///
/// # Errors
/// What is wrong with the image, or can't be had here.
pub async fn restore(request: &RestoreRequest<'_>) -> Result<Vec<(PreparedProcess, KnownProcesses)>, ImageError> {
    let state = request.files.state();
    check_containers(state, request.containers)?;
    let mut made = Made::begin(request)?;
    let ipc = super::ipc::own(request.containers);
    super::ipc::restore_segments(&ipc, &made.namespaces, request.files, request.pages.pages())?;
    // First what takes host processes: most of what this host can't give is found out here.
    let memories = Memories::restore(request, state).await?;
    made.processes(state)?;
    super::ipc::restore_others(&ipc, &made.namespaces, state, &made.groups)?;
    let mut current = made.tasks(state, memories).await?;
    made.family(state)?;
    made.traces(state, &mut current)?;
    // Their files in /proc can be found from here on.
    made.files(state)?;
    made.connect_vforks(state, &mut current);
    // Last, as they run from the moment on that they are set.
    made.timers(state)?;
    // By container: each is started by itself.
    let mut tasks: Vec<Vec<_>> = request.containers.iter().map(|_| Vec::new()).collect();
    for (current, saved) in current.into_iter().zip(state.tasks.iter()) {
        let own = usize::try_from(made.container_of(saved)?).ok().and_then(|at| tasks.get_mut(at));
        own.ok_or_else(|| ImageError::state("a thread without a container"))?
            .push((current, saved.thread.next.clone()));
    }
    let group = |name| find(&made.groups, name).cloned();
    let mut prepared = Vec::new();
    for (((container, configured), tasks), index) in state.containers.iter().zip(request.containers).zip(tasks).zip(0..)
    {
        let uts = &configured.place.namespaces.uts;
        uts.set_host_name(container.hostname.clone());
        uts.set_domain_name(container.domainname.clone());
        configured.place.pid_ns.set_last_pid(container.last_pid);
        let init = group(container.init)?;
        let known = [&container.init].into_iter().chain(&container.executed);
        for name in known {
            if state.processes.get(*name)?.container != index {
                return Err(ImageError::state("a container with a process of another one"));
            }
        }
        let executed: Vec<_> = container.executed.iter().map(|name| group(*name)).collect::<Result<_, _>>()?;
        // The container ends with its init, so one that has ended would never have been saved.
        if init.thread_count() == 0 {
            return Err(ImageError::state("the init has no threads"));
        }
        let known =
            KnownProcesses { init: init.clone().into(), executed: executed.into_iter().map(Into::into).collect() };
        prepared.push((PreparedProcess::restored(init, tasks), known));
    }
    Ok(prepared)
}

/// The objects made so far, by their numbers in the image.
struct Made<'a> {
    request: &'a RestoreRequest<'a>,
    kernel: Arc<Kernel>,
    pids: Vec<Arc<Pid>>,
    namespaces: MadeNamespaces,
    sessions: Vec<Arc<Session>>,
    pgrps: Vec<Arc<ProcessGroup>>,
    handlers: Vec<Arc<SigHand>>,
    filters: Vec<Option<Arc<Filter>>>,
    fd_tables: Vec<Arc<FdTable>>,
    fs_contexts: Vec<Arc<Mutex<FsContext>>>,
    groups: Vec<Arc<ThreadGroup>>,
    tasks: Vec<Arc<Task>>,
    /// Threads that have ended and are still known.
    ended: Vec<(Arc<Task>, EndedThreadState)>,
    now_boot_ns: u64,
}

impl<'a> Made<'a> {
    fn begin(request: &'a RestoreRequest<'a>) -> Result<Made<'a>, ImageError> {
        let state = request.files.state();
        let kernel = of_container(request.containers, 0)?.processes.kernel().clone();
        let namespaces = MadeNamespaces::restore(request.containers, request.files)?;
        let mut pids = Vec::new();
        for pid in state.pids.iter() {
            let ns = namespaces.pid(pid.container, pid.namespace)?;
            // Innermost first, where they are asked for.
            let wanted: Vec<i32> = pid.numbers.iter().rev().copied().collect();
            let fits = wanted.len() == ns.level.saturating_add(1)
                && wanted.iter().all(|n| (1..moat_identity::pid::PID_MAX).contains(n));
            let made = if fits { Pid::allocate(ns, &wanted).ok() } else { None };
            pids.push(made.ok_or_else(|| ImageError::state(format!("the pid {:?} can't be given", pid.numbers)))?);
        }
        namespaces.close_pids(state);
        // From what refers to nothing up: each object finds those that it refers to made already.
        let session = |name| find(&pids, name).map(|pid| Session::new(pid.clone(), kernel.job_signals()));
        let sessions: Vec<_> = state.sessions.iter().map(|s| session(s.pid)).collect::<Result<_, _>>()?;
        let mut pgrps = Vec::new();
        for pgrp in state.process_groups.iter() {
            let (pid, session) = (find(&pids, pgrp.pid)?, find(&sessions, pgrp.session)?);
            pgrps.push(ProcessGroup::new(pid.clone(), session.clone()));
        }
        let handlers = state.signal_handlers.iter().map(signals::handlers_of).collect::<Result<_, _>>()?;
        let fd_tables = state.fd_tables.iter().map(|_| Arc::new(FdTable::new(kernel.vfs.tables()))).collect();
        // Filled when the files that it may be in are there; until then it is at the root of its namespace.
        let start = |context| {
            let namespace = request.files.namespace(request.files.container_of(context)?)?;
            Ok::<_, ImageError>(Arc::new(Mutex::new(LockClass::Process, FsContext::new(namespace.clone()))))
        };
        let fs_contexts = state.fs_contexts.iter().map(start).collect::<Result<_, _>>()?;
        let filters = filters(state, request.containers)?;
        Ok(Made {
            request,
            namespaces,
            kernel,
            pids,
            sessions,
            pgrps,
            handlers,
            filters,
            fd_tables,
            fs_contexts,
            groups: Vec::new(),
            tasks: Vec::new(),
            ended: Vec::new(),
            now_boot_ns: moat_host::clock::boottime_ns(),
        })
    }

    fn processes(&mut self, state: &SandboxState) -> Result<(), ImageError> {
        for process in state.processes.iter() {
            let group = self.process(process)?;
            self.groups.push(group);
        }
        Ok(())
    }

    fn process(&self, p: &ProcessState) -> Result<Arc<ThreadGroup>, ImageError> {
        let pid = find(&self.pids, p.pid)?.clone();
        let handlers = find(&self.handlers, p.handlers)?.clone();
        // A number that is no signal sends none.
        let exit_signal = Signal::new(p.exit_signal).map_or(0, Signal::number);
        let configured = of_container(self.request.containers, p.container)?;
        let container = configured.processes.clone();
        // A container may not have been given the others' numbers.
        if !configured.place.pid_ns.contains(pid.namespace()) {
            return Err(ImageError::state("a process in the pid namespace of another container"));
        }
        let limits = self.limits(&p.limits, of_container(self.request.limits, p.container)?);
        let group = ThreadGroup::new(self.kernel.clone(), pid.clone(), handlers, limits, exit_signal, container);
        group.set_dumpable(if p.dumpable { Dumpable::Yes } else { Dumpable::No });
        group.child_subreaper.store(p.child_subreaper, Ordering::Relaxed);
        group.did_exec.store(p.did_exec, Ordering::Relaxed);
        group.oom_score_adj.store(p.oom_score_adj.clamp(-1000, 1000), Ordering::Relaxed);
        group.coredump_filter.store(p.coredump_filter, Ordering::Relaxed);
        *group.dead_threads.lock() = PastUsage::new(convert::usage_of(p.dead_threads));
        *group.children_usage.lock() = PastUsage::new(convert::usage_of(p.children_usage));
        let exe = p.exe.as_ref().map(|path| self.request.files.executable(path)).transpose()?;
        group.set_exe(exe);
        group.set_exec_user_ns(self.request.files.user_namespace(p.exec_user)?);
        let mut s = group.signals.lock();
        s.shared = signals::queue_of(&p.pending)?;
        s.stop.signal = p.stop_signal.and_then(Signal::new);
        s.stop.complete = p.stop_complete && s.stop.signal.is_some();
        s.stop.report = match p.stop_report {
            -1 => Some(GroupReport::Continued),
            signal => Signal::new(signal).map(GroupReport::Stopped),
        };
        // Whatever the image says, an init is one.
        s.unkillable = p.unkillable || pid.is_init();
        drop(s);
        Ok(group)
    }

    /// The limits of the image, as far as the configuration allows them.
    fn limits(&self, saved: &[(u64, u64)], most: &MostLimits) -> Limits {
        let limits = Limits::default();
        for (resource, (soft, hard)) in Resource::ALL.into_iter().zip(saved) {
            let most = most.0.as_ref().map_or(u64::MAX, |limits| limits.get(resource).hard);
            let hard = (*hard).min(most);
            limits.set(resource, Limit { soft: (*soft).min(hard), hard });
        }
        limits
    }

    async fn tasks(&mut self, state: &SandboxState, mut memories: Memories) -> Result<Vec<CurrentTask>, ImageError> {
        let mut all = Vec::new();
        for saved in state.tasks.iter() {
            let memory = memories.thread_of(saved.memory).await?;
            all.push(self.task(saved, memory).await?);
        }
        Ok(all)
    }

    async fn task(&mut self, saved: &SavedTask, memory: Memory) -> Result<CurrentTask, ImageError> {
        let group = find(&self.groups, saved.process)?.clone();
        let pid = find(&self.pids, saved.pid)?.clone();
        let container = self.container_of(saved)?;
        if !self.namespaces.own(container)?.pid_ns.contains(pid.namespace()) {
            return Err(ImageError::state("a thread in the pid namespace of another container"));
        }
        let context = self.request.files.state().fs_contexts.get(saved.fs_context)?;
        if self.request.files.container_of(context)? != container {
            return Err(ImageError::state("a thread whose root is another container's"));
        }
        let fds = find(&self.fd_tables, saved.fd_table)?.clone();
        let fs = find(&self.fs_contexts, saved.fs_context)?.clone();
        let Memory { mm, thread } = memory;
        let state = TaskState {
            creds: self.request.files.credentials_in(container, saved.credentials)?,
            comm: saved.comm.iter().copied().filter(|b| *b != 0).take(15).collect(),
            mm: Some(mm.clone()),
            fds: Some(fds.clone()),
            fs: Some(fs.clone()),
            namespaces: self.namespaces.of(container, saved, pid.namespace())?,
            clear_child_tid: saved.clear_child_tid,
            robust_list: saved.robust_list,
            pdeath_signal: Signal::new(saved.pdeath_signal),
            sched: convert::sched_of(&saved.sched),
            timer_slack_ns: saved.timer_slack_ns,
            login: Login { uid: saved.login.0, session: saved.login.1 },
            personality: saved.personality,
            seccomp: self.seccomp(saved, container)?,
            no_new_privs_by_sync: saved.no_new_privs_by_sync,
            thp_disabled: saved.thp_disabled,
        };
        // Without a zero byte, and no longer than Linux has it.
        let comm = state.comm.clone();
        let task = self.make(&group, &pid, state, saved.age_ns);
        task.usage.set(&convert::usage_of(saved.usage));
        let mut signals = ThreadSignals::new(task.clone(), SigSet(saved.blocked).as_mask());
        signals.pending = signals::queue_of(&saved.pending)?;
        signals.saved_mask = saved.saved_mask.map(|mask| SigSet(mask).as_mask());
        // Who was in the stop goes back into it by its flags.
        signals.stop_pending = saved.stop_pending || saved.stopped;
        signals.stopped = saved.stopped;
        group.signals.lock().threads.insert(task.id, signals);
        // The thread that has the number of the process leads it.
        if pid.id == group.pid().id {
            group.set_leader(&task);
        }
        self.tasks.push(task.clone());
        let syscalls = self.request.syscalls;
        let mut current = CurrentTask::new(task, Resources { syscalls, mm, thread, fds, fs });
        current.take_thread_state(&saved.thread).await?;
        // Its host thread takes the name when it first runs.
        current.set_comm(comm);
        current.apply_affinity();
        Ok(current)
    }

    fn container_of(&self, task: &SavedTask) -> Result<ContainerIndex, ImageError> {
        Ok(self.request.files.state().processes.get(task.process)?.container)
    }

    fn make(&self, group: &Arc<ThreadGroup>, pid: &Arc<Pid>, state: TaskState, age_ns: u64) -> Arc<Task> {
        // Counted, but not refused: so many there were.
        let charge = group.container.allowance().charge_anyway();
        let id = TaskId(self.kernel.ids.tasks.next());
        let start = self.now_boot_ns.saturating_sub(age_ns);
        Task::made_at(id, group.clone(), pid.clone(), state, charge, start)
    }

    /// What its calls are checked by: whatever the image says, the profile of the container at least.
    fn seccomp(&self, saved: &SavedTask, container: ContainerIndex) -> Result<Option<Mode>, ImageError> {
        use moat_image::state::SeccompState;
        let profile = of_container(self.request.containers, container)?.profile.as_ref();
        let mode = match saved.seccomp {
            SeccompState::None => None,
            SeccompState::Strict => Some(Mode::Strict),
            SeccompState::Filter(name) => find(&self.filters, name)?.clone().map(Mode::Filter),
        };
        // The profile is the first filter of each chain, which nobody gives up.
        let has_profile = |filter: &Arc<Filter>| {
            let mut at = Some(filter);
            while let Some(f) = at {
                if profile.is_some_and(|p| Arc::ptr_eq(p, f)) {
                    return true;
                }
                at = f.previous();
            }
            false
        };
        match (&mode, profile) {
            (None, Some(_)) => Err(ImageError::Unfit("a thread without the container's seccomp profile".into())),
            (Some(Mode::Filter(filter)), Some(_)) if !has_profile(filter) => {
                Err(ImageError::Unfit("a thread without the container's seccomp profile".into()))
            }
            _ => Ok(mode),
        }
    }

    /// Descriptors and directories, which may be in /proc of the processes that are there by now.
    fn files(&self, state: &SandboxState) -> Result<(), ImageError> {
        let files = self.request.files;
        let opened = (self.request.open_files)(&self.namespaces)?;
        self.terminals(state, &opened)?;
        let open_files = opened.files;
        for (table, saved) in self.fd_tables.iter().zip(state.fd_tables.iter()) {
            files.fill_fd_table(table, saved, &open_files)?;
        }
        // Of each memory once, whoever shares it.
        let mut begun = HashSet::new();
        for (task, saved) in self.tasks.iter().zip(state.tasks.iter()) {
            if let Some(mm) = task.mm_of().filter(|_| begun.insert(saved.memory)) {
                (self.request.aio_polls)(&mm, &state.memories.get(saved.memory)?.aio, &open_files)?;
            }
        }
        for (context, saved) in self.fs_contexts.iter().zip(state.fs_contexts.iter()) {
            let restored = files.fs_context(saved)?;
            // Dropped unlocked, as it may be the last of a directory.
            let old = std::mem::replace(&mut *context.lock(), restored);
            drop(old);
        }
        Ok(())
    }

    /// Gives sessions their controlling terminals.
    fn terminals(&self, state: &SandboxState, opened: &Opened) -> Result<(), ImageError> {
        // A group's id is that of its pid.
        let numbers = super::numbers(&self.kernel, self.request.containers);
        let group = |number| numbers.lookup(number).map(|pid| pid.id);
        for (session, saved) in self.sessions.iter().zip(state.sessions.iter()) {
            if let Some(of) = &saved.terminal {
                let (terminal, resized) = match of.terminal {
                    TerminalRef::Pty(name) => (Some(find(&opened.terminals, name)?), false),
                    TerminalRef::Host { host } => match find(&opened.host_terminals, host)? {
                        Some(given) => (Some(&given.terminal), given.resized),
                        None => (None, false),
                    },
                };
                match (terminal, of.foreground) {
                    (Some(terminal), foreground) => JobControl::restore(terminal, session, foreground, group)?,
                    (None, ForegroundState::Group(number)) => moat_tty::job_control::lost(session, group(number)),
                    (None, _) => moat_tty::job_control::lost(session, None),
                }
                // As if the window of the old one had been changed.
                if let Some(terminal) = terminal.filter(|_| resized) {
                    terminal.job_control().signal_foreground(Signal::SIGWINCH);
                }
            }
            if let Some(id) = saved.hung_up.and_then(group) {
                moat_tty::job_control::set_hung_up_foreground(session, id);
            }
        }
        Ok(())
    }

    /// Once all threads are there: a timer may be one's.
    fn timers(&self, state: &SandboxState) -> Result<(), ImageError> {
        let ids: HashMap<u32, TaskId> = (0..).zip(&self.tasks).map(|(n, t)| (n, t.id)).collect();
        let id_of = |name: Ref<SavedTask>| {
            let id = ids.get(&name.index()).copied();
            id.ok_or(ImageError::Dangling { what: "thread", index: name.index() })
        };
        for (group, saved) in self.groups.iter().zip(state.processes.iter()) {
            signals::set_interval_timers(group, &saved.interval_timers);
            signals::set_posix_timers(group, saved.next_posix_timer, &saved.posix_timers, id_of)?;
            crate::timer::itimer::watch_cpu_limit(group);
        }
        Ok(())
    }
}

/// Whether the containers have in common what they had, and have names that can be.
fn check_containers(state: &SandboxState, containers: &[Configured]) -> Result<(), ImageError> {
    if state.containers.len() != containers.len() {
        let (has, here) = (state.containers.len(), containers.len());
        return Err(ImageError::Unfit(format!("the image is of {has} containers, and here are {here}")));
    }
    let first = of_container(containers, 0)?;
    for (saved, container) in state.containers.iter().zip(containers) {
        check_names(&saved.hostname, &saved.domainname)?;
        if container.shared_with(first) != saved.shared {
            let id: String = saved.id.chars().take(64).collect();
            return Err(ImageError::Unfit(format!(
                "container {id:?} has other namespaces in common with the first one than this configuration gives it"
            )));
        }
    }
    Ok(())
}

/// The filters; `None` for the profile of a container that has none here.
fn filters(state: &SandboxState, containers: &[Configured]) -> Result<Vec<Option<Arc<Filter>>>, ImageError> {
    let mut made: Vec<Option<Arc<Filter>>> = Vec::new();
    for filter in state.seccomp_filters.iter() {
        made.push(match filter {
            SeccompFilterState::Profile => of_container(containers, 0)?.profile.clone(),
            SeccompFilterState::ProfileOf(container) => of_container(containers, *container)?.profile.clone(),
            SeccompFilterState::Program { program, log_all, previous } => {
                // Only what stands before it in the image: a circle of filters would never end.
                let previous = previous.map(|name| find(&made, name).cloned()).transpose()?.flatten();
                let program = program.iter().map(|(code, jt, jf, k)| moat_abi::ptrace::SockFilter {
                    code: *code,
                    jt: *jt,
                    jf: *jf,
                    k: *k,
                });
                let logged = if *log_all { Logged::All } else { Logged::Default };
                let filter = Filter::new(program.collect(), logged, previous);
                Some(filter.map_err(|errno| ImageError::state(format!("a seccomp filter: {errno}")))?)
            }
        });
    }
    Ok(made)
}
