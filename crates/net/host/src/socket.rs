//! [`HostSocket`]: a socket of the guest that is a socket of the host.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::socket::{
    AF_NETLINK, Linger, MsgFlags, SIOCATMARK, SIOCINQ, SIOCOUTQ, SO_ACCEPTCONN, SO_ERROR, SO_LINGER, SO_MARK,
    SO_RCVBUFFORCE, SO_RCVLOWAT, SO_SNDBUFFORCE, SO_ZEROCOPY, SOCK_STREAM, SOCKADDR_STORAGE_SIZE, SOL_SOCKET,
};
use moat_abi::{Errno, PollEvents, Result};
use moat_host::descriptors::{Purpose, within};
use moat_host::net as host;
use moat_sync::reactor::Watch;
use moat_sync::{LockClass, Mutex};
use moat_vfs::Caller;
use moat_vfs::socket::{
    Ancillary, Incoming, Outgoing, Shutdown, SockAddr, Socket, SocketCore, SocketKind, SocketMaker,
};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType};
use zerocopy::IntoBytes;

use crate::{control, netlink, options, ports};

/// Room for the control messages that one message can have with all options of [`options`] on.
const CONTROL_BYTES: usize = 1024;
/// Longest answer of getsockopt(2) that is passed on.
const LONGEST_OPTION: usize = 1024;

/// Flags of send(2) that mean something to the host. MSG_ZEROCOPY does not: the data is the sentry's copy.
const SEND_FLAGS: MsgFlags =
    MsgFlags::OOB.union(MsgFlags::DONTROUTE).union(MsgFlags::EOR).union(MsgFlags::CONFIRM).union(MsgFlags::MORE);
/// Flags of recv(2) that mean something to the host; waiting is done in the sentry.
const RECEIVE_FLAGS: MsgFlags = MsgFlags::OOB.union(MsgFlags::PEEK).union(MsgFlags::TRUNC).union(MsgFlags::ERRQUEUE);
/// Flags that a received message can have.
const MESSAGE_FLAGS: MsgFlags =
    MsgFlags::OOB.union(MsgFlags::TRUNC).union(MsgFlags::CTRUNC).union(MsgFlags::EOR).union(MsgFlags::ERRQUEUE);

/// A socket of the host.
pub struct HostSocket {
    kind: SocketKind,
    core: SocketCore,
    fd: Arc<OwnedFd>,
    /// Wakes the core's queue.
    _watch: Watch,
    /// Where the connection that is under way leads.
    connecting: Mutex<Option<SockAddr>>,
}

/// Makes a host socket that does not block.
pub(crate) fn open(kind: SocketKind) -> Result<OwnedFd> {
    let protocol = std::num::NonZeroU32::new(kind.protocol).map(Protocol::from_raw);
    rustix::net::socket_with(
        AddressFamily::from_raw(kind.family),
        SocketType::from_raw(kind.socket_type),
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        protocol,
    )
    .map_err(Errno::from)
}

fn address_from(ask: impl FnOnce(&mut host::AddressBuffer) -> Result<usize>) -> Result<SockAddr> {
    let mut buffer = [0; SOCKADDR_STORAGE_SIZE];
    let len = ask(&mut buffer)?;
    Ok(SockAddr::new(buffer.get(..len).unwrap_or_default()))
}

impl HostSocket {
    /// A new socket of one of [`crate::KINDS`].
    ///
    /// # Errors
    /// The host's: EAFNOSUPPORT, EPERM, EACCES, EMFILE.
    pub fn new(maker: &SocketMaker<'_>, kind: SocketKind) -> Result<Arc<HostSocket>> {
        HostSocket::from_fd(kind, maker.core(), open(kind)?)
    }

    fn from_fd(kind: SocketKind, core: SocketCore, fd: OwnedFd) -> Result<Arc<HostSocket>> {
        let fd = Arc::new(within(fd, Purpose::File)?);
        // /proc/net/tcp and its like name sockets by this number, and /proc/PID/fd must agree.
        let core = core.with_ino(rustix::fs::fstat(&fd).map_err(Errno::from)?.st_ino);
        let watch = Watch::on_demand(fd.clone(), core.queue().clone())?;
        let connecting = Mutex::new(LockClass::Socket, None);
        Ok(Arc::new(HostSocket { kind, core, fd, _watch: watch, connecting }))
    }

    /// close(2) waits on Linux while SO_LINGER is on and data is under way. It never waits here, so the host hears only
    /// of a linger time of 0, which resets the connection; other data is sent after the close as if the option was off.
    fn set_linger(&self, caller: &dyn Caller, value: &[u8]) -> Result<()> {
        self.core.set_option(caller, SO_LINGER, value)?;
        let reset = self.core.linger() == Some(0);
        let linger = Linger { l_onoff: i32::from(reset), l_linger: 0 };
        host::set_option(&self.fd, SOL_SOCKET, SO_LINGER, linger.as_bytes())
    }
}

impl Socket for HostSocket {
    fn kind(&self) -> SocketKind {
        self.kind
    }

    fn core(&self) -> &SocketCore {
        &self.core
    }

    fn bind(&self, caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        // Addresses of netlink have no port.
        if self.kind.family != AF_NETLINK {
            ports::check(caller, addr)?;
        }
        host::bind(&self.fd, addr)
    }

    fn listen(&self, _caller: &dyn Caller, backlog: usize) -> Result<()> {
        rustix::net::listen(&self.fd, i32::try_from(backlog).unwrap_or(i32::MAX)).map_err(Errno::from)
    }

    fn connect(&self, _caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        let result = host::connect(&self.fd, addr);
        if result == Err(Errno::EINPROGRESS) {
            // Where `finish_connect` asks again.
            *self.connecting.lock() = Some(SockAddr::new(addr));
        }
        result
    }

    /// Asks by a second connect(2), which is what brings the host's socket out of the state of connecting: after a failure
    /// the next attempt then starts afresh, as after a connect(2) that has waited.
    fn finish_connect(&self) -> Result<()> {
        let to = *self.connecting.lock();
        let Some(to) = to else { return Ok(()) };
        match host::connect(&self.fd, to.as_bytes()) {
            // In progress again: another thread has been given the failure and this call began the next attempt.
            Err(Errno::EALREADY | Errno::EINPROGRESS) => Err(Errno::EAGAIN),
            // Another thread has been given the success.
            Err(Errno::EISCONN) => Ok(()),
            done => done,
        }
    }

    fn accept(&self, _caller: &dyn Caller) -> Result<Arc<dyn Socket>> {
        let fd = host::accept(&self.fd)?;
        Ok(HostSocket::from_fd(self.kind, self.core.inherit(), fd)?)
    }

    fn local_address(&self) -> Result<SockAddr> {
        address_from(|buffer| host::local_address(&self.fd, buffer))
    }

    fn peer_address(&self) -> Result<SockAddr> {
        address_from(|buffer| host::peer_address(&self.fd, buffer))
    }

    fn send(&self, _caller: Option<&dyn Caller>, message: &mut Outgoing<'_>) -> Result<usize> {
        self.core.take_error()?;
        if message.flags.contains(MsgFlags::FASTOPEN) && self.is_stream() {
            // As with `net.ipv4.tcp_fastopen` off for clients.
            return Err(Errno::EOPNOTSUPP);
        }
        let control = if self.kind.family == AF_NETLINK {
            netlink::check_requests(message.data)?;
            Vec::new()
        } else {
            control::encode(&message.ancillary.other)?
        };
        let flags = (message.flags & SEND_FLAGS).bits();
        let sent = host::send(&self.fd, message.data, message.to, &control, flags)?;
        message.ancillary = Ancillary::default();
        Ok(sent)
    }

    fn receive(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Incoming> {
        self.core.take_error()?;
        let mut name = [0; SOCKADDR_STORAGE_SIZE];
        let mut control = [0; CONTROL_BYTES];
        let mut host_flags = flags & RECEIVE_FLAGS;
        // A message's whole length is always wanted; of a stream the flag throws bytes away.
        host_flags.set(MsgFlags::TRUNC, !self.is_stream() || flags.contains(MsgFlags::TRUNC));
        let got = host::receive(&self.fd, buf, &mut name, &mut control, host_flags.bits())?;
        let thrown_away = self.is_stream() && flags.contains(MsgFlags::TRUNC);
        let out_flags = MsgFlags::from_bits_retain(got.flags) & MESSAGE_FLAGS;
        let from = name.get(..got.name_len).filter(|n| !n.is_empty()).map(SockAddr::new);
        let other = control::decode(control.get(..got.control_len).unwrap_or_default());
        Ok(Incoming {
            len: if thrown_away { 0 } else { got.len.min(buf.len()) },
            full_len: got.len,
            from,
            ancillary: Ancillary { other, ..Ancillary::default() },
            flags: out_flags,
            complete: flags.intersects(MsgFlags::OOB | MsgFlags::ERRQUEUE),
        })
    }

    fn is_stream(&self) -> bool {
        self.kind.socket_type == SOCK_STREAM
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        rustix::net::shutdown(&self.fd, how).map_err(Errno::from)
    }

    fn get_option(&self, _caller: &dyn Caller, level: u32, name: u32, room: usize) -> Result<Vec<u8>> {
        options::check_get(level, name)?;
        // The sentry's error comes before the host's.
        if (level, name) == (SOL_SOCKET, SO_ERROR)
            && let Err(e) = self.core.take_error()
        {
            return Ok(e.raw().to_ne_bytes().to_vec());
        }
        let mut value = vec![0; room.min(LONGEST_OPTION)];
        let len = host::get_option(&self.fd, level, name, &mut value)?;
        value.truncate(len);
        Ok(value)
    }

    fn set_option(&self, caller: &dyn Caller, level: u32, name: u32, value: &[u8]) -> Result<()> {
        match (level, name) {
            (SOL_SOCKET, SO_LINGER) => return self.set_linger(caller, value),
            // They take a capability over the host's network, which a sandbox never has.
            (SOL_SOCKET, SO_MARK | SO_SNDBUFFORCE | SO_RCVBUFFORCE) => return Err(Errno::EPERM),
            (SOL_SOCKET, SO_ZEROCOPY) => return Err(Errno::EOPNOTSUPP),
            _ => {}
        }
        let Some(size) = options::check_set(level, name, value)? else { return Ok(()) };
        let value = value.get(..size).unwrap_or(value);
        host::set_option(&self.fd, level, name, value)?;
        if (level, name) == (SOL_SOCKET, SO_RCVLOWAT) {
            self.core.set_option(caller, name, value)?;
        }
        Ok(())
    }

    fn is_listening(&self) -> bool {
        let mut value = [0; 4];
        host::get_option(&self.fd, SOL_SOCKET, SO_ACCEPTCONN, &mut value).is_ok() && i32::from_ne_bytes(value) != 0
    }

    fn ioctl(&self, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        let value = match cmd {
            SIOCINQ => moat_host::tty::bytes_readable(&self.fd)?,
            SIOCOUTQ => moat_host::tty::bytes_unsent(&self.fd)?,
            SIOCATMARK => i32::from(host::at_mark(&self.fd)?),
            _ => return Err(Errno::ENOTTY),
        };
        caller.write_user(arg, &value.to_ne_bytes())?;
        Ok(0)
    }

    fn poll(&self) -> PollEvents {
        // A look only: waiting is done in the sentry.
        let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        let all = PollFlags::IN
            | PollFlags::PRI
            | PollFlags::OUT
            | PollFlags::RDNORM
            | PollFlags::RDBAND
            | PollFlags::WRNORM
            | PollFlags::WRBAND
            | PollFlags::RDHUP;
        let mut fds = [PollFd::new(&self.fd, all)];
        let ready = match rustix::event::poll(&mut fds, Some(&zero)) {
            Ok(_) => PollEvents::from_bits_truncate(u32::from(fds[0].revents().bits())),
            Err(_) => PollEvents::ERR,
        };
        ready | self.core.error_events()
    }
}
