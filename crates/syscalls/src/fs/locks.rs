//! Record locks of fcntl(2), and flock(2).

use std::sync::Arc;
use std::task::Poll;

use moat_abi::fs::{
    F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_RDLCK, F_SETLKW, F_UNLCK, F_WRLCK, Flock, LOCK_EX, LOCK_NB, LOCK_SH,
    LOCK_UN, SEEK_CUR, SEEK_END, SEEK_SET,
};
use moat_abi::{Errno, PollEvents, Result};
use moat_kernel::{CurrentTask, Restart, SyscallResult, Wait};
use moat_mm::UserAddr;
use moat_vfs::locks::{self, FileLocks, LockKind, LockOwner, Range, RecordLock, WaitMark};
use moat_vfs::{Fd, OpenFile};

use super::pauses::Pauses;

syscalls! { pub static TABLE;
    73 flock(fd: Fd, operation: u32) async sys_flock, full;
}

/// What a `struct flock` asks for.
struct Request {
    /// `None` unlocks.
    kind: Option<LockKind>,
    range: Range,
    owner: LockOwner,
    pid: i32,
}

impl Request {
    fn lock(&self, kind: LockKind) -> RecordLock {
        RecordLock { range: self.range, kind, owner: self.owner, pid: self.pid }
    }
}

fn range(f: &OpenFile, raw: &Flock) -> Result<Range> {
    let base = match u32::try_from(raw.l_whence).map_err(|_| Errno::EINVAL)? {
        SEEK_SET => 0,
        SEEK_CUR => i64::try_from(f.pos()).map_err(|_| Errno::EOVERFLOW)?,
        SEEK_END => i64::try_from(f.metadata()?.size).map_err(|_| Errno::EOVERFLOW)?,
        _ => return Err(Errno::EINVAL),
    };
    let start = base.checked_add(raw.l_start).ok_or(Errno::EOVERFLOW)?;
    // A negative length is the bytes before the start; none is all that follow.
    let (first, last) = match raw.l_len {
        0 => (start, None),
        len if len > 0 => (start, Some(start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?)),
        // Linux allows ranges before the start; only what begins before the file is refused.
        len => (start.checked_add(len).ok_or(Errno::EINVAL)?, Some(start - 1)),
    };
    let first = u64::try_from(first).map_err(|_| Errno::EINVAL)?;
    let last = match last {
        // Up to the largest offset is up to the end, wherever it is.
        None | Some(i64::MAX) => u64::MAX,
        Some(l) => u64::try_from(l).map_err(|_| Errno::EINVAL)?,
    };
    Ok(Range { start: first, end: last })
}

fn request(t: &CurrentTask, f: &OpenFile, cmd: u32, raw: &Flock) -> Result<Request> {
    let kind = match raw.l_type {
        F_RDLCK => Some(LockKind::Read),
        F_WRLCK => Some(LockKind::Write),
        F_UNLCK => None,
        _ => return Err(Errno::EINVAL),
    };
    let by_description = matches!(cmd, F_OFD_GETLK | F_OFD_SETLK | F_OFD_SETLKW);
    // l_pid must be zero, so that it may get a meaning (fcntl(2)).
    if by_description && raw.l_pid != 0 {
        return Err(Errno::EINVAL);
    }
    // The descriptor table stands for the process: CLONE_FILES shares its locks.
    let owner = if by_description { LockOwner::Description(f.id()) } else { LockOwner::Process(t.fds().id()) };
    Ok(Request { kind, range: range(f, raw)?, owner, pid: if by_description { -1 } else { t.tgid() } })
}

/// F_GETLK, F_OFD_GETLK.
pub(super) fn get(t: &mut CurrentTask, f: &Arc<OpenFile>, cmd: u32, arg: UserAddr) -> SyscallResult {
    let mut raw: Flock = t.mm().read(arg.cast())?;
    let r = request(t, f, cmd, &raw)?;
    let file_locks = locks::locks_of(f)?;
    let found = match r.kind {
        // A description may ask for the locks that it has itself (since Linux 6.9).
        None if cmd == F_OFD_GETLK => file_locks.held(r.owner, r.range),
        None => return Err(Errno::EINVAL.into()),
        Some(kind) => in_the_way(f, &file_locks, &r.lock(kind))?,
    };
    match found {
        None => raw.l_type = F_UNLCK,
        Some(other) => {
            // The end of the file, wherever it is, is shown as length 0.
            let len = if other.range.end == u64::MAX { 0 } else { other.range.end - other.range.start + 1 };
            raw.l_type = if other.kind == LockKind::Read { F_RDLCK } else { F_WRLCK };
            raw.l_whence = 0;
            raw.l_start = i64::try_from(other.range.start).map_err(|_| Errno::EOVERFLOW)?;
            raw.l_len = i64::try_from(len).map_err(|_| Errno::EOVERFLOW)?;
            raw.l_pid = other.pid;
        }
    }
    t.mm().write(arg.cast(), &raw)?;
    Ok(0)
}

/// A lock in the sandbox or outside of it that excludes `wanted`.
fn in_the_way(f: &OpenFile, file_locks: &FileLocks, wanted: &RecordLock) -> Result<Option<RecordLock>> {
    match (file_locks.test(wanted), f.file().outside_locks()) {
        (None, Some(outside)) => outside.test(wanted),
        (found, _) => Ok(found),
    }
}

/// F_SETLK, F_SETLKW and their OFD forms.
pub(super) async fn set(t: &mut CurrentTask, f: &Arc<OpenFile>, cmd: u32, arg: UserAddr) -> SyscallResult {
    let raw: Flock = t.mm().read(arg.cast())?;
    let r = request(t, f, cmd, &raw)?;
    let file_locks = locks::locks_of(f)?;
    let Some(kind) = r.kind else {
        // Outside first: if that fails the lock is still held here too.
        if let Some(outside) = f.file().outside_locks() {
            outside.set(r.owner, r.range, None)?;
        }
        file_locks.unlock(r.owner, r.range);
        return Ok(0);
    };
    match kind {
        LockKind::Read => f.check_readable()?,
        LockKind::Write => f.check_writable()?,
    }
    // Before the lock is had, so that a close that comes at once finds it.
    t.fds().note_lock_owner(f, r.owner);
    let wanted = r.lock(kind);
    let waits = matches!(cmd, F_SETLKW | F_OFD_SETLKW);
    let mut waits_for: Option<(LockOwner, WaitMark)> = None;
    // Those of the sandbox come first, so that what is lost to others is not held here either.
    let look = |t: &mut CurrentTask| loop {
        if let Some(holder) = file_locks.test(&wanted) {
            match &waits_for {
                _ if !waits => return Poll::Ready(Attempt::Done(Err(Errno::EAGAIN))),
                Some((owner, _mark)) if holder.owner == *owner => return Poll::Pending,
                // Another one holds it: the deadlock check is due, and another look with the wait noted.
                _ => {
                    waits_for = None;
                    match t.kernel().vfs.locks.begin_wait(r.owner, holder.owner) {
                        Ok(mark) => waits_for = Some((holder.owner, mark)),
                        Err(e) => return Poll::Ready(Attempt::Done(Err(e))),
                    }
                    continue;
                }
            }
        }
        waits_for = None;
        match f.file().outside_locks().map(|outside| outside.set(r.owner, r.range, Some(kind))) {
            None | Some(Ok(())) => {}
            Some(Err(Errno::EAGAIN)) if waits => return Poll::Ready(Attempt::HeldOutside),
            Some(Err(e)) => return Poll::Ready(Attempt::Done(Err(e))),
        }
        // Another task was faster: looked at again, and who has it is found.
        if file_locks.lock(wanted).is_ok() {
            return Poll::Ready(Attempt::Done(Ok(())));
        }
    };
    wait_for_lock(t, &file_locks, "locks_lock", look).await
}

/// What came of a look at a lock that need not wait for others of the sandbox.
enum Attempt {
    Done(Result<()>),
    /// Somebody outside has it. The host tells nobody when it is free, so it is tried again.
    HeldOutside,
}

/// Looks until the lock is taken, or can't be.
async fn wait_for_lock(
    t: &mut CurrentTask,
    file_locks: &FileLocks,
    wchan: &'static str,
    mut look: impl FnMut(&mut CurrentTask) -> Poll<Attempt>,
) -> SyscallResult {
    let wait = Wait::restarting(wchan, Restart::Sys);
    let mut pauses = Pauses::new();
    loop {
        match t.wait_for(&(file_locks.queue(), PollEvents::IN), &wait, &mut look).await? {
            Attempt::Done(result) => return Ok(result.map(|()| 0)?),
            Attempt::HeldOutside => pauses.pass(t, &wait).await?,
        }
    }
}

/// A look at the flock(2) lock, which is taken outside as well.
fn try_flock(f: &OpenFile, file_locks: &FileLocks, kind: LockKind, pid: i32, waits: bool) -> Poll<Attempt> {
    match file_locks.flock(f, kind, pid) {
        Ok(()) => {}
        Err(Errno::EAGAIN) if waits => return Poll::Pending,
        Err(e) => return Poll::Ready(Attempt::Done(Err(e))),
    }
    let Some(outside) = f.file().outside_locks() else { return Poll::Ready(Attempt::Done(Ok(()))) };
    Poll::Ready(match outside.flock(f.id(), Some(kind)) {
        Ok(()) => Attempt::Done(Ok(())),
        // The two locks are one to the guest: what was not had outside is given up here.
        Err(e) => match locks::unflock(f) {
            Ok(()) if e == Errno::EAGAIN && waits => Attempt::HeldOutside,
            Ok(()) => Attempt::Done(Err(e)),
            Err(e) => Attempt::Done(Err(e)),
        },
    })
}

async fn sys_flock(t: &mut CurrentTask, fd: Fd, operation: u32) -> SyscallResult {
    let f = t.fds().get(fd)?;
    let kind = match operation & !LOCK_NB {
        LOCK_SH => LockKind::Read,
        LOCK_EX => LockKind::Write,
        LOCK_UN => {
            locks::unflock(&f)?;
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    let file_locks = locks::locks_of(&f)?;
    let waits = operation & LOCK_NB == 0;
    let pid = t.tgid();
    wait_for_lock(t, &file_locks, "flock", |_| try_flock(&f, &file_locks, kind, pid, waits)).await
}
