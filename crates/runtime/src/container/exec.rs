//! `exec`: another process in a container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use moat_control::spec::ProcessSpec;
use moat_control::{ExecLifetime, ExecuteArgs, ExitStatus, Request, Response, SignalTarget};
use moat_host::signals;
use rustix::event::{PollFd, PollFlags, poll};

use super::Container;
use crate::Error;
use crate::attach::SignalForwarder;
use crate::blueprint::Descriptors;
use crate::cgroup::Entrances;
use crate::console::{Console, check_attached, check_detached};
use crate::error::{Context, Result};
use crate::sandbox::{InitFiles, Link, Terminal};
use crate::store::{self, Status};
use crate::waiter::{self, WaiterTarget};

/// What `exec` was asked for.
#[derive(Debug)]
pub struct ExecOptions {
    /// The process.
    pub process: ProcessSpec,
    /// The caller's stdin, stdout and stderr.
    pub stdio: [OwnedFd; 3],
    /// Further descriptors for the process.
    pub preserved: Vec<OwnedFd>,
    /// Whether this command ends before the process.
    pub attachment: Attachment,
    /// Where the terminal's master goes.
    pub console_socket: Option<PathBuf>,
    /// Where the pid of the host process that stands for the process is written.
    pub pid_file: Option<PathBuf>,
    /// Where its pid in the container is written.
    pub internal_pid_file: Option<PathBuf>,
    /// A paused container is no error.
    pub paused: Paused,
}

/// Whether a command stays with what it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Attachment {
    Attached,
    Detached,
}

/// What is done about a paused container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paused {
    /// It is an error.
    Refused,
    /// The process starts when it is resumed.
    Ignored,
}

/// A process started by `exec`, with which this command stays.
#[derive(Debug)]
pub struct Exec {
    id: String,
    pid: i32,
    link: Link,
    terminal: bool,
}

impl Container {
    /// Starts a process. `None` if this command does not stay with it.
    ///
    /// # Errors
    /// [`Error::State`] if the container does not run; [`Error::Command`].
    pub fn exec(&self, options: ExecOptions) -> Result<Option<Exec>> {
        match self.status() {
            Status::Running | Status::Created => {}
            Status::Paused if options.paused == Paused::Ignored => {}
            Status::Paused => {
                let text = "cannot exec in a paused container (use --ignore-paused to override)";
                return Err(Error::State(text.into()));
            }
            Status::Stopped | Status::Creating => {
                return Err(Error::State("cannot exec in a stopped container".into()));
            }
        }
        let terminal = options.process.terminal;
        // Before the terminal is made, in the words of `create`.
        match options.attachment {
            Attachment::Detached => check_detached(terminal, options.console_socket.as_deref())?,
            Attachment::Attached => check_attached(options.console_socket.as_deref())?,
        }
        let files = match &options.console_socket {
            None => InitFiles { stdio: options.stdio, preserved: options.preserved, terminal: Terminal::Shared },
            Some(socket) => {
                let stdio = Console::new(options.process.console_size)?.hand_over(socket)?;
                InitFiles { stdio, preserved: options.preserved, terminal: Terminal::Own }
            }
        };
        // Taken before the descriptors go to the sandbox: the waiter leads the session of the terminal's host side.
        let own_terminal = files.own_terminal()?;
        let console_size = own_terminal.as_ref().and(options.process.console_size);
        let id = self.id.to_string();
        let mut fds: Vec<OwnedFd> = Vec::new();
        let args = ExecuteArgs {
            id: id.clone(),
            process: ProcessSpec { console_size, ..options.process },
            stdio: files.stdio.map(|fd| fds.add(fd)),
            preserved: files.preserved.into_iter().map(|fd| fds.add(fd)).collect(),
            lifetime: ExecLifetime::Connection,
        };
        let (pid, link) = self.sandbox()?.execute(args, fds)?;
        // The number inside the container; the pid file below has the host's, which clients follow.
        if let Some(path) = &options.internal_pid_file {
            store::write_pid_file(path, pid)?;
        }
        // Attached, this command is what clients follow: it passes signals on and ends with the exit status.
        let host_pid = match options.attachment {
            Attachment::Attached => rustix::process::getpid().as_raw_nonzero().get(),
            // If this command dies before the waiter has the connection too, the process is killed with it.
            Attachment::Detached => {
                let target = WaiterTarget { id: id.clone(), pid: Some(pid) };
                waiter::start(&target, &link, own_terminal, &Entrances::default(), |_| Ok(()))?.pid
            }
        };
        if let Some(path) = &options.pid_file {
            store::write_pid_file(path, host_pid)?;
        }
        match options.attachment {
            Attachment::Attached => Ok(Some(Exec { id, pid, link, terminal })),
            Attachment::Detached => Ok(None),
        }
    }
}

impl Exec {
    /// Passes signals on until the process has ended.
    ///
    /// # Errors
    /// [`Error::State`] if the sandbox ends without saying how the process did.
    pub fn attend(self, forwarder: &SignalForwarder) -> Result<ExitStatus> {
        let connection = self.link.connection();
        // The answer comes at the end of the process; those to signals come before it, on the same connection.
        let wait = Request::WaitProcess { id: self.id.clone(), pid: self.pid };
        connection.send_request(&wait, &[]).context(|| "asking the sandbox".into())?;
        loop {
            let mut fds = [PollFd::new(connection, PollFlags::IN), PollFd::new(forwarder, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.context(|| "waiting for a process".into())?,
            };
            let [answered, signalled] = fds.map(|fd| !fd.revents().is_empty());
            // Signals first: the answer ends the loop.
            if signalled {
                self.pass_on(forwarder);
            }
            if answered {
                match connection.next_response().context(|| "waiting for a process".into())? {
                    Some(Response::Exited(status)) => return Ok(status),
                    // The answer to a signal.
                    Some(_) => {}
                    // It was killed with its sandbox.
                    None => return Ok(ExitStatus::Signaled { signal: 9, core_dumped: false }),
                }
            }
        }
    }

    fn pass_on(&self, forwarder: &SignalForwarder) {
        while let Ok(info) = signals::read_signalfd(forwarder.as_fd()) {
            let Ok(signal) = i32::try_from(info.ssi_signo) else { continue };
            // ^C is for the foreground group of the terminal, not for the shell that was started.
            let target =
                if self.terminal { SignalTarget::ForegroundOf(self.pid) } else { SignalTarget::Process(self.pid) };
            // If it can't be sent the sandbox is ending.
            let _ = self.link.connection().post(&Request::Signal { id: self.id.clone(), signal, target });
        }
    }
}
