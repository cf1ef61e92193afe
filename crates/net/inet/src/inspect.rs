//! What is shown of the sockets of a namespace: for /proc/net and sock_diag(7).

use std::net::SocketAddr;

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
    /// Datagrams that have come and were not taken.
    pub lost: u32,
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
