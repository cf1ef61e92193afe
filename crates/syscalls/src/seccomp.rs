//! seccomp(2): the guest's own filters.

use moat_abi::Errno;
use moat_abi::ptrace::{
    SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_SPEC_ALLOW, SECCOMP_FILTER_FLAG_TSYNC,
    SECCOMP_FILTER_FLAG_TSYNC_ESRCH, SECCOMP_GET_ACTION_AVAIL, SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT,
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_LOG,
    SECCOMP_RET_TRACE, SECCOMP_RET_TRAP, SECCOMP_SET_MODE_FILTER, SECCOMP_SET_MODE_STRICT, SockFilter, SockFprog,
};
use moat_kernel::seccomp::{Logged, Mode, Sync, install, set_strict};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::{UserAddr, UserPtr};

use crate::ids::pid_result;

syscalls! { pub static TABLE;
    317 seccomp(operation: u32, flags: u32, args: UserAddr) sys_seccomp, partial("no listeners");
}

/// PR_GET_SECCOMP: 0, 1 (strict) or 2 (filter).
pub(crate) fn mode(t: &CurrentTask) -> u64 {
    match t.state().seccomp {
        None => 0,
        Some(Mode::Strict) => 1,
        Some(Mode::Filter(_)) => 2,
    }
}

/// PR_SET_SECCOMP.
pub(crate) fn set_by_prctl(t: &mut CurrentTask, mode: u64, program: u64) -> SyscallResult {
    match u32::try_from(mode) {
        Ok(SECCOMP_MODE_STRICT) => set_strict(t)?,
        Ok(SECCOMP_MODE_FILTER) => return set_filter(t, UserAddr::new(program), 0),
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

fn set_filter(t: &CurrentTask, program: UserAddr, flags: u32) -> SyscallResult {
    let header = t.mm().read(UserPtr::<SockFprog>::new(program))?;
    let max = usize::from(moat_abi::ptrace::BPF_MAXINSNS);
    let len = usize::from(header.len);
    if len == 0 || len > max {
        return Err(Errno::EINVAL.into());
    }
    let program = t.mm().read_array::<SockFilter>(UserAddr::new(header.filter), len, max)?;
    let sync = if flags & SECCOMP_FILTER_FLAG_TSYNC != 0 { Sync::AllThreads } else { Sync::No };
    let logged = if flags & SECCOMP_FILTER_FLAG_LOG != 0 { Logged::All } else { Logged::Default };
    let failed = install(t, program, logged, sync)?;
    // TSYNC gives the thread that was in the way, unless an error was asked for instead.
    if failed != 0 && flags & SECCOMP_FILTER_FLAG_TSYNC_ESRCH != 0 {
        return Err(Errno::ESRCH.into());
    }
    pid_result(failed)
}

fn sys_seccomp(t: &mut CurrentTask, operation: u32, flags: u32, args: UserAddr) -> SyscallResult {
    match operation {
        SECCOMP_SET_MODE_STRICT if flags == 0 && args.is_null() => {
            set_strict(t)?;
            Ok(0)
        }
        SECCOMP_SET_MODE_FILTER => {
            let known = SECCOMP_FILTER_FLAG_TSYNC
                | SECCOMP_FILTER_FLAG_LOG
                | SECCOMP_FILTER_FLAG_SPEC_ALLOW
                | SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
            if flags & !known != 0 {
                return Err(Errno::EINVAL.into());
            }
            set_filter(t, args, flags)
        }
        SECCOMP_GET_ACTION_AVAIL if flags == 0 => {
            let action = t.mm().read(UserPtr::<u32>::new(args))?;
            match action {
                SECCOMP_RET_KILL_PROCESS
                | SECCOMP_RET_KILL_THREAD
                | SECCOMP_RET_TRAP
                | SECCOMP_RET_ERRNO
                | SECCOMP_RET_TRACE
                | SECCOMP_RET_LOG
                | SECCOMP_RET_ALLOW => Ok(0),
                _ => Err(Errno::EOPNOTSUPP.into()),
            }
        }
        _ => Err(Errno::EINVAL.into()),
    }
}
