//! ptrace(2), kcmp(2).

use std::sync::Arc;

use moat_abi::Errno;
use moat_abi::clone::{KCMP_FILE, KCMP_FILES, KCMP_FS, KCMP_IO, KCMP_SIGHAND, KCMP_SYSVSEM, KCMP_VM};
use moat_kernel::ptrace::access::{Ids, check};
use moat_kernel::ptrace::request;
use moat_kernel::{CurrentTask, SyscallResult};
use moat_vfs::Fd;

syscalls! { pub static TABLE;
    101 ptrace(request: u32, pid: i32, addr: u64, data: u64) sys_ptrace, partial("no hardware breakpoints, no SUSPEND_SECCOMP");
    312 kcmp(pid1: i32, pid2: i32, kind: u32, a: u64, b: u64) sys_kcmp, partial("KCMP_EPOLL_TFD: EOPNOTSUPP");
}

fn sys_ptrace(t: &mut CurrentTask, request: u32, pid: i32, addr: u64, data: u64) -> SyscallResult {
    Ok(request::ptrace(t, request, pid, addr, data)?)
}

/// 0 for the same object; 1 or 2 tell an order that holds as long as both live.
fn compare(a: usize, b: usize) -> SyscallResult {
    Ok(match a.cmp(&b) {
        std::cmp::Ordering::Equal => 0,
        std::cmp::Ordering::Less => 1,
        std::cmp::Ordering::Greater => 2,
    })
}

fn address<T: ?Sized>(x: &Arc<T>) -> usize {
    Arc::as_ptr(x).cast::<()>().addr()
}

fn sys_kcmp(t: &mut CurrentTask, pid1: i32, pid2: i32, kind: u32, a: u64, b: u64) -> SyscallResult {
    let ns = t.pid_ns();
    let one = t.kernel().task(&ns, pid1).ok_or(Errno::ESRCH)?;
    let two = t.kernel().task(&ns, pid2).ok_or(Errno::ESRCH)?;
    check(t.task(), t.creds(), &one, Ids::Real)?;
    check(t.task(), t.creds(), &two, Ids::Real)?;
    match kind {
        KCMP_FILE => {
            let fd = |n: u64| i32::try_from(n).map(Fd).map_err(|_| Errno::EBADF);
            let x = one.fds_of().ok_or(Errno::EBADF)?.get_any(fd(a)?)?;
            let y = two.fds_of().ok_or(Errno::EBADF)?.get_any(fd(b)?)?;
            compare(address(&x), address(&y))
        }
        KCMP_VM => compare(one.mm_of().map_or(0, |x| address(&x)), two.mm_of().map_or(0, |x| address(&x))),
        KCMP_FILES => compare(one.fds_of().map_or(0, |x| address(&x)), two.fds_of().map_or(0, |x| address(&x))),
        KCMP_FS => compare(one.fs_of().map_or(0, |x| address(&x)), two.fs_of().map_or(0, |x| address(&x))),
        KCMP_SIGHAND => {
            let (x, y) = (one.group.sighand(), two.group.sighand());
            compare(address(&x), address(&y))
        }
        // Neither is kept by itself here: all tasks have the same.
        KCMP_IO | KCMP_SYSVSEM => compare(0, 0),
        _ => Err(Errno::EOPNOTSUPP.into()),
    }
}
