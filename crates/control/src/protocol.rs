//! [`Request`] and [`Response`]: the one control protocol.
//!
//! Both are JSON, one message in one SOCK_SEQPACKET packet, with descriptors by SCM_RIGHTS; see
//! [`crate::Connection`]. Errors keep their type and errno.

use moat_abi::Errno;
use serde::{Deserialize, Serialize};

use crate::ExitStatus;

/// The version of the protocol; both sides send it with each message.
pub const PROTOCOL_VERSION: u32 = 1;

/// What the sandbox is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Sends a signal to processes of a container.
    SignalContainer {
        /// The container.
        id: String,
        /// 1 to 64.
        signal: i32,
        /// Which of its processes.
        target: SignalTarget,
    },
    /// Waits until the container's init has ended: [`Response::Exited`].
    Wait {
        /// The container.
        id: String,
    },
    /// Lists the container's processes: [`Response::Processes`].
    Processes {
        /// The container.
        id: String,
    },
    /// What each sentry thread and guest task is doing: [`Response::Text`].
    Stacks,
}

/// Which processes of a container a signal goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignalTarget {
    /// Its init.
    Init,
    /// All of them.
    All,
    /// The foreground process group of its controlling terminal; its init if it has none.
    Foreground,
    /// The process with this pid in the container's pid namespace.
    Process(i32),
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Done.
    Done,
    /// The container's init ended so.
    Exited(ExitStatus),
    /// The container's processes.
    Processes(Vec<ProcessInfo>),
    /// Text for people.
    Text(String),
    /// It failed.
    Error(ControlError),
}

/// One guest process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// In the container's pid namespace.
    pub pid: i32,
    /// Its parent, 0 if that is outside of the container.
    pub parent_pid: i32,
    /// Real uid.
    pub uid: u32,
    /// Threads alive.
    pub threads: u32,
    /// User and system time in nanoseconds.
    pub cpu_time_ns: u64,
    /// Start time, nanoseconds after the sandbox booted.
    pub start_time_ns: u64,
    /// comm.
    pub command: String,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ControlError {
    /// No such container.
    #[error("container {0:?} does not exist")]
    NoContainer(String),
    /// The kernel said no.
    #[error("{what}: {}", Errno::from_raw(*errno))]
    Errno {
        /// What was tried.
        what: String,
        /// The error number.
        errno: i32,
    },
    /// This version of moat does not offer it.
    #[error("{0} is not supported yet")]
    Unsupported(String),
}

/// A request or response as it is on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Message<T> {
    pub(crate) version: u32,
    pub(crate) body: T,
}
