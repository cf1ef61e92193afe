//! sendfile(2) and copy_file_range(2): from file to file through the sentry's buffer.

use std::sync::Arc;
use std::task::Poll;

use moat_abi::fs::{FileType, MAX_RW_COUNT, OpenFlags};
use moat_abi::signal::Signal;
use moat_abi::{Errno, PollEvents, Result};
use moat_kernel::{CurrentTask, SyscallError, SyscallResult};
use moat_mm::UserPtr;
use moat_sync::executor::{end_turn, is_turn_over};
use moat_vfs::{Fd, OpenFile};

use super::direct::{self, Transfer};
use super::io::{Blocking, file_wait, sync_if_asked};

syscalls! { pub static TABLE;
    40 sendfile(out: Fd, input: Fd, offset: UserPtr<i64>, count: usize) async sys_sendfile, full;
    326 copy_file_range(input: Fd, in_offset: UserPtr<i64>, out: Fd, out_offset: UserPtr<i64>, count: usize, flags: u32) async sys_copy_file_range, full;
}

/// Bytes moved at a time.
const CHUNK: usize = 128 * 1024;

/// Reads an offset argument; `None` where the file's position counts.
pub(super) fn read_offset(t: &CurrentTask, at: UserPtr<i64>) -> Result<Option<u64>> {
    match at.non_null() {
        None => Ok(None),
        Some(p) => u64::try_from(t.mm().read(p)?).map(Some).map_err(|_| Errno::EINVAL),
    }
}

/// Writes an offset argument back.
pub(super) fn write_offset(t: &CurrentTask, at: UserPtr<i64>, offset: Option<u64>) -> Result<()> {
    match (at.non_null(), offset) {
        (Some(p), Some(o)) => t.mm().write(p, &i64::try_from(o).map_err(|_| Errno::EOVERFLOW)?),
        _ => Ok(()),
    }
}

/// Writes all of `data`, waiting for room; gives what was written before an error.
pub(super) async fn write_all(
    t: &mut CurrentTask,
    out: &OpenFile,
    data: &[u8],
    mut at: Option<&mut u64>,
) -> (usize, Result<(), SyscallError>) {
    let wait = file_wait("splice_write", out.file().timeout(PollEvents::WRITABLE));
    let mut done = 0;
    if let Err(e) = direct::check_all(out, std::iter::once(data.len()), at.as_deref().copied(), Transfer::Write) {
        return (0, Err(e.into()));
    }
    let look = |_: &mut CurrentTask| loop {
        let rest = data.get(done..).unwrap_or_default();
        if rest.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let written = match &mut at {
            None => out.write(rest),
            Some(pos) => out.write_at(rest, **pos).inspect(|n| **pos = pos.saturating_add(*n as u64)),
        };
        match written {
            // Nothing was taken and nothing is wrong: asking again would spin.
            Ok(0) => return Poll::Ready(Ok(())),
            Ok(n) => done += n,
            Err(e) => return Blocking::ByFlags.look(out, Err(e)),
        }
    };
    let result = match t.wait_for(&(out, PollEvents::WRITABLE), &wait, look).await {
        Ok(result) => result.map_err(SyscallError::from),
        Err(e) => Err(e.into()),
    };
    if result == Err(Errno::EPIPE.into()) {
        t.send_to_self(Signal::SIGPIPE);
    }
    match result {
        // What an O_SYNC file can't keep is not said to be written.
        Ok(()) => match sync_if_asked(out) {
            Ok(()) => (done, Ok(())),
            Err(e) => (0, Err(e.into())),
        },
        Err(e) => (done, Err(e)),
    }
}

/// Copies up to `count` bytes. Positions without an offset move with what was written.
async fn copy(
    t: &mut CurrentTask,
    input: &Arc<OpenFile>,
    in_at: &mut Option<u64>,
    out: &Arc<OpenFile>,
    out_at: &mut Option<u64>,
    count: usize,
) -> SyscallResult {
    let mut done = 0;
    let mut buf = vec![0; count.min(CHUNK)];
    let mut result = Ok(());
    // A signal ends a long copy only after some progress, which is then the result.
    while done < count && result.is_ok() && !(done > 0 && t.is_interrupted()) {
        let want = count.saturating_sub(done).min(buf.len());
        // Read at its own offset, so that the position moves only by what was written.
        let from = in_at.unwrap_or_else(|| input.pos());
        let fits = direct::check_all(input, std::iter::once(want), Some(from), Transfer::Read);
        let n = match fits.and_then(|()| input.read_at(buf.get_mut(..want).unwrap_or_default(), from)) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) => {
                result = Err(e.into());
                break;
            }
        };
        let (written, r) = write_all(t, out, buf.get(..n).unwrap_or_default(), out_at.as_mut()).await;
        result = r;
        let reached = from.saturating_add(written as u64);
        match in_at {
            Some(at) => *at = reached,
            // By what was written, not by what was read: the rest is read again by the next call.
            None => input.set_pos(reached),
        }
        done += written;
        if written < n {
            break;
        }
        if is_turn_over() {
            end_turn().await;
        }
    }
    if done == 0 {
        result?;
    }
    Ok(done as u64)
}

async fn sys_sendfile(t: &mut CurrentTask, out: Fd, input: Fd, offset: UserPtr<i64>, count: usize) -> SyscallResult {
    let source = t.fds().get(input)?;
    source.check_readable()?;
    let mut at = read_offset(t, offset)?;
    if at.is_some() {
        source.check_positional()?;
    }
    let sink = t.fds().get(out)?;
    sink.check_writable()?;
    let special = matches!(source.inode().file_type(), FileType::Fifo | FileType::Socket | FileType::Directory);
    if isize::try_from(count).is_err() || special || sink.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL.into());
    }
    // A source has to have positions: what was read and can't be sent is read again.
    source.check_positional().map_err(|_| Errno::EINVAL)?;
    let n = copy(t, &source, &mut at, &sink, &mut None, count.min(MAX_RW_COUNT)).await?;
    write_offset(t, offset, at)?;
    Ok(n)
}

fn check_copy(source: &OpenFile, sink: &OpenFile) -> Result<()> {
    for f in [source, sink] {
        match f.inode().file_type() {
            FileType::Directory => return Err(Errno::EISDIR),
            FileType::Regular => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    source.check_readable()?;
    sink.check_writable()?;
    // Where to append and where to copy would contradict each other.
    if sink.flags().contains(OpenFlags::APPEND) { Err(Errno::EBADF) } else { Ok(()) }
}

async fn sys_copy_file_range(
    t: &mut CurrentTask,
    input: Fd,
    in_offset: UserPtr<i64>,
    out: Fd,
    out_offset: UserPtr<i64>,
    count: usize,
    flags: u32,
) -> SyscallResult {
    let source = t.fds().get(input)?;
    let sink = t.fds().get(out)?;
    let mut in_at = read_offset(t, in_offset)?;
    let mut out_at = read_offset(t, out_offset)?;
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    check_copy(&source, &sink)?;
    let (from, to) = (in_at.unwrap_or_else(|| source.pos()), out_at.unwrap_or_else(|| sink.pos()));
    // Both ends have to be offsets that a file can have.
    if from.max(to).checked_add(count as u64).is_none() {
        return Err(Errno::EOVERFLOW.into());
    }
    // Only what the file has counts, for the overlap too (`generic_copy_file_checks`).
    let left = source.metadata()?.size.saturating_sub(from);
    let count = usize::try_from(left).unwrap_or(usize::MAX).min(count).min(MAX_RW_COUNT);
    let len = count as u64;
    let same = source.metadata()?.key() == sink.metadata()?.key();
    if same && from < to.saturating_add(len) && to < from.saturating_add(len) {
        return Err(Errno::EINVAL.into());
    }
    let n = copy(t, &source, &mut in_at, &sink, &mut out_at, count).await?;
    write_offset(t, in_offset, in_at)?;
    write_offset(t, out_offset, out_at)?;
    Ok(n)
}
