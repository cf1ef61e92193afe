//! Who a task is: process and thread ids, user and group ids, sessions and groups.
//!
//! Source: credentials(7), setuid(2), setresuid(2), setfsuid(2), setgroups(2), `kernel/sys.c`.

use moat_kernel::{CurrentTask, SyscallResult};

syscalls! { pub static TABLE;
    39 getpid() sys_getpid, full;
    186 gettid() sys_gettid, full;
    110 getppid() sys_getppid, full;
}

/// A pid or id as a system call returns it.
pub(crate) fn pid_result(pid: i32) -> SyscallResult {
    Ok(i64::from(pid).cast_unsigned())
}

fn sys_getpid(t: &mut CurrentTask) -> SyscallResult {
    pid_result(t.tgid())
}

fn sys_gettid(t: &mut CurrentTask) -> SyscallResult {
    pid_result(t.tid())
}

/// 0 if the parent is outside the pid namespace.
fn sys_getppid(t: &mut CurrentTask) -> SyscallResult {
    pid_result(t.group.parent().map_or(0, |p| p.pid().number_in(&t.pid_ns())))
}
