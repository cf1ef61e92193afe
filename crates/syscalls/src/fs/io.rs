//! Moving bytes between a guest's memory and an open file: the one loop behind read(2), write(2) and their like.
//!
//! Data passes through the task's scratch buffer in chunks. A regular file is read until the buffer is full or the file
//! ends; a stream is read once; writes go on until all is written, or the file would block and must not.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use moat_abi::fs::{FileType, OpenFlags};
use moat_abi::signal::Signal;
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::Resource;
use moat_identity::limits::INFINITY;
use moat_kernel::{CurrentTask, Restart, SyscallError, SyscallResult, Wait, WaitError};
use moat_mm::iovec::IoVec;
use moat_sync::executor::{end_turn, is_turn_over};
use moat_vfs::file::{Admission, JobControlAccess, ReadOn, SyncKind};
use moat_vfs::{OpenFile, Seekable};

use super::direct::{self, Transfer};
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

impl At {
    fn offset(self) -> Option<u64> {
        match self {
            At::Position => None,
            At::Offset(pos) => Some(pos),
        }
    }

    /// Refuses a range that leaves the offsets there are (`rw_verify_area`).
    fn check_range(self, len: usize) -> Result<()> {
        match self {
            At::Offset(pos) if pos.saturating_add(len as u64) > i64::MAX.cast_unsigned() => Err(Errno::EINVAL),
            _ => Ok(()),
        }
    }
}

/// Whether the call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocking {
    /// As the description's O_NONBLOCK says.
    ByFlags,
    /// Never (RWF_NOWAIT).
    Never,
}

impl Blocking {
    /// The look of an attempt on `f`: EAGAIN waits if the call may.
    pub(crate) fn look<R>(self, f: &OpenFile, attempt: Result<R>) -> Poll<Result<R>> {
        // RWF_NOWAIT and O_NONBLOCK give EAGAIN to the caller.
        match attempt {
            Err(Errno::EAGAIN) if self == Blocking::ByFlags && !f.is_nonblocking() => Poll::Pending,
            done => Poll::Ready(done),
        }
    }
}

/// Where a write goes besides [`At`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Append {
    /// As O_APPEND says.
    ByFlags,
    /// To the end (RWF_APPEND).
    Yes,
}

/// Asks the file whether the task may go on (job control of terminals).
///
/// # Errors
/// Those of [`moat_vfs::File::admit`]; a restart after a signal.
pub(crate) fn admit(t: &CurrentTask, f: &OpenFile, what: JobControlAccess) -> Result<(), SyscallError> {
    match f.file().admit(f, t, what)? {
        Admission::Granted => Ok(()),
        Admission::Signalled => Err(Restart::Sys.into()),
    }
}

/// How a call waits for a file or socket with this timeout of its own (SO_RCVTIMEO, SO_SNDTIMEO): with one it is not
/// restarted, or it would wait for the whole time again (`sock_intr_errno`).
pub(crate) fn file_wait(wchan: &'static str, timeout: Option<Duration>) -> Wait {
    match timeout {
        None => Wait::restarting(wchan, Restart::Sys),
        Some(span) => Wait::failing(wchan).until(Some(Instant::now() + span)),
    }
}

/// Bytes that O_APPEND writes in one piece, so that nothing of others comes between: what the sentry spends on that.
const APPEND_BYTES: usize = 8 << 20;

/// The bytes of one step through the scratch buffer.
fn step(f: &OpenFile, left: usize) -> usize {
    // A message can't be cut at the buffer's end; a file's bytes can.
    let whole_messages = matches!(f.file().seekable(), Seekable::No | Seekable::Noop);
    left.min(if whole_messages { MESSAGE } else { CHUNK })
}

/// Gives `body` a buffer of `len` bytes that belongs to the task.
pub(crate) fn with_scratch<R>(
    t: &mut CurrentTask,
    len: usize,
    body: impl FnOnce(&mut CurrentTask, &mut [u8]) -> R,
) -> R {
    // Taken out, so that the task itself can be borrowed along with it.
    let mut scratch = std::mem::take(&mut t.scratch);
    if scratch.len() < len {
        scratch.resize(len, 0);
    }
    let result = body(t, scratch.get_mut(..len).unwrap_or_default());
    // One large message must not hold its memory for the task's life.
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
        // Buffers before the first byte wanted.
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

/// What bytes `skip..skip + len` of the buffers are copied to or from.
enum Parts {
    /// One buffer: nothing has to be listed.
    One(moat_mm::UserAddr, usize),
    /// None or more.
    Listed(Vec<(u64, usize)>),
}

fn parts(iov: &IoVec, skip: usize, len: usize) -> Parts {
    let mut pieces = pieces(iov, skip, len);
    match (pieces.next(), pieces.next()) {
        (Some((addr, n)), None) => Parts::One(addr, n),
        (first, second) => {
            let all = first.into_iter().chain(second).chain(pieces);
            Parts::Listed(all.map(|(addr, n)| (addr.get(), n)).collect())
        }
    }
}

/// Copies `data` to bytes `skip..` of the buffers; gives the bytes that could be.
pub(crate) fn scatter(t: &CurrentTask, iov: &IoVec, skip: usize, data: &[u8]) -> usize {
    match parts(iov, skip, data.len()) {
        Parts::One(addr, n) => data.get(..n).map_or(0, |data| t.mm().write_partial(addr, data).unwrap_or(0)),
        Parts::Listed(ranges) => t.mm().write_ranges(&ranges, data),
    }
}

/// Fills `buf` from bytes `skip..` of the buffers; gives the bytes that could be.
pub(crate) fn gather(t: &CurrentTask, iov: &IoVec, skip: usize, buf: &mut [u8]) -> usize {
    match parts(iov, skip, buf.len()) {
        Parts::One(addr, n) => buf.get_mut(..n).map_or(0, |buf| t.mm().read_partial(addr, buf).unwrap_or(0)),
        Parts::Listed(ranges) => t.mm().read_ranges(&ranges, buf),
    }
}

/// What one read step gave.
enum Got {
    Bytes(usize),
    /// Fewer bytes could be copied out than were read.
    Fault(usize),
}

/// What a read gives that has no room at all: EFAULT, unless there is nothing to be read.
fn read_nothing(f: &OpenFile, at: At, done: usize) -> Result<Got> {
    if f.file().seekable() == Seekable::No {
        return match f.poll() {
            // Something is there that there is no room for, or an error to be told.
            ready if ready.intersects(PollEvents::READ_READY | PollEvents::ERR) => Err(Errno::EFAULT),
            ready if ready.contains(PollEvents::HUP) => Ok(Got::Bytes(0)),
            _ => Err(Errno::EAGAIN),
        };
    }
    let pos = match at {
        At::Position => f.pos(),
        At::Offset(pos) => pos.saturating_add(done as u64),
    };
    // A byte is read and dropped to find the end of the file.
    match f.read_at(&mut [0], pos)? {
        0 => Ok(Got::Bytes(0)),
        _ => Err(Errno::EFAULT),
    }
}

fn read_step(t: &mut CurrentTask, f: &OpenFile, iov: &IoVec, at: At, done: usize) -> Result<Got> {
    let left = iov.total.saturating_sub(done);
    let want = step(f, left);
    // Before anything is taken from a stream: it could not be put back. Counters lose what can't be copied, as on Linux.
    let room = if f.file().seekable() == Seekable::Noop { want } else { writable(t, iov, done, want) };
    if room == 0 && want > 0 {
        return read_nothing(f, at, done);
    }
    with_scratch(t, room, |t, buf| {
        let n = match at {
            At::Position => f.read(buf)?,
            At::Offset(pos) => f.read_at(buf, pos.saturating_add(done as u64))?,
        };
        let copied = scatter(t, iov, done, buf.get(..n).unwrap_or_default());
        // Bytes that were read and could not be copied make it a
        // fault; so does a buffer that ends earlier than was wanted.
        Ok(if copied < n || (room < want && n == room) { Got::Fault(copied) } else { Got::Bytes(n) })
    })
}

/// Whether reading goes on after a step that filled its chunk.
fn reads_on(f: &OpenFile) -> bool {
    !matches!(f.file().seekable(), Seekable::No | Seekable::Noop) || f.inode().file_type() == FileType::Fifo
}

/// Reads into the buffers from a file that the caller knows to be open for reading.
///
/// # Errors
/// EAGAIN, EFAULT, ESPIPE and those of the file; an interruption. None once a byte has been read.
pub(crate) async fn read(
    t: &mut CurrentTask,
    f: &Arc<OpenFile>,
    iov: &IoVec,
    at: At,
    blocking: Blocking,
) -> SyscallResult {
    if let Some(sock) = Sock::of(f) {
        return net::read(t, sock, iov, blocking).await;
    }
    at.check_range(iov.total)?;
    admit(t, f, JobControlAccess::Read)?;
    direct::check(f, iov, at.offset(), Transfer::Read)?;
    // SO_RCVTIMEO and its like end the wait with EAGAIN.
    let wait = file_wait("read", f.file().timeout(PollEvents::READABLE));
    let mut reading = Reading { f, iov, at, blocking, done: 0, last_byte: None };
    let mut limit = None;
    // A terminal's VTIME may set a deadline while the read is under way; it then waits anew with that.
    let result = loop {
        let wait = if limit.is_some() { wait.until(limit) } else { wait };
        match t.wait_for(&(&**f, PollEvents::READABLE), &wait, |t| reading.look(t, limit)).await {
            Ok(Looked::Ended(result)) => break result.map_err(SyscallError::from),
            Ok(Looked::TurnOver) => end_turn().await,
            Ok(Looked::Until(other)) => limit = other,
            // VTIME has passed.
            Err(WaitError::TimedOut) if limit.is_some() => break Ok(()),
            Err(e) => break Err(e.into()),
        }
    };
    // A partial result is a success: the error comes back at the next call.
    if reading.done == 0 {
        result?;
    }
    Ok(reading.done as u64)
}

/// A read under way.
struct Reading<'a> {
    f: &'a Arc<OpenFile>,
    iov: &'a IoVec,
    at: At,
    blocking: Blocking,
    /// Bytes read.
    done: usize,
    /// When bytes came last, for VTIME of terminals.
    last_byte: Option<Instant>,
}

/// What a look of a read gives.
enum Looked {
    /// The read is over; an error counts if nothing was read.
    Ended(Result<()>),
    /// It waits until another point than it was told.
    Until(Option<Instant>),
    /// Others are to go on before there is more.
    TurnOver,
}

impl Reading<'_> {
    /// Reads what is there; `limit` is when the wait ends by VTIME.
    fn look(&mut self, t: &mut CurrentTask, limit: Option<Instant>) -> Poll<Looked> {
        loop {
            match read_step(t, self.f, self.iov, self.at, self.done) {
                Ok(Got::Bytes(n)) => {
                    // A short step means that there is no more for the time being.
                    let full = n > 0 && n == step(self.f, self.iov.total.saturating_sub(self.done));
                    self.done += n;
                    let goes_on =
                        reads_on(self.f) && full || n > 0 && self.f.file().read_on(self.f, self.done) != ReadOn::Enough;
                    // A signal ends a long read after some progress, whose length is the result.
                    if self.done >= self.iov.total || !goes_on || t.is_interrupted() {
                        return Poll::Ready(Looked::Ended(Ok(())));
                    }
                    // VTIME counts from the last byte (termios(3)).
                    self.last_byte = Some(Instant::now());
                    if is_turn_over() {
                        return Poll::Ready(Looked::TurnOver);
                    }
                }
                Ok(Got::Fault(n)) => {
                    self.done += n;
                    return Poll::Ready(Looked::Ended(Err(Errno::EFAULT)));
                }
                Err(e) => match self.blocking.look(self.f, Err(e)) {
                    Poll::Ready(result) => return Poll::Ready(Looked::Ended(result)),
                    Poll::Pending => return self.pending(limit),
                },
            }
        }
    }

    /// Nothing is there: whether the read waits, and how long.
    fn pending(&mut self, limit: Option<Instant>) -> Poll<Looked> {
        let wanted = match self.f.file().read_on(self.f, self.done) {
            ReadOn::Enough => return Poll::Ready(Looked::Ended(Ok(()))),
            ReadOn::Wait => None,
            ReadOn::WaitFor(span) => Some(*self.last_byte.get_or_insert_with(Instant::now) + span),
        };
        // The wait is begun again with another deadline, which only the caller can set.
        if wanted == limit { Poll::Pending } else { Poll::Ready(Looked::Until(wanted)) }
    }
}

/// The bytes that RLIMIT_FSIZE leaves for a write; the signal is sent where it leaves none.
fn limited(t: &mut CurrentTask, f: &OpenFile, at: At, done: usize, want: usize) -> Result<usize> {
    // Only what has a size is limited (getrlimit(2)).
    let limit = t.group.limits.get(Resource::FileSize).soft;
    if limit == INFINITY || want == 0 || f.inode().file_type() != FileType::Regular {
        return Ok(want);
    }
    let pos = match at {
        // Where the bytes really go.
        _ if f.flags().contains(OpenFlags::APPEND) => f.metadata()?.size,
        At::Position => f.pos(),
        At::Offset(pos) => pos.saturating_add(done as u64),
    };
    if pos >= limit {
        t.send_to_self(Signal::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(want.min(usize::try_from(limit.saturating_sub(pos)).unwrap_or(usize::MAX)))
}

/// What a look of a write gives.
enum Written {
    /// All, or as much as there is to be.
    Ended,
    /// Others are to go on before there is more.
    TurnOver,
}

fn write_step(t: &mut CurrentTask, f: &OpenFile, iov: &IoVec, at: At, append: Append, done: usize) -> Result<usize> {
    let appends = append == Append::Yes || f.flags().contains(OpenFlags::APPEND);
    let left = iov.total.saturating_sub(done);
    // In one step as far as memory allows: other appenders must not come in between.
    let piece = if appends && f.file().seekable() == Seekable::Yes { left.min(APPEND_BYTES) } else { step(f, left) };
    let want = limited(t, f, at, done, piece)?;
    with_scratch(t, want, |t, buf| {
        let n = if f.file().ignores_bytes() { buf.len() } else { gather(t, iov, done, buf) };
        // Not a byte could be read from the guest.
        if n == 0 && want > 0 {
            return Err(Errno::EFAULT);
        }
        let data = buf.get(..n).unwrap_or_default();
        match (at, append) {
            // RWF_APPEND means nothing to a stream.
            (_, Append::Yes) if f.file().seekable() == Seekable::Yes => f.append(data),
            (At::Position, _) => f.write(data),
            (At::Offset(pos), _) => f.write_at(data, pos.saturating_add(done as u64)),
        }
    })
}

/// Writes from the buffers to a file that the caller knows to be open for writing.
///
/// # Errors
/// EAGAIN, EFAULT, EPIPE (with the signal) and those of the file; an interruption. None once a byte has been written.
pub(crate) async fn write(
    t: &mut CurrentTask,
    f: &Arc<OpenFile>,
    iov: &IoVec,
    at: At,
    append: Append,
    blocking: Blocking,
) -> SyscallResult {
    if let Some(sock) = Sock::of(f) {
        return net::write(t, sock, iov, blocking).await;
    }
    at.check_range(iov.total)?;
    admit(t, f, JobControlAccess::Write)?;
    let appends = append == Append::Yes || f.flags().contains(OpenFlags::APPEND);
    direct::check(f, iov, at.offset(), if appends { Transfer::Append } else { Transfer::Write })?;
    // SO_SNDTIMEO and its like end the wait with EAGAIN.
    let wait = file_wait("write", f.file().timeout(PollEvents::WRITABLE));
    let mut done = 0;
    let result = loop {
        let look = |t: &mut CurrentTask| loop {
            match write_step(t, f, iov, at, append, done) {
                Ok(n) => {
                    done += n;
                    if done >= iov.total || n == 0 || !may_write_on(t, f) {
                        return Poll::Ready(Ok(Written::Ended));
                    }
                    if is_turn_over() {
                        return Poll::Ready(Ok(Written::TurnOver));
                    }
                }
                Err(e) => return blocking.look(f, Err(e)),
            }
        };
        match t.wait_for(&(&**f, PollEvents::WRITABLE), &wait, look).await {
            Ok(Ok(Written::TurnOver)) => end_turn().await,
            Ok(Ok(Written::Ended)) => break Ok(()),
            Ok(Err(e)) => break Err(SyscallError::from(e)),
            Err(e) => break Err(e.into()),
        }
        // Whatever the file is: a long write must not keep a task from its death.
        if t.is_interrupted() {
            break Ok(());
        }
    };
    // Also where something was written before: the signal comes with the partial result, as on Linux.
    if result == Err(Errno::EPIPE.into()) {
        t.send_to_self(Signal::SIGPIPE);
    }
    if done > 0 {
        // O_SYNC: what is reported as written has to be on disk.
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
