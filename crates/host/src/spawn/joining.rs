//! Joining namespaces that exist: setns(2).
//!
//! A process that has joined a user namespace can't come back, and what it could do to the other namespaces of its
//! creator it can do no more. So a process in between joins and then makes the child with CLONE_PARENT, which makes it
//! a child of the creator, like one that joins nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::{IdMap, IdMaps, Namespaces, PreparedExec, check, exec_child, last_errno};

/// Existing namespaces to join.
#[derive(Clone, Copy, Debug, Default)]
pub struct Joins<'a> {
    /// A user namespace.
    pub user: Option<BorrowedFd<'a>>,
    /// A network namespace.
    pub network: Option<BorrowedFd<'a>>,
}

impl Joins<'_> {
    /// Whether nothing is to be joined.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.user.is_none() && self.network.is_none()
    }
}

/// The uid and gid maps of an existing user namespace.
///
/// # Errors
/// Of setns(2): EPERM without CAP_SYS_ADMIN in it, EINVAL for the namespace that this process is in.
pub fn user_namespace_maps(namespace: BorrowedFd<'_>) -> io::Result<(Vec<IdMap>, Vec<IdMap>)> {
    let joins = Joins { user: Some(namespace), network: None };
    of_child(
        || join(joins),
        |pid| {
            let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
            Ok((IdMap::parse_all(&read("uid_map")?), IdMap::parse_all(&read("gid_map")?)))
        },
    )
}

/// A new user namespace with these maps, in which nobody is.
///
/// # Errors
/// Of unshare(2), and of writing the maps.
pub fn new_user_namespace(maps: &IdMaps) -> io::Result<OwnedFd> {
    // SAFETY: takes a number only.
    let unshare = || check(unsafe { libc::unshare(libc::CLONE_NEWUSER) });
    of_child(unshare, |pid| {
        maps.write(pid)?;
        Ok(std::fs::File::open(format!("/proc/{pid}/ns/user"))?.into())
    })
}

/// What `look` finds, by its number, of a child that has gone by `enter` and waits: as long as that takes.
///
/// # Errors
/// Of fork(2), and those of both.
fn of_child<T>(enter: impl FnOnce() -> Result<(), i32>, look: impl FnOnce(i32) -> io::Result<T>) -> io::Result<T> {
    let (report, report_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let (hold, hold_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let (hold_fd, hold_write_fd, report_fd) = (hold.as_raw_fd(), hold_write.as_raw_fd(), report_write.as_raw_fd());
    let (pid, pidfd) = fork(|| {
        tell(report_fd, enter().err().map_or(0, i32::wrapping_neg));
        let mut byte = 0u8;
        // SAFETY: closes this process's copy, and reads one byte into a local; the read ends when the parent's is closed.
        unsafe {
            libc::close(hold_write_fd);
            libc::read(hold_fd, ptr::from_mut(&mut byte).cast(), 1);
        }
    })?;
    drop(report_write);
    let found = read_report(&report).and_then(|_| look(pid));
    // Only now may the child end: while it waits, its number is its own.
    drop(hold_write);
    reap(&pidfd);
    found
}

/// Makes the child in the joined namespaces, and in new ones.
pub(super) fn clone_child(
    joins: Joins<'_>,
    namespaces: Namespaces,
    prepared: &PreparedExec,
) -> io::Result<(i32, OwnedFd)> {
    let (report, report_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let report_fd = report_write.as_raw_fd();
    let (_, between) = fork(|| {
        let result = join(joins).and_then(|()| clone_sibling(namespaces, prepared));
        tell(report_fd, result.unwrap_or_else(|errno| -errno));
    })?;
    drop(report_write);
    let pid = read_report(&report);
    reap(&between);
    let pid = pid?;
    // It can't be reaped by anybody else, so the number is still its own.
    let pidfd = pidfd_open(Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?, PidfdFlags::empty())?;
    Ok((pid, pidfd))
}

/// Joins: async-signal-safe. A network namespace belongs either to the creator's user namespace or to the joined one.
fn join(joins: Joins<'_>) -> Result<(), i32> {
    let early = joins.network.map_or(Ok(()), |fd| setns(fd, libc::CLONE_NEWNET));
    let Some(user) = joins.user else { return early };
    setns(user, libc::CLONE_NEWUSER)?;
    match (early, joins.network) {
        (Err(libc::EPERM), Some(fd)) => setns(fd, libc::CLONE_NEWNET),
        (result, _) => result,
    }
}

fn setns(fd: BorrowedFd<'_>, kind: libc::c_int) -> Result<(), i32> {
    // SAFETY: takes two numbers.
    check(unsafe { libc::setns(fd.as_raw_fd(), kind) })
}

fn clone_sibling(namespaces: Namespaces, prepared: &PreparedExec) -> Result<i32, i32> {
    // SAFETY: clone_args is plain integers, for which zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    // The exit signal of a sibling is this process's own, SIGCHLD.
    args.flags = namespaces.bits() | libc::CLONE_PARENT as u64;
    prepared.add_cgroup(&mut args);
    // SAFETY: a fork without shared memory or a new stack; `args` is a valid clone_args of the size given.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, ptr::from_mut(&mut args), size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(last_errno()),
        0 => exec_child(prepared),
        pid => i32::try_from(pid).map_err(|_| libc::EOVERFLOW),
    }
}

/// A child that runs `work`, which must be async-signal-safe, and ends.
pub(super) fn fork(work: impl FnOnce()) -> io::Result<(i32, OwnedFd)> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain integers, for which zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = libc::CLONE_PIDFD as u64;
    args.pidfd = ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: a fork without shared memory or a new stack; `args` is a valid clone_args of the size given, and `pidfd`
    // outlives the call.
    match unsafe { libc::syscall(libc::SYS_clone3, ptr::from_mut(&mut args), size_of::<libc::clone_args>()) } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            work();
            // SAFETY: does not return.
            unsafe { libc::_exit(0) }
        }
        pid => {
            let pid = i32::try_from(pid).map_err(|_| io::ErrorKind::InvalidData)?;
            // SAFETY: clone3 succeeded, so `pidfd` is a new descriptor that nobody else owns.
            Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
        }
    }
}

fn tell(report: RawFd, number: i32) {
    let bytes = number.to_ne_bytes();
    // SAFETY: writes four bytes of a local array.
    unsafe { libc::write(report, bytes.as_ptr().cast(), bytes.len()) };
}

/// What [`tell`] told; a negative number is an errno.
fn read_report(report: &OwnedFd) -> io::Result<i32> {
    let mut bytes = [0; 4];
    match rustix::io::retry_on_intr(|| rustix::io::read(report, &mut bytes))? {
        4 => match i32::from_ne_bytes(bytes) {
            errno @ ..0 => Err(io::Error::from_raw_os_error(-errno)),
            number => Ok(number),
        },
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn reap(pidfd: &OwnedFd) {
    let _ = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED));
}
