//! Moving bytes between a guest's memory and an open file: the one loop behind read(2), write(2) and their like.
//!
//! Data passes through the task's scratch buffer in chunks. A regular file is read until the buffer is full or the file
//! ends; a stream is read once; writes go on until all is written, or the file would block and must not.

use std::sync::Arc;
use std::time::Instant;

use moat_abi::fs::{FileType, OpenFlags};
use moat_abi::signal::Signal;
use moat_abi::{Errno, PollEvents, Result};
use moat_kernel::process::limits::{INFINITY, Resource};
use moat_kernel::task::wait::WaitError;
use moat_kernel::{CurrentTask, Restart, SyscallError, SyscallResult};
use moat_mm::iovec::IoVec;
use moat_sync::Listener;
use moat_vfs::file::{Admission, ReadOn, SyncKind, Use};
use moat_vfs::{OpenFile, Seekable};

use crate::net::{self, Sock};

/// Bytes moved at a time through the scratch buffer.
const CHUNK: usize = 128 * 1024;
/// The largest message that is passed to a socket or device in one piece: more than any socket takes
/// (`/proc/sys/net/core/wmem_max` is 212992).
const MESSAGE: usize = 256 * 1024;
/// Scratch memory that a task keeps between calls.
const KEEP: usize = MESSAGE;

/// Where in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// At the position, which moves.
    Position,
    /// Here; the position stays.
    Offset(u64),
}

/// Whether the call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocking {
    /// As the description's O_NONBLOCK says.
    ByFlags,
    /// Never (RWF_NOWAIT).
    Never,
}

/// Where a write goes besides [`At`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Append {
    /// As O_APPEND says.
    ByFlags,
    /// To the end (RWF_APPEND).
    Yes,
}

/// How a wait with a limit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Changed,
    Passed,
}

/// Asks the file whether the task may go on (job control of terminals).
///
/// # Errors
/// Those of [`moat_vfs::File::admit`]; a restart after a signal.
pub(crate) fn admit(t: &CurrentTask, f: &OpenFile, what: Use) -> Result<(), SyscallError> {
    match f.file().admit(f, t, what)? {
        Admission::Granted => Ok(()),
        Admission::Signalled => Err(Restart::Sys.into()),
    }
}

/// Waits for a file in the way that no change is missed: look, listen, look again, wait.
pub(crate) struct Readiness<'a> {
    file: &'a OpenFile,
    events: PollEvents,
    listener: Option<Listener>,
    deadline: Option<Instant>,
}

impl<'a> Readiness<'a> {
    pub(crate) fn new(file: &'a OpenFile, events: PollEvents) -> Readiness<'a> {
        let deadline = file.file().timeout(events).map(|d| Instant::now() + d);
        Readiness { file, events, listener: None, deadline }
    }

    /// As [`Readiness::wait`], but no longer than until `limit`.
    ///
    /// # Errors
    /// EAGAIN if nothing will ever change; an interruption.
    pub(crate) async fn wait_until(
        &mut self,
        t: &mut CurrentTask,
        limit: Instant,
        wchan: &'static str,
    ) -> Result<Waited, SyscallError> {
        let Some(listener) = &mut self.listener else {
            return self.wait(t, wchan).await.map(|()| Waited::Changed);
        };
        match t.wait(listener, Some(limit), wchan).await {
            Ok(()) => Ok(Waited::Changed),
            Err(WaitError::TimedOut) => Ok(Waited::Passed),
            Err(e @ WaitError::Interrupted) => Err(e.into()),
        }
    }

    /// To be called after an attempt gave EAGAIN; the attempt is to be made again when this returns.
    ///
    /// # Errors
    /// EAGAIN if nothing will ever change, or the file's own timeout has passed; an interruption.
    pub(crate) async fn wait(&mut self, t: &mut CurrentTask, wchan: &'static str) -> Result<(), SyscallError> {
        let Some(listener) = &mut self.listener else {
            let mut l = Listener::new();
            let r = self.file.register(self.events, l.notifier()).ok_or(Errno::EAGAIN)?;
            l.keep(r);
            self.listener = Some(l);
            return Ok(());
        };
        match t.wait(listener, self.deadline, wchan).await {
            // With a timeout of its own (SO_RCVTIMEO) a call is not restarted, or it would wait anew.
            Err(WaitError::Interrupted) if self.deadline.is_some() => Err(Errno::EINTR.into()),
            other => Ok(other?),
        }
    }
}

/// Bytes that O_APPEND writes in one piece, so that nothing of others comes between: what the sentry spends on that.
const APPEND_BYTES: usize = 64 << 20;

/// The bytes of one step through the scratch buffer.
fn step(f: &OpenFile, left: usize) -> usize {
    let whole_messages = matches!(f.file().seekable(), Seekable::No | Seekable::Noop);
    left.min(if whole_messages { MESSAGE } else { CHUNK })
}

/// Gives `body` a buffer of `len` bytes that belongs to the task.
pub(crate) fn with_scratch<R>(
    t: &mut CurrentTask,
    len: usize,
    body: impl FnOnce(&mut CurrentTask, &mut [u8]) -> R,
) -> R {
    let mut scratch = std::mem::take(&mut t.scratch);
    if scratch.len() < len {
        scratch.resize(len, 0);
    }
    let result = body(t, scratch.get_mut(..len).unwrap_or_default());
    if scratch.len() > KEEP {
        scratch.truncate(KEEP);
        scratch.shrink_to_fit();
    }
    t.scratch = scratch;
    result
}

/// Bytes of `iov` from `skip` on, `len` of them, that the guest can have written to.
pub(crate) fn writable(t: &CurrentTask, iov: &IoVec, skip: usize, len: usize) -> usize {
    let mut good = 0;
    for (addr, n) in pieces(iov, skip, len) {
        let ok = t.mm().writable_prefix(addr, n);
        good += ok;
        if ok < n {
            break;
        }
    }
    good
}

/// The parts of the buffers that bytes `skip..skip + len` fall into.
fn pieces(iov: &IoVec, skip: usize, len: usize) -> impl Iterator<Item = (moat_mm::UserAddr, usize)> + '_ {
    let (mut skip, mut left) = (skip, len);
    iov.slices.iter().filter_map(move |s| {
        if skip >= s.len {
            skip -= s.len;
            return None;
        }
        let n = (s.len - skip).min(left);
        let addr = s.addr.add(skip as u64).ok()?;
        skip = 0;
        left -= n;
        (n > 0).then_some((addr, n))
    })
}

/// Copies `data` to bytes `skip..` of the buffers; gives the bytes that could be.
pub(crate) fn scatter(t: &CurrentTask, iov: &IoVec, skip: usize, data: &[u8]) -> usize {
    let mut done = 0;
    for (addr, n) in pieces(iov, skip, data.len()) {
        let Some(part) = data.get(done..done + n) else { break };
        let m = t.mm().write_partial(addr, part).unwrap_or(0);
        done += m;
        if m < n {
            break;
        }
    }
    done
}

/// Fills `buf` from bytes `skip..` of the buffers; gives the bytes that could be.
pub(crate) fn gather(t: &CurrentTask, iov: &IoVec, skip: usize, buf: &mut [u8]) -> usize {
    let mut done = 0;
    for (addr, n) in pieces(iov, skip, buf.len()) {
        let Some(part) = buf.get_mut(done..done + n) else { break };
        let m = t.mm().read_partial(addr, part).unwrap_or(0);
        done += m;
        if m < n {
            break;
        }
    }
    done
}

/// What one read step gave.
enum Got {
    Bytes(usize),
    /// Fewer bytes could be copied out than were read.
    Fault(usize),
}

fn read_step(t: &mut CurrentTask, f: &OpenFile, iov: &IoVec, at: At, done: usize) -> Result<Got> {
    let left = iov.total - done;
    let want = step(f, left);
    // Before anything is taken from a stream: it could not be put back.
    let room = writable(t, iov, done, want);
    if room == 0 && want > 0 {
        return Err(Errno::EFAULT);
    }
    with_scratch(t, room, |t, buf| {
        let n = match at {
            At::Position => f.read(buf)?,
            At::Offset(pos) => f.read_at(buf, pos.saturating_add(done as u64))?,
        };
        let copied = scatter(t, iov, done, buf.get(..n).unwrap_or_default());
        Ok(if copied < n || (room < want && n == room) { Got::Fault(copied) } else { Got::Bytes(n) })
    })
}

/// Whether reading goes on after a step that filled its chunk.
fn reads_on(f: &OpenFile) -> bool {
    !matches!(f.file().seekable(), Seekable::No | Seekable::Noop) || f.inode().file_type() == FileType::Fifo
}

/// Reads into the buffers.
///
/// # Errors
/// EBADF, EAGAIN, EFAULT, ESPIPE and those of the file; an interruption. None once a byte has been read.
pub(crate) async fn read(
    t: &mut CurrentTask,
    f: &Arc<OpenFile>,
    iov: &IoVec,
    at: At,
    blocking: Blocking,
) -> SyscallResult {
    f.check_readable()?;
    if let Some(sock) = Sock::of(f) {
        return net::read(t, &sock, iov, blocking).await;
    }
    admit(t, f, Use::Read)?;
    let mut ready = None;
    let mut done = 0;
    let mut last_byte = None;
    loop {
        match read_step(t, f, iov, at, done) {
            Ok(Got::Bytes(n)) => {
                let full = n > 0 && n == step(f, iov.total - done);
                done += n;
                let goes_on = reads_on(f) && full || n > 0 && f.file().read_on(f, done) != ReadOn::Enough;
                if done >= iov.total || !goes_on || t.is_interrupted() {
                    return Ok(done as u64);
                }
                last_byte = Some(Instant::now());
            }
            Ok(Got::Fault(0)) if done == 0 => return Err(Errno::EFAULT.into()),
            Ok(Got::Fault(n)) => return Ok((done + n) as u64),
            Err(Errno::EAGAIN) if blocking == Blocking::ByFlags && !f.is_nonblocking() => {
                let ready = ready.get_or_insert_with(|| Readiness::new(f, PollEvents::READABLE));
                let waited = match f.file().read_on(f, done) {
                    ReadOn::Enough => Ok(Waited::Passed),
                    ReadOn::Wait => ready.wait(t, "read").await.map(|()| Waited::Changed),
                    ReadOn::WaitFor(limit) => {
                        let start = *last_byte.get_or_insert_with(Instant::now);
                        ready.wait_until(t, start + limit, "read").await
                    }
                };
                match waited {
                    Ok(Waited::Changed) => {}
                    Err(e) if done == 0 => return Err(e),
                    Ok(Waited::Passed) | Err(_) => return Ok(done as u64),
                }
            }
            Err(_) if done > 0 => return Ok(done as u64),
            Err(e) => return Err(e.into()),
        }
    }
}

/// The bytes that RLIMIT_FSIZE leaves for a write; the signal is sent where it leaves none.
fn limited(t: &mut CurrentTask, f: &OpenFile, at: At, done: usize, want: usize) -> Result<usize> {
    let limit = t.group.limits.get(Resource::FileSize).soft;
    if limit == INFINITY || want == 0 || f.inode().file_type() != FileType::Regular {
        return Ok(want);
    }
    let pos = match at {
        _ if f.flags().contains(OpenFlags::APPEND) => f.metadata()?.size,
        At::Position => f.pos(),
        At::Offset(pos) => pos.saturating_add(done as u64),
    };
    if pos >= limit {
        t.send_to_self(Signal::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(want.min(usize::try_from(limit - pos).unwrap_or(usize::MAX)))
}

fn write_step(t: &mut CurrentTask, f: &OpenFile, iov: &IoVec, at: At, append: Append, done: usize) -> Result<usize> {
    let appends = append == Append::Yes || f.flags().contains(OpenFlags::APPEND);
    let left = iov.total - done;
    let piece = if appends && f.file().seekable() == Seekable::Yes { left.min(APPEND_BYTES) } else { step(f, left) };
    let want = limited(t, f, at, done, piece)?;
    with_scratch(t, want, |t, buf| {
        let n = gather(t, iov, done, buf);
        if n == 0 && want > 0 {
            return Err(Errno::EFAULT);
        }
        let data = buf.get(..n).unwrap_or_default();
        match (at, append) {
            (_, Append::Yes) if f.file().seekable() == Seekable::Yes => f.file().append(f, data).map(|(n, _)| n),
            (At::Position, _) => f.write(data),
            (At::Offset(pos), _) => f.write_at(data, pos.saturating_add(done as u64)),
        }
    })
}

/// Writes from the buffers.
///
/// # Errors
/// EBADF, EAGAIN, EFAULT, EPIPE (with the signal) and those of the file; an interruption. None once a byte has been written.
pub(crate) async fn write(
    t: &mut CurrentTask,
    f: &Arc<OpenFile>,
    iov: &IoVec,
    at: At,
    append: Append,
    blocking: Blocking,
) -> SyscallResult {
    f.check_writable()?;
    if let Some(sock) = Sock::of(f) {
        return net::write(t, &sock, iov, blocking).await;
    }
    admit(t, f, Use::Write)?;
    let mut ready = None;
    let mut done = 0;
    let result = loop {
        match write_step(t, f, iov, at, append, done) {
            Ok(n) => {
                done += n;
                if done >= iov.total || n == 0 {
                    break Ok(());
                }
                if !may_write_on(t, f) {
                    break Ok(());
                }
            }
            Err(Errno::EAGAIN) if blocking == Blocking::ByFlags && !f.is_nonblocking() => {
                let ready = ready.get_or_insert_with(|| Readiness::new(f, PollEvents::WRITABLE));
                if let Err(e) = ready.wait(t, "write").await {
                    break Err(e);
                }
            }
            Err(Errno::EPIPE) => {
                t.send_to_self(Signal::SIGPIPE);
                break Err(Errno::EPIPE.into());
            }
            Err(e) => break Err(e.into()),
        }
    };
    if done > 0 {
        sync_if_asked(f)?;
        return Ok(done as u64);
    }
    result.map(|()| 0)
}

/// Whether a write that has moved something goes on: a regular file's does until a signal, a stream's waits for room.
fn may_write_on(t: &CurrentTask, f: &OpenFile) -> bool {
    match f.file().seekable() {
        Seekable::No | Seekable::Noop => true,
        _ => !t.is_interrupted(),
    }
}

/// O_DSYNC and O_SYNC: what was written is to be on the disk.
pub(super) fn sync_if_asked(f: &OpenFile) -> Result<()> {
    if !f.flags().contains(OpenFlags::DSYNC) || f.inode().file_type() != FileType::Regular {
        return Ok(());
    }
    let kind = if f.flags().contains(OpenFlags::SYNC) { SyncKind::All } else { SyncKind::Data };
    f.file().sync(f, kind)
}
