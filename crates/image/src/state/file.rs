//! Descriptors and open files.

use serde::{Deserialize, Serialize};

use super::anonymous::{PidFdState, PipeEndState, SignalFdState, TimerFdState};
use super::identity::CredentialsState;
use super::index::ContainerIndex;
use super::inotify::InotifyState;
use super::lock::{HeldState, OwnerState, ProcessLockState};
use super::mount::{MountState, PathState};
use super::mqueue::MqueueState;
use super::namespace::NamespaceRef;
use super::socket::SocketFileState;
use super::terminal::{HostTerminalState, PtyState};
use super::tree::NodeState;
use crate::refs::{Named, Ref};

/// A table of descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdTableState {
    /// The descriptors in order.
    pub descriptors: Vec<DescriptorState>,
    /// What its processes hold of files (F_SETLK).
    #[serde(default)]
    pub locks: Vec<ProcessLockState>,
}

/// A descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorState {
    /// Its number.
    pub fd: i32,
    /// What it refers to.
    pub file: Ref<OpenFileState>,
    /// FD_CLOEXEC.
    pub close_on_exec: bool,
}

/// Where a process's paths begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsContextState {
    /// What `/` means.
    pub root: PathState,
    /// The working directory.
    pub cwd: PathState,
    /// The umask.
    pub umask: u32,
}

/// An open file description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFileState {
    /// The flags of F_GETFL.
    pub flags: u32,
    /// The position.
    pub pos: u64,
    /// The credentials of the opener.
    pub credentials: Ref<CredentialsState>,
    /// F_GETSIG.
    pub signal: u32,
    /// F_GETOWN.
    #[serde(default)]
    pub owner: Option<OwnerState>,
    /// The descriptor that O_ASYNC was set through.
    #[serde(default)]
    pub async_fd: i32,
    /// Locks and the lease.
    #[serde(default)]
    pub held: HeldState,
    /// What it is.
    pub kind: OpenFileKind,
}

/// The kinds of open files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenFileKind {
    /// Opened by this path, and opened by it again.
    Path {
        /// The path.
        path: PathState,
        /// What was there.
        found: FileIdentityState,
    },
    /// A descriptor of this number that the container's init was started with, given anew.
    Donated(u32),
    /// The same of a later container of a pod.
    DonatedTo {
        /// Which.
        container: ContainerIndex,
        /// The descriptor.
        number: u32,
    },
    /// A file without a name.
    Unnamed(Ref<UnnamedFileState>),
    /// An end of a pipe or FIFO.
    Pipe(PipeEndState),
    /// An eventfd.
    EventFd {
        /// What a read gives.
        count: u64,
        /// EFD_SEMAPHORE.
        semaphore: bool,
    },
    /// A timerfd.
    TimerFd(TimerFdState),
    /// A signalfd.
    SignalFd(SignalFdState),
    /// A pidfd.
    PidFd(PidFdState),
    /// An epoll instance.
    Epoll(Vec<EpollItemState>),
    /// A socket.
    Socket(SocketFileState),
    /// An instance of inotify.
    Inotify(InotifyState),
    /// A POSIX message queue.
    Mqueue(MqueueFileState),
    /// The master of a pseudo-terminal.
    PtyMaster(PtyMasterState),
    /// Its slave.
    PtySlave(PtySlaveState),
    /// A terminal of the host, which the init has not brought along by this descriptor.
    HostTerminal(HostTerminalFileState),
    /// A stream to the outside that a process which joined the container was started with.
    Severed(SeveredState),
    /// A namespace.
    Namespace(NamespaceRef),
}

/// An opening of a terminal of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTerminalFileState {
    /// The terminal.
    pub terminal: Ref<HostTerminalState>,
    /// What it was opened by, if that is in the container.
    pub path: Option<PathState>,
    /// How it is shown otherwise.
    #[serde(with = "serde_bytes")]
    pub shown: Vec<u8>,
    /// The number of its inode.
    pub ino: u64,
}

/// A stream whose other end is outside, held by whoever had the process started: when it is restored, that one is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeveredState {
    /// What it is.
    pub kind: SeveredKind,
    /// How it is shown.
    #[serde(with = "serde_bytes")]
    pub shown: Vec<u8>,
    /// The number of its inode.
    pub ino: u64,
}

/// What a stream to the outside was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeveredKind {
    /// A pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A terminal.
    Terminal,
    /// /dev/null, which leads nowhere anyway.
    Null,
}

/// An open master of a pseudo-terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PtyMasterState {
    /// The pseudo-terminal.
    pub pty: Ref<PtyState>,
    /// The ptmx that it was opened by.
    pub path: PathState,
    /// The root of its devpts.
    pub root: PathState,
}

/// An open slave of a pseudo-terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PtySlaveState {
    /// The pseudo-terminal.
    pub pty: Ref<PtyState>,
    /// What it was opened by; none once its name is gone.
    pub path: Option<PathState>,
    /// How it is shown then.
    #[serde(with = "serde_bytes")]
    pub shown: Vec<u8>,
    /// Hang-ups before it was opened.
    pub hang_ups: u64,
}

/// An open message queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MqueueFileState {
    /// The queue.
    pub queue: Ref<MqueueState>,
    /// Where it was opened, if not by mq_open(2).
    pub path: Option<PathState>,
}

/// What tells whether a file is the one that it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentityState {
    /// The type bits of `st_mode`.
    pub file_type: u32,
    /// Bytes and the time of the last change in seconds and nanoseconds, if the file has to be unchanged.
    pub contents: Option<(u64, i64, i64)>,
}

/// What an epoll instance watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpollItemState {
    /// The descriptor it was added by.
    pub fd: i32,
    /// The file.
    pub file: Ref<OpenFileState>,
    /// The events of epoll_ctl(2).
    pub events: u32,
    /// Its data.
    pub data: u64,
    /// It has given the one event of EPOLLONESHOT.
    pub spent: bool,
    /// It is on the list of those that may be ready.
    pub queued: bool,
}

/// A file that has no name, and is there as long as it is open or mapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnnamedFileState {
    /// The mount it is seen through; none for a memfd.
    pub mount: Option<Ref<MountState>>,
    /// How it is shown: for a memfd all of it, else names from the root of the mount on, without the first slash.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// The file.
    pub node: NodeState,
}

impl Named for FdTableState {
    const WHAT: &'static str = "descriptor table";
}

impl Named for FsContextState {
    const WHAT: &'static str = "working directory";
}

impl Named for OpenFileState {
    const WHAT: &'static str = "open file";
}

impl Named for UnnamedFileState {
    const WHAT: &'static str = "file without a name";
}
