//! Descriptors, open files, paths, mounts, file systems.

use serde::{Deserialize, Serialize};

use super::anonymous::{EpollItemState, PidFdState, PipeEndState, SignalFdState, TimerFdState};
use super::identity::CredentialsState;
use super::tree::{TreeState, UnnamedFileState};
use crate::refs::{Named, Ref};

/// A table of descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdTableState {
    /// The descriptors in order.
    pub descriptors: Vec<DescriptorState>,
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

/// A place in the tree of mounts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PathState {
    /// The mount it is seen through.
    pub mount: Ref<MountState>,
    /// Names from the root of the mount on, each after a slash; empty for that root.
    pub names: Vec<u8>,
}

/// A mount of the container's mount namespace. It is made from the configuration again; this tells whether it is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountState {
    /// Its place in the order of the namespace's mounts, parents first.
    pub index: u32,
    /// The type of its file system.
    pub fs_type: String,
    /// Where it is mounted, from the root of the namespace on.
    pub mountpoint: Vec<u8>,
    /// Its file system.
    pub file_system: Ref<FileSystemState>,
}

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileSystemState {
    /// All of it comes from the configuration, or from the kernel's other state.
    Made,
    /// These files are in it.
    Tree(TreeState),
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
}

/// What tells whether a file is the one that it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentityState {
    /// The type bits of `st_mode`.
    pub file_type: u32,
    /// Bytes and the time of the last change in seconds and nanoseconds, if the file has to be unchanged.
    pub contents: Option<(u64, i64, i64)>,
}

impl Named for FdTableState {
    const WHAT: &'static str = "descriptor table";
}

impl Named for FsContextState {
    const WHAT: &'static str = "working directory";
}

impl Named for MountState {
    const WHAT: &'static str = "mount";
}

impl Named for FileSystemState {
    const WHAT: &'static str = "file system";
}

impl Named for OpenFileState {
    const WHAT: &'static str = "open file";
}
