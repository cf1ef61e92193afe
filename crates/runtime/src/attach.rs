//! Staying with a sandbox until its init ends: signals are passed on, the exit status comes back.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use moat_abi::{SigSet, Signal};
use moat_control::{ExitStatus, Request, SignalTarget};
use moat_host::signals;
use rustix::event::{PollFd, PollFlags, poll};

use crate::error::{Context, Result};
use crate::sandbox::ChildSandbox;

/// Signals that are passed on to the guest: those that a terminal, a shell or a service manager sends to a command.
const FORWARDED: [Signal; 9] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];

/// What the guest's standard input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Stdin {
    Terminal,
    Other,
}

/// Receives the signals that are to be passed on, from here on.
///
/// To be made before the sandbox is started, so that no signal ends the command while its sandbox runs on.
#[derive(Debug)]
pub struct SignalForwarder(OwnedFd);

impl SignalForwarder {
    /// Blocks the signals in the calling thread.
    ///
    /// # Errors
    /// Of signalfd(2).
    pub fn new(stdin: Stdin) -> Result<Self> {
        let mut set = FORWARDED.iter().fold(SigSet::EMPTY, |set, signal| set.union(signal.bit()));
        if stdin == Stdin::Terminal {
            // The guest does job control on it; else ^Z stops the command itself.
            set.insert(Signal::SIGTSTP);
        }
        signals::set_mask(set)
            .and_then(|_| signals::signalfd(set))
            .map(SignalForwarder)
            .map_err(|errno| std::io::Error::from_raw_os_error(errno.raw()))
            .context(|| "receiving signals".into())
    }
}

impl AsFd for SignalForwarder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether the sandbox may still answer on the control connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    Expected,
    Over,
}

impl ChildSandbox {
    /// Passes signals on until the guest's init has ended, and waits for the sandbox's end.
    ///
    /// # Errors
    /// [`crate::Error::Died`] if the sandbox ends without an exit status.
    pub fn attend(mut self, forwarder: &SignalForwarder) -> Result<ExitStatus> {
        let mut answers = Answers::Expected;
        loop {
            let mut fds = vec![
                PollFd::new(&self.status, PollFlags::IN),
                PollFd::new(&self.child.pidfd, PollFlags::IN),
                PollFd::new(&forwarder.0, PollFlags::IN),
            ];
            // A connection at its end is readable for ever: it is left out from then on.
            if answers == Answers::Expected {
                fds.push(PollFd::new(self.link.connection(), PollFlags::IN));
            }
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.context(|| "waiting for the sandbox".into())?,
            };
            let ready = |i: usize| fds.get(i).is_some_and(|fd| !fd.revents().is_empty());
            let (status, ended, signalled, answered) = (ready(0), ready(1), ready(2), ready(3));
            if status || ended {
                return self.finish();
            }
            if signalled {
                self.pass_on(forwarder);
            }
            if answered {
                answers = self.take_answer();
            }
        }
    }

    /// The sandbox has written its status, or ended, or both.
    fn finish(&mut self) -> Result<ExitStatus> {
        // It may have written between being looked at and ending. Without a word there, do not wait for one.
        let mut fds = [PollFd::new(&self.status, PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut fds, Some(&now)).context(|| "waiting for the sandbox".into())? == 0 {
            return Err(self.death("while it ran"));
        }
        let pipe = File::from(self.status.try_clone().context(|| "duplicating a pipe".into())?);
        match ExitStatus::read_from(pipe).context(|| "reading the exit status".into())? {
            Some(status) => {
                self.reap();
                Ok(status)
            }
            None => Err(self.death("while it ran")),
        }
    }

    /// Answers to signals that were passed on; nobody waits for them, so that a stuck sandbox cannot hold up its end.
    fn take_answer(&self) -> Answers {
        match self.link.connection().next_response() {
            Ok(Some(answer)) => tracing::debug!(?answer, "signal passed on"),
            // The sandbox is ending: the status pipe will tell how.
            Ok(None) => return Answers::Over,
            Err(error) => {
                tracing::debug!(%error, "malformed answer");
                return Answers::Over;
            }
        }
        Answers::Expected
    }

    fn pass_on(&self, forwarder: &SignalForwarder) {
        while let Ok(info) = signals::read_signalfd(forwarder.0.as_fd()) {
            let Ok(signal) = i32::try_from(info.ssi_signo) else { continue };
            let target = if self.terminal { SignalTarget::Foreground } else { SignalTarget::Init };
            let request = Request::Signal { id: self.sandbox.id.clone(), signal, target };
            if let Err(error) = self.link.connection().post(&request) {
                // The sandbox is ending: the status pipe will tell.
                tracing::debug!(signal, %error, "cannot pass on a signal");
            }
        }
    }
}
