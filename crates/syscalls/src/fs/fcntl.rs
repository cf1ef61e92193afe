//! fcntl(2), but for locks, which are in [`super::locks`].

use std::sync::Arc;

use moat_abi::fs::{
    F_ADD_SEALS, F_CREATED_QUERY, F_DUPFD, F_DUPFD_CLOEXEC, F_DUPFD_QUERY, F_GET_RW_HINT, F_GET_SEALS, F_GETFD,
    F_GETFL, F_GETLEASE, F_GETLK, F_GETOWN, F_GETOWN_EX, F_GETPIPE_SZ, F_GETSIG, F_OFD_GETLK, F_OFD_SETLK,
    F_OFD_SETLKW, F_OWNER_PGRP, F_OWNER_PID, F_OWNER_TID, F_SET_RW_HINT, F_SETFD, F_SETFL, F_SETLEASE, F_SETLK,
    F_SETLKW, F_SETOWN, F_SETOWN_EX, F_SETPIPE_SZ, F_SETSIG, FD_CLOEXEC, FOwnerEx, FileType, OpenFlags,
};
use moat_abi::{Errno, Result};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::UserAddr;
use moat_vfs::fd_table::OnExec;
use moat_vfs::open_file::{Owner, OwnerId};
use moat_vfs::{Fd, OpenFile, ops};

use super::open::fd_limit;
use super::{leases, locks};

syscalls! { pub static TABLE;
    72 fcntl(fd: Fd, cmd: u32, arg: u64) async sys_fcntl, partial("no F_NOTIFY");
}

async fn sys_fcntl(t: &mut CurrentTask, fd: Fd, cmd: u32, arg: u64) -> SyscallResult {
    let f = t.fds().get_any(fd)?;
    let of_path =
        // What O_PATH descriptors can do (open(2)).
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
        // The answer is about the descriptions, not the descriptors.
        F_DUPFD_QUERY => Ok(u64::from(Arc::ptr_eq(&t.fds().get_any(Fd(number))?, f))),
        F_CREATED_QUERY => Ok(0),
        F_GETFD => Ok(if t.fds().on_exec(fd)? == OnExec::Close { u64::from(FD_CLOEXEC) } else { 0 }),
        F_SETFD => {
            t.fds().set_on_exec(fd, OnExec::close_if(arg & u64::from(FD_CLOEXEC) != 0))?;
            Ok(0)
        }
        F_GETFL => Ok(u64::from(f.flags().bits())),
        F_SETFL => set_flags(t, fd, f, OpenFlags::from_bits_retain(low(arg))),
        F_GETOWN => Ok(i64::from(shown_owner(t, f)).cast_unsigned()),
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
                // Seals are a change of the file.
                f.check_writable().map_err(|_| Errno::EPERM)?;
            }
            Ok(f.file().fcntl(f, t, cmd, arg)?)
        }
        F_GETLEASE => leases::get(t, f),
        F_SETLEASE => leases::set(t, fd, f, number),
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
    // EINVAL, not EMFILE, where the smallest number wished for is out of range (fcntl(2)).
    let min = u32::try_from(min).ok().filter(|m| u64::from(*m) < limit).ok_or(Errno::EINVAL)?;
    let fd = t.fds().insert(f.clone(), min, limit, on_exec)?;
    Ok(i64::from(fd.0).cast_unsigned())
}

fn set_flags(t: &CurrentTask, fd: Fd, f: &Arc<OpenFile>, flags: OpenFlags) -> SyscallResult {
    let adds_noatime = flags.contains(OpenFlags::NOATIME) && !f.flags().contains(OpenFlags::NOATIME);
    // It would hide reading from the file's owner.
    if adds_noatime && !ops::is_owner(t.creds(), &f.metadata()?) {
        return Err(Errno::EPERM.into());
    }
    // Of a pipe it makes packets.
    let is_pipe = f.inode().file_type() == FileType::Fifo;
    if flags.contains(OpenFlags::DIRECT) && !is_pipe && f.file().direct_block(f).is_none() {
        return Err(Errno::EINVAL.into());
    }
    // The descriptor that the flag is set through is what the signal names.
    if flags.contains(OpenFlags::ASYNC) {
        f.set_async_fd(fd.0);
    }
    f.set_flags(flags);
    Ok(0)
}

/// F_GETOWN's number: a process group is negative, a thread is not shown.
fn shown_owner(t: &CurrentTask, f: &OpenFile) -> i32 {
    let ns = t.pid_ns();
    match f.owner().0.id {
        OwnerId::None => 0,
        OwnerId::Thread(pid) | OwnerId::Process(pid) => pid.number_in(&ns),
        OwnerId::Group(pid) => -pid.number_in(&ns),
    }
}

fn set_owner(t: &CurrentTask, f: &OpenFile, number: i32) -> SyscallResult {
    let kind = if number < 0 { F_OWNER_PGRP } else { F_OWNER_PID };
    // The smallest number has no positive counterpart.
    let pid = number.checked_abs().ok_or(Errno::EINVAL)?;
    store_owner(t, f, owner_id(t, &FOwnerEx { r#type: kind, pid })?)
}

fn store_owner(t: &CurrentTask, f: &OpenFile, id: OwnerId) -> SyscallResult {
    // With the ids of this moment: a later setuid(2) does not change whom it may signal (`f_setown`).
    f.set_owner(Owner { id, uid: t.creds().uid, euid: t.creds().euid });
    Ok(0)
}

fn get_owner_ex(t: &CurrentTask, f: &OpenFile, to: UserAddr) -> SyscallResult {
    let ns = t.pid_ns();
    let (kind, pid) = match f.owner().0.id {
        OwnerId::None => (F_OWNER_PID, 0),
        OwnerId::Thread(pid) => (F_OWNER_TID, pid.number_in(&ns)),
        OwnerId::Process(pid) => (F_OWNER_PID, pid.number_in(&ns)),
        OwnerId::Group(pid) => (F_OWNER_PGRP, pid.number_in(&ns)),
    };
    t.mm().write(to.cast(), &FOwnerEx { r#type: kind, pid })?;
    Ok(0)
}

fn set_owner_ex(t: &CurrentTask, f: &OpenFile, from: UserAddr) -> SyscallResult {
    let raw: FOwnerEx = t.mm().read(from.cast())?;
    store_owner(t, f, owner_id(t, &raw)?)
}

/// The owner that `raw` names; ESRCH if there is none.
fn owner_id(t: &CurrentTask, raw: &FOwnerEx) -> Result<OwnerId> {
    let (ns, number) = (t.pid_ns(), raw.pid);
    match (raw.r#type, number) {
        (F_OWNER_TID | F_OWNER_PID | F_OWNER_PGRP, 0) => Ok(OwnerId::None),
        (F_OWNER_TID, _) => Ok(OwnerId::Thread(t.kernel().task(&ns, number).ok_or(Errno::ESRCH)?.pid())),
        (F_OWNER_PID, _) => Ok(OwnerId::Process(t.kernel().process(&ns, number).ok_or(Errno::ESRCH)?.pid().clone())),
        (F_OWNER_PGRP, _) => Ok(OwnerId::Group(ns.lookup(number).ok_or(Errno::ESRCH)?)),
        _ => Err(Errno::EINVAL),
    }
}
