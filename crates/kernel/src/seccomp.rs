//! The guest's own seccomp filters, and the profile that its container was configured with.
//!
//! Both are in one chain ([`filter`]) of programs of classic BPF over `struct seccomp_data` ([`program`]), which know nothing of
//! tasks; here they are installed, and calls are checked by them. Not to be confused with the filters that confine the sentry and
//! the guest processes on the host.
//!
//! Source: seccomp(2), `kernel/seccomp.c`.

pub mod filter;
mod program;

use std::sync::atomic::Ordering;

use moat_abi::cap::Cap;
use moat_abi::clone::{CoreDump, WaitStatus};
use moat_abi::ptrace::*;
use moat_abi::siginfo::{AUDIT_ARCH_I386, AUDIT_ARCH_X86_64, SigInfo};
use moat_abi::{Errno, Result};
use moat_identity::Credentials;
use moat_platform::Regs;

use crate::ptrace::stop::{seccomp_event, wants_event};
use crate::task::{CurrentTask, Task};
use filter::Remembered;

pub use filter::{Filter, Logged, Mode};

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
    if matches!(t.state().seccomp, Some(Mode::Filter(_))) {
        return Err(Errno::EINVAL);
    }
    set_mode(t.task(), Mode::Strict);
    Ok(())
}

/// Installs a filter; gives the id of a thread that could not be given it too, or 0.
///
/// # Errors
/// EACCES without no_new_privs or CAP_SYS_ADMIN; EINVAL for a bad program or strict mode; ENOMEM for too many instructions.
pub fn install(t: &CurrentTask, program: Vec<SockFilter>, logged: Logged, sync: Sync) -> Result<i32> {
    // Else a filter could mislead a set-user-ID program that is executed under it.
    if !t.creds().no_new_privs && !t.creds().has_cap(Cap::SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    let previous = match t.state().seccomp.clone() {
        None => None,
        Some(Mode::Filter(f)) => Some(f),
        Some(Mode::Strict) => return Err(Errno::EINVAL),
    };
    let filter = Filter::new(program, logged, previous.clone())?;
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
    let no_new_privs = t.creds().no_new_privs;
    for task in &others {
        task.state().no_new_privs_by_sync |= no_new_privs;
        set_mode(task, Mode::Filter(filter.clone()));
    }
    set_mode(t.task(), Mode::Filter(filter));
    Ok(0)
}

fn set_mode(task: &Task, mode: Mode) {
    {
        let mut state = task.state();
        state.seccomp = Some(mode);
        task.seccomp_version.fetch_add(1, Ordering::Release);
    }
    task.ask_again();
}

/// Whether a call gets by the task's filters whatever its arguments, as far as it is known without asking them.
pub(crate) fn always_allows(t: &CurrentTask, nr: u32) -> bool {
    match t.seccomp_version.load(Ordering::Acquire) {
        0 => true,
        version => t.seccomp.version == version && matches!(&t.seccomp.mode, Some(Mode::Filter(f)) if f.allows(nr)),
    }
}

/// A call to be checked.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    arch: u32,
    nr: u32,
    args: [u64; 6],
}

impl Call {
    /// A call by the instruction syscall. The high half of the number is ignored, as the kernel's entry code does.
    pub(crate) fn x86_64(nr: u64, args: [u64; 6]) -> Call {
        Call { arch: AUDIT_ARCH_X86_64, nr: low_half(nr), args }
    }

    /// A call by int 0x80.
    pub(crate) fn i386(r: &Regs) -> Call {
        let nr = if r.orig_rax == u64::MAX { r.rax } else { r.orig_rax };
        let args = [r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp].map(|arg| u64::from(low_half(arg)));
        Call { arch: AUDIT_ARCH_I386, nr: low_half(nr), args }
    }

    /// A call that a filter has shown to a tracer.
    pub(crate) fn shown(arch: u32, nr: u32, args: [u64; 6]) -> Call {
        Call { arch, nr, args }
    }

    /// The number.
    pub(crate) fn nr(&self) -> u64 {
        self.nr.into()
    }

    /// The arguments.
    pub(crate) fn args(&self) -> [u64; 6] {
        self.args
    }
}

fn low_half(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

/// Checks a call (`__secure_computing`); gives the call to make, which a tracer may have changed. If it gives `None`,
/// `rax` and signals are as they are to be.
pub(crate) async fn check_call(t: &mut CurrentTask, call: Call) -> Option<Call> {
    let version = t.seccomp_version.load(Ordering::Acquire);
    if version == 0 {
        return Some(call);
    }
    take_over_filters(t, version);
    match &t.seccomp.mode {
        None => Some(call),
        Some(Mode::Strict) => {
            use moat_abi::nr::{EXIT, READ, RT_SIGRETURN, WRITE};
            if call.arch == AUDIT_ARCH_X86_64 && [READ, WRITE, EXIT, RT_SIGRETURN].contains(&call.nr) {
                return Some(call);
            }
            kill(t, 9);
            None
        }
        Some(Mode::Filter(f)) if call.arch == AUDIT_ARCH_X86_64 && f.allows(call.nr) => Some(call),
        Some(Mode::Filter(f)) => {
            let filter = f.clone();
            // Boxed: it may stop for a tracer, and every task would have room for that.
            Box::pin(run_filters(t, &filter, call)).await
        }
    }
}

/// Another thread may have installed a filter for this one.
fn take_over_filters(t: &mut CurrentTask, version: u32) {
    if t.seccomp.version != version {
        let (mode, no_new_privs) = {
            let mut s = t.state();
            (s.seccomp.clone(), std::mem::take(&mut s.no_new_privs_by_sync))
        };
        t.seccomp = Remembered { version, mode };
        t.ask_again();
        if no_new_privs {
            let creds = (**t.creds()).clone();
            t.set_creds(Credentials { no_new_privs, ..creds });
        }
    }
}

async fn run_filters(t: &mut CurrentTask, filter: &Filter, call: Call) -> Option<Call> {
    let (action, value) = judge(t, filter, &call);
    if action != SECCOMP_RET_TRACE {
        return carry_out(t, action, value, call);
    }
    // Without a tracer that wants the event the call fails (seccomp(2)).
    if !wants_event(t, PTRACE_EVENT_SECCOMP) {
        t.thread().set_ret(Errno::ENOSYS.to_ret());
        return None;
    }
    let left = seccomp_event(t, call.arch, call.nr, call.args, value).await;
    judge_again(t, filter, call, left)
}

/// What the tracer made of a call is judged again, but not handed to the tracer again.
fn judge_again(t: &mut CurrentTask, filter: &Filter, call: Call, left: Option<(u64, [u64; 6])>) -> Option<Call> {
    let (nr, args) = left?;
    let call = Call { nr: low_half(nr), args, ..call };
    let (action, value) = judge(t, filter, &call);
    if action == SECCOMP_RET_TRACE { Some(call) } else { carry_out(t, action, value, call) }
}

/// Checks what a tracer has left of a call that was shown to it in another life.
pub(crate) fn check_again(t: &mut CurrentTask, call: Call, left: Option<(u64, [u64; 6])>) -> Option<Call> {
    let version = t.seccomp_version.load(Ordering::Acquire);
    take_over_filters(t, version);
    match &t.seccomp.mode {
        Some(Mode::Filter(filter)) => {
            let filter = filter.clone();
            judge_again(t, &filter, call, left)
        }
        // Only a filter shows a call: an image that says otherwise has it not made.
        _ => None,
    }
}

/// The action of the filters and its data, logged where that is wanted.
fn judge(t: &mut CurrentTask, filter: &Filter, call: &Call) -> (u32, u16) {
    let ip = t.thread().regs().rip;
    let nr = call.nr.cast_signed();
    let data = SeccompData { nr, arch: call.arch, instruction_pointer: ip, args: call.args };
    let (result, logged) = filter.run(&data);
    let action = result & SECCOMP_RET_ACTION_FULL;
    let wanted = match action {
        SECCOMP_RET_ALLOW => false,
        SECCOMP_RET_ERRNO | SECCOMP_RET_TRAP | SECCOMP_RET_TRACE | SECCOMP_RET_USER_NOTIF => logged == Logged::All,
        _ => true,
    };
    if wanted {
        // As audit does for Linux: a guest may do this as often as it likes, so it is for debugging only.
        let name = moat_abi::nr::name(call.nr).filter(|_| call.arch == AUDIT_ARCH_X86_64).unwrap_or("?");
        tracing::debug!(target: "seccomp", tid = t.tid(), arch = call.arch, nr, ip, "{name} gets {result:#x}");
    }
    (action, (result & SECCOMP_RET_DATA) as u16)
}

/// Does what `action` says.
fn carry_out(t: &mut CurrentTask, action: u32, value: u16, call: Call) -> Option<Call> {
    match action {
        SECCOMP_RET_ALLOW | SECCOMP_RET_LOG => return Some(call),
        SECCOMP_RET_ERRNO => {
            let code = i64::from(value.min(4095));
            t.thread().set_ret((-code).cast_unsigned());
        }
        SECCOMP_RET_TRAP => {
            // The handler finds the number where the call had it (`syscall_rollback`).
            t.thread().set_ret(call.nr());
            let ip = t.thread().regs().rip;
            t.force_signal(SigInfo::seccomp(value, ip, call.arch, call.nr.cast_signed()));
        }
        // Nobody can listen.
        SECCOMP_RET_USER_NOTIF => t.thread().set_ret(Errno::ENOSYS.to_ret()),
        // The last thread ends with its process.
        SECCOMP_RET_KILL_THREAD if t.group.thread_count() > 1 => {
            t.exit_status = Some(WaitStatus::Signaled { signal: 31, core: CoreDump::NotDumped });
        }
        _ => kill(t, 31),
    }
    None
}

/// Ends the process as if by `signal`, whatever its action.
fn kill(t: &mut CurrentTask, signal: u8) {
    let status = WaitStatus::Signaled { signal, core: CoreDump::NotDumped };
    t.group.signals.lock().start_exit(status);
}
