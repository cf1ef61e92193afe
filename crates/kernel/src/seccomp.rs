//! The guest's own seccomp filters: classic BPF over `struct seccomp_data`.
//!
//! [`filter`] knows programs and nothing of tasks; here they are installed, and calls are checked by them. Not to be confused
//! with the filters that confine the sentry and the guest processes on the host.
//!
//! Source: seccomp(2), `kernel/seccomp.c`, `bpf_check_classic` in `net/core/filter.c`.

pub mod filter;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::cap::Cap;
use moat_abi::ptrace::*;
use moat_abi::siginfo::{AUDIT_ARCH_X86_64, SigInfo};
use moat_abi::{Errno, Result};

use crate::ptrace::stop::{event, wants_event};
use crate::task::CurrentTask;

pub use filter::{Filter, Mode, check};

/// Instructions of all filters of a task together (`MAX_INSNS_PER_PATH`), each filter counting 4 more.
const MAX_PER_PATH: usize = 32_768;

/// Whether the other threads get the filter too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// The caller alone.
    No,
    /// `SECCOMP_FILTER_FLAG_TSYNC`.
    AllThreads,
}

/// Installs strict mode.
///
/// # Errors
/// EINVAL if a filter is installed.
pub fn set_strict(t: &CurrentTask) -> Result<()> {
    let mut s = t.state();
    if matches!(s.seccomp, Some(Mode::Filter(_))) {
        return Err(Errno::EINVAL);
    }
    s.seccomp = Some(Mode::Strict);
    drop(s);
    t.filtered.store(true, Ordering::Relaxed);
    Ok(())
}

/// Installs a filter; gives the id of a thread that could not be given it too, or 0.
///
/// # Errors
/// EACCES without no_new_privs or CAP_SYS_ADMIN; EINVAL for a bad program or strict mode; ENOMEM for too many instructions.
pub fn install(t: &CurrentTask, program: Vec<SockFilter>, sync: Sync) -> Result<i32> {
    if !t.creds().no_new_privs && !t.creds().has_cap(Cap::SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    check(&program)?;
    let previous = match t.state().seccomp.clone() {
        None => None,
        Some(Mode::Filter(f)) => Some(f),
        Some(Mode::Strict) => return Err(Errno::EINVAL),
    };
    let mut total = program.len() + 4;
    let mut at = previous.as_ref();
    while let Some(f) = at {
        total += f.program.len() + 4;
        at = f.previous.as_ref();
    }
    if total > MAX_PER_PATH {
        return Err(Errno::ENOMEM);
    }
    let others: Vec<_> = match sync {
        Sync::No => Vec::new(),
        Sync::AllThreads => t.group.threads().into_iter().filter(|x| x.id != t.id).collect(),
    };
    // All or none: a thread with a filter that the caller has not would lose it.
    for other in &others {
        let fits = match (&other.state().seccomp, &previous) {
            (None, _) => true,
            (Some(Mode::Filter(theirs)), Some(own)) => theirs.is_ancestor_of(own),
            (Some(_), _) => false,
        };
        if !fits {
            return Ok(other.tid_in(&t.pid_ns()));
        }
    }
    let mode = Mode::Filter(Arc::new(Filter { program, previous }));
    for task in others.iter().chain([t.task()]) {
        task.state().seccomp = Some(mode.clone());
        task.filtered.store(true, Ordering::Relaxed);
    }
    Ok(0)
}

/// What becomes of a call.
pub(crate) enum Verdict {
    /// It is made.
    Allow,
    /// It is not made; `rax` and signals are as they are to be.
    Skip,
}

/// Checks a call (`__secure_computing`).
pub(crate) async fn check_call(t: &mut CurrentTask, nr: u64, args: [u64; 6]) -> Verdict {
    let Some(mode) = t.state().seccomp.clone() else { return Verdict::Allow };
    let number = u32::try_from(nr).unwrap_or(u32::MAX);
    let filter = match mode {
        Mode::Strict => {
            use moat_abi::nr::{EXIT, READ, RT_SIGRETURN, WRITE};
            if [READ, WRITE, EXIT, RT_SIGRETURN].contains(&number) {
                return Verdict::Allow;
            }
            kill(t, 9);
            return Verdict::Skip;
        }
        Mode::Filter(f) => f,
    };
    let ip = t.thread().regs().rip;
    let data = SeccompData { nr: number.cast_signed(), arch: AUDIT_ARCH_X86_64, instruction_pointer: ip, args };
    let result = filter.run(&data);
    let value = (result & SECCOMP_RET_DATA) as u16;
    match result & SECCOMP_RET_ACTION_FULL {
        SECCOMP_RET_ALLOW | SECCOMP_RET_LOG => Verdict::Allow,
        SECCOMP_RET_ERRNO => {
            let code = i64::from(value.min(4095));
            t.thread().set_ret((-code).cast_unsigned());
            Verdict::Skip
        }
        SECCOMP_RET_TRAP => {
            t.thread().set_ret(nr);
            t.force_signal(SigInfo::seccomp(value, ip, number.cast_signed()));
            Verdict::Skip
        }
        SECCOMP_RET_TRACE => {
            if wants_event(t, PTRACE_EVENT_SECCOMP) {
                event(t, PTRACE_EVENT_SECCOMP, u64::from(value)).await;
                return Verdict::Allow;
            }
            t.thread().set_ret(Errno::ENOSYS.to_ret());
            Verdict::Skip
        }
        // Nobody can listen.
        SECCOMP_RET_USER_NOTIF => {
            t.thread().set_ret(Errno::ENOSYS.to_ret());
            Verdict::Skip
        }
        SECCOMP_RET_KILL_THREAD if t.group.thread_count() > 1 => {
            t.exit_status =
                Some(moat_abi::clone::WaitStatus::Signaled { signal: 31, core: moat_abi::clone::CoreDump::NotDumped });
            Verdict::Skip
        }
        _ => {
            kill(t, 31);
            Verdict::Skip
        }
    }
}

/// Ends the process as if by `signal`, whatever its action.
fn kill(t: &mut CurrentTask, signal: u8) {
    use moat_abi::clone::{CoreDump, WaitStatus};
    let status = WaitStatus::Signaled { signal, core: CoreDump::NotDumped };
    t.group.signals.lock().start_exit(status);
}
