//! Processes, threads and their timers.

use serde::{Deserialize, Serialize};

use super::file::{FdTableState, FsContextState};
use super::identity::{CredentialsState, PidState, ProcessGroupState};
use super::index::ContainerIndex;
use super::memory::MemoryState;
use super::mount::PathState;
use super::namespace::{
    CgroupNamespaceState, IpcNamespaceState, NetNamespaceState, PidNamespaceState, UserNamespaceState,
    UtsNamespaceState,
};
use super::ptrace::{AfterStop, TraceRun, TraceStopState};
use super::signal::{QueuedSignal, SignalHandlersState};
use crate::refs::{Named, Ref};

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessState {
    /// Its id.
    pub pid: Ref<PidState>,
    /// Its parent; none for the first process of a container and for what was started in it.
    pub parent: Option<Ref<ProcessState>>,
    /// The thread that made it, if that lives.
    pub parent_task: Option<Ref<TaskState>>,
    /// Its process group.
    pub process_group: Ref<ProcessGroupState>,
    /// What is left of it, if it is a zombie.
    pub zombie: Option<ZombieState>,
    /// Signals for the process.
    pub pending: Vec<QueuedSignal>,
    /// The actions.
    pub handlers: Ref<SignalHandlersState>,
    /// The signal of the group stop under way.
    pub stop_signal: Option<i32>,
    /// All threads have stopped.
    pub stop_complete: bool,
    /// What wait(2) has not taken: 0 for nothing, a signal for a stop by it, -1 for a continuation.
    pub stop_report: i32,
    /// An init: signals with the default action do not reach it.
    pub unkillable: bool,
    /// Soft and hard limits in the order of their numbers.
    pub limits: Vec<(u64, u64)>,
    /// The timers of setitimer(2).
    pub interval_timers: Vec<IntervalTimerState>,
    /// The timers of timer_create(2).
    pub posix_timers: Vec<PosixTimerState>,
    /// The id of the next of those.
    pub next_posix_timer: i32,
    /// The signal for the parent at the end, 0 for none.
    pub exit_signal: i32,
    /// `PR_GET_DUMPABLE`.
    pub dumpable: bool,
    /// `PR_GET_CHILD_SUBREAPER`.
    pub child_subreaper: bool,
    /// It has called execve(2).
    pub did_exec: bool,
    /// `/proc/PID/oom_score_adj`.
    pub oom_score_adj: i32,
    /// `/proc/PID/coredump_filter`.
    pub coredump_filter: u32,
    /// What ended threads have used.
    pub dead_threads: UsageState,
    /// What children that were waited for have used.
    pub children_usage: UsageState,
    /// The program.
    pub exe: Option<PathState>,
    /// Threads that have ended and are still known.
    #[serde(default)]
    pub ended: Vec<EndedThreadState>,
    /// How its first thread has ended, while others go on.
    #[serde(default)]
    pub leader_status: Option<i32>,
    /// All its threads are to end with this status.
    #[serde(default)]
    pub exit: Option<i32>,
    /// The user namespace whose capabilities open its memory.
    #[serde(default)]
    pub exec_user: Option<Ref<UserNamespaceState>>,
    /// Its container.
    #[serde(default)]
    pub container: ContainerIndex,
}

/// A process that has ended and nobody has waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZombieState {
    /// How it ended, as wait(2) has it.
    pub status: i32,
    /// Who it was.
    pub credentials: Ref<CredentialsState>,
    /// Its name.
    pub comm: Vec<u8>,
}

/// Time and counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct UsageState {
    pub user_ns: u64,
    pub system_ns: u64,
    pub voluntary_switches: u64,
    pub max_rss_kib: u64,
}

/// A thread, at rest outside of application code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskState {
    /// Its process.
    pub process: Ref<ProcessState>,
    /// Its id.
    pub pid: Ref<PidState>,
    /// Who it is.
    pub credentials: Ref<CredentialsState>,
    /// Its name.
    pub comm: Vec<u8>,
    /// Its memory.
    pub memory: Ref<MemoryState>,
    /// Its descriptors.
    pub fd_table: Ref<FdTableState>,
    /// Its root, working directory and umask.
    pub fs_context: Ref<FsContextState>,
    /// `set_tid_address(2)`.
    pub clear_child_tid: u64,
    /// `set_robust_list(2)`.
    pub robust_list: u64,
    /// `PR_SET_PDEATHSIG`, 0 for none.
    pub pdeath_signal: i32,
    /// Scheduling.
    pub sched: SchedState,
    /// `PR_SET_TIMERSLACK`.
    pub timer_slack_ns: u64,
    /// User and number of its login.
    pub login: (u32, u32),
    /// personality(2).
    pub personality: u32,
    /// `PR_SET_THP_DISABLE`.
    pub thp_disabled: bool,
    /// What its calls are checked by.
    pub seccomp: SeccompState,
    /// A sibling's filters came with no_new_privs.
    pub no_new_privs_by_sync: bool,
    /// Signals for the thread.
    pub pending: Vec<QueuedSignal>,
    /// The signal mask.
    pub blocked: u64,
    /// The mask that returns after the call.
    pub saved_mask: Option<u64>,
    /// It is to take part in the group stop.
    pub stop_pending: bool,
    /// It does.
    pub stopped: bool,
    /// What it has used.
    pub usage: UsageState,
    /// When it was made: nanoseconds of the boot clock before the checkpoint.
    pub age_ns: u64,
    /// Its tracer.
    #[serde(default)]
    pub trace: Option<TraceState>,
    /// Its UTS namespace, if that is not the container's.
    #[serde(default)]
    pub uts: Option<Ref<UtsNamespaceState>>,
    /// The pid namespace of its children.
    #[serde(default)]
    pub pid_for_children: Option<Ref<PidNamespaceState>>,
    /// Its IPC namespace.
    #[serde(default)]
    pub ipc: Option<Ref<IpcNamespaceState>>,
    /// Its network namespace.
    #[serde(default)]
    pub net: Option<Ref<NetNamespaceState>>,
    /// Its cgroup namespace.
    #[serde(default)]
    pub cgroup: Option<Ref<CgroupNamespaceState>>,
    /// What only the thread itself knows.
    pub thread: ThreadState,
}

impl TaskState {
    /// A thread that has nothing yet.
    #[must_use]
    pub fn nothing() -> TaskState {
        TaskState {
            process: Ref::FIRST,
            pid: Ref::FIRST,
            credentials: Ref::FIRST,
            comm: Vec::new(),
            memory: Ref::FIRST,
            fd_table: Ref::FIRST,
            fs_context: Ref::FIRST,
            clear_child_tid: 0,
            robust_list: 0,
            pdeath_signal: 0,
            sched: SchedState::default(),
            timer_slack_ns: 0,
            login: (0, 0),
            personality: 0,
            thp_disabled: false,
            seccomp: SeccompState::None,
            no_new_privs_by_sync: false,
            pending: Vec::new(),
            blocked: 0,
            saved_mask: None,
            stop_pending: false,
            stopped: false,
            usage: UsageState::default(),
            age_ns: 0,
            trace: None,
            uts: None,
            pid_for_children: None,
            ipc: None,
            net: None,
            cgroup: None,
            thread: ThreadState::default(),
        }
    }
}

/// Scheduling parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SchedState {
    pub policy: u32,
    pub rt_priority: u32,
    pub nice: i32,
    pub reset_on_fork: bool,
    pub affinity: Option<Vec<u64>>,
    pub io_priority: u32,
}

/// What a thread's calls are checked by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeccompState {
    /// Nothing.
    #[default]
    None,
    /// Strict mode.
    Strict,
    /// Filters, of which this is the newest.
    Filter(Ref<SeccompFilterState>),
}

/// A seccomp filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeccompFilterState {
    /// The profile of the container, which comes from its configuration.
    Profile,
    /// That of a later container of a pod.
    ProfileOf(ContainerIndex),
    /// One of the guest's.
    Program {
        /// Its instructions: code, jt, jf, k.
        program: Vec<(u16, u8, u8, u32)>,
        /// All results but "allow" are logged.
        log_all: bool,
        /// The one before.
        previous: Option<Ref<SeccompFilterState>>,
    },
}

/// A traced thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceState {
    /// Who traces it.
    pub tracer: Ref<TaskState>,
    /// `PTRACE_SETOPTIONS`.
    pub options: u32,
    /// Attached by `PTRACE_SEIZE`.
    pub seized: bool,
    /// The stop that it is in.
    pub stop: Option<TraceStopState>,
    /// How it runs.
    pub run: TraceRun,
    /// The signal that its tracer has let it go on with, 0 for none.
    pub resume_signal: i32,
    /// `siginfo_t` of that.
    pub resume_info: Option<serde_bytes::ByteBuf>,
    /// `PTRACE_GETEVENTMSG`.
    pub message: u64,
    /// `PTRACE_INTERRUPT`.
    pub interrupt: bool,
    /// `PTRACE_LISTEN`.
    pub listening: bool,
    /// Its group went on or stopped again while it listened.
    pub notify: bool,
    /// Debug registers 0 to 3, 6 and 7.
    pub debug: [u64; 6],
}

/// A thread that has ended and is still known by its number: the first one of a process that goes on, or one that its tracer has
/// not waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedThreadState {
    /// Its number.
    pub pid: Ref<PidState>,
    /// Who it was.
    pub credentials: Ref<CredentialsState>,
    /// Its name.
    pub comm: Vec<u8>,
    /// What it has used.
    pub usage: UsageState,
    /// How it ended.
    pub status: i32,
    /// Who is to wait for it.
    pub tracer: Option<Ref<TaskState>>,
}

/// Registers and what else belongs to the thread's own way of running.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadState {
    /// The general registers, in the order of `struct user_regs_struct` without segments: see `moat_platform::Regs`.
    pub registers: Vec<u64>,
    /// The extended state, as the host's kernel writes it into a signal frame.
    #[serde(with = "crate::blob")]
    pub extended: Vec<u8>,
    /// The alternate signal stack: address, flags, size.
    pub altstack: (u64, i32, u64),
    /// Vector, error code and address of the last processor exception.
    pub last_fault: (u64, u64, u64),
    /// rseq(2): address, length, signature.
    pub rseq: Option<(u64, u32, u32)>,
    /// What restart_syscall(2) goes on with.
    pub restart_block: Option<CallState>,
    /// The trap flag is set for its tracer.
    #[serde(default)]
    pub stepping: bool,
    /// The trap flag is set for its debug registers.
    #[serde(default)]
    pub watching: bool,
    /// What the thread does before it runs application code.
    pub next: NextStep,
}

/// What a thread does first when it goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NextStep {
    /// It looks at its signals and runs application code.
    #[default]
    Run,
    /// It makes a call again that had to wait; its registers are those of the call.
    Call(CallState),
    /// A signal has interrupted this call: how it goes on depends on what the signal does.
    Interrupted(Interrupted),
    /// It waits for its vfork(2) child, which has this number there, and gives that as the result of the call.
    Vfork {
        /// In its own pid namespace.
        child: i32,
    },
    /// It is in a stop for its tracer.
    Stopped(StoppedState),
}

/// A call that a signal has interrupted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupted {
    /// Its number.
    pub nr: u64,
    /// By which rule it starts again.
    pub rule: RestartRule,
}

/// A thread in a stop for its tracer: what it does behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppedState {
    /// It.
    pub after: AfterStop,
    /// The call that a signal has interrupted.
    pub interrupted: Option<Interrupted>,
}

/// When an interrupted call starts again: the ERESTART codes of Linux.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum RestartRule {
    Sys,
    NoHand,
    NoIntr,
    Block(CallState),
}

/// A system call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallState {
    /// Its number.
    pub nr: u64,
    /// Its arguments.
    pub args: [u64; 6],
    /// How long it waits: [`Patience`].
    pub patience: Patience,
}

/// How long a call that is made again waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Patience {
    /// As its arguments say.
    Arguments,
    /// For ever.
    Endless,
    /// So many nanoseconds from when the sandbox goes on.
    Left(u64),
}

/// A timer of setitimer(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntervalTimerState {
    /// Nanoseconds to the next expiry; 0 is off.
    pub left_ns: u64,
    /// From one expiry to the next.
    pub interval_ns: u64,
}

/// A timer of timer_create(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PosixTimerState {
    /// Its id.
    pub id: i32,
    /// Its clock.
    pub clock: TimerClock,
    /// The signal of an expiry, if it sends one.
    pub event: Option<TimerEvent>,
    /// Nanoseconds to the next expiry, which may be past; none if it is off.
    pub left_ns: Option<i64>,
    /// From one expiry to the next.
    pub interval_ns: u64,
    /// Expiries while its signal was pending.
    pub overrun: u64,
    /// The overrun count of the last delivery.
    pub last_overrun: i32,
}

/// The clock of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum TimerClock {
    /// A clock of clock_gettime(2).
    Host(i32),
    ProcessCpu,
    ThreadCpu(Ref<TaskState>),
}

/// What a timer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TimerEvent {
    pub signal: i32,
    pub value: u64,
    /// One thread, or the process.
    pub thread: Option<Ref<TaskState>>,
}

impl Named for ProcessState {
    const WHAT: &'static str = "process";
}

impl Named for TaskState {
    const WHAT: &'static str = "thread";
}

impl Named for SeccompFilterState {
    const WHAT: &'static str = "seccomp filter";
}
