//! How the sentry starts processes: a container's init, and `exec` into a running container.
//!
//! ```no_run
//! # use moat_abi::clone::WaitStatus;
//! # use moat_identity::namespaces::UtsNames;
//! # use moat_kernel::Kernel;
//! # use moat_kernel::spawn::{ContainerPlace, Shared, SpawnRequest, prepare_process};
//! # async fn run(kernel: &Kernel, names: UtsNames, rest: SpawnRequest) -> moat_abi::Result<WaitStatus> {
//! // For exec into a container, a clone of the container's place.
//! let place = ContainerPlace::new_container(kernel, names, &Shared::default())?;
//! let prepared = prepare_process(SpawnRequest { place, ..rest }).await?;
//! // Or `prepared.abort(signal)`.
//! let process = prepared.start();
//! Ok(process.wait().await)
//! # }
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use moat_abi::clone::{CoreDump, WaitStatus};
use moat_abi::siginfo::{SI_USER, SigInfo};
use moat_abi::signal::{SigSet, Signal};
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::namespaces::UtsNames;
use moat_identity::{
    CgroupNamespace, IpcNamespace, Limit, Limits, Namespaces, Pid, PidNamespace, ProcessGroup, Resource, Session,
    UtsNamespace,
};
use moat_image::state::NextStep;
use moat_sync::{LockClass, Mutex};
use moat_tty::job_control::Steal;
use moat_tty::{JobControl, Terminal, terminal_of};
use moat_vfs::cred::Credentials;
use moat_vfs::walk::{LookupFlags, View};
use moat_vfs::{FdTable, FsContext, KernelCaller, OpenFile};

use crate::kernel::Kernel;
use crate::process::container::ContainerGroup;
use crate::process::group::ThreadGroup;
use crate::process::sched::SchedState;
use crate::seccomp::{Filter, Mode};
use crate::signal::SigHand;
use crate::signal::send::{Origin, Target};
use crate::signal::state::ThreadSignals;
use crate::syscall::SyscallTable;
use crate::task::current::Resources;
use crate::task::exec::{ExecArgs, Image, Loading, comm_of, load_image, open_executable, prepare_program};
use crate::task::{CurrentTask, Task, TaskId, TaskState};
use moat_loader::Aslr;
use moat_loader::stack::SecureMode;

/// Where a program without a `/` in its name is looked for if the environment does not say.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The namespaces of a container, by which another process can join it.
#[derive(Clone)]
pub struct ContainerPlace {
    /// Numbers of its processes.
    pub pid_ns: Arc<PidNamespace>,
    /// The others.
    pub namespaces: Arc<Namespaces>,
}

impl ContainerPlace {
    /// Namespaces of a new container: its own, except those that it shares with another place.
    ///
    /// # Errors
    /// None on the first level.
    pub fn new_container(kernel: &Kernel, names: UtsNames, shared: &Shared<'_>) -> Result<ContainerPlace> {
        let user_ns = || kernel.root_user_ns.clone();
        let pid_ns = match shared.pid {
            Some(place) => place.pid_ns.clone(),
            None => PidNamespace::new(kernel.next_namespace_id(), user_ns(), Some(kernel.root_pid_ns.clone()))?,
        };
        let uts = match shared.uts {
            Some(place) => place.namespaces.uts.clone(),
            None => UtsNamespace::new(kernel.next_namespace_id(), user_ns(), names),
        };
        let ipc = match shared.ipc {
            Some(place) => place.namespaces.ipc.clone(),
            None => IpcNamespace::new(kernel.next_namespace_id(), user_ns()),
        };
        let cgroup = CgroupNamespace::new(kernel.next_namespace_id(), user_ns());
        // The network is the sandbox's first one.
        let rest = kernel.root_namespaces.clone();
        let namespaces = Namespaces { uts, pid_for_children: pid_ns.clone(), ipc, cgroup, ..rest };
        Ok(ContainerPlace { pid_ns, namespaces: Arc::new(namespaces) })
    }
}

/// The place whose namespace a new container shares, for each kind; its own if `None`.
#[derive(Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct Shared<'a> {
    pub pid: Option<&'a ContainerPlace>,
    pub uts: Option<&'a ContainerPlace>,
    pub ipc: Option<&'a ContainerPlace>,
}

/// A process to start.
pub struct SpawnRequest {
    /// The system calls that it and its descendants have: `moat_syscalls::table()`.
    pub syscalls: &'static dyn SyscallTable,
    /// The container that it belongs to.
    pub container: Arc<ContainerGroup>,
    /// Its namespaces.
    pub place: ContainerPlace,
    /// Who it is. Capabilities are those it runs with: no exec rule is applied to them.
    pub creds: Credentials,
    /// Its mount namespace, root, cwd and umask.
    pub fs: FsContext,
    /// Its descriptors, 0 to 2 at least.
    pub fds: Arc<FdTable>,
    /// Limits that differ from the defaults.
    pub limits: Vec<(Resource, Limit)>,
    /// The program, found by PATH if it has no `/`; `argv[0]` if `None`.
    pub program: Option<Vec<u8>>,
    /// Arguments.
    pub argv: Vec<Vec<u8>>,
    /// Environment.
    pub envp: Vec<Vec<u8>>,
    /// Its controlling terminal.
    pub terminal: Option<Arc<dyn Terminal>>,
    /// `/proc/PID/oom_score_adj`.
    pub oom_score_adj: i32,
    /// The filters that it starts with: the container's profile.
    pub seccomp: Option<Arc<Filter>>,
}

/// A process that the sentry has started and will be told the end of.
#[derive(Clone)]
pub struct Process {
    group: Arc<ThreadGroup>,
}

/// A process that is complete, but has not run its first instruction. It is listed and can be sent signals, which wait.
pub struct PreparedProcess {
    group: Arc<ThreadGroup>,
    /// All threads that are to run; those out of an image with what they do first.
    tasks: Vec<(CurrentTask, Option<NextStep>)>,
}

impl PreparedProcess {
    fn new(current: CurrentTask) -> PreparedProcess {
        PreparedProcess { group: current.group.clone(), tasks: vec![(current, None)] }
    }

    /// An init out of an image, with all other tasks of it.
    pub(crate) fn restored(group: Arc<ThreadGroup>, tasks: Vec<(CurrentTask, NextStep)>) -> PreparedProcess {
        PreparedProcess { group, tasks: tasks.into_iter().map(|(task, step)| (task, Some(step))).collect() }
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> Process {
        Process { group: self.group.clone() }
    }

    /// Its first task, which nothing runs: for tests that make its calls themselves.
    #[cfg(feature = "fake")]
    #[must_use]
    pub fn into_current(mut self) -> Option<CurrentTask> {
        self.tasks.pop().map(|(current, _)| current)
    }

    /// Lets it run.
    pub fn start(self) -> Process {
        let process = self.process();
        for (current, step) in self.tasks {
            match step {
                None => crate::task::run::start(current),
                Some(step) => crate::task::run::resume(current, step),
            }
        }
        process
    }

    /// Lets it end by `signal` without having run.
    pub fn abort(self, signal: Signal) -> Process {
        let number = u8::try_from(signal.number()).unwrap_or(9);
        let status = WaitStatus::Signaled { signal: number, core: CoreDump::NotDumped };
        self.group.signals.lock().start_exit(status);
        // It finds the exit before its first instruction.
        self.start()
    }
}

/// Makes a process that runs when it is started.
///
/// # Errors
/// Those of execve(2): ENOENT for a program that is not found, EACCES, ENOEXEC, ...; ELIBACC, which execve(2) no longer has, for
/// an interpreter that is not found: the file names it in PT_INTERP or its `#!` line; what the filters say of execve(2).
pub async fn prepare_process(r: SpawnRequest) -> Result<PreparedProcess> {
    let kernel = r.container.kernel().clone();
    // As with runc, whose execve(2) runs under the profile.
    if let Some(errno) = r.seccomp.as_ref().and_then(|filter| filter.errno_of(moat_abi::nr::EXECVE)) {
        return Err(errno);
    }
    // The program is looked for with the rights of the process, not of the sentry.
    let caller = KernelCaller::new(Arc::new(r.creds.clone()));
    let limits = Limits::default();
    for (resource, limit) in &r.limits {
        limits.set(*resource, *limit);
    }
    // No exit signal and no parent: the sentry learns of the end from the group itself.
    let pid = Pid::allocate(&r.place.pid_ns, &[])?;
    let group = ThreadGroup::new(kernel.clone(), pid.clone(), Arc::new(SigHand::new()), limits, 0, r.container);
    let mm_limits = crate::task::exec::mm_limits(&group);
    let name = r.program.or_else(|| r.argv.first().cloned()).ok_or(Errno::EINVAL)?;
    let (filename, file) = {
        let view = View { caller: &caller, root: &r.fs.root, base: &r.fs.cwd, umask: r.fs.umask };
        find_program(&view, &name, &r.envp)?
    };
    let program = {
        let args = ExecArgs { file, filename: filename.clone(), argv: r.argv, envp: r.envp };
        prepare_program(args, &Loading { caller: &caller, fs: &r.fs, limits: mm_limits, aslr: Aslr::On })
            .map_err(|errno| if errno == Errno::ENOENT { Errno::ELIBACC } else { errno })?
    };
    let comm = comm_of(&filename);
    let image =
        load_image(&group.container, &program, &r.creds, SecureMode::Ordinary, mm_limits, Aslr::On, comm.clone())
            .await?;
    group.oom_score_adj.store(r.oom_score_adj, Ordering::Relaxed);
    // The init of a pid namespace only gets signals that it handles (pid_namespaces(7)).
    if pid.is_init() {
        group.signals.lock().unkillable = true;
    }
    let seccomp = r.seccomp.map(Mode::Filter);
    let place = r.place.namespaces;
    let current = make_task(r.syscalls, &group, pid, image, comm, r.creds, r.fs, r.fds, place, seccomp);
    // Once the process exists: a session is led by its pid.
    if let Some(tty) = &r.terminal
        && let Err(errno) = JobControl::acquire(tty, &current, current.creds(), Steal::Yes)
    {
        current.abandon();
        return Err(errno);
    }
    crate::timer::itimer::watch_cpu_limit(&group);
    kernel.forks.fetch_add(1, Ordering::Relaxed);
    Ok(PreparedProcess::new(current))
}

#[allow(clippy::too_many_arguments, reason = "each is a part of the new task, used once")]
fn make_task(
    syscalls: &'static dyn SyscallTable,
    group: &Arc<ThreadGroup>,
    pid: Arc<Pid>,
    image: Image,
    comm: Vec<u8>,
    creds: Credentials,
    fs: FsContext,
    fds: Arc<FdTable>,
    namespaces: Arc<Namespaces>,
    seccomp: Option<Mode>,
) -> CurrentTask {
    let fs = Arc::new(Mutex::new(LockClass::Process, fs));
    let state = TaskState {
        creds: Arc::new(creds),
        comm,
        mm: Some(image.mm.clone()),
        fds: Some(fds.clone()),
        fs: Some(fs.clone()),
        namespaces,
        clear_child_tid: 0,
        robust_list: 0,
        pdeath_signal: None,
        sched: SchedState::default(),
        // The default of Linux, 50 us.
        timer_slack_ns: 50_000,
        login: crate::task::Login::NONE,
        personality: 0,
        thp_disabled: false,
        seccomp,
        no_new_privs_by_sync: false,
    };
    // From outside a process is counted, but not refused.
    let charge = group.container.allowance().charge_anyway();
    let task = Task::new(TaskId(group.kernel().ids.tasks.next()), group.clone(), pid.clone(), state, charge);
    group.set_leader(&task);
    group.set_exe(Some(image.exe));
    group.did_exec.store(true, Ordering::Relaxed);
    group.signals.lock().threads.insert(task.id, ThreadSignals::new(task.clone(), SigSet::EMPTY));
    let session = Session::new(pid.clone(), group.kernel().job_signals());
    let pgrp = ProcessGroup::new(pid, session);
    group.kernel().family.lock().add(group.clone(), task.clone(), None, pgrp);
    CurrentTask::new(task, Resources { syscalls, mm: image.mm, thread: image.thread, fds, fs })
}

/// Finds a program as execvp(3) does.
fn find_program(view: &View<'_>, name: &[u8], envp: &[Vec<u8>]) -> Result<(Vec<u8>, Arc<OpenFile>)> {
    if name.contains(&b'/') {
        let file = open_executable(view, name, LookupFlags::FOLLOW)?;
        return Ok((name.to_vec(), file));
    }
    if name.is_empty() {
        return Err(Errno::ENOENT);
    }
    let path = envp.iter().find_map(|e| e.strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
    let mut denied = false;
    for dir in path.split(|b| *b == b':') {
        let mut candidate = if dir.is_empty() { b".".to_vec() } else { dir.to_vec() };
        candidate.push(b'/');
        candidate.extend_from_slice(name);
        match open_executable(view, &candidate, LookupFlags::FOLLOW) {
            Ok(file) => return Ok((candidate, file)),
            // Kept for the end: a later directory may have one that may be run (execvp(3)).
            Err(Errno::EACCES) => denied = true,
            Err(_) => {}
        }
    }
    Err(if denied { Errno::EACCES } else { Errno::ENOENT })
}

impl From<Arc<ThreadGroup>> for Process {
    fn from(group: Arc<ThreadGroup>) -> Process {
        Process { group }
    }
}

impl Process {
    /// The process.
    #[must_use]
    pub fn group(&self) -> &Arc<ThreadGroup> {
        &self.group
    }

    /// Its number in its own pid namespace.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.group.pid().number()
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn status(&self) -> Option<WaitStatus> {
        // The status may be set long before all threads have ended.
        let gone = self.group.kernel().family.lock().node(self.group.id).is_none();
        let exit = self.group.signals.lock().exit;
        exit.filter(|_| gone).map(|e| e.status)
    }

    /// Waits for its end. Any number of callers may.
    pub async fn wait(&self) -> WaitStatus {
        let look = || self.status().map_or(Poll::Pending, Poll::Ready);
        self.group.exit_queue.until(PollEvents::HUP, look).await
    }

    /// Sends `signal`, as from outside of the container.
    ///
    /// # Errors
    /// ESRCH if it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.status().is_some() {
            return Err(Errno::ESRCH);
        }
        self.group.send(Target::Process, SigInfo::kill(signal, SI_USER, 0, 0), Origin::Outside)
    }

    /// Sends `signal` to the foreground process group of its terminal, or to itself without one.
    ///
    /// # Errors
    /// ESRCH if it has ended.
    pub fn signal_foreground(&self, signal: Signal) -> Result<()> {
        let session = self.group.kernel().family.lock().session_of(self.group.id);
        match session.and_then(|s| terminal_of(&s)).and_then(|t| t.job_control().foreground()) {
            Some(pgrp) => {
                pgrp.send(SigInfo::kill(signal, SI_USER, 0, 0));
                Ok(())
            }
            None => self.signal(signal),
        }
    }
}
