//! What is shown of the UNIX sockets of a namespace: for sock_diag(7).

use std::sync::Weak;

use moat_abi::socket::{SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM};
use moat_identity::NetNamespace;
use moat_vfs::socket::Socket;

use crate::family::Local;
use crate::name::Flavor;
use crate::socket::{Phase, UnixSocket};

/// A socket at one moment.
#[derive(Clone, Debug)]
pub struct UnixInfo {
    /// `SOCK_*`.
    pub socket_type: u32,
    /// Its inode number.
    pub ino: u64,
    /// That of its peer, if it has one.
    pub peer: Option<u64>,
    /// Its name: a path, or an abstract one with its leading zero byte.
    pub name: Option<Vec<u8>>,
    /// It listens.
    pub listening: bool,
    /// It is one end of a connection.
    pub connected: bool,
    /// Bytes to read, or connections to accept.
    pub receive_queue: usize,
    /// Bytes that nobody has read yet, or connections that may wait.
    pub send_queue: usize,
    /// Who made it.
    pub uid: u32,
    /// Which halves are shut: 1 for reading, 2 for writing.
    pub shutdown: u8,
}

/// A socket that was there when the list was made.
pub struct Listed(Weak<UnixSocket>);

/// The sockets of a namespace, in the order of their making.
#[must_use]
pub fn list(net: &NetNamespace) -> Vec<Listed> {
    Local::of(net).sockets.lock().values().cloned().map(Listed).collect()
}

impl Listed {
    /// How it stands; `None` if it has gone.
    #[must_use]
    pub fn inspect(&self) -> Option<UnixInfo> {
        let socket = self.0.upgrade()?;
        let peer = socket.any_peer().map(|p| p.id());
        let state = socket.state.lock();
        // Of a listener the columns are the connections that wait and how many may (`sk_diag_show_rqlen`).
        let (listening, receive_queue, send_queue) = match &state.phase {
            Phase::Listening(backlog) => (true, backlog.ready.len(), backlog.limit),
            _ => (false, socket.endpoint.waiting_bytes().0, socket.endpoint.unreceived()),
        };
        Some(UnixInfo {
            socket_type: match socket.flavor() {
                Flavor::Stream => SOCK_STREAM,
                Flavor::Datagram => SOCK_DGRAM,
                Flavor::SeqPacket => SOCK_SEQPACKET,
            },
            ino: socket.core().ino(),
            peer,
            name: socket.endpoint.name().map(|n| n.text().to_vec()),
            listening,
            connected: matches!(state.phase, Phase::Connected),
            receive_queue,
            send_queue,
            uid: socket.maker_uid(),
            shutdown: socket.endpoint.shutdown_bits(),
        })
    }
}
