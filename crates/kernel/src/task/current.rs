//! [`CurrentTask`]: the handle by which a task's own future, and nobody else, uses its thread, memory and files.

use std::ops::Deref;
use std::sync::Arc;

use moat_abi::clone::WaitStatus;
use moat_abi::signal::{SS_DISABLE, SigSet, Signal, StackT};
use moat_abi::{Errno, Result};
use moat_identity::session::JobMember;
use moat_identity::{Limits, Namespaces, Pid, ProcessGroup, Resource};
use moat_mm::{MemoryManager, UserAddr};
use moat_platform::{Gifts, GuestThread};
use moat_sync::Mutex;
use moat_vfs::caller::{CallingTask, PathStart};
use moat_vfs::cred::Credentials;
use moat_vfs::device_rules::DeviceRules;
use moat_vfs::fd_table::OnExec;
use moat_vfs::{Caller, Fd, FdTable, FsContext, OpenFile};

use crate::error::{Deadline, PendingRestart, Restart, RestartBlock, SyscallError};
use crate::ptrace::debug::Watching;
use crate::syscall::SyscallTable;
use crate::task::Task;
use crate::task::vfork::{VforkChild, VforkDone};

/// What is left of a task that has ended: itself, its thread, memory, descriptors and directories.
pub(crate) type Parts =
    (Arc<Task>, Option<Box<dyn GuestThread>>, Arc<MemoryManager>, Arc<FdTable>, Arc<Mutex<FsContext>>);

/// The task that runs: owned by its future, neither shared nor cloned.
pub struct CurrentTask {
    task: Arc<Task>,
    thread: Option<Box<dyn GuestThread>>,
    mm: Arc<MemoryManager>,
    fds: Arc<FdTable>,
    fs: Arc<Mutex<FsContext>>,
    creds: Arc<Credentials>,
    /// The system calls.
    pub(crate) syscalls: &'static dyn SyscallTable,
    /// sigaltstack(2).
    pub altstack: StackT,
    /// The handler that began last, and what is put back if it could not.
    pub(crate) entering: Option<Entering>,
    /// What restart_syscall(2) goes on with.
    pub restart_block: Option<RestartBlock>,
    /// The deadline that a restarted call finds instead of its timeout.
    restart_deadline: Option<RestartDeadline>,
    /// The deadline of the wait that was given up because the task is being saved.
    pub(crate) given_up: Option<RestartDeadline>,
    /// The call that has just been interrupted.
    pub(crate) restart: Option<PendingRestart>,
    /// The last call left something to undo before application code runs: a temporary mask.
    pub(crate) after_call: bool,
    /// What the thread is to take back from its last call.
    pub(super) gifts: Option<Gifts>,
    /// Set by exit(2): the thread ends with this status.
    pub(crate) exit_status: Option<WaitStatus>,
    /// The vfork(2) parent that waits.
    pub(crate) vfork: Option<Arc<VforkDone>>,
    /// The vfork(2) child that it waits for.
    pub(crate) vfork_child: Option<VforkChild>,
    /// The trap flag is set for the tracer.
    pub(crate) stepping: bool,
    /// What its debug registers are for.
    pub(crate) watching: Option<Watching>,
    /// Registers of the last exception, for signal frames.
    pub(crate) last_fault: LastFault,
    /// The rseq(2) area that is registered.
    pub rseq: Option<RseqArea>,
    /// Its filters as they were when it made its last call.
    pub(crate) seccomp: crate::seccomp::filter::Remembered,
    /// Buffer that file data passes through; kept between calls so that small transfers allocate nothing.
    pub scratch: Vec<u8>,
}

/// The deadline of a call that is being restarted; `None` inside means for ever.
type RestartDeadline = Option<Deadline>;

/// What was so before a handler began.
#[derive(Clone, Copy, Debug)]
pub struct Entering {
    /// What it is for.
    pub signal: Signal,
    /// The mask.
    pub blocked: SigSet,
    /// That from before the call that the signal interrupts, if that had one of its own.
    pub saved_mask: Option<SigSet>,
    /// The alternate stack.
    pub altstack: StackT,
}

/// Details of the last processor exception, which go into every frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastFault {
    /// Vector.
    pub trapno: u64,
    /// Error code.
    pub err: u64,
    /// Faulting address.
    pub cr2: u64,
}

/// A registration of rseq(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RseqArea {
    /// `struct rseq`.
    pub addr: u64,
    /// Its length.
    pub len: u32,
    /// The signature before abort handlers.
    pub sig: u32,
}

/// The resources that a new task starts with.
pub struct Resources {
    /// The system calls.
    pub syscalls: &'static dyn SyscallTable,
    /// Address space.
    pub mm: Arc<MemoryManager>,
    /// Host thread.
    pub thread: Box<dyn GuestThread>,
    /// Descriptors.
    pub fds: Arc<FdTable>,
    /// cwd, root, umask.
    pub fs: Arc<Mutex<FsContext>>,
}

/// An alternate stack that is not set.
pub const NO_ALTSTACK: StackT = StackT { ss_sp: 0, ss_flags: SS_DISABLE.cast_signed(), pad: 0, ss_size: 0 };

impl CurrentTask {
    /// The handle for `task`, which has just been made with the same resources.
    #[must_use]
    pub fn new(task: Arc<Task>, r: Resources) -> CurrentTask {
        task.set_kicker(Some(r.thread.kicker()));
        let creds = task.creds();
        CurrentTask {
            task,
            thread: Some(r.thread),
            mm: r.mm,
            fds: r.fds,
            fs: r.fs,
            creds,
            syscalls: r.syscalls,
            altstack: NO_ALTSTACK,
            entering: None,
            restart_block: None,
            restart_deadline: None,
            given_up: None,
            restart: None,
            after_call: false,
            gifts: None,
            exit_status: None,
            vfork: None,
            vfork_child: None,
            stepping: false,
            watching: None,
            last_fault: LastFault::default(),
            rseq: None,
            seccomp: crate::seccomp::filter::Remembered::default(),
            scratch: Vec::new(),
        }
    }

    /// The task as others see it.
    #[must_use]
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// The host thread.
    ///
    /// # Panics
    /// In a ptrace stop, where the tracer has it; the task itself runs nothing then.
    pub fn thread(&mut self) -> &mut dyn GuestThread {
        self.thread.as_deref_mut().expect("the thread is lent out only during a stop, in which the task runs no code")
    }

    /// The address space and the thread that carries out its orders.
    ///
    /// # Panics
    /// As [`CurrentTask::thread`].
    pub fn mm_and_thread(&mut self) -> (&Arc<MemoryManager>, &mut dyn GuestThread) {
        let thread = self
            .thread
            .as_deref_mut()
            .expect("the thread is lent out only during a stop, in which the task runs no code");
        (&self.mm, thread)
    }

    /// Lends the thread to the tracer.
    pub(crate) fn park_thread(&mut self) {
        let thread = self.thread.take();
        *self.task.parked.lock() = thread;
    }

    /// Whether it is lent.
    pub(crate) fn is_parked(&self) -> bool {
        self.thread.is_none()
    }

    /// Takes the thread back.
    pub(crate) fn unpark_thread(&mut self) {
        let thread = self.task.parked.lock().take();
        self.thread = thread;
    }

    /// The address space.
    #[must_use]
    pub fn mm(&self) -> &Arc<MemoryManager> {
        &self.mm
    }

    /// The descriptor table.
    #[must_use]
    pub fn fds(&self) -> &Arc<FdTable> {
        &self.fds
    }

    /// cwd, root and umask.
    #[must_use]
    pub fn fs(&self) -> &Arc<Mutex<FsContext>> {
        &self.fs
    }

    /// Who the task is.
    #[must_use]
    pub fn creds(&self) -> &Arc<Credentials> {
        &self.creds
    }

    /// Changes the credentials (`commit_creds`).
    pub fn set_creds(&mut self, new: Credentials) {
        let old = &self.creds;
        let changed = old.euid != new.euid
            || old.egid != new.egid
            || old.fsuid != new.fsuid
            || old.fsgid != new.fsgid
            || !old.permits_all_of(&new);
        self.creds = Arc::new(new);
        {
            let mut s = self.task.state();
            s.creds = self.creds.clone();
            if changed {
                // The parent may not be allowed to signal it any more.
                s.pdeath_signal = None;
            }
        }
        // Memory from before the change is not for the new id's debugger (`commit_creds`).
        if changed {
            self.task.group.set_dumpable(crate::process::group::Dumpable::No);
        }
        self.task.ask_again();
    }

    /// Replaces the address space and thread (execve); gives the old ones.
    pub(crate) fn replace_mm(
        &mut self,
        mm: Arc<MemoryManager>,
        thread: Box<dyn GuestThread>,
    ) -> (Arc<MemoryManager>, Option<Box<dyn GuestThread>>) {
        self.task.set_kicker(Some(thread.kicker()));
        self.task.state().mm = Some(mm.clone());
        let old_thread = self.thread.replace(thread);
        self.task.ask_again();
        self.apply_affinity();
        (std::mem::replace(&mut self.mm, mm), old_thread)
    }

    /// Has the host run the task's thread on the CPUs that it chose, where the guest sees the host's CPUs one to one.
    ///
    /// What another task chooses for it takes effect at its next program; until then it is only remembered.
    pub fn apply_affinity(&mut self) {
        let Some(words) = self.task.state().sched.affinity.clone() else { return };
        if self.group.container.allowance().cpu_count() != moat_sync::executor::host_cpus() {
            return;
        }
        let mut set = rustix::thread::CpuSet::new();
        for cpu in (0..words.len() * 64).filter(|cpu| words[cpu / 64] >> (cpu % 64) & 1 == 1) {
            if cpu < rustix::thread::CpuSet::MAX_CPU {
                set.set(cpu);
            }
        }
        // The host may refuse CPUs that it took away meanwhile: the choice is a wish there.
        let tid = rustix::thread::Pid::from_raw(self.thread().host_tid());
        let _ = rustix::thread::sched_setaffinity(tid, &set);
    }

    /// Replaces the descriptor table (unshare, execve).
    pub fn replace_fds(&mut self, fds: Arc<FdTable>) {
        self.task.state().fds = Some(fds.clone());
        self.fds = fds;
    }

    /// Replaces the file system context (unshare).
    pub fn replace_fs(&mut self, fs: Arc<Mutex<FsContext>>) {
        self.task.state().fs = Some(fs.clone());
        self.fs = fs;
    }

    /// Whether another task shares its root, working directory and umask (CLONE_FS).
    #[must_use]
    pub fn shares_fs(&self) -> bool {
        // One reference is this handle's, one is in the task's state. More may be somebody's passing look.
        if Arc::strong_count(&self.fs) <= 2 {
            return false;
        }
        let groups: Vec<_> = self.kernel().family.lock().nodes().map(|n| n.group.clone()).collect();
        let shares = |t: &Arc<Task>| t.id != self.id && t.fs_of().is_some_and(|fs| Arc::ptr_eq(&fs, &self.fs));
        groups.iter().any(|g| g.threads().iter().any(shares))
    }

    /// Replaces its namespaces (unshare, setns).
    pub fn enter_namespaces(&mut self, new: Arc<Namespaces>) {
        if new.ipc.id != self.namespaces().ipc.id {
            // What the process did to semaphores is undone now: it cannot reach them any more.
            self.system_v().sem.exit(self.group.id, self.tgid());
        }
        let old = std::mem::replace(&mut self.task.state().namespaces, new);
        drop(old);
    }

    /// The signal mask.
    #[must_use]
    pub fn blocked(&self) -> SigSet {
        self.group.signals.lock().threads.get(&self.id).map_or(SigSet::EMPTY, |t| t.blocked)
    }

    /// Sets the signal mask.
    pub fn set_blocked(&mut self, mask: SigSet) {
        self.group.signals.lock().set_blocked(self.id, mask);
    }

    /// Sets `mask` for the time of one waiting call; the old mask returns when the call's signals have been handled
    /// (`set_user_sigmask`, `restore_saved_sigmask_unless`).
    pub fn set_temporary_mask(&mut self, mask: SigSet) {
        let mut s = self.group.signals.lock();
        if let Some(t) = s.threads.get_mut(&self.id) {
            let old = t.blocked;
            // The first counts: a call that starts again has replaced it already.
            t.saved_mask.get_or_insert(old);
        }
        s.set_blocked(self.id, mask);
        drop(s);
        self.after_call = true;
    }

    /// Puts the mask back that [`CurrentTask::set_temporary_mask`] replaced, if the call was not interrupted.
    pub fn restore_mask(&mut self) {
        let mut s = self.group.signals.lock();
        if let Some(mask) = s.threads.get_mut(&self.id).and_then(|t| t.saved_mask.take()) {
            s.set_blocked(self.id, mask);
        }
    }

    /// The deadline of the call that restart_syscall(2) goes on with: `None` for a new call, which computes its own.
    pub fn take_restart_deadline(&mut self) -> Option<Option<Deadline>> {
        self.restart_deadline.take()
    }

    /// Lets the next call find `deadline` in place of its timeout, or its own again.
    pub(crate) fn set_restart_deadline(&mut self, deadline: Option<Option<Deadline>>) {
        self.restart_deadline = deadline;
    }

    /// The deadline of a call with a relative timeout: that of the interrupted call if this one goes on with it.
    pub fn deadline_or(&mut self, fresh: impl FnOnce() -> Option<Deadline>) -> Option<Deadline> {
        self.restart_deadline.take().unwrap_or_else(fresh)
    }

    /// Goes on with an interrupted call (restart_syscall(2)); EINTR if there is none.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn restart_syscall(&mut self) -> crate::SyscallResult {
        let Some(block) = self.restart_block.take() else { return Err(Errno::EINTR.into()) };
        self.restart_deadline = Some(block.deadline);
        // Boxed, as `dispatch` may come back here.
        let future = Box::pin(self.dispatch(block.nr, block.args));
        let result = future.await;
        if matches!(result, Err(SyscallError::Restart(Restart::Again))) {
            self.restart_block = Some(block);
        }
        // Left over, the next call would take it for its own.
        self.restart_deadline = None;
        result
    }

    /// Ends this thread with `code` (exit(2)), once the handler has returned.
    pub fn exit_thread(&mut self, code: u8) {
        self.exit_status = Some(WaitStatus::Exited(code));
    }

    /// Ends the whole process with `code` (exit_group(2)), once the handler has returned.
    pub fn exit_process(&mut self, code: u8) {
        self.exit_status = Some(WaitStatus::Exited(code));
        self.group.signals.lock().start_exit(WaitStatus::Exited(code));
    }

    pub(crate) fn into_parts(self) -> Parts {
        (self.task, self.thread, self.mm, self.fds, self.fs)
    }
}

impl Deref for CurrentTask {
    type Target = Task;
    fn deref(&self) -> &Task {
        &self.task
    }
}

impl Caller for CurrentTask {
    fn creds(&self) -> &Arc<Credentials> {
        &self.creds
    }

    fn read_user(&self, addr: u64, buf: &mut [u8]) -> Result<()> {
        self.mm.read_bytes(UserAddr::new(addr), buf)
    }

    fn write_user(&self, addr: u64, bytes: &[u8]) -> Result<()> {
        self.mm.write_bytes(UserAddr::new(addr), bytes)
    }

    fn interrupted(&self) -> bool {
        self.is_interrupted()
    }

    fn task(&self) -> Option<&dyn CallingTask> {
        Some(self)
    }
}

impl CallingTask for CurrentTask {
    fn thread_pid(&self) -> Arc<Pid> {
        self.task.pid()
    }

    fn namespaces(&self) -> Arc<Namespaces> {
        self.task.namespaces()
    }

    fn limits(&self) -> &Limits {
        &self.group.limits
    }

    fn device_rules(&self) -> Option<&DeviceRules> {
        self.group.container.device_rules()
    }

    fn install(&self, file: Arc<OpenFile>, on_exec: OnExec) -> Result<Fd> {
        self.fds.install(file, self.group.limits.get(Resource::OpenFiles).soft, on_exec)
    }

    fn start_of_paths(&self) -> PathStart {
        let fs = self.fs.lock();
        PathStart { root: fs.root.clone(), cwd: fs.cwd.clone(), umask: fs.umask }
    }
}

impl JobMember for CurrentTask {
    fn process_pid(&self) -> &Arc<Pid> {
        self.group.pid()
    }

    fn process_group(&self) -> Result<Arc<ProcessGroup>> {
        let family = self.kernel().family.lock();
        family.node(self.group.id).map(|n| n.pgrp.clone()).ok_or(Errno::ESRCH)
    }

    fn find_process_group(&self, number: i32) -> Option<Arc<ProcessGroup>> {
        let pid = self.pid_ns().lookup(number)?;
        self.kernel().family.lock().pgrp(pid.id)
    }

    fn ignores(&self, signal: Signal) -> bool {
        // tcsetpgrp(3) takes a blocked SIGTTOU like an ignored one.
        self.blocked().contains(signal) || self.group.signals.lock().sighand.ignores(signal)
    }
}
