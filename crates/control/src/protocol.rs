//! [`Request`] and [`Response`]: the one control protocol.
//!
//! Both are JSON, one message in one SOCK_SEQPACKET packet, with descriptors by SCM_RIGHTS; see
//! [`crate::Connection`]. Errors keep their type and errno. A sandbox answers the requests of one connection in the
//! order in which they end: one that waits does not hold up others that come after it on other connections.

use std::net::IpAddr;

use moat_abi::Errno;
use moat_net_stack::{NetworkConfig, RouteConfig};
use serde::{Deserialize, Serialize};

use crate::ExitStatus;
use crate::metrics::ContainerMetrics;
use crate::session::{SessionConfig, SessionInfo};
use crate::spec::{ContainerSpec, FdNumber, LogSpec, ProcessSpec, SharesSpec, TraceConflict};

/// The version of the protocol; both sides send it with each message.
pub const PROTOCOL_VERSION: u32 = 5;

/// What the sandbox is asked to do. A container is named by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Gives the sandbox the interfaces of its network namespace, before [`Request::StartRoot`]: [`Response::Done`]. With the
    /// message come a packet socket for each of [`NetworkConfig::devices`], in order, and then what `resolver` says.
    SetUpNetwork {
        /// The interfaces with their addresses and routes.
        config: Box<NetworkConfig>,
        /// If a datagram socket comes last that is connected to a resolver: the address of the loopback device at which the guest asks
        /// that, port 53.
        resolver: Option<IpAddr>,
        /// Who is asked, over the guest's network, for what that resolver can't answer.
        nameservers: Vec<IpAddr>,
    },
    /// Gives it one interface more while it runs, with descriptors as there: [`Response::LinkAdded`].
    AddLink {
        /// One interface with its addresses and routes.
        config: Box<NetworkConfig>,
        /// As in [`Request::SetUpNetwork`].
        resolver: Option<IpAddr>,
        /// As in [`Request::SetUpNetwork`].
        nameservers: Vec<IpAddr>,
    },
    /// An interface of [`Request::SetUpNetwork`] or [`Request::AddLink`] has left its network namespace: [`Response::Done`].
    RemoveLink(u32),
    /// Routes by a gateway have come or gone there, with the numbers that interfaces have inside: [`Response::Done`].
    ChangeRoutes {
        /// Those that are new.
        added: Vec<RouteConfig>,
        /// Those that are no longer there.
        removed: Vec<RouteConfig>,
    },
    /// Lets the root container's init run, which was prepared when the sandbox booted: [`Response::Done`].
    StartRoot,
    /// Keeps an id for a container that is about to be made over this connection, and makes the host process that its
    /// processes will descend from: [`Response::Template`]. Given up when the connection closes.
    ReserveContainer(String),
    /// Makes another container: its mounts, and its init ready to run. [`FdNumber`]s in the spec are indices into the
    /// descriptors that come with the message.
    CreateContainer(Box<ContainerSpec>),
    /// Lets the init of a container of [`Request::CreateContainer`] run.
    StartContainer(String),
    /// Starts another process in a running container: [`Response::Started`].
    Execute(Box<ExecuteArgs>),
    /// Waits until the container's init has ended: [`Response::Exited`].
    Wait(String),
    /// Waits until a process of [`Request::Execute`] has ended: [`Response::Exited`], once; it is forgotten then. With it may come a
    /// pidfd of the host process that stands for it: that one ends before [`Request::Wait`] is answered, and before the sandbox ends.
    WaitProcess {
        /// The container.
        id: String,
        /// In the container's pid namespace.
        pid: i32,
    },
    /// Sends a signal to processes of a container.
    Signal {
        /// The container.
        id: String,
        /// 1 to 64.
        signal: i32,
        /// Which of its processes. With [`SignalTarget::All`] and SIGKILL the answer comes when all have ended.
        target: SignalTarget,
    },
    /// Lists the container's processes: [`Response::Processes`].
    Processes(String),
    /// What the sandbox itself knows of the container's use of resources: [`Response::Event`].
    Event(String),
    /// Everything that the sandbox counts of a container: [`Response::Metrics`].
    Metrics(String),
    /// What state the container is in: [`Response::State`].
    State(String),
    /// Changes what a container is shown of its cgroup, and its limit of tasks.
    Update {
        /// The container.
        id: String,
        /// What it may use from here on.
        shares: SharesSpec,
    },
    /// No process of the container runs application code until [`Request::Resume`].
    Pause(String),
    /// The reverse of [`Request::Pause`].
    Resume(String),
    /// What each sentry thread and guest task is doing: [`Response::Text`].
    Stacks,
    /// Changes what is logged.
    ChangeLogging(LogSpec),
    /// Changes which system calls of a container are logged. The log's descriptor may come with the message.
    Strace {
        /// The container.
        id: String,
        /// One process, in the container's pid namespace; else all of them.
        pid: Option<i32>,
        /// Which calls.
        calls: StraceCalls,
    },
    /// Begins to tell of security events; the descriptors of its sinks come with the message, one for each but those that are nobody.
    CreateTraceSession {
        /// What is told, and to whom.
        config: Box<SessionConfig>,
        /// What happens to a session of the same name.
        conflict: TraceConflict,
    },
    /// Ends such a session.
    DeleteTraceSession(String),
    /// Lists them: [`Response::TraceSessions`].
    ListTraceSessions,
    /// Ends all processes of a container other than the root container and forgets it.
    DestroyContainer(String),
    /// Saves the sandbox of this container into the two files that come with the message, `state` and `pages`, which are empty. If more
    /// come, they are the files of the image that it is to be based on: `state`, `pages`, and the pages of those that one is based on.
    /// Restoring is part of making a sandbox: [`crate::spec::RestoreSpec`].
    Checkpoint {
        /// The container.
        id: String,
        /// What becomes of it when all is saved.
        then: AfterCheckpoint,
        /// How pages are written.
        compression: PageCompression,
    },
    /// Begins a profile of the sandbox: [`Response::Done`] once it is under way. What is seen goes, as records of
    /// [`crate::profile`], to the pipe that comes with the message. It ends with [`Request::StopProfile`], when the pipe's other
    /// end closes, and with the sandbox.
    StartProfile(ProfileKind),
    /// Ends a profile: [`Response::Done`] when everything has been written.
    StopProfile(ProfileKind),
    /// Makes the sentry do these host calls; their results as JSON in [`Response::Text`].
    #[cfg(feature = "host-calls")]
    HostCalls(Vec<HostCall>),
}

/// A host call.
#[cfg(feature = "host-calls")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCall {
    /// Its number.
    pub number: i64,
    /// Six at most.
    pub arguments: Vec<HostArgument>,
}

/// An argument of a [`HostCall`].
#[cfg(feature = "host-calls")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostArgument {
    /// As it is.
    Number(i64),
    /// The address of a string.
    Text(String),
    /// The address of a buffer.
    Bytes(Vec<u8>),
    /// The result of an earlier call of the same request.
    Result(usize),
}

/// A process to start in a running container. Descriptor numbers are indices into those that come with the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecuteArgs {
    /// The container.
    pub id: String,
    /// The process.
    pub process: ProcessSpec,
    /// Its stdin, stdout and stderr.
    pub stdio: [FdNumber; 3],
    /// Its descriptors 3, 4, ...
    pub preserved: Vec<FdNumber>,
    /// What happens to it when the connection closes.
    pub lifetime: ExecLifetime,
}

/// How pages of an image are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PageCompression {
    /// As they are.
    None,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// What becomes of a container that has been saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AfterCheckpoint {
    /// It goes on, if it did before.
    GoOn,
    /// It is paused, for who asked to end it once the image is in its place.
    Pause,
}

/// What happens to a process of [`Request::Execute`] when the connection that it was asked for over closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecLifetime {
    /// It is killed.
    Connection,
    /// Nothing.
    Container,
}

/// Which processes of a container a signal goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignalTarget {
    /// Its init.
    Init,
    /// All of them.
    All,
    /// The foreground process group of its init's terminal; its init if it has none.
    Foreground,
    /// The process with this pid in the container's pid namespace.
    Process(i32),
    /// The foreground process group of the terminal of the session that this process is in; the process if it has none.
    ForegroundOf(i32),
}

/// Which system calls are logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StraceCalls {
    /// None.
    Off,
    /// All.
    All,
    /// Those of these names.
    Only(Vec<String>),
}

/// The kinds of profiles. Of each kind a sandbox makes one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProfileKind {
    /// Where the sandbox process and its guests spend CPU time.
    Cpu,
    /// What the sandbox process allocates, and what of it stays.
    Heap,
    /// What each task does at the moment when it ends.
    Tasks,
    /// How long tasks wait, by what they wait for.
    Block,
    /// How long threads wait for locks, by lock class and place.
    Mutex,
    /// What tasks do, one after the other.
    Trace,
    /// How long system calls take, by call, and what all tasks have used.
    Times,
    /// The frames of the links of the sandbox's own network.
    Packets,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Done.
    Done,
    /// The host process is there; its pidfd comes with the message.
    Template,
    /// The interface is there, and has this number.
    LinkAdded(u32),
    /// The process runs; its pid in the container's pid namespace.
    Started(i32),
    /// The process ended so.
    Exited(ExitStatus),
    /// The container's processes.
    Processes(Vec<ProcessInfo>),
    /// The container's use of resources.
    Event(EventInfo),
    /// Figures of the container.
    Metrics(Box<ContainerMetrics>),
    /// The container's state.
    State(ContainerStatus),
    /// The sessions of security events.
    TraceSessions(Vec<SessionInfo>),
    /// Text for people.
    Text(String),
    /// It failed.
    Error(ControlError),
}

/// What state a container in a sandbox is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum ContainerStatus {
    /// Its init is ready to run.
    Created,
    Running,
    Paused,
    /// Its init has ended.
    Stopped,
}

/// One guest process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// In the container's pid namespace.
    pub pid: i32,
    /// Its parent, 0 if that is outside of the container.
    pub parent_pid: i32,
    /// The pid of the host process that runs it, in the sandbox's own pid namespace; 0 if it has none. Processes of a
    /// vfork(2) share one.
    pub sandbox_pid: i32,
    /// Real uid.
    pub uid: u32,
    /// Threads alive.
    pub threads: u32,
    /// User and system time in nanoseconds.
    pub cpu_time_ns: u64,
    /// Start time, nanoseconds after the sandbox booted.
    pub start_time_ns: u64,
    /// The number of its controlling terminal, as in /proc/PID/stat; 0 if it has none.
    pub tty: u64,
    /// comm.
    pub command: String,
    /// Its command line, as text; empty for a zombie.
    pub args: Vec<String>,
}

/// What a container uses, as the sandbox counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventInfo {
    /// Processes alive.
    pub processes: u64,
    /// Threads alive.
    pub threads: u64,
    /// User and system time of all processes in nanoseconds, ended ones included.
    pub cpu_time_ns: u64,
    /// Resident memory of its processes in bytes; shared pages count in each.
    pub resident_bytes: u64,
    /// Tasks as its limit counts them: with zombies that nobody has waited for.
    pub tasks: u64,
    /// Its limit of tasks, if it has one.
    pub tasks_max: Option<u64>,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ControlError {
    /// No such container.
    #[error("container {0:?} does not exist in this sandbox")]
    NoContainer(String),
    /// There is one with this id.
    #[error("container {0:?} exists already in this sandbox")]
    Exists(String),
    /// It can't be done in the container's state.
    #[error("container {id:?} is {status:?}: {what}")]
    State {
        /// The container.
        id: String,
        /// Its state.
        status: ContainerStatus,
        /// What can't be done.
        what: String,
    },
    /// The command to run does not exist, or can't be executed.
    #[error("exec: {command:?}: {}", Errno::from_raw(*errno))]
    Command {
        /// `args[0]`.
        command: String,
        /// ENOENT if it does not exist.
        errno: i32,
    },
    /// The kernel said no.
    #[error("{what}: {}", Errno::from_raw(*errno))]
    Errno {
        /// What was tried.
        what: String,
        /// The error number.
        errno: i32,
    },
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The container has what can't be saved: text that names it.
    #[error("{0}")]
    CantSave(String),
    /// This version of moat does not offer it.
    #[error("{0} is not supported yet")]
    Unsupported(String),
}

impl ControlError {
    /// A failure with the kernel's errno.
    pub fn errno(what: impl Into<String>, errno: Errno) -> Self {
        ControlError::Errno { what: what.into(), errno: errno.raw() }
    }
}

/// A request or response as it is on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Message<T> {
    pub(crate) version: u32,
    pub(crate) body: Body<T>,
}

/// What a message says, or that a memfd does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Body<T> {
    Inline(T),
    /// The JSON of `T` is in a memfd, the last of the descriptors; this many bytes.
    InMemfd(u64),
}
