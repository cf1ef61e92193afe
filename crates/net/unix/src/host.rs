//! Connections to sockets of the host (`--host-uds=open`): a socket of the guest's whose other end is a process of the host.
//!
//! Bytes and messages go through as they are. Descriptors do not: what a guest has open is nothing outside of the sandbox, and what
//! comes from outside is dropped.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::socket::{MsgFlags, SIOCINQ, SIOCOUTQ, SOCKADDR_STORAGE_SIZE};
use moat_abi::{Errno, PollEvents, Result};
use moat_host::net as host;
use moat_sync::WaitQueue;
use moat_sync::reactor::Watch;
use moat_vfs::socket::{Ancillary, Incoming, Outgoing, Shutdown};
use rustix::event::{PollFd, PollFlags};

/// The socket of the host that does the work of a connected socket.
pub(crate) struct HostEnd {
    fd: Arc<OwnedFd>,
    /// Wakes the socket's queue.
    _watch: Watch,
}

impl HostEnd {
    /// `fd` is connected and does not block.
    pub(crate) fn new(fd: OwnedFd, queue: &Arc<WaitQueue>) -> Result<HostEnd> {
        let fd = Arc::new(fd);
        Ok(HostEnd { _watch: Watch::on_demand(fd.clone(), queue.clone())?, fd })
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
        Ok(Incoming { len: got.len.min(buf.len()), full_len: got.len, flags: shown, ..Incoming::default() })
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
