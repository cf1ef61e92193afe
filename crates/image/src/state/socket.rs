//! Sockets.

use serde::{Deserialize, Serialize};

use super::file::OpenFileState;
use super::mount::PathState;
use crate::refs::{Named, Ref};

/// A socket as an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketFileState {
    /// Permissions.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// Seconds and nanoseconds of its making.
    pub time: (i64, i64),
    /// The socket.
    pub socket: SocketRef,
}

/// A socket of some family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SocketRef {
    /// AF_UNIX.
    Unix(Ref<UnixSocketState>),
}

/// What sockets of all families have: socket(7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are the options of socket(7)")]
pub struct SocketCoreState {
    pub ino: u64,
    /// Options that are on or off.
    pub flags: u32,
    /// The pending error; 0 for none.
    pub error: i32,
    pub sndbuf: u64,
    pub rcvbuf: u64,
    pub rcvlowat: u64,
    /// 0 for none.
    pub rcvtimeo_ns: u64,
    /// 0 for none.
    pub sndtimeo_ns: u64,
    /// Seconds, if it is on.
    pub linger: Option<u32>,
    pub linger_seconds_off: u32,
    pub priority: u32,
    pub mark: u32,
    #[serde(with = "serde_bytes")]
    pub device: Vec<u8>,
    pub busy_poll: u32,
    pub pacing_rate: u64,
}

/// Who sent something, or is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SocketCredsState {
    /// The number of the process; none for the kernel.
    pub process: Option<i32>,
    pub uid: u32,
    pub gid: u32,
}

/// A UNIX socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnixSocketState {
    /// What its peers know of it.
    pub endpoint: Ref<UnixEndpointState>,
    /// SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
    pub socket_type: u32,
    /// Who made it.
    pub maker: SocketCredsState,
    /// The other end of the connection, or where datagrams go.
    pub peer: Option<Ref<UnixEndpointState>>,
    /// SO_PEERCRED.
    pub peer_creds: Option<SocketCredsState>,
    /// How others find it, if they do: an accepted socket only shows its name.
    pub bound: Option<UnixBoundState>,
    /// What it has not accepted yet, if it listens.
    pub backlog: Option<UnixBacklogState>,
}

/// How a UNIX socket is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnixBoundState {
    /// By its name in the network namespace.
    Abstract,
    /// By this file.
    File(PathState),
}

/// The queue of a UNIX socket that listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnixBacklogState {
    /// The argument of listen(2).
    pub limit: u64,
    /// Who listens.
    pub creds: SocketCredsState,
    /// The server ends of connections, the eldest first.
    pub ready: Vec<Ref<UnixSocketState>>,
}

/// What the peers of a UNIX socket know of it; what is known of one that is closed already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnixEndpointState {
    /// Options and the like.
    pub core: SocketCoreState,
    /// 1: the reading half is closed; 2: the writing half.
    pub shutdown: u8,
    /// Its name; an abstract one begins with zero.
    pub name: Option<serde_bytes::ByteBuf>,
    /// The inode number of the only socket that it takes datagrams from; 0 for all.
    pub only_from: u64,
    /// It was found to have no room, and tells when it has.
    pub starved: bool,
    /// What waits in a stream.
    pub pieces: Vec<UnixPieceState>,
    /// What waits with borders.
    pub packets: Vec<UnixPacketState>,
}

/// Bytes of a stream that were sent by one, with what goes with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct UnixPieceState {
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
    pub attached: UnixAttachedState,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct UnixPacketState {
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
    /// The name of the sender at that time.
    pub from: Option<serde_bytes::ByteBuf>,
    /// Whom it is charged to.
    pub sender: Ref<UnixEndpointState>,
    pub attached: UnixAttachedState,
}

/// Credentials and descriptors in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnixAttachedState {
    /// Who sent it, where that was asked for.
    pub creds: Option<SocketCredsState>,
    /// SCM_RIGHTS.
    pub files: Vec<Ref<OpenFileState>>,
    /// The user who is charged for them.
    pub files_uid: u32,
}

impl Named for UnixSocketState {
    const WHAT: &'static str = "UNIX socket";
}

impl Named for UnixEndpointState {
    const WHAT: &'static str = "end of a UNIX socket";
}
