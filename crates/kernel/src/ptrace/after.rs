//! [`After`]: how a thread goes on behind a stop for its tracer.
//!
//! A thread that stops for its tracer is in the middle of something: a call that it is about to make, a signal that it is about to
//! handle, its end. A thread out of an image begins in the stop, and what it was in the middle of is said here.

use moat_abi::clone::{CoreDump, WaitStatus};
use moat_abi::siginfo::AUDIT_ARCH_X86_64;
use moat_image::state::AfterStop;

use crate::ptrace::stop;
use crate::seccomp;
use crate::task::CurrentTask;

const KILLED: WaitStatus = WaitStatus::Signaled { signal: 9, core: CoreDump::NotDumped };

/// What a thread does when its tracer lets it go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It looks at its signals and runs application code.
    Run,
    /// It handles the signal that it has shown, or what the tracer has made of it.
    Signal,
    /// It makes a call, as the tracer leaves it.
    Entry {
        /// Its number.
        nr: u64,
        /// Its arguments.
        args: [u64; 6],
        /// It is not to be made (PTRACE_SYSEMU).
        emulated: bool,
    },
    /// It comes out of a call.
    Exit,
    /// It makes a call that a filter has shown to the tracer.
    Filter {
        /// `AUDIT_ARCH`.
        arch: u32,
        /// Its number.
        nr: u32,
        /// Its arguments.
        args: [u64; 6],
    },
    /// It ends a call that has been made.
    Result {
        /// What the call gives.
        value: u64,
        /// First it waits for its vfork(2) child.
        vfork: bool,
    },
    /// It ends.
    End {
        /// How.
        status: WaitStatus,
    },
}

impl After {
    /// As an image has it.
    pub(crate) fn to_image(self) -> AfterStop {
        match self {
            After::Run => AfterStop::Run,
            After::Signal => AfterStop::Signal,
            After::Entry { nr, args, emulated } => AfterStop::Entry { nr, args, emulated },
            After::Exit => AfterStop::Exit,
            After::Filter { arch, nr, args } => AfterStop::Filter { arch, nr, args },
            After::Result { value, vfork } => AfterStop::Result { value, vfork },
            After::End { status } => AfterStop::End { status: status.to_raw().cast_signed() },
        }
    }

    /// What an image says. A status that is no end is taken for a kill.
    pub(crate) fn of_image(saved: AfterStop) -> After {
        match saved {
            AfterStop::Run => After::Run,
            AfterStop::Signal => After::Signal,
            AfterStop::Entry { nr, args, emulated } => After::Entry { nr, args, emulated },
            AfterStop::Exit => After::Exit,
            AfterStop::Filter { arch, nr, args } => After::Filter { arch, nr, args },
            AfterStop::Result { value, vfork } => After::Result { value, vfork },
            AfterStop::End { status } => After::End {
                status: match WaitStatus::from_raw(status.cast_unsigned()) {
                    end @ (WaitStatus::Exited(_) | WaitStatus::Signaled { .. }) => end,
                    WaitStatus::Stopped(_) | WaitStatus::Continued => KILLED,
                },
            },
        }
    }
}

/// Goes on with a stop that the thread was saved in, and with what comes behind it. Gives the status of one that has come to its end.
pub(crate) async fn resume(t: &mut CurrentTask, after: After) -> Option<WaitStatus> {
    let alive = stop::stop_again(t, after).await;
    match after {
        After::Run => {}
        After::Signal if alive => {
            if let Some((signal, info)) = stop::resumed_with(t) {
                // One that ends the thread is found again where it looks at its work.
                let _ = t.act_on(signal, info).await;
            }
        }
        // It dies.
        After::Signal => {}
        After::Exit => stop::send_along(t),
        After::Entry { nr, args, emulated } => {
            stop::send_along(t);
            let left = stop::call_left(t, nr, args, emulated);
            t.after_entry(left).await;
        }
        After::Filter { arch, nr, args } => {
            let left = stop::filtered_call_left(t, nr, args);
            let call = seccomp::Call::shown(arch, nr, args);
            let made = seccomp::check_again(t, call, left);
            // By the ways in which it came, which its registers show.
            if arch != AUDIT_ARCH_X86_64 {
                t.i386_checked(made);
            } else if t.in_vsyscall() {
                t.vsyscall_checked(made).await;
            } else {
                t.make_checked(made, call).await;
            }
        }
        After::Result { value, vfork } => t.end_call(value, vfork).await,
        After::End { status } => {
            // As after the stop of a thread that was not saved in it.
            stop::past_exit_event(t);
            return Some(status);
        }
    }
    None
}
