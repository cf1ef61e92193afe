//! The guest's ptrace(2): what strace and gdb use inside the sandbox.
//!
//! - [`Trace`]: the state of one traced thread, part of its group's signal state.
//! - [`bond`]: who traces whom.
//! - [`stop`]: how a thread stops for its tracer; [`after`]: how it goes on, also out of an image.
//! - [`request`]: what the tracer asks.
//! - [`regs`]: register sets as guests see them; [`debug`]: breakpoints and watchpoints by debug registers.
//!
//! For the time of a stop the tracee lends its host thread to `Task::parked`, from where requests use it.

pub mod access;
pub mod after;
pub mod bond;
pub mod debug;
pub mod regs;
pub mod request;
pub mod stop;

use std::sync::{Arc, Weak};

use moat_abi::clone::WaitStatus;
use moat_abi::ptrace::PtraceOptions;
use moat_abi::siginfo::SigInfo;

use crate::task::Task;

/// How the tracee runs between stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// To the next signal or event (PTRACE_CONT).
    Free,
    /// To the next entry to or exit from a system call (PTRACE_SYSCALL).
    ToSyscall,
    /// As `ToSyscall`, without executing the call (PTRACE_SYSEMU).
    Emulate,
    /// One instruction (PTRACE_SINGLESTEP).
    Step,
}

/// Why a traced thread is stopped; decides what wait(2) and PTRACE_GETSIGINFO give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopKind {
    /// Before a signal is delivered.
    Signal,
    /// A group stop.
    Group,
    /// Before a system call.
    SyscallEntry,
    /// After a system call.
    SyscallExit,
    /// A PTRACE_EVENT.
    Event,
}

/// One stop.
#[derive(Clone, Copy, Debug)]
pub struct TraceStop {
    /// Why.
    pub kind: StopKind,
    /// The value for wait(2): the signal, with the event in bits 8 and up.
    pub code: u32,
    /// PTRACE_GETSIGINFO.
    pub info: SigInfo,
    /// wait(2) has taken it.
    pub reported: bool,
}

/// A traced thread that has ended, kept until its tracer has waited for it.
#[derive(Clone)]
pub struct EndedTracee {
    /// How it ended.
    pub status: WaitStatus,
    /// Who traced it.
    pub tracer: Weak<Task>,
}

/// State of a traced thread.
pub struct Trace {
    /// The thread that traces.
    pub tracer: Weak<Task>,
    /// PTRACE_SETOPTIONS.
    pub options: PtraceOptions,
    /// Attached by PTRACE_SEIZE.
    pub seized: bool,
    /// The stop that it is in.
    pub stop: Option<TraceStop>,
    /// How it runs.
    pub run: Run,
    /// The signal to deliver instead of the one it stopped for.
    pub resume_signal: i32,
    /// What goes with it.
    pub resume_info: Option<SigInfo>,
    /// PTRACE_GETEVENTMSG.
    pub message: u64,
    /// PTRACE_INTERRUPT, or the first stop after an attachment by birth.
    pub interrupt: bool,
    /// PTRACE_LISTEN: stays stopped, but events are reported.
    pub listening: bool,
    /// The group went on or stopped again while listening.
    pub notify: bool,
    /// Its debug registers.
    pub debug: debug::DebugRegs,
}

impl Trace {
    /// A thread that has just been attached and runs.
    #[must_use]
    pub fn new(tracer: &Arc<Task>, options: PtraceOptions, seized: bool) -> Trace {
        Trace {
            tracer: Arc::downgrade(tracer),
            options,
            seized,
            stop: None,
            run: Run::Free,
            resume_signal: 0,
            resume_info: None,
            message: 0,
            interrupt: false,
            listening: false,
            notify: false,
            debug: debug::DebugRegs::default(),
        }
    }

    /// Whether the tracee is to make a stop of its own accord (`JOBCTL_TRAP_MASK`).
    #[must_use]
    pub fn trap_pending(&self) -> bool {
        self.interrupt || self.notify
    }

    /// The group stop has ended: a seized tracee that listens makes a new stop to tell.
    pub fn group_continued(&mut self) {
        if self.seized && self.stop.is_some_and(|s| s.kind == StopKind::Group) {
            self.notify = true;
            if std::mem::take(&mut self.listening) {
                self.stop = None;
            }
        }
    }
}
