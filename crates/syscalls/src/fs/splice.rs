//! splice(2), tee(2) and vmsplice(2): through the sentry's buffer, since pages are not shared.

use std::sync::Arc;

use moat_abi::fs::{OpenFlags, SPLICE_F_GIFT, SPLICE_F_MORE, SPLICE_F_MOVE, SPLICE_F_NONBLOCK};
use moat_abi::{Errno, PollEvents, Result};
use moat_fs_anon::pipe::End;
use moat_kernel::{CurrentTask, SyscallError, SyscallResult};
use moat_mm::{UserAddr, UserPtr};
use moat_vfs::{Fd, OpenFile};

use super::io::{self, Append, At, Blocking, file_wait};
use super::transfer::{read_offset, write_all, write_offset};

syscalls! { pub static TABLE;
    275 splice(input: Fd, in_offset: UserPtr<i64>, out: Fd, out_offset: UserPtr<i64>, len: usize, flags: u32) async sys_splice, full;
    276 tee(input: Fd, out: Fd, len: usize, flags: u32) async sys_tee, full;
    278 vmsplice(fd: Fd, vec: UserAddr, count: usize, flags: u32) async sys_vmsplice, full;
}

/// Bytes moved at a time.
const CHUNK: usize = 64 * 1024;

fn check_flags(flags: u32) -> Result<Blocking> {
    if flags & !(SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT) != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(if flags & SPLICE_F_NONBLOCK != 0 { Blocking::Never } else { Blocking::ByFlags })
}

/// Calls `attempt` until it gives something else than EAGAIN, waiting for `f` if that is allowed.
async fn wait_for_file<R>(
    t: &mut CurrentTask,
    f: &OpenFile,
    events: PollEvents,
    blocking: Blocking,
    mut attempt: impl FnMut() -> Result<R>,
) -> Result<R, SyscallError> {
    let wait = file_wait("splice", f.file().timeout(events));
    Ok(t.wait_for(&(f, events), &wait, |_| blocking.look(f, attempt())).await??)
}

/// Waits until a pipe has room; gives how much.
async fn room(t: &mut CurrentTask, f: &OpenFile, end: &End, blocking: Blocking) -> Result<usize, SyscallError> {
    wait_for_file(t, f, PollEvents::WRITABLE, blocking, || {
        if f.poll().contains(PollEvents::ERR) {
            // Nobody reads: the write itself says EPIPE.
            return Ok(CHUNK);
        }
        match end.room() {
            0 => Err(Errno::EAGAIN),
            n => Ok(n),
        }
    })
    .await
}

async fn sys_splice(
    t: &mut CurrentTask,
    input: Fd,
    in_offset: UserPtr<i64>,
    out: Fd,
    out_offset: UserPtr<i64>,
    len: usize,
    flags: u32,
) -> SyscallResult {
    let blocking = check_flags(flags)?;
    if len == 0 {
        return Ok(0);
    }
    let (source, sink) = (t.fds().get(input)?, t.fds().get(out)?);
    source.check_readable()?;
    sink.check_writable()?;
    let (from, to) = (source.downcast::<End>(), sink.downcast::<End>());
    // One end must be a pipe; a pipe to itself would move bytes in a circle.
    if from.is_none() && to.is_none() || from.zip(to).is_some_and(|(a, b)| Arc::ptr_eq(a.pipe(), b.pipe())) {
        return Err(Errno::EINVAL.into());
    }
    // A pipe has no positions.
    if (from.is_some() && !in_offset.is_null()) || (to.is_some() && !out_offset.is_null()) {
        return Err(Errno::ESPIPE.into());
    }
    let (mut in_at, mut out_at) = (read_offset(t, in_offset)?, read_offset(t, out_offset)?);
    if in_at.is_some() {
        source.check_positional()?;
    }
    if out_at.is_some() {
        sink.check_positional()?;
    }
    // The offset of the call and the end of the file would contradict each other.
    if to.is_none() && sink.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL.into());
    }
    // Room first: what has been read from a file or device could not be put back if the pipe were full.
    let most = match to {
        Some(end) => room(t, &sink, end, blocking).await?,
        None => CHUNK,
    };
    let mut buf = vec![0; len.min(CHUNK).min(most)];
    let n = wait_for_file(t, &source, PollEvents::READABLE, blocking, || match (from, in_at) {
        // Taken out of the pipe only once it has been written.
        (Some(end), _) => end.peek(&mut buf, 0),
        (None, Some(pos)) => source.read_at(&mut buf, pos),
        (None, None) => source.read(&mut buf),
    })
    .await?;
    let (written, result) = write_all(t, &sink, buf.get(..n).unwrap_or_default(), out_at.as_mut()).await;
    if from.is_some() && written > 0 {
        // The same bytes again; another reader may have been faster, as with a shared position.
        // A pipe has only readers that take: what was written is taken by reading it again.
        let _ = source.read(buf.get_mut(..written).unwrap_or_default());
    }
    // Some progress is the result; the error comes back at the next call.
    if written == 0 {
        result?;
    }
    if let Some(at) = &mut in_at {
        *at = at.saturating_add(written as u64);
    }
    write_offset(t, in_offset, in_at)?;
    write_offset(t, out_offset, out_at)?;
    Ok(written as u64)
}

async fn sys_tee(t: &mut CurrentTask, input: Fd, out: Fd, len: usize, flags: u32) -> SyscallResult {
    let blocking = check_flags(flags)?;
    if len == 0 {
        return Ok(0);
    }
    let (source, sink) = (t.fds().get(input)?, t.fds().get(out)?);
    source.check_readable()?;
    sink.check_writable()?;
    let from = source.downcast::<End>().ok_or(Errno::EINVAL)?;
    let to = sink.downcast::<End>().ok_or(Errno::EINVAL)?;
    if Arc::ptr_eq(from.pipe(), to.pipe()) {
        return Err(Errno::EINVAL.into());
    }
    let most = room(t, &sink, to, blocking).await?;
    let mut buf = vec![0; len.min(CHUNK).min(most)];
    let n = wait_for_file(t, &source, PollEvents::READABLE, blocking, || from.peek(&mut buf, 0)).await?;
    // The bytes stay in the source.
    let (written, result) = write_all(t, &sink, buf.get(..n).unwrap_or_default(), None).await;
    if written == 0 {
        result?;
    }
    Ok(written as u64)
}

async fn sys_vmsplice(t: &mut CurrentTask, fd: Fd, vec: UserAddr, count: usize, flags: u32) -> SyscallResult {
    let blocking = check_flags(flags)?;
    let f = t.fds().get(fd)?;
    // EBADF, where splice(2) has EINVAL for what is no pipe.
    if f.downcast::<End>().is_none() {
        return Err(Errno::EBADF.into());
    }
    let iov = t.mm().read_iovecs(vec, count)?;
    // The end that the descriptor is of gives the direction.
    if f.check_writable().is_ok() {
        io::write(t, &f, &iov, At::Position, Append::ByFlags, blocking).await
    } else {
        f.check_readable()?;
        io::read(t, &f, &iov, At::Position, blocking).await
    }
}
