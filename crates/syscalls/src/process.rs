//! Making, ending and waiting for processes.
//!
//! Source: clone(2), clone3(2), exit(2), wait4(2), waitid(2), pidfd_open(2), setpgid(2), setsid(2).

use moat_abi::Errno;
use moat_abi::clone::{
    CLONE_ARGS_SIZE_VER0, CLONE_ARGS_SIZE_VER2, CSIGNAL, CloneArgs, CloneFlags, P_ALL, P_PGID, P_PID, P_PIDFD, Rusage,
    WaitFlags,
};
use moat_abi::fs::OpenFlags;
use moat_abi::poll::PIDFD_THREAD;
use moat_abi::siginfo::SigInfo;
use moat_abi::signal::Signal;
use moat_kernel::process::pidfd::{self, PidFd, Scope};
use moat_kernel::process::session;
use moat_kernel::process::wait::{Found, Who};
use moat_kernel::task::clone::{CloneRequest, clone};
use moat_kernel::task::unshare::unshare;
use moat_kernel::{CurrentTask, Resource, SyscallResult};
use moat_mm::{UserAddr, UserPtr};
use moat_vfs::Fd;
use moat_vfs::fd_table::OnExec;
use zerocopy::{FromZeros, IntoBytes};

use crate::ids::pid_result;

syscalls! { pub static TABLE;
    56 clone(flags: CloneFlags, stack: UserAddr, parent_tid: UserAddr, child_tid: UserAddr, tls: u64) async sys_clone,
        partial("CLONE_NEWTIME: EPERM; CLONE_NEWNET, too, in network mode host");
    57 fork() async sys_fork, full;
    58 vfork() async sys_vfork, full;
    435 clone3(args: UserAddr, size: usize) async sys_clone3, partial("as clone; CLONE_INTO_CGROUP: EOPNOTSUPP");
    60 exit(code: i32) sys_exit, full;
    231 exit_group(code: i32) sys_exit_group, full;
    61 wait4(pid: i32, status: UserPtr<i32>, options: WaitFlags, usage: UserPtr<Rusage>) async sys_wait4, full;
    247 waitid(kind: u32, id: i32, info: UserPtr<SigInfo>, options: WaitFlags, usage: UserPtr<Rusage>) async sys_waitid, full;
    109 setpgid(pid: i32, pgid: i32) sys_setpgid, full;
    121 getpgid(pid: i32) sys_getpgid, full;
    111 getpgrp() sys_getpgrp, full;
    112 setsid() sys_setsid, full;
    124 getsid(pid: i32) sys_getsid, full;
    218 set_tid_address(addr: UserAddr) sys_set_tid_address, full;
    434 pidfd_open(pid: i32, flags: u32) sys_pidfd_open, full;
    438 pidfd_getfd(pidfd: Fd, fd: Fd, flags: u32) sys_pidfd_getfd, full;
    272 unshare(flags: CloneFlags) sys_unshare, partial("CLONE_NEWTIME: EPERM; CLONE_NEWNET, too, in network mode host");
}

async fn sys_clone(
    t: &mut CurrentTask,
    flags: CloneFlags,
    stack: UserAddr,
    parent_tid: UserAddr,
    child_tid: UserAddr,
    tls: u64,
) -> SyscallResult {
    // The upper half is no flag of clone(2).
    let raw = flags.bits() & 0xffff_ffff;
    let flags = CloneFlags::from_bits_truncate(raw & !CSIGNAL);
    // Both would be stored at the same address.
    if flags.contains(CloneFlags::PIDFD | CloneFlags::PARENT_SETTID) {
        return Err(Errno::EINVAL.into());
    }
    let exit_signal = i32::try_from(raw & CSIGNAL).unwrap_or(0);
    let request = CloneRequest {
        flags,
        // A thread sends no signal at its end.
        exit_signal: if flags.contains(CloneFlags::THREAD) { -1 } else { exit_signal },
        stack: stack.get(),
        parent_tid: parent_tid.get(),
        child_tid: child_tid.get(),
        pidfd: parent_tid.get(),
        tls,
        set_tid: Vec::new(),
    };
    clone(t, request).await
}

async fn sys_fork(t: &mut CurrentTask) -> SyscallResult {
    clone(t, CloneRequest::fork()).await
}

async fn sys_vfork(t: &mut CurrentTask) -> SyscallResult {
    clone(t, CloneRequest::vfork()).await
}

/// Reads a struct that may be shorter or longer than moat's (`copy_struct_from_user`): E2BIG if unknown bytes are set.
pub(crate) fn read_versioned<T: FromZeros + IntoBytes + zerocopy::FromBytes>(
    t: &CurrentTask,
    addr: UserAddr,
    size: usize,
    min: usize,
) -> Result<T, Errno> {
    if size < min {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    // At most a page, as checked.
    let mut bytes = vec![0; size];
    t.mm().read_bytes(addr, &mut bytes)?;
    let mut value = T::new_zeroed();
    let own = value.as_mut_bytes();
    let n = own.len().min(size);
    own.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
    if bytes.iter().skip(n).any(|b| *b != 0) {
        return Err(Errno::E2BIG);
    }
    Ok(value)
}

async fn sys_clone3(t: &mut CurrentTask, args: UserAddr, size: usize) -> SyscallResult {
    let a: CloneArgs = read_versioned(t, args, size, CLONE_ARGS_SIZE_VER0)?;
    debug_assert_eq!(size_of::<CloneArgs>(), CLONE_ARGS_SIZE_VER2);
    let request = decode_clone3(t, &a)?;
    clone(t, request).await
}

fn decode_clone3(t: &CurrentTask, a: &CloneArgs) -> Result<CloneRequest, Errno> {
    let flags = CloneFlags::from_bits(a.flags).ok_or(Errno::EINVAL)?;
    // Unlike clone(2) this call has a field for the signal, and demands a stack with its size or none at all.
    if flags.contains(CloneFlags::DETACHED) || a.exit_signal & !CSIGNAL != 0 || (a.stack == 0) != (a.stack_size == 0) {
        return Err(Errno::EINVAL);
    }
    let exit_signal = i32::try_from(a.exit_signal).map_err(|_| Errno::EINVAL)?;
    if exit_signal != 0 && Signal::new(exit_signal).is_none() {
        return Err(Errno::EINVAL);
    }
    // The signal is that of the leader, or of the caller whose sibling the child becomes.
    if flags.intersects(CloneFlags::THREAD | CloneFlags::PARENT) && exit_signal != 0 {
        return Err(Errno::EINVAL);
    }
    if flags.contains(CloneFlags::INTO_CGROUP) {
        return Err(Errno::EOPNOTSUPP);
    }
    if (a.set_tid == 0) != (a.set_tid_size == 0) || a.set_tid_size > 32 {
        return Err(Errno::EINVAL);
    }
    let count = usize::try_from(a.set_tid_size).map_err(|_| Errno::EINVAL)?;
    let set_tid =
        if count == 0 { Vec::new() } else { t.mm().read_array::<i32>(UserAddr::new(a.set_tid), count, 32)? };
    // The innermost namespace's number comes first; zero and less are no pids.
    if set_tid.iter().any(|n| *n <= 0) {
        return Err(Errno::EINVAL);
    }
    Ok(CloneRequest {
        flags,
        exit_signal: if flags.contains(CloneFlags::THREAD) { -1 } else { exit_signal },
        // The lowest byte is given; stacks grow down. A nonsensical sum faults at the first push, as on Linux.
        stack: a.stack.wrapping_add(a.stack_size),
        parent_tid: a.parent_tid,
        child_tid: a.child_tid,
        pidfd: a.pidfd,
        tls: a.tls,
        set_tid,
    })
}

fn exit_byte(code: i32) -> u8 {
    (code & 0xff) as u8
}

fn sys_exit(t: &mut CurrentTask, code: i32) -> SyscallResult {
    t.exit_thread(exit_byte(code));
    Ok(0)
}

fn sys_exit_group(t: &mut CurrentTask, code: i32) -> SyscallResult {
    t.exit_process(exit_byte(code));
    Ok(0)
}

async fn sys_wait4(
    t: &mut CurrentTask,
    pid: i32,
    status: UserPtr<i32>,
    options: WaitFlags,
    usage: UserPtr<Rusage>,
) -> SyscallResult {
    let known = WaitFlags::NOHANG
        | WaitFlags::UNTRACED
        | WaitFlags::CONTINUED
        | WaitFlags::NOTHREAD
        | WaitFlags::CLONE
        | WaitFlags::ALL;
    if !known.contains(options) {
        return Err(Errno::EINVAL.into());
    }
    // Its negation is no number.
    if pid == i32::MIN {
        return Err(Errno::ESRCH.into());
    }
    let who = match pid {
        -1 => Some(Who::Any),
        0 => own_group(t),
        p if p < 0 => t.pid_ns().lookup(-p).map(|p| Who::Group(p.id)),
        p => t.pid_ns().lookup(p).map(|p| Who::Pid(p.id)),
    };
    // A number that names nobody can't be that of a child.
    let Some(who) = who else { return Err(Errno::ECHILD.into()) };
    // wait4(2) always waits for ends.
    let Some(found) = t.wait_for_child(who, options | WaitFlags::EXITED).await? else { return Ok(0) };
    if !status.is_null() {
        t.mm().write(status, &found.status.to_raw().cast_signed())?;
    }
    if !usage.is_null() {
        let used = t.settled(found.usage.clone()).await;
        t.mm().write(usage, &used.to_rusage())?;
    }
    pid_result(found.pid)
}

fn own_group(t: &CurrentTask) -> Option<Who> {
    t.group.process_group().map(|p| Who::Group(p.id()))
}

async fn sys_waitid(
    t: &mut CurrentTask,
    kind: u32,
    id: i32,
    info: UserPtr<SigInfo>,
    options: WaitFlags,
    usage: UserPtr<Rusage>,
) -> SyscallResult {
    let known = WaitFlags::NOHANG
        | WaitFlags::NOWAIT
        | WaitFlags::EXITED
        | WaitFlags::STOPPED
        | WaitFlags::CONTINUED
        | WaitFlags::NOTHREAD
        | WaitFlags::CLONE
        | WaitFlags::ALL;
    // At least one kind of change has to be asked for.
    if !known.contains(options) || !options.intersects(WaitFlags::EXITED | WaitFlags::STOPPED | WaitFlags::CONTINUED) {
        return Err(Errno::EINVAL.into());
    }
    let mut options = options;
    let mut nonblocking = false;
    let who = match kind {
        P_ALL => Some(Who::Any),
        P_PID if id <= 0 => return Err(Errno::EINVAL.into()),
        P_PID => t.pid_ns().lookup(id).map(|p| Who::Pid(p.id)),
        P_PGID if id < 0 => return Err(Errno::EINVAL.into()),
        P_PGID if id == 0 => own_group(t),
        P_PGID => t.pid_ns().lookup(id).map(|p| Who::Group(p.id)),
        P_PIDFD => {
            if id < 0 {
                return Err(Errno::EINVAL.into());
            }
            let file = t.fds().get(Fd(id))?;
            let fd = file.downcast::<PidFd>().ok_or(Errno::EBADF)?;
            nonblocking = file.is_nonblocking();
            Some(Who::Pid(fd.pid().id))
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    let Some(who) = who else { return Err(Errno::ECHILD.into()) };
    let asked_nohang = options.contains(WaitFlags::NOHANG);
    // A pidfd may forbid waiting by its own flag.
    options.set(WaitFlags::NOHANG, asked_nohang || nonblocking);
    let found = t.wait_for_child(who, options).await?;
    // Where WNOHANG says 0, a pidfd with O_NONBLOCK says EAGAIN.
    if found.is_none() && nonblocking && !asked_nohang {
        return Err(Errno::EAGAIN.into());
    }
    if let Some(f) = &found
        && !usage.is_null()
    {
        // Usage first, as `kernel_waitid` has it.
        let used = t.settled(f.usage.clone()).await;
        t.mm().write(usage, &used.to_rusage())?;
    }
    if !info.is_null() {
        // Zeros tell the caller of WNOHANG that there was nobody.
        t.mm().write(info, &found.map_or_else(SigInfo::default, |f| wait_info(&f)))?;
    }
    Ok(0)
}

fn wait_info(f: &Found) -> SigInfo {
    use moat_abi::siginfo::ChildInfo;
    let child = ChildInfo { pid: f.pid, uid: f.uid, status: f.value, utime_ticks: 0, stime_ticks: 0 };
    SigInfo::child(f.code, child)
}

fn sys_setpgid(t: &mut CurrentTask, pid: i32, pgid: i32) -> SyscallResult {
    if pgid < 0 {
        return Err(Errno::EINVAL.into());
    }
    session::set_pgid(t, pid, pgid)?;
    Ok(0)
}

fn sys_getpgid(t: &mut CurrentTask, pid: i32) -> SyscallResult {
    let group =
        if pid == 0 { t.group.clone() } else { t.kernel().task(&t.pid_ns(), pid).ok_or(Errno::ESRCH)?.group.clone() };
    let pgrp = group.process_group().ok_or(Errno::ESRCH)?;
    pid_result(pgrp.pid().number_in(&t.pid_ns()))
}

fn sys_getpgrp(t: &mut CurrentTask) -> SyscallResult {
    sys_getpgid(t, 0)
}

fn sys_setsid(t: &mut CurrentTask) -> SyscallResult {
    pid_result(session::set_sid(t)?)
}

fn sys_getsid(t: &mut CurrentTask, pid: i32) -> SyscallResult {
    let group =
        if pid == 0 { t.group.clone() } else { t.kernel().task(&t.pid_ns(), pid).ok_or(Errno::ESRCH)?.group.clone() };
    let session = group.session().ok_or(Errno::ESRCH)?;
    pid_result(session.pid().number_in(&t.pid_ns()))
}

fn sys_set_tid_address(t: &mut CurrentTask, addr: UserAddr) -> SyscallResult {
    t.state().clear_child_tid = addr.get();
    pid_result(t.tid())
}

fn sys_pidfd_open(t: &mut CurrentTask, pid: i32, flags: u32) -> SyscallResult {
    let nonblock = OpenFlags::NONBLOCK.bits();
    if flags & !(nonblock | PIDFD_THREAD) != 0 || pid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let id = t.pid_ns().lookup(pid).ok_or(Errno::ESRCH)?;
    let task = t.kernel().task_of(&id).ok_or(Errno::ESRCH)?;
    let scope = if flags & PIDFD_THREAD != 0 { Scope::Thread } else { Scope::Process };
    // A thread's number needs PIDFD_THREAD: else the process could be mistaken.
    if scope == Scope::Process && !task.is_leader() {
        return Err(Errno::EINVAL.into());
    }
    let blocking = if flags & nonblock != 0 { pidfd::Blocking::No } else { pidfd::Blocking::Yes };
    let file = pidfd::open(t.kernel(), &id, scope, t.creds(), blocking);
    let limit = t.group.limits.get(Resource::OpenFiles).soft;
    pid_result(t.fds().install(file, limit, OnExec::Close)?.0)
}

fn sys_pidfd_getfd(t: &mut CurrentTask, pidfd: Fd, fd: Fd, flags: u32) -> SyscallResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = t.fds().get(pidfd)?;
    let task = file.downcast::<PidFd>().ok_or(Errno::EBADF)?.task()?;
    // A descriptor of another process gives what ptrace(2) would.
    moat_kernel::ptrace::access::check(t.task(), t.creds(), &task, moat_kernel::ptrace::access::Ids::Real)?;
    let other = task.fds_of().ok_or(Errno::ESRCH)?.get_any(fd)?;
    let limit = t.group.limits.get(Resource::OpenFiles).soft;
    pid_result(t.fds().install(other, limit, OnExec::Close)?.0)
}

fn sys_unshare(t: &mut CurrentTask, flags: CloneFlags) -> SyscallResult {
    let known = CloneFlags::THREAD
        | CloneFlags::FS
        | CloneFlags::SIGHAND
        | CloneFlags::VM
        | CloneFlags::FILES
        | CloneFlags::SYSVSEM
        | CloneFlags::NAMESPACES
        | CloneFlags::NEWTIME;
    if !known.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    // These are unshared already in a process of one thread, which is all that Linux does about them.
    if flags.intersects(CloneFlags::THREAD | CloneFlags::SIGHAND | CloneFlags::VM) && t.group.thread_count() > 1 {
        return Err(Errno::EINVAL.into());
    }
    // A new user namespace is for a process of one thread; time namespaces there is one of.
    if flags.contains(CloneFlags::NEWUSER) && t.group.thread_count() > 1 {
        return Err(Errno::EINVAL.into());
    }
    if flags.contains(CloneFlags::NEWTIME) {
        return Err(Errno::EPERM.into());
    }
    unshare(t, flags)?;
    Ok(0)
}
