//! Stops for a tracer, ptrace(2).

use serde::{Deserialize, Serialize};

/// A stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStopState {
    /// Why.
    pub kind: TraceStopKind,
    /// What wait(2) gives: the signal, with the event in bits 8 and up.
    pub code: u32,
    /// `siginfo_t`, 128 bytes.
    #[serde(with = "crate::blob")]
    pub info: Vec<u8>,
    /// wait(2) has taken it.
    pub reported: bool,
}

/// Why a thread is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum TraceStopKind {
    Signal,
    Group,
    SyscallEntry,
    SyscallExit,
    Event,
}

/// How a tracee runs between stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum TraceRun {
    Free,
    ToSyscall,
    Emulate,
    Step,
}

/// What a thread does when its tracer lets it go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AfterStop {
    /// It looks at its signals and runs application code.
    Run,
    /// The signal that it has shown, or what the tracer makes of it.
    Signal,
    /// A call, as the tracer leaves it.
    Entry {
        /// Its number.
        nr: u64,
        /// Its arguments.
        args: [u64; 6],
        /// It is not to be made.
        emulated: bool,
    },
    /// It comes out of a call.
    Exit,
    /// A call that a seccomp filter has shown to the tracer.
    Filter {
        /// `AUDIT_ARCH`.
        arch: u32,
        /// Its number.
        nr: u32,
        /// Its arguments.
        args: [u64; 6],
    },
    /// The end of a call that gives `value`, once its vfork(2) child has its own memory if it has one.
    Result {
        /// The result.
        value: u64,
        /// It waits for the child with that number.
        vfork: bool,
    },
    /// Its end.
    End {
        /// As wait(2) has it.
        status: i32,
    },
}
