//! What is shown of a TCP socket.

use std::net::SocketAddr;

use moat_abi::socket::{SOL_TCP, TCP_INFO};
use moat_vfs::socket::{BufferSide, Socket};

use super::{Phase, TcpSocket, info};
use crate::address;
use crate::inspect::{Inspect, SocketInfo};

impl Inspect for TcpSocket {
    fn inspect(&self) -> SocketInfo {
        // Before the lock: the state of a connection of the stack is asked for there.
        let tcp_state = self.tcp_state();
        let none = SocketAddr::new(address::any(self.family), 0);
        let state = self.state.lock();
        let (peer, receive_queue, send_queue) = match &state.phase {
            Phase::Connected(c) => (c.addr, self.end.available(), c.peer.available()),
            Phase::Remote(r) => (r.addr, self.end.available(), 0),
            Phase::Connecting { to } => (*to, 0, 0),
            Phase::Listening(backlog) => (none, backlog.ready.len(), backlog.limit),
            Phase::Closed | Phase::Released => (none, 0, 0),
        };
        SocketInfo {
            family: self.family,
            state: tcp_state,
            local: state.bound.map_or(none, |b| b.addr),
            peer,
            receive_queue,
            send_queue,
            uid: self.uid,
            ino: self.end.core.ino(),
            device: self.options.device().unwrap_or(0),
            lost: 0,
            shutdown: self.end.shutdown_bits(),
        }
    }

    fn buffers(&self) -> (usize, usize) {
        (self.core().buffer(BufferSide::Receive), self.core().buffer(BufferSide::Send))
    }

    fn tcp_info(&self) -> Option<Vec<u8>> {
        Some(self.info())
    }
}

impl TcpSocket {
    /// `struct tcp_info`.
    pub(super) fn info(&self) -> Vec<u8> {
        let remote = self.remote().and_then(|id| self.remote_option(id, SOL_TCP, TCP_INFO));
        remote.unwrap_or_else(|| info::tcp_info(self))
    }
}
