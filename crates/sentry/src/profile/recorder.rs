//! [`Recorders`]: the profiles under way, each with a thread that writes it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use moat_abi::{Errno, PollEvents};
use moat_control::profile::Record;
use moat_control::{ControlError, ProfileKind};
use moat_sync::{Condvar, LockClass, Mutex, WaitQueue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Source;

/// How often what was seen is taken in: before the rings that hold it are full.
const INTERVAL: Duration = Duration::from_millis(20);

/// How long the reader of a pipe that is full is waited for.
const READER_PATIENCE: Duration = Duration::from_secs(5);

/// The profiles under way.
pub(crate) struct Recorders {
    state: Mutex<Vec<Running>>,
    /// Woken when a profile has been written.
    ended: WaitQueue,
}

struct Running {
    kind: ProfileKind,
    stop: Arc<Stop>,
}

/// How a thread is told to come to an end.
struct Stop {
    asked: Mutex<Asked>,
    changed: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    No,
    Yes,
}

impl Stop {
    fn ask(&self) {
        *self.asked.lock() = Asked::Yes;
        self.changed.notify_all();
    }

    /// Waits until it is asked, at most for so long.
    fn wait(&self, most: Duration) -> Asked {
        let mut asked = self.asked.lock();
        if *asked == Asked::No {
            self.changed.wait_for(&mut asked, most);
        }
        *asked
    }
}

impl Recorders {
    /// None under way.
    pub(crate) fn new() -> Arc<Recorders> {
        let state = Mutex::new(LockClass::Control, Vec::new());
        Arc::new(Recorders { state, ended: WaitQueue::new() })
    }

    /// Begins one.
    pub(super) fn start(
        self: &Arc<Self>,
        kind: ProfileKind,
        mut source: Box<dyn Source>,
        pipe: OwnedFd,
    ) -> Result<(), ControlError> {
        let failed = |errno: Errno| ControlError::errno("starting the profile", errno);
        set_nonblocking(&pipe).map_err(failed)?;
        let stop = Arc::new(Stop { asked: Mutex::new(LockClass::Leaf, Asked::No), changed: Condvar::new() });
        {
            let mut state = self.state.lock();
            if state.iter().any(|running| running.kind == kind) {
                return Err(ControlError::Invalid(format!("a profile of this kind is under way: {kind:?}")));
            }
            // Before it begins, so that of two requests at a time one is refused.
            state.push(Running { kind, stop: stop.clone() });
        }
        let begun = source.start().and_then(|()| {
            let (recorders, own) = (self.clone(), stop.clone());
            // A thread of its own: what is measured are the executor's threads.
            let thread = std::thread::Builder::new().name("profile".into());
            let record = move || {
                record(&mut *source, pipe, &own);
                recorders.forget(&own);
            };
            thread.spawn(record)?;
            Ok(())
        });
        begun.map_err(|errno| {
            self.forget(&stop);
            failed(errno)
        })
    }

    fn forget(&self, stop: &Arc<Stop>) {
        self.state.lock().retain(|running| !Arc::ptr_eq(&running.stop, stop));
        self.ended.wake_all();
    }

    /// Ends one, if it is under way, and waits until it has been written.
    pub(crate) async fn stop(&self, kind: ProfileKind) {
        if let Some(running) = self.state.lock().iter().find(|running| running.kind == kind) {
            running.stop.ask();
        }
        self.ended.until(PollEvents::all(), || self.unless_running(|running| running.kind == kind)).await;
    }

    /// Ends all of them.
    pub(crate) async fn stop_all(&self) {
        self.state.lock().iter().for_each(|running| running.stop.ask());
        self.ended.until(PollEvents::all(), || self.unless_running(|_| true)).await;
    }

    fn unless_running(&self, which: impl Fn(&Running) -> bool) -> Poll<()> {
        if self.state.lock().iter().any(which) { Poll::Pending } else { Poll::Ready(()) }
    }
}

fn set_nonblocking(pipe: &OwnedFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(pipe)?;
    Ok(rustix::fs::fcntl_setfl(pipe, flags | rustix::fs::OFlags::NONBLOCK)?)
}

/// The life of a profile.
fn record(source: &mut dyn Source, pipe: OwnedFd, stop: &Stop) {
    let began = Instant::now();
    let mut output = Output { pipe };
    loop {
        let asked = stop.wait(INTERVAL);
        // Nobody reads it any more.
        if source.collect(&mut output).is_err() || output.is_abandoned() {
            break;
        }
        if asked == Asked::Yes {
            break;
        }
    }
    // The end is written even if nothing more can be collected.
    let duration_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    if let Ok(dropped) = source.finish(&mut output) {
        let _ = output.write(&Record::End { dropped, duration_ns });
    }
}

/// Where a profile is written.
pub(super) struct Output {
    pipe: OwnedFd,
}

impl Output {
    /// Writes one record.
    ///
    /// # Errors
    /// BrokenPipe, or TimedOut if nobody reads; InvalidData.
    pub(super) fn write(&mut self, record: &Record) -> io::Result<()> {
        // All of it or an end: half a record would make the rest unreadable.
        let bytes = record.encode()?;
        let mut left = bytes.as_slice();
        let begun = Instant::now();
        while !left.is_empty() {
            match rustix::io::write(&self.pipe, left) {
                Ok(n) => left = left.get(n..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) if begun.elapsed() < READER_PATIENCE => {
                    let _ =
                        poll(&mut [PollFd::new(&self.pipe, PollFlags::OUT)], Some(&Timespec { tv_sec: 1, tv_nsec: 0 }));
                }
                Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether the other end has been closed.
    fn is_abandoned(&self) -> bool {
        let fd = self.pipe.as_fd();
        let mut fds = [PollFd::new(&fd, PollFlags::empty())];
        let seen = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        seen.is_ok() && fds.iter().any(|fd| fd.revents().intersects(PollFlags::ERR | PollFlags::HUP))
    }
}
