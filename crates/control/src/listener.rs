//! [`Listener`]: the control socket in the file system, by which later commands reach a sandbox.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};

use crate::Connection;

/// How long a sandbox may take to accept a connection, or to make room for a request.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Connections that wait to be accepted, at most.
const BACKLOG: i32 = 128;

/// A listening control socket.
#[derive(Debug)]
pub struct Listener(Arc<OwnedFd>);

/// Who is at the other end of a connection, as SO_PEERCRED has it: ids in the namespaces of the caller, 0 for a process
/// that is in no pid namespace of its.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Peer {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

impl Listener {
    /// Makes the socket `name` in the directory `dir`, with mode 0600. The path may be longer than a socket address.
    ///
    /// # Errors
    /// EADDRINUSE if there is a file of that name; those of open(2).
    pub fn bind(dir: &Path, name: &str) -> io::Result<Self> {
        let dir = open_dir(dir)?;
        let socket = new_socket()?;
        bind(&socket, &address(dir.as_fd(), name)?)?;
        // Nobody can connect before listen(2), so that there is no moment with another mode.
        rustix::fs::chmodat(&dir, name, Mode::RUSR | Mode::WUSR, rustix::fs::AtFlags::empty())?;
        listen(&socket, BACKLOG)?;
        Ok(Listener::new(socket))
    }

    /// Takes over a socket that is listening already.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Listener(Arc::new(socket))
    }

    /// The socket, for those who wait for it by other means.
    #[must_use]
    pub fn socket(&self) -> &Arc<OwnedFd> {
        &self.0
    }

    /// The socket alone, to be donated.
    ///
    /// # Errors
    /// EMFILE, if it is in use elsewhere and has to be duplicated.
    pub fn into_socket(self) -> io::Result<OwnedFd> {
        Arc::try_unwrap(self.0).or_else(|shared| shared.try_clone())
    }

    /// Accepts a connection, which is non-blocking, and says who it is with.
    ///
    /// # Errors
    /// WouldBlock on a non-blocking socket; EMFILE.
    pub fn accept(&self) -> io::Result<(Connection, Peer)> {
        let socket = accept_with(&*self.0, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        let (pid, uid, gid) = moat_host::socket::peer_credentials(&socket)?;
        let peer = Peer { pid, uid, gid };
        Ok((Connection::new(socket), peer))
    }
}

impl Connection {
    /// Connects to the socket `name` in the directory `dir`.
    ///
    /// # Errors
    /// ENOENT; ECONNREFUSED if nobody listens any more.
    pub fn open(dir: &Path, name: &str) -> io::Result<Self> {
        let dir = open_dir(dir)?;
        let socket = new_socket()?;
        // Who hangs accepts nobody, and reads nothing: its queues fill up.
        set_socket_timeout(&socket, Timeout::Send, Some(CONNECT_PATIENCE))?;
        connect(&socket, &address(dir.as_fd(), name)?)?;
        Ok(Connection::new(socket))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open_dir(dir: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn address(dir: BorrowedFd<'_>, name: &str) -> io::Result<SocketAddrUnix> {
    // By a descriptor: a path may be longer than the 108 bytes of an address.
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, Response};

    #[test]
    fn a_connection_over_a_long_path() {
        let dir = std::env::temp_dir().join(format!("moat-listener-{}", std::process::id())).join("x".repeat(150));
        std::fs::create_dir_all(&dir).unwrap();
        let listener = Listener::bind(&dir, "control.sock").unwrap();
        let client = std::thread::spawn({
            let dir = dir.clone();
            move || Connection::open(&dir, "control.sock").unwrap().call(&Request::Stacks, &[]).unwrap()
        });
        let (connection, peer) = listener.accept().unwrap();
        assert_eq!(peer.uid, rustix::process::getuid().as_raw());
        let request = loop {
            match connection.next_request() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                other => break other.unwrap().unwrap().0,
            }
        };
        assert_eq!(request, Request::Stacks);
        connection.respond(&Response::Done, &[]).unwrap();
        assert_eq!(client.join().unwrap(), Response::Done);
        drop(listener);
        assert_eq!(Connection::open(&dir, "control.sock").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        std::fs::remove_dir_all(dir.parent().unwrap()).unwrap();
    }
}
