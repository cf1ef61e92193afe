//! [`Sandbox`]: a sandbox process, and what can be asked of it.
//!
//! A `Sandbox` never changes, because a copy of it is in the state file of each of its containers. Its operations are
//! requests of the control protocol over its control socket; the process that started it ([`ChildSandbox`]) has a
//! connection of its own and knows how the process ended.
//!
//! What a sandbox that hangs is asked for fails after some time; only waiting for an end has no limit.

mod call;
mod child;
mod last_words;
pub mod outside;
mod processes;
mod start;
mod template;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use moat_abi::Signal;
use moat_control::protocol::{AfterCheckpoint, PageCompression, StraceCalls};
use moat_control::session::SessionInfo;
use moat_control::spec::{FileAccess, HostNodes, LogSpec, NetworkMode, SharesSpec, TraceConflict};
use moat_control::{
    ContainerMetrics, ContainerStatus, ControlError, EventInfo, ExecuteArgs, ExitStatus, ProcessInfo, ProfileKind,
    Request, Response, SignalTarget,
};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::error::{Context, Result};
use crate::monitor::OpenSession;
use crate::namespaces::foreign_interfaces;
use crate::network::uplink::Uplink;
use crate::network::{self, Taken, watcher};
use crate::process_id::ProcessId;

pub use call::Link;
pub(crate) use call::{Message, Patience};
pub use child::ChildSandbox;
pub(crate) use last_words::tail_of_log;
pub use processes::HostPids;
pub use start::{InitFiles, SandboxFiles, Terminal};
pub(crate) use start::{c_strings, spawn_error};
pub(crate) use template::Template;

/// Name of the control socket in a sandbox's directory.
pub const CONTROL_SOCKET: &str = "control.sock";

/// Name of the file in a sandbox's directory that has what its process says when it panics.
pub const PANIC_LOG: &str = "panic.log";

/// How long a sandbox may take to say how its container has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long a killed sandbox may take to be gone.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// A sandbox. It may have ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The id of its root container.
    pub id: String,
    /// Its process on the host.
    pub process: ProcessId,
    /// The directory with its control socket.
    pub directory: PathBuf,
    /// Whether its containers may connect to sockets of the host, and open its FIFOs.
    #[serde(default)]
    pub host_nodes: HostNodes,
    /// What its containers see of the network.
    pub network: NetworkMode,
    /// How it reaches the host's files, those of later containers too.
    pub files: FileAccess,
}

impl Sandbox {
    /// Keeps `id` for a container that is to be made over the connection that it gives; and the process, which so far
    /// is the only one, that all of the container's will descend from.
    ///
    /// # Errors
    /// [`ControlError::Exists`].
    pub(crate) fn reserve_container(&self, id: &str) -> Result<(Link, Template)> {
        let link = self.connect()?;
        match link.call_for_fds(&Request::ReserveContainer(id.to_owned()), &[], Patience::Long)? {
            // The sandbox is the less trusted side: an answer with anything else is none.
            (Response::Template, mut fds) if fds.len() == 1 => {
                let pidfd = fds.remove(0);
                Ok((link, Template::new(pidfd, self)))
            }
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Lets the init of the root container run.
    ///
    /// # Errors
    /// Of taking over the interfaces of its network namespace.
    pub fn start_root(&self) -> Result<()> {
        let link = self.connect()?;
        self.set_up_network(&link, None)?;
        link.start_root()
    }

    /// Lets the init of another container run.
    ///
    /// # Errors
    /// [`ControlError::NoContainer`], [`ControlError::State`].
    pub fn start_container(&self, id: &str) -> Result<()> {
        self.done(&Request::StartContainer(id.to_owned()))
    }

    /// The processes of a container.
    ///
    /// # Errors
    /// [`ControlError::NoContainer`].
    pub fn processes(&self, id: &str) -> Result<Vec<ProcessInfo>> {
        match self.ask(&Request::Processes(id.to_owned()))? {
            Response::Processes(processes) => Ok(processes),
            other => Err(unexpected(&other)),
        }
    }

    /// Starts another process in a container; gives its pid there, and the connection that its life may depend on.
    ///
    /// # Errors
    /// [`Error::Command`] if it can't be executed.
    pub(crate) fn execute(&self, args: ExecuteArgs, fds: Vec<OwnedFd>) -> Result<(i32, Link)> {
        let link = self.connect()?;
        match link.call(&Request::Execute(Box::new(args)), &fds, Patience::Long)? {
            Response::Started(pid) => Ok((pid, link)),
            other => Err(unexpected(&other)),
        }
    }

    /// What the sandbox knows of a container's use of resources.
    ///
    /// # Errors
    /// [`ControlError::NoContainer`].
    pub fn event(&self, id: &str) -> Result<EventInfo> {
        match self.ask(&Request::Event(id.to_owned()))? {
            Response::Event(event) => Ok(event),
            other => Err(unexpected(&other)),
        }
    }

    /// What state a container is in.
    ///
    /// # Errors
    /// [`ControlError::NoContainer`].
    pub fn state(&self, id: &str) -> Result<ContainerStatus> {
        match self.ask(&Request::State(id.to_owned()))? {
            Response::State(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until a container's init has ended.
    ///
    /// # Errors
    /// [`Error::State`] if the sandbox ends without saying how.
    pub fn wait(&self, id: &str) -> Result<ExitStatus> {
        exited(self.connect()?.call(&Request::Wait(id.to_owned()), &[], Patience::Endless)?)
    }

    /// Waits until a process of [`Sandbox::execute`] has ended.
    ///
    /// # Errors
    /// ESRCH if there is no such process.
    pub fn wait_pid(&self, id: &str, pid: i32) -> Result<ExitStatus> {
        let request = Request::WaitProcess { id: id.to_owned(), pid };
        exited(self.connect()?.call(&request, &[], Patience::Endless)?)
    }

    /// Sends a signal to a container's init, or to all of its processes; SIGKILL to all returns when they have ended.
    ///
    /// # Errors
    /// ESRCH if the container has ended.
    pub fn signal_container(&self, id: &str, signal: i32, target: ContainerTarget) -> Result<()> {
        let target = match target {
            ContainerTarget::Init => SignalTarget::Init,
            ContainerTarget::All => SignalTarget::All,
        };
        self.done(&Request::Signal { id: id.to_owned(), signal, target })
    }

    /// Sends a signal to one process of a container, or to the foreground group of its terminal.
    ///
    /// # Errors
    /// ESRCH if there is no such process.
    pub fn signal_process(&self, id: &str, pid: i32, signal: i32, target: ProcessTarget) -> Result<()> {
        let target = match target {
            ProcessTarget::Process => SignalTarget::Process(pid),
            ProcessTarget::ForegroundGroup => SignalTarget::ForegroundOf(pid),
        };
        self.done(&Request::Signal { id: id.to_owned(), signal, target })
    }

    /// Changes what a container is shown of its cgroup, and its limit of tasks.
    ///
    /// # Errors
    /// [`ControlError::NoContainer`].
    pub fn update(&self, id: &str, shares: SharesSpec) -> Result<()> {
        self.done(&Request::Update { id: id.to_owned(), shares })
    }

    /// Stops all processes of a container until [`Sandbox::resume`].
    ///
    /// # Errors
    /// [`ControlError::State`].
    pub fn pause(&self, id: &str) -> Result<()> {
        self.done(&Request::Pause(id.to_owned()))
    }

    /// Lets the processes of a paused container go on.
    ///
    /// # Errors
    /// [`ControlError::State`].
    pub fn resume(&self, id: &str) -> Result<()> {
        self.done(&Request::Resume(id.to_owned()))
    }

    /// Whether the sandbox process runs: the one that was started, not another one with its pid.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_alive()
    }

    /// Everything that the sandbox counts of a container.
    ///
    /// # Errors
    /// [`ControlError::NoContainer`].
    pub fn metrics(&self, id: &str) -> Result<ContainerMetrics> {
        match self.connect()?.call(&Request::Metrics(id.to_owned()), &[], Patience::Look)? {
            Response::Metrics(metrics) => Ok(*metrics),
            other => Err(unexpected(&other)),
        }
    }

    /// Begins to tell of security events; gives the session's name.
    ///
    /// # Errors
    /// There is one of that name; points that this sandbox does not have.
    pub fn create_trace_session(&self, session: OpenSession, conflict: TraceConflict) -> Result<String> {
        let OpenSession { config, files } = session;
        let name = if config.name.is_empty() { "Default".to_owned() } else { config.name.clone() };
        let request = Request::CreateTraceSession { config: Box::new(config), conflict };
        self.connect()?.call(&request, &files, Patience::Quick).and_then(done)?;
        Ok(name)
    }

    /// Ends such a session.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn delete_trace_session(&self, name: &str) -> Result<()> {
        self.done(&Request::DeleteTraceSession(name.to_owned()))
    }

    /// The sessions of security events.
    ///
    /// # Errors
    /// Of the connection.
    pub fn trace_sessions(&self) -> Result<Vec<SessionInfo>> {
        match self.ask(&Request::ListTraceSessions)? {
            Response::TraceSessions(sessions) => Ok(sessions),
            other => Err(unexpected(&other)),
        }
    }

    /// What each sentry thread and guest task is doing.
    ///
    /// # Errors
    /// Of the connection.
    pub fn stacks(&self) -> Result<String> {
        match self.connect()?.call(&Request::Stacks, &[], Patience::Look)? {
            Response::Text(text) => Ok(text),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes the sentry do host calls; their results as JSON.
    ///
    /// # Errors
    /// Of the connection, if one of the calls was the sandbox's end.
    #[cfg(feature = "host-calls")]
    pub fn host_calls(&self, calls: Vec<moat_control::protocol::HostCall>) -> Result<String> {
        match self.ask(&Request::HostCalls(calls))? {
            Response::Text(text) => Ok(text),
            other => Err(unexpected(&other)),
        }
    }

    /// Changes what the sandbox logs, and where if `log` is given.
    ///
    /// # Errors
    /// A system call that does not exist.
    pub fn change_logging(&self, logging: LogSpec, log: Option<OwnedFd>) -> Result<()> {
        let fds: Vec<OwnedFd> = log.into_iter().collect();
        self.connect()?.call(&Request::ChangeLogging(logging), &fds, Patience::Quick).and_then(done)
    }

    /// Changes which system calls of a container, or of one of its processes, are logged; and where, if `log` is given.
    ///
    /// # Errors
    /// A system call or a process that does not exist; a sandbox that has no log.
    pub fn change_strace(&self, id: &str, pid: Option<i32>, calls: StraceCalls, log: Option<OwnedFd>) -> Result<()> {
        let fds: Vec<OwnedFd> = log.into_iter().collect();
        let request = Request::Strace { id: id.to_owned(), pid, calls };
        self.connect()?.call(&request, &fds, Patience::Quick).and_then(done)
    }

    /// Saves a container into `files`: `state` and `pages`, which are empty; then those of the image that it is based on, if any.
    ///
    /// # Errors
    /// [`ControlError::CantSave`] names what can't be saved; the container then goes on.
    pub fn checkpoint(
        &self,
        id: &str,
        then: AfterCheckpoint,
        compression: PageCompression,
        files: &[OwnedFd],
    ) -> Result<()> {
        let request = Request::Checkpoint { id: id.to_owned(), then, compression };
        self.connect()?.call(&request, files, Patience::Endless).and_then(done)
    }

    /// Begins a profile, whose records the sandbox writes to `pipe`.
    ///
    /// # Errors
    /// One of this kind is under way.
    pub fn start_profile(&self, kind: ProfileKind, pipe: OwnedFd) -> Result<()> {
        self.connect()?.start_profile(kind, pipe)
    }

    /// Ends a profile; everything has been written then.
    ///
    /// # Errors
    /// Of the connection.
    pub fn stop_profile(&self, kind: ProfileKind) -> Result<()> {
        self.done(&Request::StopProfile(kind))
    }

    /// Ends all processes of a container and forgets it. With the root container the sandbox ends. A container, or
    /// a sandbox, that is gone already is no error.
    ///
    /// # Errors
    /// Of the sandbox; TimedOut.
    pub fn destroy_container(&self, id: &str) -> Result<()> {
        if id == self.id {
            return self.destroy();
        }
        match self.done(&Request::DestroyContainer(id.to_owned())) {
            Err(Error::Control(ControlError::NoContainer(_))) => Ok(()),
            // The container ended with its sandbox.
            Err(_) if !self.is_running() => Ok(()),
            other => other,
        }
    }

    /// Ends a sandbox whose container is saved and stands still: to who waits for that, its processes were killed.
    ///
    /// None of them runs again, and the sandbox ends by itself then. If it does not, [`Sandbox::destroy`] ends it.
    pub fn end_saved(&self) {
        if self.signal_container(&self.id, Signal::SIGKILL.number(), ContainerTarget::All).is_ok() {
            let _ = self.process.wait(Some(LAST_WORDS));
        }
    }

    /// Kills the sandbox process, and with it all its containers, and waits until it has ended.
    ///
    /// # Errors
    /// EPERM; TimedOut.
    pub fn destroy(&self) -> Result<()> {
        self.process.kill(END_PATIENCE).context(|| format!("killing the sandbox process {}", self.process.pid))
    }

    /// Kills the sandbox process, and does not wait.
    ///
    /// # Errors
    /// EPERM.
    pub fn kill(&self) -> Result<()> {
        self.process.signal(Signal::SIGKILL).context(|| format!("killing the sandbox process {}", self.process.pid))
    }

    /// Gives the sandbox what is in its network namespace, if its mode is `sandbox`.
    fn set_up_network(&self, link: &Link, uplink: Option<&Uplink>) -> Result<()> {
        if self.network != NetworkMode::Sandbox {
            return Ok(());
        }
        // One file tells the common case of a namespace with nothing in it.
        if foreign_interfaces(self.process.pid)?.is_empty() {
            return Ok(());
        }
        let Taken { config, sockets, resolver, nameservers, ways } = network::take_over(self.process.pid, uplink)?;
        let known: Vec<u32> = config.links.iter().map(|link| link.index).collect();
        let (asked_at, resolver) = resolver.unzip();
        let request = Request::SetUpNetwork { config: Box::new(config), resolver: asked_at, nameservers };
        // In the order in which the sentry takes them: one for each interface, then the resolver's.
        let fds: Vec<OwnedFd> = sockets.into_iter().chain(resolver).collect();
        let has = watcher::Has { resolver: asked_at.is_some(), ways };
        link.call(&request, &fds, Patience::Quick).and_then(done)?;
        // Without one the sandbox keeps the interfaces that it began with.
        let connection = self
            .connect()
            .and_then(|link| link.as_fd().try_clone_to_owned().context(|| "duplicating a control connection".into()));
        let watcher = connection.and_then(|fd| watcher::start(self.process.pid, fd, &known, has));
        watcher.or_else(|error| {
            tracing::debug!(%error, "no watcher of interfaces");
            Ok(())
        })
    }

    fn connect(&self) -> Result<Link> {
        // How a connection fails says little about a sandbox that has ended.
        Link::open(&self.directory, CONTROL_SOCKET).map_err(|error| match self.is_running() {
            true => error,
            false => Error::State(format!("container not running{}", self.last_words())),
        })
    }

    /// Where its process says why it ended, if it failed.
    fn last_words(&self) -> String {
        let path = self.directory.join(PANIC_LOG);
        let failed = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 0);
        if failed { format!(": its kernel failed, see {}", path.display()) } else { String::new() }
    }

    fn ask(&self, request: &Request) -> Result<Response> {
        self.connect()?.call(request, &[], Patience::Quick)
    }

    fn done(&self, request: &Request) -> Result<()> {
        self.ask(request).and_then(done)
    }
}

/// Which processes of a container [`Sandbox::signal_container`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ContainerTarget {
    Init,
    All,
}

/// Which processes [`Sandbox::signal_process`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessTarget {
    /// The one of that pid.
    Process,
    /// The foreground group of its session's terminal; itself if it has none.
    ForegroundGroup,
}

pub(crate) fn done(response: Response) -> Result<()> {
    match response {
        Response::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn exited(response: Response) -> Result<ExitStatus> {
    match response {
        Response::Exited(status) => Ok(status),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(response: &Response) -> Error {
    Error::Invalid(format!("the sandbox gave an answer that does not fit: {response:?}"))
}
