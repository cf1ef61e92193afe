//! [`ThreadGroup`]: one process, the threads that share its signals and limits.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use moat_abi::signal::Signal;
use moat_identity::{Limits, Pid, UserNamespace};
use moat_mm::MemoryManager;
use moat_sync::{LockClass, Mutex, WaitQueue};
use moat_vfs::ops::Executable;

use crate::kernel::Kernel;
use crate::process::container::ContainerGroup;
use crate::signal::SigHand;
use crate::signal::state::GroupSignals;
use crate::task::past_usage::PastUsage;
use crate::task::usage::Usage;
use crate::task::{Task, TaskId};
use crate::timer::GroupTimers;

pub use moat_identity::GroupId;

/// Whether others may trace and inspect a process (`PR_SET_DUMPABLE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dumpable {
    /// `SUID_DUMP_DISABLE`.
    No = 0,
    /// `SUID_DUMP_USER`.
    Yes = 1,
}

/// One process.
pub struct ThreadGroup {
    /// Names it inside the sentry.
    pub id: GroupId,
    /// Signals, group exit and group stop.
    pub(crate) signals: Mutex<GroupSignals>,
    /// Woken when a group or ptrace stop ends.
    pub stop_queue: WaitQueue,
    /// Woken when a child or tracee has something for wait(2).
    pub child_queue: WaitQueue,
    /// Woken when a thread of this group, or the group, ends: de-threading exec, pidfds, vfork.
    pub exit_queue: WaitQueue,
    /// Woken when a signal is queued, for signalfd.
    pub signalfd_queue: WaitQueue,
    /// Resource limits.
    pub limits: Limits,
    /// Interval timers and POSIX timers.
    pub timers: GroupTimers,
    /// The signal for the parent at the end; 0 for none.
    pub exit_signal: AtomicI32,
    /// A [`Dumpable`].
    dumpable: AtomicU8,
    /// Where its program was started; `None` is the first user namespace.
    exec_user_ns: Mutex<Option<Arc<UserNamespace>>>,
    /// Adopts orphaned descendants (`PR_SET_CHILD_SUBREAPER`).
    pub child_subreaper: AtomicBool,
    /// It has called execve (setpgid of a child is refused then).
    pub did_exec: AtomicBool,
    /// `/proc/PID/oom_score_adj`.
    pub oom_score_adj: AtomicI32,
    /// `/proc/PID/coredump_filter`.
    pub coredump_filter: AtomicU32,
    /// Usage of threads that have ended.
    pub dead_threads: Mutex<PastUsage>,
    /// Usage of children that have been waited for.
    pub children_usage: Mutex<PastUsage>,
    /// The container that it belongs to.
    pub container: Arc<ContainerGroup>,
    kernel: Arc<Kernel>,
    pid: Arc<Pid>,
    leader: Mutex<Weak<Task>>,
    exe: Mutex<Option<Arc<Executable>>>,
}

impl ThreadGroup {
    /// A group named `pid`, without threads yet.
    #[must_use]
    pub fn new(
        kernel: Arc<Kernel>,
        pid: Arc<Pid>,
        sighand: Arc<SigHand>,
        limits: Limits,
        exit_signal: i32,
        container: Arc<ContainerGroup>,
    ) -> Arc<ThreadGroup> {
        Arc::new(ThreadGroup {
            id: GroupId(pid.id),
            signals: Mutex::new(LockClass::Signals, GroupSignals::new(sighand)),
            stop_queue: WaitQueue::new(),
            child_queue: WaitQueue::new(),
            exit_queue: WaitQueue::new(),
            signalfd_queue: WaitQueue::new(),
            limits,
            timers: GroupTimers::default(),
            exit_signal: AtomicI32::new(exit_signal),
            dumpable: AtomicU8::new(Dumpable::Yes as u8),
            exec_user_ns: Mutex::new(LockClass::Leaf, None),
            child_subreaper: AtomicBool::new(false),
            did_exec: AtomicBool::new(false),
            oom_score_adj: AtomicI32::new(0),
            // `MMF_DUMP_FILTER_DEFAULT`: anonymous memory, ELF headers, private huge pages.
            coredump_filter: AtomicU32::new(0x33),
            dead_threads: Mutex::new(LockClass::Process, PastUsage::default()),
            children_usage: Mutex::new(LockClass::Process, PastUsage::default()),
            container,
            kernel,
            pid,
            leader: Mutex::new(LockClass::Table, Weak::new()),
            exe: Mutex::new(LockClass::Process, None),
        })
    }

    /// The kernel that it belongs to.
    #[must_use]
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    /// Its identity, which never changes.
    #[must_use]
    pub fn pid(&self) -> &Arc<Pid> {
        &self.pid
    }

    /// The thread that leads it; it may have exited already while others live.
    #[must_use]
    pub fn leader(&self) -> Option<Arc<Task>> {
        self.leader.lock().upgrade()
    }

    /// Makes `task` the leader.
    pub fn set_leader(&self, task: &Arc<Task>) {
        let old = std::mem::replace(&mut *self.leader.lock(), Arc::downgrade(task));
        drop(old);
    }

    /// The file that it executes: /proc/PID/exe.
    #[must_use]
    pub fn exe(&self) -> Option<Arc<Executable>> {
        self.exe.lock().clone()
    }

    /// Sets the file that it executes.
    pub fn set_exe(&self, exe: Option<Arc<Executable>>) {
        // Dropped unlocked: with the last reference a file may be closed.
        let old = std::mem::replace(&mut *self.exe.lock(), exe);
        drop(old);
    }

    /// The live threads, eldest first.
    #[must_use]
    pub fn threads(&self) -> Vec<Arc<Task>> {
        self.signals.lock().threads.values().map(|t| t.task.clone()).collect()
    }

    /// The live thread `id`.
    #[must_use]
    pub fn thread(&self, id: TaskId) -> Option<Arc<Task>> {
        self.signals.lock().threads.get(&id).map(|t| t.task.clone())
    }

    /// Any live thread, the leader if it lives.
    #[must_use]
    pub fn any_thread(&self) -> Option<Arc<Task>> {
        self.signals.lock().threads.values().next().map(|t| t.task.clone())
    }

    /// The number of live threads.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        self.signals.lock().threads.len()
    }

    /// The parent process, as [`crate::process::family`] knows it.
    #[must_use]
    pub fn parent(&self) -> Option<Arc<ThreadGroup>> {
        self.kernel.family.lock().parent(self.id)
    }

    /// Whether others may trace and inspect it.
    #[must_use]
    pub fn dumpable(&self) -> Dumpable {
        if self.dumpable.load(Ordering::Relaxed) == 0 { Dumpable::No } else { Dumpable::Yes }
    }

    /// Sets whether others may trace and inspect it.
    pub fn set_dumpable(&self, dumpable: Dumpable) {
        self.dumpable.store(dumpable as u8, Ordering::Relaxed);
    }

    /// The user namespace in which its program was started: whose capabilities open memory that may not be dumped.
    #[must_use]
    pub fn exec_user_ns(&self) -> Arc<UserNamespace> {
        let set = self.exec_user_ns.lock().clone();
        set.unwrap_or_else(|| self.kernel.root_user_ns.clone())
    }

    /// Sets where its program was started.
    pub fn set_exec_user_ns(&self, ns: Arc<UserNamespace>) {
        let old = self.exec_user_ns.lock().replace(ns);
        drop(old);
    }

    /// The signal for the parent at its end.
    #[must_use]
    pub fn exit_signal(&self) -> Option<Signal> {
        Signal::new(self.exit_signal.load(Ordering::Relaxed))
    }

    /// What all threads of the process have used, dead ones included.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.past_usage().known()
    }

    /// The same, with peaks of memory that are still to come.
    #[must_use]
    pub fn past_usage(&self) -> PastUsage {
        let mut sum = self.dead_threads.lock().clone();
        for t in self.threads() {
            sum.add(&t.usage.get());
        }
        sum
    }

    /// Takes note of what `mm`, which the process gives up, had resident at most: `setmax_mm_hiwater_rss`.
    pub(crate) fn note_peak_rss(&self, mm: &Arc<MemoryManager>) {
        let mut peak = PastUsage::default();
        // Others may have it for long: then the host process is not about to end.
        match mm.space().last_peak() {
            Some(last) if Arc::strong_count(mm) == 1 => peak.add_peak(last),
            _ => peak.add(&Usage { max_rss_kib: mm.peak_rss() / 1024, ..Usage::default() }),
        }
        self.dead_threads.lock().merge(&peak);
        self.container.add_dead(&peak);
    }
}
