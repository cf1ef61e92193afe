//! [`Task`]: one guest thread, as everybody sees it; [`CurrentTask`]: the same thread, as its own future owns it.
//!
//! - [`current`]: what only the thread itself may use.
//! - [`run`]: its main loop.
//! - [`wait`]: how it sleeps; [`waits`]: how long, for profiles; [`rest`]: how it is frozen, and saved.
//! - [`clone`], [`exec`], [`exit`]: its life; [`unshare`] and [`setns`]: namespaces that it makes and joins.
//! - [`death`]: the watch over a task that is to die.
//! - [`call`]: what it is doing; [`observe`]: what it has done, [`samples`]: where it was,
//!   [`times`]: how long its calls took, for profiles; [`recent`]: its last calls.
//! - [`answers`]: calls that need not be made.
//! - [`work`]: the flags by which others make it look up.
//!
//! # Invariants
//! - A task's memory, files and credentials are changed by the task itself only; others take a copy of the `Arc`s.
//! - The `signals` lock of the group is taken before `state`, never after.

mod answers;
pub mod call;
pub mod clone;
pub mod cred;
pub mod current;
mod death;
pub mod exec;
pub mod exit;
mod host_wait;
mod legacy;
pub mod observe;
mod parcel;
pub mod past_usage;
pub mod recent;
pub(crate) mod rest;
pub mod run;
pub mod samples;
pub mod setns;
pub mod times;
pub mod unshare;
pub mod usage;
pub mod vfork;
pub mod wait;
pub mod waits;
pub mod work;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use moat_identity::{Namespaces, Pid, PidNamespace};
use moat_image::state::ThreadState;
use moat_mm::MemoryManager;
use moat_platform::{GuestThread, Kick};
use moat_sync::wait::Wakeup;
use moat_sync::{LockClass, Mutex, MutexGuard};
use moat_vfs::cred::Credentials;
use moat_vfs::{FdTable, FsContext};

use crate::kernel::Kernel;
use crate::process::allowance::TaskCharge;
use crate::process::group::ThreadGroup;
use crate::ptrace::EndedTracee;
use crate::task::work::{Work, WorkFlags};
use moat_ipc::SystemV;

pub use current::CurrentTask;
pub use moat_identity::TaskId;

/// One guest thread.
pub struct Task {
    /// Names it inside the sentry.
    pub id: TaskId,
    /// Its process.
    pub group: Arc<ThreadGroup>,
    /// Flags that make it leave guest code or a wait.
    pub flags: WorkFlags,
    /// Fired with the flags.
    pub interrupt: Wakeup,
    /// It has let go of its futexes: nobody may wait for one of them any more (see [`crate::futex::pi_table`]).
    pub futexes_released: std::sync::atomic::AtomicBool,
    /// What it sleeps in.
    pub wchan: Mutex<Option<&'static str>>,
    /// Since when, on the monotonic clock, if it began during a [`waits::WaitProfile`].
    pub(crate) waiting_since_ns: AtomicU64,
    /// The CPU time that it is to account for by a sample (see [`samples`]).
    pub(crate) sample_ns: AtomicU64,
    /// The system call that it is in.
    pub call: call::CurrentCall,
    /// CPU time and counters.
    pub usage: usage::TaskUsage,
    /// The guest thread, lent to the tracer for the time of a ptrace stop.
    pub parked: Mutex<Option<Box<dyn GuestThread>>>,
    /// What only it knows, while its container is being saved.
    pub(crate) saved: Mutex<Option<ThreadState>>,
    /// It is traced (a summary of its signal state, read without the lock).
    pub traced: AtomicBool,
    /// How often its filters have changed (read without the lock of its state, written under it); 0 if it has none.
    pub(crate) seccomp_version: AtomicU32,
    answers: answers::Stale,
    /// It has ended and its tracer has yet to be told of it.
    pub ended_for_tracer: Mutex<Option<EndedTracee>>,
    /// Its name has been changed, and its host thread has yet to take it.
    renamed: AtomicBool,
    /// When it was made, in nanoseconds of the boot clock.
    pub start_boot_ns: u64,
    pid: Mutex<Arc<Pid>>,
    kicker: Mutex<Option<Arc<dyn Kick>>>,
    /// That of its future, which is polled when the task is to die, wherever it waits.
    waker: OnceLock<Waker>,
    state: Mutex<TaskState>,
}

/// Whose session a task belongs to, as pam_loginuid(8) says: /proc/PID/loginuid and sessionid. Inherited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user; `Login::NONE.uid` before anybody has said it.
    pub uid: u32,
    /// The number of the session.
    pub session: u32,
}

impl Login {
    /// Nobody has logged in.
    pub const NONE: Login = Login { uid: u32::MAX, session: u32::MAX };
}

/// What may change in a task, outside signals.
pub struct TaskState {
    /// Who it is.
    pub creds: Arc<Credentials>,
    /// Its name, as `PR_SET_NAME` and exec set it; without a zero byte, at most 15 bytes.
    pub comm: Vec<u8>,
    /// Its memory; `None` once it has exited.
    pub mm: Option<Arc<MemoryManager>>,
    /// Its descriptors; `None` once it has exited.
    pub fds: Option<Arc<FdTable>>,
    /// Its cwd, root and umask; `None` once it has exited.
    pub fs: Option<Arc<Mutex<FsContext>>>,
    /// Its namespaces but for the user namespace, which is in the credentials.
    pub namespaces: Arc<Namespaces>,
    /// Where to write 0 and wake a futex at exit (set_tid_address(2)).
    pub clear_child_tid: u64,
    /// Head of the robust futex list (set_robust_list(2)).
    pub robust_list: u64,
    /// Signal for it when its parent thread dies (`PR_SET_PDEATHSIG`).
    pub pdeath_signal: Option<moat_abi::signal::Signal>,
    /// Scheduling as the guest set it; moat leaves the CPU to the host.
    pub sched: crate::process::sched::SchedState,
    /// `PR_SET_TIMERSLACK` in nanoseconds.
    pub timer_slack_ns: u64,
    /// Who logged in.
    pub login: Login,
    /// personality(2).
    pub personality: u32,
    /// Its seccomp filters, inherited and never given up.
    pub seccomp: Option<crate::seccomp::Mode>,
    /// The filters came from a sibling with no_new_privs (`SECCOMP_FILTER_FLAG_TSYNC`): the task sets its own at its next call.
    pub no_new_privs_by_sync: bool,
    /// `PR_SET_THP_DISABLE`.
    pub thp_disabled: bool,
}

impl Task {
    /// A task of `group` named `pid`, which counts as one of its container's until it is reaped.
    #[must_use]
    pub fn new(id: TaskId, group: Arc<ThreadGroup>, pid: Arc<Pid>, state: TaskState, charge: TaskCharge) -> Arc<Task> {
        Task::made_at(id, group, pid, state, charge, moat_host::clock::boottime_ns())
    }

    /// As [`Task::new`], for one that was made at `start_boot_ns` of the boot clock.
    pub(crate) fn made_at(
        id: TaskId,
        group: Arc<ThreadGroup>,
        pid: Arc<Pid>,
        state: TaskState,
        charge: TaskCharge,
        start_boot_ns: u64,
    ) -> Arc<Task> {
        let seccomp_version = u32::from(state.seccomp.is_some());
        let task = Arc::new(Task {
            id,
            group,
            flags: WorkFlags::default(),
            interrupt: Wakeup::default(),
            futexes_released: std::sync::atomic::AtomicBool::new(false),
            wchan: Mutex::new(LockClass::Leaf, None),
            waiting_since_ns: AtomicU64::new(0),
            sample_ns: AtomicU64::new(0),
            call: call::CurrentCall::default(),
            usage: usage::TaskUsage::default(),
            parked: Mutex::new(LockClass::Task, None),
            saved: Mutex::new(LockClass::Leaf, None),
            traced: AtomicBool::new(false),
            seccomp_version: AtomicU32::new(seccomp_version),
            answers: answers::Stale::default(),
            ended_for_tracer: Mutex::new(LockClass::Leaf, None),
            renamed: AtomicBool::new(false),
            start_boot_ns,
            pid: Mutex::new(LockClass::Table, pid),
            kicker: Mutex::new(LockClass::Platform, None),
            waker: OnceLock::new(),
            state: Mutex::new(LockClass::Task, state),
        });
        // Last: from here on others find it by its number.
        task.kernel().tasks.bind(&task.pid(), &task, charge);
        task
    }

    /// The kernel that it belongs to.
    #[must_use]
    pub fn kernel(&self) -> &Arc<Kernel> {
        self.group.kernel()
    }

    /// Its mutable state. No other task's state may be locked.
    pub fn state(&self) -> MutexGuard<'_, TaskState> {
        self.state.lock()
    }

    /// Its identity; an execve by a thread that is not the leader changes it.
    #[must_use]
    pub fn pid(&self) -> Arc<Pid> {
        self.pid.lock().clone()
    }

    /// Takes another identity (de_thread).
    pub fn set_pid(&self, pid: Arc<Pid>) {
        let old = std::mem::replace(&mut *self.pid.lock(), pid);
        drop(old);
    }

    /// Its thread id in `ns`, 0 if it cannot be seen there.
    #[must_use]
    pub fn tid_in(&self, ns: &PidNamespace) -> i32 {
        self.pid().number_in(ns)
    }

    /// Its thread id in its own namespace.
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.pid().number()
    }

    /// Its process id in its own namespace.
    #[must_use]
    pub fn tgid(&self) -> i32 {
        self.group.pid().number()
    }

    /// Lets memory, descriptors and file system context go: others may hold the task for long.
    pub(crate) fn drop_resources(&self) {
        let gone = {
            let mut s = self.state();
            (s.mm.take(), s.fds.take(), s.fs.take())
        };
        drop(gone);
    }

    /// The pid namespace that it lives in (not that of its children to come).
    #[must_use]
    pub fn pid_ns(&self) -> Arc<PidNamespace> {
        self.group.pid().namespace().clone()
    }

    /// Whether it leads its thread group.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.pid().id == self.group.pid().id
    }

    /// Its credentials at this moment.
    #[must_use]
    pub fn creds(&self) -> Arc<Credentials> {
        self.state().creds.clone()
    }

    /// Its memory, unless it has exited.
    #[must_use]
    pub fn mm_of(&self) -> Option<Arc<MemoryManager>> {
        self.state().mm.clone()
    }

    /// Its descriptors, unless it has exited.
    #[must_use]
    pub fn fds_of(&self) -> Option<Arc<FdTable>> {
        self.state().fds.clone()
    }

    /// Its file system context, unless it has exited.
    #[must_use]
    pub fn fs_of(&self) -> Option<Arc<Mutex<FsContext>>> {
        self.state().fs.clone()
    }

    /// Its name.
    #[must_use]
    pub fn comm(&self) -> Vec<u8> {
        self.state().comm.clone()
    }

    /// Names it; its host thread follows when it next runs.
    pub fn set_comm(&self, comm: Vec<u8>) {
        self.state().comm = comm;
        self.note_name();
        self.renamed.store(true, Ordering::Release);
    }

    /// The new name for the host thread, if there is one.
    pub(crate) fn take_renaming(&self) -> Option<[u8; 16]> {
        // The load is all that it costs on an ordinary way into the guest.
        if !self.renamed.load(Ordering::Relaxed) || !self.renamed.swap(false, Ordering::Acquire) {
            return None;
        }
        Some(self.host_name())
    }

    /// The name that its host thread is to have.
    pub(crate) fn host_name(&self) -> [u8; 16] {
        let mut name = [0; 16];
        // The last byte stays zero.
        for (to, from) in name.iter_mut().take(15).zip(&self.state().comm) {
            *to = *from;
        }
        name
    }

    /// Its namespaces.
    #[must_use]
    pub fn namespaces(&self) -> Arc<Namespaces> {
        self.state().namespaces.clone()
    }

    /// The System V objects of its IPC namespace.
    #[must_use]
    pub fn system_v(&self) -> Arc<SystemV> {
        SystemV::of(&self.namespaces().ipc)
    }

    /// What it waits for, if it does: in the sentry, or by a call that the host carries out.
    #[must_use]
    pub fn waits_in(&self) -> Option<&'static str> {
        let in_sentry = *self.wchan.lock();
        in_sentry.or_else(|| self.kicker().filter(|kicker| kicker.rests()).map(|_| "futex_wait"))
    }

    /// What makes it neither run nor sleep.
    #[must_use]
    pub fn work(&self) -> Work {
        self.flags.get()
    }

    /// Makes it look at its flags: ends its wait, or takes it out of guest code.
    pub fn interrupt(&self) {
        // First the wait, then the guest: a task between the two looks at its flags before it enters.
        self.interrupt.fire();
        if self.flags.in_guest()
            && let Some(kicker) = self.kicker()
        {
            kicker.kick();
        }
        if self.work().contains(Work::KILL)
            && let Some(waker) = self.waker.get()
        {
            waker.wake_by_ref();
        }
    }

    /// Notes how its future is woken; an executor has one waker for a future.
    pub(crate) fn keep_waker(&self, cx: &Context<'_>) {
        self.waker.get_or_init(|| cx.waker().clone());
    }

    /// Its host thread, for others than itself, unless it has given that up.
    pub(crate) fn kicker(&self) -> Option<Arc<dyn Kick>> {
        self.kicker.lock().clone()
    }

    /// Sets how it is taken out of guest code; its host thread has changed.
    pub fn set_kicker(&self, kicker: Option<Arc<dyn Kick>>) {
        self.usage.set_host_thread(kicker.clone());
        let old = std::mem::replace(&mut *self.kicker.lock(), kicker);
        drop(old);
    }

    /// Leaves the waker of `cx` to be woken by [`Task::interrupt`].
    pub fn poll_interrupt(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.interrupt.poll(cx)
    }
}
