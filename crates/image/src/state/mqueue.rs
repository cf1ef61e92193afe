//! POSIX message queues.

use serde::{Deserialize, Serialize};

use super::index::ContainerIndex;
use super::namespace::IpcNamespaceState;
use crate::refs::{Named, Ref};

/// A POSIX message queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MqueueState {
    /// Its name, without a slash; none once it was removed.
    pub name: Option<serde_bytes::ByteBuf>,
    /// How it is shown, removed or not.
    pub shown: serde_bytes::ByteBuf,
    /// Permissions.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// Seconds and nanoseconds of the last access, modification and change.
    pub times: [(i64, i64); 3],
    /// Messages, at most.
    pub max_messages: u64,
    /// Bytes of a message, at most.
    pub message_size: u64,
    /// Priorities and bytes, in the order of their sending within each priority.
    pub messages: Vec<(u32, serde_bytes::ByteBuf)>,
    /// The user who pays for it.
    pub payer: u32,
    /// Who is told of a message.
    pub notification: Option<MqueueNotificationState>,
    /// Its namespace.
    #[serde(default)]
    pub ipc: Option<Ref<IpcNamespaceState>>,
    /// Whose that is, where none is named.
    #[serde(default)]
    pub container: ContainerIndex,
}

/// A registration of mq_notify(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MqueueNotificationState {
    /// The number of the process.
    pub process: i32,
    /// The signal and its value; none for SIGEV_NONE.
    pub signal: Option<(i32, u64)>,
}

impl Named for MqueueState {
    const WHAT: &'static str = "message queue";
}
