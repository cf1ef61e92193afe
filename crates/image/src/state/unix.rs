//! UNIX sockets.

use serde::{Deserialize, Serialize};

use super::file::OpenFileState;
use super::mount::PathState;
use super::socket::{SocketCoreState, SocketCredsState};
use crate::refs::{Named, Ref};

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
    // Not by the name of its end: an accepted socket shows the listener's.
    /// How others find it, if they do.
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
    // Of these only those of the socket's type are there.
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
