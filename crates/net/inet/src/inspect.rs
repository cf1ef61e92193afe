//! What is shown of the sockets of a namespace: for /proc/net and sock_diag(7).

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use moat_abi::socket::{IPPROTO_RAW, IPPROTO_TCP, IPPROTO_UDP};
use moat_identity::NetNamespace;

use crate::ports::PortTables;
use crate::raw::RawTable;

/// A socket at one moment.
#[derive(Clone, Copy, Debug)]
pub struct SocketInfo {
    /// `AF_*`.
    pub family: u16,
    /// `TCP_*`; sockets of other protocols have TCP_ESTABLISHED with a peer, else TCP_CLOSE.
    pub state: u8,
    /// Its own address; the any address while it has none.
    pub local: SocketAddr,
    /// Its peer's address; the any address while it has none.
    pub peer: SocketAddr,
    /// Bytes to read, or connections to accept.
    pub receive_queue: usize,
    /// Bytes that are not acknowledged, or connections that may wait to be accepted.
    pub send_queue: usize,
    /// The user who made it.
    pub uid: u32,
    /// Its inode number.
    pub ino: u64,
    /// The device that it is bound to, or 0.
    pub device: u32,
    /// Which halves are shut: 1 for reading, 2 for writing.
    pub shutdown: u8,
}

/// A socket that can be shown.
pub trait Inspect: Send + Sync {
    /// How it stands.
    fn inspect(&self) -> SocketInfo;

    /// Receive and send buffers, in bytes.
    fn buffers(&self) -> (usize, usize);

    /// `struct tcp_info`, of connections.
    fn tcp_info(&self) -> Option<Vec<u8>> {
        None
    }
}

fn weak<T: Inspect + 'static>(sockets: Vec<Arc<T>>) -> Vec<Weak<dyn Inspect>> {
    sockets.iter().map(|s| Arc::downgrade(s) as Weak<dyn Inspect>).collect()
}

/// The sockets of a protocol (`IPPROTO_TCP`, `IPPROTO_UDP`; `IPPROTO_RAW` for raw sockets of all protocols) that have an address.
#[must_use]
pub fn sockets(net: &NetNamespace, protocol: u32) -> Vec<Weak<dyn Inspect>> {
    match protocol {
        IPPROTO_TCP => weak(PortTables::of(net).tcp.lock().sockets()),
        IPPROTO_UDP => weak(PortTables::of(net).udp.lock().sockets()),
        IPPROTO_RAW => weak(RawTable::sockets(net).into_iter().filter(|s| !s.is_ping()).collect()),
        _ => Vec::new(),
    }
}

/// All of them at this moment, in the order of their making.
#[must_use]
pub fn list(net: &NetNamespace, protocol: u32) -> Vec<SocketInfo> {
    let mut all: Vec<SocketInfo> =
        sockets(net, protocol).iter().filter_map(Weak::upgrade).map(|s| s.inspect()).collect();
    all.sort_by_key(|s| s.ino);
    all
}
