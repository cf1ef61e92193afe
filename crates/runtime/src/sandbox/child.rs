//! [`ChildSandbox`]: a sandbox in the process that started it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use moat_abi::Signal;
use moat_control::spec::NetworkMode;
use moat_control::start::StartOutcome;
use moat_control::{Connection, ProfileKind};
use moat_host::spawn::Child;
use rustix::process::{WaitId, WaitIdOptions};

use super::last_words::{self, tail_of_log};
use super::{Link, Sandbox};
use crate::Error;
use crate::error::{Context, Result};
use crate::gofer::Gofer;
use crate::network::uplink::Uplink;
use crate::node_maker::NodeMaker;

/// A sandbox whose process is a child of this one.
#[derive(Debug)]
pub struct ChildSandbox {
    /// The sandbox, as others know it.
    pub sandbox: Sandbox,
    /// Stdio is a terminal.
    pub terminal: bool,
    pub(crate) link: Link,
    pub(crate) child: Child,
    pub(crate) status: OwnedFd,
    pub(super) panic_log: File,
    /// What was in it before.
    pub(super) panic_log_start: u64,
    pub(super) helpers: Helpers,
}

/// Processes that end when the sandbox has.
#[derive(Debug)]
pub(super) struct Helpers {
    /// Who serves its files, if not itself.
    pub(super) gofer: Option<Gofer>,
    /// Who makes nodes of devices in them, if anybody may.
    pub(super) node_maker: Option<NodeMaker>,
}

impl ChildSandbox {
    /// Makes a network for it that leads outside, if its mode is `sandbox`: before [`ChildSandbox::start_root`], which takes that over.
    ///
    /// # Errors
    /// Of [`Uplink`].
    pub fn connect_outside(&self) -> Result<Option<Uplink>> {
        (self.sandbox.network == NetworkMode::Sandbox).then(|| Uplink::make(self.sandbox.process.pid)).transpose()
    }

    /// Lets the init of the root container run.
    ///
    /// # Errors
    /// As [`Sandbox::start_root`].
    pub fn start_root(&self) -> Result<()> {
        self.start_root_over(None)
    }

    /// As [`ChildSandbox::start_root`], with the network of [`ChildSandbox::connect_outside`].
    ///
    /// # Errors
    /// As there.
    pub fn start_root_over(&self, uplink: Option<&Uplink>) -> Result<()> {
        self.sandbox.set_up_network(&self.link, uplink)?;
        self.link.start_root()
    }

    /// As [`Sandbox::start_profile`], before anything runs if it is called before [`ChildSandbox::start_root`].
    ///
    /// # Errors
    /// As there.
    pub fn start_profile(&self, kind: ProfileKind, pipe: OwnedFd) -> Result<()> {
        self.link.start_profile(kind, pipe)
    }

    /// The creator's control connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        self.link.connection()
    }

    /// The sandbox process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.pid
    }

    /// The process that serves its files, if not itself.
    pub(crate) fn gofer_pid(&self) -> Option<i32> {
        self.helpers.gofer.as_ref().map(Gofer::pid)
    }

    /// Kills the sandbox process and reaps it.
    pub fn destroy(mut self) {
        let _ = self.sandbox.kill();
        self.reap();
    }

    pub(super) fn wait_until_booted(&mut self, start: OwnedFd, command: &str) -> Result<()> {
        // First: without its gofer the sandbox would not come up, nor say why.
        if let Some(Err(error)) = self.helpers.gofer.as_mut().map(Gofer::wait_until_ready) {
            let _ = self.sandbox.kill();
            self.reap();
            return Err(error);
        }
        match StartOutcome::read_from(File::from(start)).context(|| "waiting for the sandbox to start".into())? {
            StartOutcome::Booted => Ok(()),
            StartOutcome::Failed(error) => {
                self.reap();
                Err(Error::boot(error, command))
            }
            StartOutcome::Died => match self.child.early_error() {
                Some(error) => {
                    self.reap();
                    Err(Error::Host { what: "executing the sandbox process".into(), error })
                }
                None => Err(self.death("while it started")),
            },
        }
    }

    /// The error that says how the sandbox died. Waits until it has.
    pub(crate) fn death(&mut self, when: &'static str) -> Error {
        let how = self.reap();
        let panic_log = tail_of_log(&mut self.panic_log, self.panic_log_start).unwrap_or_default();
        // What can't be kept is quoted all the same.
        let report = match panic_log.is_empty() {
            true => None,
            false => {
                last_words::keep(&mut self.panic_log, self.panic_log_start, &self.sandbox).unwrap_or_else(|error| {
                    tracing::warn!("the report of the sandbox can't be kept: {error}");
                    None
                })
            }
        };
        let panic_log = if report.is_some() { last_words::words_of(&panic_log).to_owned() } else { panic_log };
        Error::Died { when, how, panic_log, report }
    }

    /// Waits for the sandbox process to end, and its helpers; says how it did.
    pub(crate) fn reap(&mut self) -> String {
        let how = self.reap_sandbox();
        // After it: they end when it closes their sockets.
        if let Some(gofer) = self.helpers.gofer.take() {
            gofer.wait_for_end();
        }
        if let Some(node_maker) = self.helpers.node_maker.take() {
            node_maker.wait_for_end();
        }
        how
    }

    fn reap_sandbox(&self) -> String {
        loop {
            return match rustix::process::waitid(WaitId::PidFd(self.child.pidfd.as_fd()), WaitIdOptions::EXITED) {
                // Signals are passed on meanwhile.
                Err(rustix::io::Errno::INTR) => continue,
                Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => format!("exit code {code}"),
                    (_, Some(signal)) => signal_text(signal),
                    _ => "unknown status".into(),
                },
                Ok(None) | Err(_) => "unknown status".into(),
            };
        }
    }
}

fn signal_text(number: i32) -> String {
    let name = Signal::new(number).and_then(Signal::name).unwrap_or("unknown");
    match number {
        libc::SIGSYS => format!("{name}: it made a host call that its filter refuses; --debug names it"),
        libc::SIGKILL => format!("{name}: by hand, or for want of memory"),
        _ => name.to_owned(),
    }
}
