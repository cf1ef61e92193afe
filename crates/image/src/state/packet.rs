//! Sockets that carry no streams or datagrams of programs: netlink, raw and ping sockets, packet sockets.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::inet::{DatagramState, InetOptionsState};
use super::socket::SocketCoreState;
use crate::refs::Named;

/// A netlink socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetlinkSocketState {
    /// `SOCK_RAW` or `SOCK_DGRAM`.
    pub socket_type: u32,
    /// `NETLINK_*`.
    pub protocol: u32,
    /// Options and the like.
    pub core: SocketCoreState,
    /// Its number; 0 while it has none.
    pub port: u32,
    /// Its groups, a bit each from group 1 on.
    pub groups: u64,
    /// Messages that nobody has read.
    pub waiting: Vec<serde_bytes::ByteBuf>,
    /// What is left of a dump.
    pub dump: Option<NetlinkDumpState>,
    /// A message found no room, of which the reader has not been told.
    pub overrun: bool,
    /// Its reader does not want to be told (NETLINK_NO_ENOBUFS).
    #[serde(default)]
    pub untold: bool,
}

/// What is left of a dump: it is of the moment of the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetlinkDumpState {
    /// Its messages.
    pub messages: Vec<serde_bytes::ByteBuf>,
    /// The sequence number of the request.
    pub seq: u32,
    /// The number of the socket that has asked.
    pub port: u32,
}

/// A raw or ping socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawSocketState {
    /// AF_INET or AF_INET6.
    pub family: u16,
    /// `SOCK_RAW`, or `SOCK_DGRAM` for ping.
    pub socket_type: u32,
    /// Its protocol.
    pub protocol: u32,
    /// Options and the like.
    pub core: SocketCoreState,
    /// Its own options.
    pub options: InetOptionsState,
    /// Who made it.
    pub uid: u32,
    /// Its address.
    pub local: Option<IpAddr>,
    /// Its peer.
    pub peer: Option<SocketAddr>,
    /// The number of a ping socket's echoes.
    pub number: u16,
    /// IP_HDRINCL.
    pub header_included: bool,
    /// ICMP_FILTER.
    pub filter: [u32; 8],
    /// 1: the reading half is closed; 2: the writing half.
    pub shutdown: u8,
    /// What waits to be read.
    pub packets: Vec<DatagramState>,
}

/// A packet socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketSocketState {
    /// `SOCK_RAW` or `SOCK_DGRAM`.
    pub socket_type: u32,
    /// The argument of socket(2).
    pub protocol_argument: u32,
    /// Options and the like.
    pub core: SocketCoreState,
    /// Who made it.
    pub uid: u32,
    /// The protocol that it wants.
    pub protocol: u16,
    /// The number of its device; 0 for all.
    pub device: u32,
    /// Its filter: code, jt, jf, k.
    pub filter: Option<Vec<(u16, u8, u8, u32)>>,
    /// SO_LOCK_FILTER.
    pub filter_locked: bool,
    /// Frames that nobody has read.
    pub frames: Vec<FrameState>,
    /// PACKET_VERSION.
    pub version: u32,
    /// PACKET_RESERVE.
    pub reserve: u32,
    /// PACKET_STATISTICS: taken, lost.
    pub statistics: (u32, u32),
    /// PACKET_AUXDATA.
    pub auxdata: bool,
    /// PACKET_IGNORE_OUTGOING.
    pub ignores_outgoing: bool,
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameState {
    /// What the filter has left of it.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// Its length.
    pub len: u64,
    /// `struct sockaddr_ll`.
    #[serde(with = "serde_bytes")]
    pub from: Vec<u8>,
    /// Where the network's header begins.
    pub network_at: u16,
}

impl Named for NetlinkSocketState {
    const WHAT: &'static str = "netlink socket";
}

impl Named for RawSocketState {
    const WHAT: &'static str = "raw socket";
}

impl Named for PacketSocketState {
    const WHAT: &'static str = "packet socket";
}
