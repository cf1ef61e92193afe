//! fcntl(2), but for locks, which are in [`super::locks`].

use std::sync::Arc;

use moat_abi::fs::{
    F_ADD_SEALS, F_CREATED_QUERY, F_DUPFD, F_DUPFD_CLOEXEC, F_DUPFD_QUERY, F_GET_RW_HINT, F_GET_SEALS, F_GETFD,
    F_GETFL, F_GETLEASE, F_GETLK, F_GETOWN, F_GETOWN_EX, F_GETPIPE_SZ, F_GETSIG, F_OFD_GETLK, F_OFD_SETLK,
    F_OFD_SETLKW, F_OWNER_PGRP, F_OWNER_PID, F_OWNER_TID, F_SET_RW_HINT, F_SETFD, F_SETFL, F_SETLEASE, F_SETLK,
    F_SETLKW, F_SETOWN, F_SETOWN_EX, F_SETPIPE_SZ, F_SETSIG, F_UNLCK, FD_CLOEXEC, FOwnerEx, OpenFlags,
};
use moat_abi::{Errno, Result};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::UserAddr;
use moat_vfs::fd_table::OnExec;
use moat_vfs::open_file::{Owner, OwnerId};
use moat_vfs::{Fd, OpenFile, ops};

use super::locks;
use super::open::fd_limit;

syscalls! { pub static TABLE;
    72 fcntl(fd: Fd, cmd: u32, arg: u64) async sys_fcntl, partial("no leases, no F_NOTIFY");
}

async fn sys_fcntl(t: &mut CurrentTask, fd: Fd, cmd: u32, arg: u64) -> SyscallResult {
    let f = t.fds().get_any(fd)?;
    let of_path =
        matches!(cmd, F_DUPFD | F_DUPFD_CLOEXEC | F_DUPFD_QUERY | F_CREATED_QUERY | F_GETFD | F_SETFD | F_GETFL);
    if f.is_path() && !of_path {
        return Err(Errno::EBADF.into());
    }
    match cmd {
        F_SETLK | F_SETLKW | F_OFD_SETLK | F_OFD_SETLKW => locks::set(t, &f, cmd, UserAddr::new(arg)).await,
        F_GETLK | F_OFD_GETLK => locks::get(t, &f, cmd, UserAddr::new(arg)),
        _ => simple(t, fd, &f, cmd, arg),
    }
}

/// The low half of a register.
fn low(arg: u64) -> u32 {
    (arg & 0xffff_ffff) as u32
}

fn simple(t: &mut CurrentTask, fd: Fd, f: &Arc<OpenFile>, cmd: u32, arg: u64) -> SyscallResult {
    let number = low(arg).cast_signed();
    match cmd {
        F_DUPFD => dup_from(t, f, arg, OnExec::Keep),
        F_DUPFD_CLOEXEC => dup_from(t, f, arg, OnExec::Close),
        F_DUPFD_QUERY => Ok(u64::from(Arc::ptr_eq(&t.fds().get_any(Fd(number))?, f))),
        F_CREATED_QUERY => Ok(0),
        F_GETFD => Ok(if t.fds().on_exec(fd)? == OnExec::Close { u64::from(FD_CLOEXEC) } else { 0 }),
        F_SETFD => {
            t.fds().set_on_exec(fd, OnExec::close_if(arg & u64::from(FD_CLOEXEC) != 0))?;
            Ok(0)
        }
        F_GETFL => Ok(u64::from(f.flags().bits())),
        F_SETFL => set_flags(t, fd, f, OpenFlags::from_bits_retain(low(arg))),
        F_GETOWN => Ok(i64::from(shown_owner(f)).cast_unsigned()),
        F_SETOWN => set_owner(t, f, number),
        F_GETOWN_EX => get_owner_ex(t, f, UserAddr::new(arg)),
        F_SETOWN_EX => set_owner_ex(t, f, UserAddr::new(arg)),
        F_GETSIG => Ok(u64::from(f.owner().1)),
        F_SETSIG => {
            let signal = u32::try_from(arg).ok().filter(|s| *s <= 64).ok_or(Errno::EINVAL)?;
            f.set_signal(signal);
            Ok(0)
        }
        F_GETPIPE_SZ | F_SETPIPE_SZ | F_GET_SEALS | F_ADD_SEALS => {
            if cmd == F_ADD_SEALS {
                f.check_writable().map_err(|_| Errno::EPERM)?;
            }
            Ok(f.file().fcntl(f, t, cmd, arg)?)
        }
        F_GETLEASE => Ok(u64::from(F_UNLCK.unsigned_abs())),
        F_SETLEASE if arg == u64::from(F_UNLCK.unsigned_abs()) => Err(Errno::EAGAIN.into()),
        F_GET_RW_HINT => {
            t.mm().write_bytes(UserAddr::new(arg), &0u64.to_ne_bytes())?;
            Ok(0)
        }
        // A hint for the storage, of which there is none to take it.
        F_SET_RW_HINT => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

fn dup_from(t: &CurrentTask, f: &Arc<OpenFile>, min: u64, on_exec: OnExec) -> SyscallResult {
    let limit = fd_limit(t);
    let min = u32::try_from(min).ok().filter(|m| u64::from(*m) < limit).ok_or(Errno::EINVAL)?;
    let fd = t.fds().insert(f.clone(), min, limit, on_exec)?;
    Ok(i64::from(fd.0).cast_unsigned())
}

fn set_flags(t: &CurrentTask, fd: Fd, f: &Arc<OpenFile>, flags: OpenFlags) -> SyscallResult {
    let adds_noatime = flags.contains(OpenFlags::NOATIME) && !f.flags().contains(OpenFlags::NOATIME);
    if adds_noatime && !ops::is_owner(t.creds(), &f.metadata()?) {
        return Err(Errno::EPERM.into());
    }
    if flags.contains(OpenFlags::ASYNC) {
        f.set_async_fd(fd.0);
    }
    f.set_flags(flags);
    Ok(0)
}

/// F_GETOWN's number: a process group is negative, a thread is not shown.
fn shown_owner(f: &OpenFile) -> i32 {
    match f.owner().0.id {
        OwnerId::None => 0,
        OwnerId::Thread(id) | OwnerId::Process(id) => id,
        OwnerId::Group(id) => -id,
    }
}

fn set_owner(t: &CurrentTask, f: &OpenFile, number: i32) -> SyscallResult {
    let id = match number {
        0 => OwnerId::None,
        i32::MIN => return Err(Errno::EINVAL.into()),
        n if n < 0 => OwnerId::Group(n.unsigned_abs().cast_signed()),
        n => OwnerId::Process(n),
    };
    store_owner(t, f, id)
}

/// Checks that the owner exists, and stores it by its number in the root pid namespace.
fn store_owner(t: &CurrentTask, f: &OpenFile, id: OwnerId) -> SyscallResult {
    let (ns, root) = (t.pid_ns(), &t.kernel().root_pid_ns);
    let id = match id {
        OwnerId::None => OwnerId::None,
        OwnerId::Thread(n) => OwnerId::Thread(t.kernel().task(&ns, n).ok_or(Errno::ESRCH)?.tid_in(root)),
        OwnerId::Process(n) => OwnerId::Process(t.kernel().process(&ns, n).ok_or(Errno::ESRCH)?.pid().number_in(root)),
        OwnerId::Group(n) => OwnerId::Group(ns.lookup(n).ok_or(Errno::ESRCH)?.number_in(root)),
    };
    f.set_owner(Owner { id, uid: t.creds().uid, euid: t.creds().euid });
    Ok(0)
}

fn get_owner_ex(t: &CurrentTask, f: &OpenFile, to: UserAddr) -> SyscallResult {
    let (kind, pid) = match f.owner().0.id {
        OwnerId::None => (F_OWNER_PID, 0),
        OwnerId::Thread(id) => (F_OWNER_TID, id),
        OwnerId::Process(id) => (F_OWNER_PID, id),
        OwnerId::Group(id) => (F_OWNER_PGRP, id),
    };
    t.mm().write(to.cast(), &FOwnerEx { r#type: kind, pid })?;
    Ok(0)
}

fn set_owner_ex(t: &CurrentTask, f: &OpenFile, from: UserAddr) -> SyscallResult {
    let raw: FOwnerEx = t.mm().read(from.cast())?;
    let id = owner_id(&raw)?;
    store_owner(t, f, id)
}

fn owner_id(raw: &FOwnerEx) -> Result<OwnerId> {
    match (raw.r#type, raw.pid) {
        (F_OWNER_TID | F_OWNER_PID | F_OWNER_PGRP, 0) => Ok(OwnerId::None),
        (F_OWNER_TID, n) => Ok(OwnerId::Thread(n)),
        (F_OWNER_PID, n) => Ok(OwnerId::Process(n)),
        (F_OWNER_PGRP, n) => Ok(OwnerId::Group(n)),
        _ => Err(Errno::EINVAL),
    }
}
