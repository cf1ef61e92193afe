//! [`Link`]: a control connection on which one waits for an answer no longer than is sensible.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use moat_control::start::STEPS;
use moat_control::{Connection, ProfileKind, Request, Response};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::done;
use crate::Error;
use crate::error::{Context, Result};

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// For figures, which are worth little when they are old.
    Look,
    /// For what the sandbox does at once, if it is not stuck.
    Quick,
    /// For what may have to read programs from slow disks.
    Long,
    /// For ends, which may never come.
    Endless,
}

impl Patience {
    fn limit(self) -> Option<Duration> {
        match self {
            Patience::Look => Some(Duration::from_secs(5)),
            Patience::Quick => Some(Duration::from_secs(30)),
            Patience::Long => Some(Duration::from_secs(120)),
            Patience::Endless => None,
        }
    }
}

/// A request with its descriptors.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) request: Request,
    pub(crate) fds: Vec<OwnedFd>,
}

/// A control connection.
#[derive(Debug)]
pub struct Link(Connection);

impl Link {
    pub(super) fn open(directory: &Path, name: &str) -> Result<Self> {
        Connection::open(directory, name)
            .map(Link)
            .context(|| format!("connecting to the sandbox's {}", directory.join(name).display()))
    }

    pub(super) fn new(connection: Connection) -> Self {
        Link(connection)
    }

    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.0
    }

    /// Lets the root container's init run.
    pub(super) fn start_root(&self) -> Result<()> {
        self.call(&Request::StartRoot, &[], Patience::Long).and_then(done)?;
        tracing::info!(target: STEPS, "the init runs");
        Ok(())
    }

    /// Begins a profile, whose records the sandbox writes to `pipe`.
    ///
    /// # Errors
    /// One of this kind is under way.
    pub fn start_profile(&self, kind: ProfileKind, pipe: OwnedFd) -> Result<()> {
        self.call(&Request::StartProfile(kind), &[pipe], Patience::Quick).and_then(done)
    }

    /// Makes the container that the connection was given for; its init is then ready to run.
    ///
    /// # Errors
    /// [`Error::Command`] if its init can't be executed.
    pub(crate) fn create_container(&self, message: &Message) -> Result<()> {
        self.call(&message.request, &message.fds, Patience::Long).and_then(done)
    }

    /// Sends a request and waits for its answer; one that says an error is an error.
    pub(crate) fn call(&self, request: &Request, fds: &[OwnedFd], patience: Patience) -> Result<Response> {
        Ok(self.call_for_fds(request, fds, patience)?.0)
    }

    /// As [`Link::call`], with the descriptors that came with the answer.
    pub(super) fn call_for_fds(
        &self,
        request: &Request,
        fds: &[OwnedFd],
        patience: Patience,
    ) -> Result<(Response, Vec<OwnedFd>)> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        match self.exchange(request, &fds, patience) {
            Ok(Some((Response::Error(error), _))) => Err(error.into()),
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Error::State("the sandbox ended before it gave an answer".into())),
            // Its end can be seen in either direction, and is one and the same thing for who asked.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                Err(Error::State("the sandbox ended before it gave an answer".into()))
            }
            Err(error) => Err(error).context(|| "asking the sandbox".into()),
        }
    }

    fn exchange(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
        patience: Patience,
    ) -> io::Result<Option<(Response, Vec<OwnedFd>)>> {
        self.0.send_request(request, fds)?;
        if let Some(limit) = patience.limit() {
            wait_readable(self.0.as_fd(), limit)?;
        }
        self.0.next_response_with_fds()
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn wait_readable(fd: BorrowedFd<'_>, limit: Duration) -> io::Result<()> {
    // A deadline, so that a signal does not start the time anew.
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            other => return Ok(other.map(drop)?),
        }
    }
}
