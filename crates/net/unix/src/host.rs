//! Sockets of the host that do work for a guest's (`--host-uds`): [`HostEnd`], and [`HostEnds`], all of one socket.
//!
//! With `open` a socket is connected to one of the host; with `create` one that is bound in a tree of the host has its name there as
//! well, and takes connections and datagrams from both sides. Within the sandbox nothing goes by the host.
//!
//! Bytes and messages go through as they are. Descriptors do not: what a guest has open is nothing outside of the sandbox, and what
//! comes from outside is dropped.

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use moat_abi::socket::{AF_UNIX, MsgFlags, SIOCINQ, SIOCOUTQ, SOCK_DGRAM, SOCKADDR_STORAGE_SIZE};
use moat_abi::{Errno, PollEvents, Result};
use moat_host::descriptors::{Purpose, within};
use moat_host::net as host;
use moat_sync::reactor::Watch;
use moat_sync::{LockClass, Mutex, WaitQueue};
use moat_vfs::inode::{Inode, InodeKey};
use moat_vfs::socket::{Ancillary, Incoming, Outgoing, Shutdown, SockAddr, SocketCreds};
use rustix::event::{PollFd, PollFlags};

/// What the host has of a socket. A file in the host's tree stays when it goes, as on Linux.
#[derive(Default)]
pub(crate) struct HostEnds {
    /// What does the work of a socket that is connected to one of the host, or was accepted from there; set once.
    pub(crate) connected: OnceLock<HostEnd>,
    /// What has the name of a bound socket; set once.
    pub(crate) named: OnceLock<HostEnd>,
    /// The last attempt to connect found a listener of the host that has too many connections waiting.
    pub(crate) found_full: AtomicBool,
    /// To whom the last datagram went that had an address, so that it may wait for room there.
    correspondent: OnceLock<Mutex<Option<Correspondent>>>,
}

/// A socket of the host's, and what is connected to it.
type Correspondent = (InodeKey, Arc<HostEnd>);

impl HostEnds {
    /// Whether an image would have to name the host.
    pub(crate) fn is_any(&self) -> bool {
        self.connected.get().is_some() || self.named.get().is_some()
    }

    /// A message that has come from the host to a datagram socket: EAGAIN if there is none.
    pub(crate) fn receive_datagram(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Incoming> {
        for end in [&self.connected, &self.named].into_iter().filter_map(OnceLock::get) {
            match end.receive(buf, flags, true) {
                Err(Errno::EAGAIN) => {}
                done => return done,
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Whether there is something to receive, or to accept, where the host has the name.
    pub(crate) fn is_named_readable(&self) -> bool {
        self.named.get().is_some_and(|end| end.poll().intersects(PollEvents::IN))
    }

    /// Sends a datagram to the socket of the host that `node` is.
    pub(crate) fn send_to(
        &self,
        node: &Arc<dyn Inode>,
        queue: &Arc<WaitQueue>,
        message: &mut Outgoing<'_>,
    ) -> Result<usize> {
        let key = node.metadata()?.key();
        let last = self.correspondent.get_or_init(|| Mutex::new(LockClass::Table, None));
        let known = last.lock().as_ref().filter(|(of, _)| *of == key).map(|(_, end)| end.clone());
        let end = match known {
            // A node leads to one socket for good: who binds again makes another.
            Some(end) => end,
            None => {
                let end = Arc::new(HostEnd::new(node.connect_socket(SOCK_DGRAM)?, queue)?);
                let before = last.lock().replace((key, end.clone()));
                // Unlocked: its watch ends.
                drop(before);
                end
            }
        };
        let to = message.to.take();
        let sent = end.send(message);
        message.to = to;
        // With room, or without anybody there, it has done its duty.
        if sent != Err(Errno::EAGAIN) {
            let done = last.lock().take();
            drop(done);
        }
        sent
    }
}

/// One socket of the host.
pub(crate) struct HostEnd {
    fd: Arc<OwnedFd>,
    /// The name of the other end, where that has come to be known.
    peer: SockAddr,
    /// Wakes the socket's queue.
    _watch: Watch,
}

impl HostEnd {
    /// `fd` does not block. Whoever waits in `queue` is woken.
    pub(crate) fn new(fd: OwnedFd, queue: &Arc<WaitQueue>) -> Result<HostEnd> {
        HostEnd::with_peer(fd, queue, SockAddr::unnamed(AF_UNIX))
    }

    pub(crate) fn with_peer(fd: OwnedFd, queue: &Arc<WaitQueue>, peer: SockAddr) -> Result<HostEnd> {
        let fd = Arc::new(fd);
        Ok(HostEnd { _watch: Watch::on_demand(fd.clone(), queue.clone())?, peer, fd })
    }

    /// Has a named socket take connections, so many that wait.
    pub(crate) fn listen(&self, limit: usize) -> Result<()> {
        rustix::net::listen(&self.fd, i32::try_from(limit).unwrap_or(i32::MAX)).map_err(Errno::from)
    }

    /// A connection from the host, with the name of who made it; EAGAIN if there is none.
    pub(crate) fn accept(&self) -> Result<(OwnedFd, SockAddr)> {
        let mut name = [0; SOCKADDR_STORAGE_SIZE];
        let (fd, len) = host::accept_from(&self.fd, &mut name)?;
        let name = name.get(..len).unwrap_or_default();
        Ok((within(fd, Purpose::File)?, if name.is_empty() { SockAddr::unnamed(AF_UNIX) } else { SockAddr::new(name) }))
    }

    pub(crate) fn peer(&self) -> &SockAddr {
        &self.peer
    }

    /// SO_PEERCRED of a connection, as the host has it; its process is none of the sandbox's.
    pub(crate) fn peer_creds(&self) -> Option<SocketCreds> {
        let (_, uid, gid) = moat_host::socket::peer_credentials(&self.fd).ok()?;
        Some(SocketCreds { process: None, uid, gid })
    }

    pub(crate) fn send(&self, message: &mut Outgoing<'_>) -> Result<usize> {
        if message.to.is_some() {
            return Err(Errno::EISCONN);
        }
        if !message.ancillary.files.is_empty() {
            return Err(Errno::EOPNOTSUPP);
        }
        let sent = host::send(&self.fd, message.data, None, &[], (message.flags & MsgFlags::EOR).bits())?;
        message.ancillary = Ancillary::default();
        Ok(sent)
    }

    pub(crate) fn receive(&self, buf: &mut [u8], flags: MsgFlags, borders: bool) -> Result<Incoming> {
        let mut name = [0; SOCKADDR_STORAGE_SIZE];
        let mut host_flags = flags & MsgFlags::PEEK;
        // A message's whole length is always wanted; of a stream the flag throws bytes away.
        host_flags.set(MsgFlags::TRUNC, borders);
        let got = host::receive(&self.fd, buf, &mut name, &mut [], host_flags.bits())?;
        let shown = MsgFlags::from_bits_retain(got.flags) & (MsgFlags::TRUNC | MsgFlags::EOR);
        let from = name.get(..got.name_len).filter(|name| borders && !name.is_empty()).map(SockAddr::new);
        Ok(Incoming { len: got.len.min(buf.len()), full_len: got.len, flags: shown, from, ..Incoming::default() })
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> Result<()> {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        rustix::net::shutdown(&self.fd, how).map_err(Errno::from)
    }

    /// Bytes to read, or sent and not read yet.
    pub(crate) fn queued(&self, cmd: u32) -> Result<i32> {
        match cmd {
            SIOCINQ => moat_host::tty::bytes_readable(&self.fd),
            SIOCOUTQ => moat_host::tty::bytes_unsent(&self.fd),
            _ => Err(Errno::ENOTTY),
        }
    }

    pub(crate) fn poll(&self) -> PollEvents {
        let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        let all = PollFlags::IN
            | PollFlags::OUT
            | PollFlags::RDNORM
            | PollFlags::WRNORM
            | PollFlags::WRBAND
            | PollFlags::RDHUP;
        let mut fds = [PollFd::new(&self.fd, all)];
        match rustix::event::poll(&mut fds, Some(&zero)) {
            Ok(_) => PollEvents::from_bits_truncate(u32::from(fds[0].revents().bits())),
            Err(_) => PollEvents::ERR,
        }
    }
}
