//! What becomes of sockets and FIFOs of the host in a tree: connections to sockets (`--host-uds=open`).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use moat_abi::{Errno, Result};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Whether sockets of the host in a tree can be connected to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sockets {
    /// Nobody listens: ECONNREFUSED.
    #[default]
    Refuse,
    /// As the host's kernel says.
    Connect,
}

/// Whose the FIFOs of a tree are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fifos {
    /// The sandbox's: a process of the host that opens one finds nobody.
    #[default]
    Own,
    /// The host's (`--host-fifo=open`).
    Host,
}

impl Sockets {
    /// A connection to the socket that `node` is an O_PATH descriptor of.
    pub(super) fn connect(self, node: BorrowedFd<'_>, socket_type: u32) -> Result<OwnedFd> {
        if self == Sockets::Refuse {
            return Err(Errno::ECONNREFUSED);
        }
        // By the descriptor's link: the name may have been given to something else meanwhile.
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", node.as_raw_fd())).map_err(Errno::from)?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::from_raw(socket_type), flags, None);
        let socket = socket.map_err(Errno::from)?;
        rustix::net::connect(&socket, &address).map_err(Errno::from)?;
        Ok(socket)
    }
}
