//! Sockets of all families.

use serde::{Deserialize, Serialize};

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
    /// AF_UNIX: its place among them.
    // A number, because what lies in the queues of sockets are open files.
    Unix(u32),
    /// TCP.
    Tcp(u32),
    /// UDP.
    Udp(u32),
    /// AF_NETLINK.
    Netlink(u32),
    /// Raw or ping.
    Raw(u32),
    /// AF_PACKET.
    Packet(u32),
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
    /// Datagrams that found no room.
    #[serde(default)]
    pub lost: u32,
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
