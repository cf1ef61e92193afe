//! What becomes of sockets and FIFOs of the host in a tree: connections to sockets, and names for them (`--host-uds`).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use moat_abi::fs::FileType;
use moat_abi::{Errno, Result};
use moat_host::descriptors::{Purpose, within};
use rustix::fs::{self, AtFlags, Mode, RenameFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{DirectNode, make};
use crate::tree::NewHostNode;

/// What guests do with sockets of the host in a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sockets {
    /// Nobody listens at them: ECONNREFUSED. What guests bind is the sandbox's own.
    #[default]
    Refuse,
    /// They connect to them, as the host's kernel says.
    Connect,
    /// What they bind is the host's.
    Create,
    /// Both.
    All,
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

/// Whose the special nodes of a tree are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialNodes {
    /// UNIX sockets.
    pub sockets: Sockets,
    /// FIFOs.
    pub fifos: Fifos,
}

fn new_socket(socket_type: u32) -> Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::from_raw(socket_type), flags, None);
    within(socket.map_err(Errno::from)?, Purpose::File)
}

/// Gives `socket` the name, which must not exist. The directory is named by its descriptor's link, and the host follows no link at
/// the end of a name that it makes.
fn bind_at(socket: &OwnedFd, dir: &DirectNode, name: &[u8]) -> Result<()> {
    let path = [format!("/proc/self/fd/{}/", dir.fd.as_raw_fd()).as_bytes(), name].concat();
    let address = SocketAddrUnix::new(path).map_err(Errno::from)?;
    rustix::net::bind(socket, &address).map_err(Errno::from)
}

/// As [`bind_at`], for a name that is too long for an address: it is given to the node afterwards.
fn bind_at_long(socket: &OwnedFd, dir: &DirectNode, name: &[u8]) -> Result<()> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).map_err(Errno::from)?;
    let short = format!(".moat.{:016x}", u64::from_ne_bytes(random)).into_bytes();
    bind_at(socket, dir, &short)?;
    fs::renameat_with(dir, short.as_slice(), dir, name, RenameFlags::NOREPLACE).map_err(|e| {
        let _ = fs::unlinkat(dir, short.as_slice(), AtFlags::empty());
        e.into()
    })
}

impl Sockets {
    fn can_connect(self) -> bool {
        matches!(self, Sockets::Connect | Sockets::All)
    }

    /// Whether what guests bind is the host's.
    #[must_use]
    pub fn can_create(self) -> bool {
        matches!(self, Sockets::Create | Sockets::All)
    }

    /// A socket with this name, and a descriptor of its node.
    pub(super) fn bind(
        self,
        dir: &DirectNode,
        name: &[u8],
        socket_type: u32,
        new: NewHostNode,
    ) -> Result<(OwnedFd, OwnedFd)> {
        if !self.can_create() {
            return Err(Errno::EPERM);
        }
        let socket = new_socket(socket_type)?;
        // The node's mode is the socket's: on older kernels it can't be changed later.
        fs::fchmod(&socket, Mode::from_raw_mode(new.mode & 0o777)).map_err(Errno::from)?;
        match bind_at(&socket, dir, name) {
            Err(Errno::ENAMETOOLONG) => bind_at_long(&socket, dir, name)?,
            done => done?,
        }
        Ok((make::finish(dir, name, FileType::Socket, new)?, socket))
    }

    /// A connection to the socket that `node` is an O_PATH descriptor of.
    pub(super) fn connect(self, node: BorrowedFd<'_>, socket_type: u32) -> Result<OwnedFd> {
        if !self.can_connect() {
            return Err(Errno::ECONNREFUSED);
        }
        // By the descriptor's link: the name may have been given to something else meanwhile.
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", node.as_raw_fd())).map_err(Errno::from)?;
        let socket = new_socket(socket_type)?;
        rustix::net::connect(&socket, &address).map_err(Errno::from)?;
        Ok(socket)
    }
}
