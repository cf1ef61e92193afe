//! Asynchronous I/O of the kernel: io_setup(2), io_submit(2), io_getevents(2), io_pgetevents(2), io_cancel(2), io_destroy(2).
//!
//! Reads and writes are done while they are submitted, as on Linux those are that do not go around the page cache; what is
//! written out and what is polled goes on afterwards. Only the latter can be cancelled, as on Linux.
//!
//! - [`context`]: a context and its ring; [`contexts`]: those of an address space.
//! - [`mod@poll`]: requests that wait for a file.

mod context;
mod contexts;
mod poll;

pub use contexts::{restore, restore_polls};

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use moat_abi::aio::{
    IOCB_CMD_FDSYNC, IOCB_CMD_FSYNC, IOCB_CMD_POLL, IOCB_CMD_PREAD, IOCB_CMD_PREADV, IOCB_CMD_PWRITE, IOCB_CMD_PWRITEV,
    IOCB_FLAG_RESFD, IoEvent, Iocb,
};
use moat_abi::fs::FileType;
use moat_abi::mman::{MapFlags, ProtFlags};
use moat_abi::signal::SigSet;
use moat_abi::time::Timespec;
use moat_abi::{Errno, PollEvents, Result};
use moat_fs_anon::EventFd;
use moat_kernel::{CurrentTask, Restart, SyscallError, SyscallResult, Wait, WaitError};
use moat_mm::iovec::IoVec;
use moat_mm::{MmapRequest, PAGE_SIZE, UserAddr, UserPtr, page_up};
use moat_sync::block_in_place;
use moat_vfs::{Fd, OpenFile, Seekable, SyncKind};

use super::io::At;
use super::poll::{deadline, set_mask, unset_mask};
use super::rw::{read_into, write_from};
use context::{Charge, Completion, Context, HEADER};
use contexts::Contexts;
use poll::PollRequest;

syscalls! { pub static TABLE;
    206 io_setup(requests: u32, context: UserPtr<u64>) async sys_io_setup, full;
    207 io_destroy(context: u64) async sys_io_destroy, full;
    208 io_getevents(context: u64, least: i64, most: i64, events: UserAddr, timeout: UserPtr<Timespec>) async sys_io_getevents, full;
    209 io_submit(context: u64, count: i64, requests: UserPtr<u64>) async sys_io_submit, partial("reads and writes are over when it returns, with O_DIRECT too");
    210 io_cancel(context: u64, request: UserAddr, result: UserPtr<IoEvent>) sys_io_cancel, full;
    333 io_pgetevents(context: u64, least: i64, most: i64, events: UserAddr, timeout: UserPtr<Timespec>, mask: UserAddr) async sys_io_pgetevents, full;
}

/// Bytes of the largest ring's events (`ioctx_alloc`).
const MOST_BYTES: u64 = 0x1000_0000;
/// Bytes of a `struct io_event`.
const EVENT: u64 = 32;
const _: () = assert!(size_of::<IoEvent>() == 32);

async fn sys_io_setup(t: &mut CurrentTask, requests: u32, out: UserPtr<u64>) -> SyscallResult {
    // A name that is not cleared is taken for a context that is still in use.
    let known = t.mm().read(out)?;
    if known != 0 || requests == 0 {
        return Err(Errno::EINVAL.into());
    }
    // At least some for each CPU, and twice as many as were asked for (`ioctx_alloc`).
    let cpus = u64::try_from(t.kernel().cpu_count).unwrap_or(1);
    let events = u64::from(requests).max(cpus.saturating_mul(4)).saturating_mul(2);
    if events > MOST_BYTES / EVENT {
        return Err(Errno::EINVAL.into());
    }
    // What was asked for counts, not what the ring has room for.
    let charge = Charge::take(&t.kernel().vfs.aio, u64::from(requests))?;
    let bytes = HEADER.saturating_add(events.saturating_add(2).saturating_mul(EVENT));
    let len = page_up(bytes).ok_or(Errno::ENOMEM)?;
    let capacity = u32::try_from(len.saturating_sub(HEADER) / EVENT).map_err(|_| Errno::EINVAL)?;
    crate::memory::refresh_limits(t);
    let (mm, thread) = t.mm_and_thread();
    // Shared, so that a child's copy is the same ring, as on Linux; it can't use it as a context all the same.
    let shared = MapFlags::SHARED | MapFlags::ANONYMOUS;
    let request = MmapRequest { flags: shared, ..MmapRequest::anonymous(len, ProtFlags::READ | ProtFlags::WRITE) };
    let ring = mm.mmap_at_once(thread, request).await?;
    let context = Context::new(t.mm(), ring, len, capacity, charge);
    let contexts = Contexts::of(t.mm());
    let header = context.header(contexts.add(context.clone()));
    let told = t.mm().write_array(UserAddr::new(ring), &header).and_then(|()| t.mm().write(out, &ring));
    // Nobody would ever know its name.
    if let Err(errno) = told {
        destroy(t, &context).await;
        return Err(errno.into());
    }
    Ok(0)
}

async fn destroy(t: &mut CurrentTask, context: &Arc<Context>) {
    Contexts::of(t.mm()).remove(context);
    // What was begun ends by itself, and nobody takes it.
    context.queue.until(PollEvents::IN, || if context.is_idle() { Poll::Ready(()) } else { Poll::Pending }).await;
    let (mm, thread) = t.mm_and_thread();
    // The program may have unmapped it.
    let _ = mm.munmap(thread, context.ring, context.len).await;
}

async fn sys_io_destroy(t: &mut CurrentTask, context: u64) -> SyscallResult {
    let context = Contexts::find(t.mm(), context)?;
    // Of two that destroy it the second is too late.
    if !context.kill() {
        return Err(Errno::EINVAL.into());
    }
    destroy(t, &context).await;
    Ok(0)
}

async fn sys_io_submit(t: &mut CurrentTask, context: u64, count: i64, requests: UserPtr<u64>) -> SyscallResult {
    let count = u64::try_from(count).map_err(|_| Errno::EINVAL)?;
    let context = Contexts::find(t.mm(), context)?;
    let mut done: u64 = 0;
    for i in 0..count.min(u64::from(context.capacity)) {
        match submit(t, &context, requests, i).await {
            Ok(()) => done = done.saturating_add(1),
            // Said at the next call, if it is still so.
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(done)
}

async fn submit(t: &mut CurrentTask, context: &Arc<Context>, requests: UserPtr<u64>, index: u64) -> Result<()> {
    let object = t.mm().read(requests.index(index)?)?;
    let request: Iocb = t.mm().read(UserAddr::new(object).cast())?;
    if request.aio_reserved2 != 0 || i64::try_from(request.aio_nbytes).is_err() {
        return Err(Errno::EINVAL);
    }
    // From here on its event has a place.
    context.reserve()?;
    let begun = begin(t, context, &request, object).await;
    // What was not taken has no event.
    if begun.is_err() {
        context.give_back();
    }
    begun
}

/// Checks a request in Linux's order and begins it; an error is the submission's, not the request's.
async fn begin(t: &mut CurrentTask, context: &Arc<Context>, request: &Iocb, object: u64) -> Result<()> {
    let file = t.fds().get(Fd(request.aio_fildes.cast_signed()))?;
    let counter = if request.aio_flags & IOCB_FLAG_RESFD == 0 {
        None
    } else {
        // Held with the request: closing the descriptor does not take the word away.
        let counter = t.fds().get(Fd(request.aio_resfd.cast_signed()))?;
        counter.downcast::<EventFd>().ok_or(Errno::EINVAL)?;
        Some(counter)
    };
    // `aio_key`, by which io_cancel(2) knows a request that was submitted.
    t.mm().write(UserAddr::new(object).add(8)?.cast(), &0_u32)?;
    let completion = Completion { data: request.aio_data, object, counter };
    // NOOP was never made (`__io_submit_one`).
    match request.aio_lio_opcode {
        IOCB_CMD_PREAD | IOCB_CMD_PREADV | IOCB_CMD_PWRITE | IOCB_CMD_PWRITEV => {
            let result = transfer(t, &file, request).await?;
            context.complete(&completion, result).await;
        }
        IOCB_CMD_FSYNC => begin_sync(context, file, request, completion, SyncKind::All)?,
        IOCB_CMD_FDSYNC => begin_sync(context, file, request, completion, SyncKind::Data)?,
        IOCB_CMD_POLL => begin_poll(context, file, request, completion)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

/// A read or write: its result is the event's, but for what is wrong with the request itself.
async fn transfer(t: &mut CurrentTask, file: &Arc<OpenFile>, request: &Iocb) -> Result<i64> {
    let reads = matches!(request.aio_lio_opcode, IOCB_CMD_PREAD | IOCB_CMD_PREADV);
    // These come before the buffers are looked at (`aio_read`, `aio_write`).
    if reads {
        file.check_readable()?
    } else {
        file.check_writable()?
    }
    // A directory has no way of reading that could go on by itself.
    if file.inode().file_type() == FileType::Directory {
        return Err(Errno::EINVAL);
    }
    let buffer = UserAddr::new(request.aio_buf);
    let count = usize::try_from(request.aio_nbytes).map_err(|_| Errno::EINVAL)?;
    let vectored = matches!(request.aio_lio_opcode, IOCB_CMD_PREADV | IOCB_CMD_PWRITEV);
    let iov = if vectored { t.mm().read_iovecs(buffer, count)? } else { IoVec::single(buffer, count)? };
    // A stream has no positions, and none is looked at.
    let at = if file.file().seekable() == Seekable::Yes {
        At::Offset(u64::try_from(request.aio_offset).map_err(|_| Errno::EINVAL)?)
    } else {
        At::Position
    };
    let flags = request.aio_rw_flags;
    let done =
        if reads { read_into(t, file, &iov, at, flags).await } else { write_from(t, file, &iov, at, flags).await };
    match done {
        Ok(bytes) => Ok(i64::try_from(bytes).unwrap_or(i64::MAX)),
        Err(SyscallError::Restart(_)) => Ok(failed(Errno::EINTR)),
        // What was asked for, not what came of it.
        Err(SyscallError::Errno(Errno::EOPNOTSUPP)) => Err(Errno::EOPNOTSUPP),
        Err(SyscallError::Errno(errno)) => Ok(failed(errno)),
    }
}

/// An errno as an event has it.
fn failed(errno: Errno) -> i64 {
    i64::from(errno.raw()).saturating_neg()
}

fn begin_sync(context: &Arc<Context>, f: Arc<OpenFile>, r: &Iocb, what: Completion, kind: SyncKind) -> Result<()> {
    let unused = (r.aio_buf, r.aio_offset, r.aio_nbytes, r.aio_rw_flags);
    // Only what is stored can be written out (`aio_fsync`).
    let storage = matches!(f.inode().file_type(), FileType::Regular | FileType::Directory | FileType::BlockDevice);
    if unused != (0, 0, 0, 0) || !storage {
        return Err(Errno::EINVAL);
    }
    let context = context.clone();
    // The disk takes its time, and nobody waits for it but who asks for the event.
    moat_sync::spawn(async move {
        let done = block_in_place(|| f.file().sync(&f, kind));
        context.complete(&what, done.map_or_else(failed, |()| 0)).await;
    });
    Ok(())
}

fn begin_poll(context: &Arc<Context>, f: Arc<OpenFile>, r: &Iocb, what: Completion) -> Result<()> {
    let events = u16::try_from(r.aio_buf).map_err(|_| Errno::EINVAL)?;
    let unused = (r.aio_offset, r.aio_nbytes, r.aio_rw_flags);
    if unused != (0, 0, 0) {
        return Err(Errno::EINVAL);
    }
    let poll = PollRequest::new(f, PollEvents::from_pollfd(events.cast_signed()), what);
    poll.begin(context.clone());
    Ok(())
}

fn sys_io_cancel(t: &mut CurrentTask, context: u64, request: UserAddr, _result: UserPtr<IoEvent>) -> SyscallResult {
    // Written by io_submit(2), so that only what was submitted can be cancelled.
    let key: u32 = t.mm().read(request.add(8)?.cast())?;
    if key != 0 {
        return Err(Errno::EINVAL.into());
    }
    let context = Contexts::find(t.mm(), context)?;
    let poll = context.find_poll(request.get()).ok_or(Errno::EINVAL)?;
    // Its event comes as always.
    if poll.cancel() { Err(Errno::EINPROGRESS.into()) } else { Err(Errno::EINVAL.into()) }
}

/// What io_getevents(2) and io_pgetevents(2) ask for.
#[derive(Clone, Copy)]
struct Asked {
    context: u64,
    least: i64,
    most: i64,
    events: UserAddr,
    timeout: Option<Duration>,
    /// How a signal ends it that comes before the first event.
    wait: Wait,
}

/// Takes events.
async fn get(t: &mut CurrentTask, asked: Asked) -> SyscallResult {
    let context = Contexts::find(t.mm(), asked.context)?;
    let (Ok(least), Ok(most)) = (usize::try_from(asked.least), usize::try_from(asked.most)) else {
        return Err(Errno::EINVAL.into());
    };
    if least > most {
        return Err(Errno::EINVAL.into());
    }
    let wait = asked.wait.until(deadline(asked.timeout));
    let mut done: usize = 0;
    loop {
        let to = asked.events.add(u64::try_from(done).unwrap_or(u64::MAX).saturating_mul(EVENT));
        match to {
            Ok(to) => match context.take(to, most.saturating_sub(done)).await {
                Ok(taken) => done = done.saturating_add(taken),
                Err(errno) if done == 0 => return Err(errno.into()),
                Err(_) => break,
            },
            Err(errno) => return Err(errno.into()),
        }
        // With no time to wait there is one look.
        if done >= least || asked.timeout == Some(Duration::ZERO) {
            break;
        }
        if context.is_dead() {
            // Somebody else destroyed it meanwhile.
            return if done == 0 { Err(Errno::EINVAL.into()) } else { Ok(u64::try_from(done).unwrap_or(0)) };
        }
        let look = |_: &mut CurrentTask| if context.has_news() { Poll::Ready(()) } else { Poll::Pending };
        match t.wait_for(&(&context.queue, PollEvents::IN), &wait, look).await {
            Ok(()) => {}
            Err(WaitError::TimedOut) => break,
            Err(interrupted) if done == 0 => return Err(interrupted.into()),
            Err(_) => break,
        }
    }
    Ok(u64::try_from(done).unwrap_or(0))
}

fn span(t: &CurrentTask, timeout: UserPtr<Timespec>) -> Result<Option<Duration>> {
    let Some(timeout) = timeout.non_null() else { return Ok(None) };
    let timeout = t.mm().read(timeout)?;
    // Nothing is checked; what is negative has passed (`read_events`).
    let seconds = u64::try_from(timeout.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(timeout.tv_nsec).unwrap_or(0);
    Ok(Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanoseconds))))
}

async fn sys_io_getevents(
    t: &mut CurrentTask,
    context: u64,
    least: i64,
    most: i64,
    events: UserAddr,
    timeout: UserPtr<Timespec>,
) -> SyscallResult {
    // Read first: a bad address is told before a bad context.
    let timeout = span(t, timeout)?;
    get(t, Asked { context, least, most, events, timeout, wait: Wait::failing("io_getevents") }).await
}

async fn sys_io_pgetevents(
    t: &mut CurrentTask,
    context: u64,
    least: i64,
    most: i64,
    events: UserAddr,
    timeout: UserPtr<Timespec>,
    mask: UserAddr,
) -> SyscallResult {
    let timeout = span(t, timeout)?;
    // `struct __aio_sigset`: a mask and its size.
    if let Some(mask) = mask.cast::<u64>().non_null() {
        let set: u64 = t.mm().read(mask)?;
        let size: u64 = t.mm().read(mask.index(1)?)?;
        let mask: UserPtr<SigSet> = UserAddr::new(set).cast();
        set_mask(t, mask, usize::try_from(size).map_err(|_| Errno::EINVAL)?)?;
    }
    // Interrupted, it is not made again once a handler has run, whose mask stays until then.
    let wait = Wait::restarting("io_getevents", Restart::NoHand);
    let result = get(t, Asked { context, least, most, events, timeout, wait }).await;
    unset_mask(t, &result);
    result
}

/// A ring is whole pages.
const _: () = assert!(PAGE_SIZE.is_multiple_of(EVENT));
