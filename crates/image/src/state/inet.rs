//! TCP and UDP sockets.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::socket::SocketCoreState;
use crate::refs::{Named, Ref};

/// Options of levels IP, IPV6, TCP and UDP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InetOptionsState {
    /// Those that are numbers and were set: level, name, value.
    pub numbers: Vec<(u32, u32, i32)>,
    /// TCP_MAXSEG.
    pub max_segment: i32,
    /// TCP_CONGESTION.
    #[serde(with = "serde_bytes")]
    pub congestion: Vec<u8>,
    /// IP_MULTICAST_IF, as it is shown.
    pub multicast_if: [u8; 4],
    /// The device of that.
    pub multicast_device: u32,
    /// The groups that were joined, over the loopback device.
    #[serde(default)]
    pub groups: Vec<IpAddr>,
    /// SO_BINDTODEVICE is the loopback device.
    #[serde(default)]
    pub on_loopback: bool,
}

/// The entry of a socket in the table of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct BindingState {
    pub ip: IpAddr,
    pub port: u16,
    /// It takes IPv4 as well.
    pub dual: bool,
    pub reuse_address: bool,
    pub reuse_port: bool,
    /// The user whose sockets share by SO_REUSEPORT.
    pub uid: u32,
    /// The only peer that datagrams are taken of.
    pub peer: Option<SocketAddr>,
}

/// A UDP socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpSocketState {
    /// AF_INET or AF_INET6.
    pub family: u16,
    /// Options and the like.
    pub core: SocketCoreState,
    /// Its own options.
    pub options: InetOptionsState,
    /// Who made it.
    pub uid: u32,
    /// 1: the reading half is closed; 2: the writing half.
    pub shutdown: u8,
    /// Its address.
    pub local: Option<SocketAddr>,
    /// The address that bind(2) was given.
    pub bound_address: Option<IpAddr>,
    /// The port is by bind(2).
    pub bound_port: bool,
    /// Its peer.
    pub peer: Option<SocketAddr>,
    /// Its entry in the table of ports.
    pub binding: Option<BindingState>,
    /// What waits to be read.
    pub datagrams: Vec<DatagramState>,
    /// What the network has said of what it sent.
    #[serde(default)]
    pub errors: Vec<NetworkErrorState>,
    /// Its filter: code, jt, jf, k.
    #[serde(default)]
    pub filter: Option<Vec<(u16, u8, u8, u32)>>,
    /// SO_LOCK_FILTER.
    #[serde(default)]
    pub filter_locked: bool,
}

/// An error of the network that waits to be read (IP_RECVERR).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkErrorState {
    /// What ICMP had of the packet.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
    /// Where that was going.
    pub to: SocketAddr,
    /// Who says so.
    pub offender: SocketAddr,
    /// `struct sock_extended_err`: errno and info.
    pub error: (u32, u32),
    /// Its origin, type and code.
    pub kind: (u8, u8, u8),
}

/// A datagram that has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DatagramState {
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
    pub from: SocketAddr,
    pub to: IpAddr,
    /// The device that it came over.
    pub device: u32,
    pub ttl: u8,
    pub tos: u8,
}

/// A TCP socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpSocketState {
    /// AF_INET or AF_INET6.
    pub family: u16,
    /// Its end of the connection.
    pub end: Ref<TcpEndState>,
    /// Its own options.
    pub options: InetOptionsState,
    /// Who made it.
    pub uid: u32,
    /// Its address, and whether that is by bind(2).
    pub bound: Option<(SocketAddr, bool)>,
    /// Its entry in the table of ports.
    pub binding: Option<BindingState>,
    /// Where it is in its life.
    pub phase: TcpPhaseState,
}

/// Where a TCP socket is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TcpPhaseState {
    /// No connection.
    Closed,
    /// Listening.
    Listening {
        /// The argument of listen(2).
        limit: u64,
        /// Places in the table of sockets: the server ends of connections, the eldest first.
        ready: Vec<u32>,
    },
    /// Waiting for room in a listener's queue.
    Connecting {
        /// The listener's address.
        to: SocketAddr,
    },
    /// A connection between two sockets of the sandbox.
    Connected {
        /// The other end.
        peer: Ref<TcpEndState>,
        /// The peer's address.
        addr: SocketAddr,
        /// connect(2) has said that it stands.
        announced: bool,
    },
    /// A connection to the outside: a restore resets it.
    Outside {
        /// It was established.
        stands: bool,
    },
}

/// One end of a connection, as the other one sees it; also that of a socket that is closed already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpEndState {
    /// Options and the like.
    pub core: SocketCoreState,
    /// 1: the reading half is closed; 2: the writing half.
    pub shutdown: u8,
    /// A reset came.
    pub reset: bool,
    /// What waits to be read.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// The urgent byte.
    pub urgent: Option<u8>,
    /// The sender found no room, of so many bytes, and wants to be woken.
    pub starved: Option<u64>,
}

impl Named for UdpSocketState {
    const WHAT: &'static str = "UDP socket";
}

impl Named for TcpSocketState {
    const WHAT: &'static str = "TCP socket";
}

impl Named for TcpEndState {
    const WHAT: &'static str = "end of a TCP connection";
}
