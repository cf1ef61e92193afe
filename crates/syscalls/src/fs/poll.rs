//! poll(2) and ppoll(2); and what they share with select(2): deadlines and temporary signal masks.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use moat_abi::poll::Pollfd;
use moat_abi::signal::SigSet;
use moat_abi::time::Timespec;
use moat_abi::{Errno, PollEvents, Result};
use moat_host::clock::deadline_in;
use moat_kernel::error::RestartBlock;
use moat_kernel::task::wait::{Listening, Source};
use moat_kernel::{CurrentTask, Restart, SyscallError, SyscallResult, Wait, WaitError};
use moat_mm::{UserAddr, UserPtr};
use moat_sync::Listener;
use moat_vfs::{Fd, OpenFile};

use super::open::fd_limit;

syscalls! { pub static TABLE;
    7 poll(fds: UserAddr, count: u32, timeout_ms: i32) async sys_poll, full;
    271 ppoll(fds: UserAddr, count: u32, timeout: UserPtr<Timespec>, mask: UserPtr<SigSet>, size: usize) async sys_ppoll, full;
}

/// When a timeout ends; `None` waits for ever.
pub(super) fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.map(deadline_in)
}

/// Sets the signal mask that a call was given for its time.
///
/// # Errors
/// EINVAL for a size other than 8; EFAULT.
pub(super) fn set_mask(t: &mut CurrentTask, mask: UserPtr<SigSet>, size: usize) -> Result<()> {
    if let Some(mask) = mask.non_null() {
        if size != size_of::<SigSet>() {
            return Err(Errno::EINVAL);
        }
        let mask = t.mm().read(mask)?.difference(SigSet::UNBLOCKABLE);
        t.set_temporary_mask(mask);
    }
    Ok(())
}

/// Puts the mask back, unless a signal is to be handled under the temporary one.
pub(super) fn unset_mask<R>(t: &mut CurrentTask, result: &Result<R, SyscallError>) {
    // An interrupted call keeps the mask until the handler has run.
    let interrupted = matches!(result, Err(SyscallError::Restart(_) | SyscallError::Errno(Errno::EINTR)));
    if !interrupted {
        t.restore_mask();
    }
}

/// One file that a poll looks at.
pub(super) struct Watched {
    pub(super) file: Arc<OpenFile>,
    pub(super) events: PollEvents,
}

/// The files of one call.
#[derive(Default)]
pub(super) struct WatchedFiles(pub(super) Vec<Watched>);

impl Source for WatchedFiles {
    fn listen(&self, listener: &mut Listener) -> Listening {
        for w in &self.0 {
            if let Some(r) = w.file.register(w.events, listener.notifier()) {
                listener.keep(r);
            }
        }
        Listening::Yes
    }
}

/// Waits for the files until `look` counts something; 0 once the deadline has passed.
///
/// # Errors
/// The restart of `wait` after a signal; also with the deadline passed, as `do_poll` and `do_select` have it.
pub(super) async fn wait_for_files(
    t: &mut CurrentTask,
    files: &WatchedFiles,
    wait: &Wait,
    mut look: impl FnMut() -> u64,
) -> Result<u64, WaitError> {
    let look = |_: &mut CurrentTask| match look() {
        0 => Poll::Pending,
        n => Poll::Ready(n),
    };
    match t.wait_for(files, wait, look).await {
        // A signal that came as the time ended is not lost.
        Err(WaitError::TimedOut) if t.is_interrupted() => Err(wait.interrupted()),
        Err(WaitError::TimedOut) => Ok(0),
        done => done,
    }
}

async fn run(t: &mut CurrentTask, at: UserAddr, count: u32, wait: Wait) -> Result<u64, SyscallError> {
    if u64::from(count) > fd_limit(t) {
        return Err(Errno::EINVAL.into());
    }
    let mut fds: Vec<Pollfd> = t.mm().read_array(at, count as usize, count as usize)?;
    let mut files = WatchedFiles::default();
    let mut slots = Vec::new();
    let mut bad = 0;
    for (i, p) in fds.iter_mut().enumerate() {
        p.revents = 0;
        // Negative numbers are passed over (poll(2)).
        if p.fd < 0 {
            continue;
        }
        match t.fds().get(Fd(p.fd)) {
            Ok(file) => {
                // POLLERR and POLLHUP are always told.
                files.0.push(Watched { file, events: PollEvents::from_pollfd(p.events) | PollEvents::ALWAYS });
                slots.push(i);
            }
            Err(_) => {
                p.revents = PollEvents::NVAL.to_pollfd();
                bad += 1;
            }
        }
    }
    let n = {
        let fds = &mut fds;
        // A bad descriptor is an event.
        let look = || {
            let mut n = bad;
            for (w, slot) in files.0.iter().zip(&slots) {
                let ready = w.file.poll() & w.events;
                if let Some(p) = fds.get_mut(*slot) {
                    p.revents = ready.to_pollfd();
                }
                n += u64::from(!ready.is_empty());
            }
            n
        };
        wait_for_files(t, &files, &wait, look).await?
    };
    for (i, p) in fds.iter().enumerate() {
        let to: UserPtr<Pollfd> = at.cast::<Pollfd>().index(i as u64)?;
        // Only `revents` is written, as on Linux.
        t.mm().write(to.addr().add(6)?.cast(), &p.revents)?;
    }
    Ok(n)
}

async fn sys_poll(t: &mut CurrentTask, fds: UserAddr, count: u32, timeout_ms: i32) -> SyscallResult {
    let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
    let until = t.deadline_or(|| deadline(timeout));
    let args = [fds.get(), u64::from(count), i64::from(timeout_ms).cast_unsigned(), 0, 0, 0];
    // The deadline goes into the restart, so that the whole time is not waited again.
    let restart = Restart::Block(RestartBlock { nr: 7, args, deadline: until });
    run(t, fds, count, Wait::restarting("poll", restart).until(until)).await
}

/// What is left of a timeout, for callers to write back; they leave one in read-only memory alone.
pub(super) fn left(until: Option<Instant>) -> Option<Duration> {
    until.map(|d| d.saturating_duration_since(Instant::now()))
}

async fn sys_ppoll(
    t: &mut CurrentTask,
    fds: UserAddr,
    count: u32,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<SigSet>,
    size: usize,
) -> SyscallResult {
    let span = match timeout.non_null() {
        None => None,
        Some(p) => Some(t.mm().read(p)?.to_duration()?),
    };
    set_mask(t, mask, size)?;
    let until = t.deadline_or(|| deadline(span));
    // A call whose timeout has been written back can't be made again with it.
    let result = run(t, fds, count, Wait::restarting("poll", Restart::NoHand).until(until)).await;
    unset_mask(t, &result);
    // Linux writes the rest back after a signal too.
    if let (Some(p), Some(rest)) = (timeout.non_null(), left(until)) {
        let _ = t.mm().write(p, &Timespec::from_duration(rest));
    }
    result
}
