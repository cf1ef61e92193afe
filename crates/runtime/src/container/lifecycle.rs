//! Starting, signalling, pausing and waiting.

use std::time::Duration;

use moat_abi::Signal;
use moat_control::ExitStatus;

use super::{Container, HookState, not_running};
use crate::Error;
use crate::error::Result;
use crate::hooks::{self, HookKind};
use crate::namespaces::Role;
use crate::sandbox::{ChildSandbox, ContainerTarget, ProcessTarget};
use crate::store::Status;

/// How long the parent of a sandbox, a shim, is given to reap it.
const REAPING_PATIENCE: Duration = Duration::from_millis(500);

impl Container {
    /// Lets its init run.
    ///
    /// # Errors
    /// [`Error::State`] if that was done before; a startContainer hook that fails.
    pub fn start(&mut self) -> Result<()> {
        self.start_with(None)
    }

    /// The same by the connection that its creator has, if it is still there.
    pub(crate) fn start_with(&mut self, child: Option<&ChildSandbox>) -> Result<()> {
        // Of two commands that start it at once the second finds it running.
        let entry = self.lock()?;
        match self.status() {
            Status::Created => {}
            Status::Running | Status::Paused => {
                return Err(Error::State("cannot start an already running container".into()));
            }
            Status::Stopped => return Err(Error::State("cannot start a container that has stopped".into())),
            Status::Creating => return Err(Error::State("cannot start a container that was not created".into())),
        }
        if let Err(error) = self.let_run(child) {
            self.end_unstarted(child);
            return Err(error);
        }
        self.state.status = Status::Running;
        // Before the hooks, which may ask for the state.
        entry.save(&self.state)?;
        if let Some(hooks) = &self.state.hooks {
            let state = HookState::new(&self.state, Status::Running, Some(self.pid()));
            hooks::run_all(HookKind::Poststart, HookKind::Poststart.of(hooks), &state);
        }
        Ok(())
    }

    /// Ends a container that could not be started, as the OCI specification has it of a hook that fails. Docker can't
    /// remove what has neither started nor ended.
    fn end_unstarted(&self, child: Option<&ChildSandbox>) {
        let ended = match (self.state.role, &self.state.sandbox) {
            (Role::Root, Some(sandbox)) => sandbox.destroy().map(|()| {
                if child.is_none() {
                    sandbox.process.wait_reaped(REAPING_PATIENCE);
                }
            }),
            // Its sandbox runs on for the others of the pod.
            _ => self.kill(Signal::SIGKILL.number(), ContainerTarget::All),
        };
        if let Err(error) = ended {
            tracing::warn!("{error}");
        }
    }

    fn let_run(&self, child: Option<&ChildSandbox>) -> Result<()> {
        self.run_hooks(HookKind::StartContainer, Status::Created)?;
        match (self.state.role, child) {
            (Role::Root, Some(child)) => child.start_root(),
            (Role::Root, None) => self.sandbox()?.start_root(),
            (Role::Member, _) => self.sandbox()?.start_container(self.id.as_str()),
        }
    }

    /// Sends a signal to its init, or to all of its processes; 0 only checks that there are any.
    ///
    /// # Errors
    /// [`Error::State`] "container not running"; with all processes a container that has ended is no error.
    pub fn kill(&self, signal: i32, target: ContainerTarget) -> Result<()> {
        let status = self.status();
        match (status, target) {
            // As runc's kill --all, by which clients clean up.
            (Status::Stopped, ContainerTarget::All) => return Ok(()),
            (Status::Stopped | Status::Creating, _) => return Err(not_running()),
            _ if signal == 0 => return Ok(()),
            _ => {}
        }
        let sandbox = self.sandbox()?;
        let deadly = signal == Signal::SIGKILL.number() && self.state.role == Role::Root;
        if deadly && status == Status::Created {
            return sandbox.kill();
        }
        match sandbox.signal_container(self.id.as_str(), signal, target) {
            Ok(()) => Ok(()),
            Err(_) if !sandbox.is_running() => Err(not_running()),
            // Whatever keeps the sandbox from carrying it out.
            Err(error) if deadly => {
                tracing::warn!("the sandbox is killed, because it can't kill its container: {error}");
                sandbox.kill()
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a signal to one of its processes.
    ///
    /// # Errors
    /// [`Error::State`] "container not running"; ESRCH.
    pub fn kill_process(&self, pid: i32, signal: i32, target: ProcessTarget) -> Result<()> {
        match self.status() {
            Status::Stopped | Status::Creating => Err(not_running()),
            _ => self.sandbox()?.signal_process(self.id.as_str(), pid, signal, target),
        }
    }

    /// Stops its processes.
    ///
    /// # Errors
    /// [`Error::State`] unless it runs.
    pub fn pause(&mut self) -> Result<()> {
        let entry = self.lock()?;
        if self.status() != Status::Running {
            return Err(not_running());
        }
        self.sandbox()?.pause(self.id.as_str())?;
        self.state.status = Status::Paused;
        entry.save(&self.state)
    }

    /// Lets its processes go on.
    ///
    /// # Errors
    /// [`Error::State`] unless it is paused.
    pub fn resume(&mut self) -> Result<()> {
        let entry = self.lock()?;
        if self.status() != Status::Paused {
            return Err(Error::State("container not paused".into()));
        }
        self.sandbox()?.resume(self.id.as_str())?;
        self.state.status = Status::Running;
        entry.save(&self.state)
    }

    /// Waits until its init has ended.
    ///
    /// # Errors
    /// [`Error::State`] if it has ended before: nobody knows how.
    pub fn wait(&self) -> Result<ExitStatus> {
        match self.status() {
            Status::Stopped | Status::Creating => Err(not_running()),
            _ => self.sandbox()?.wait(self.id.as_str()),
        }
    }

    /// Waits for a process that was started in it.
    ///
    /// # Errors
    /// ESRCH if there is none of that pid.
    pub fn wait_pid(&self, pid: i32) -> Result<ExitStatus> {
        match self.status() {
            Status::Stopped | Status::Creating => Err(not_running()),
            _ => self.sandbox()?.wait_pid(self.id.as_str(), pid),
        }
    }

    pub(super) fn run_hooks(&self, kind: HookKind, status: Status) -> Result<()> {
        let Some(hooks) = &self.state.hooks else { return Ok(()) };
        let list = kind.of(hooks);
        if list.is_empty() {
            return Ok(());
        }
        hooks::run(kind, list, &HookState::new(&self.state, status, Some(self.pid())))
    }
}
