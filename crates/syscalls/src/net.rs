//! Sockets: calls on addresses and connections here, the rest by what they move.
//!
//! - [`transfer`]: bytes between guest memory and sockets, with waiting.
//! - [`message`]: sendmsg(2) and its like.
//! - [`control`]: ancillary data.
//! - [`options`]: getsockopt(2), setsockopt(2).
//! - [`address`]: `struct sockaddr`.

mod address;
mod control;
mod message;
mod options;
mod transfer;

use std::sync::Arc;
use std::task::Poll;

use moat_abi::fs::OpenFlags;
use moat_abi::socket::{AF_MAX, MsgFlags, SOCK_CLOEXEC, SOCK_MAX, SOCK_NONBLOCK, SOCK_TYPE_MASK, SOMAXCONN};
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::NetNamespace;
use moat_kernel::task::wait::until_ready;
use moat_kernel::{CurrentTask, Resource, SyscallResult};
use moat_mm::iovec::IoVec;
use moat_mm::{UserAddr, UserPtr};
use moat_vfs::fd_table::OnExec;
use moat_vfs::socket::{Ancillary, BufferSide, Shutdown, Socket, SocketFile, SocketKind, SocketMaker};
use moat_vfs::{Fd, OpenFile};

use crate::fs::io::Blocking;
use crate::fs::pauses::Pauses;
use transfer::{SendCall, socket_wait};

syscalls! { pub static TABLE;
    41 socket(family: i32, kind: u32, protocol: i32) sys_socket, full;
    42 connect(fd: Fd, addr: UserAddr, len: i32) async sys_connect, full;
    43 accept(fd: Fd, addr: UserAddr, len: UserPtr<i32>) async sys_accept, full;
    44 sendto(fd: Fd, buf: UserAddr, count: usize, flags: u32, addr: UserAddr, addr_len: i32) async message::sys_sendto, full;
    45 recvfrom(fd: Fd, buf: UserAddr, count: usize, flags: u32, addr: UserAddr, addr_len: UserPtr<i32>) async message::sys_recvfrom, full;
    46 sendmsg(fd: Fd, message: UserAddr, flags: u32) async message::sys_sendmsg, full;
    47 recvmsg(fd: Fd, message: UserAddr, flags: u32) async message::sys_recvmsg, full;
    48 shutdown(fd: Fd, how: u32) sys_shutdown, full;
    49 bind(fd: Fd, addr: UserAddr, len: i32) sys_bind, full;
    50 listen(fd: Fd, backlog: i32) sys_listen, full;
    51 getsockname(fd: Fd, addr: UserAddr, len: UserPtr<i32>) sys_getsockname, full;
    52 getpeername(fd: Fd, addr: UserAddr, len: UserPtr<i32>) sys_getpeername, full;
    53 socketpair(family: i32, kind: u32, protocol: i32, fds: UserPtr<[i32; 2]>) sys_socketpair, full;
    54 setsockopt(fd: Fd, level: u32, name: u32, value: UserAddr, len: i32) options::sys_setsockopt, full;
    55 getsockopt(fd: Fd, level: u32, name: u32, value: UserAddr, len: UserPtr<i32>) options::sys_getsockopt, full;
    288 accept4(fd: Fd, addr: UserAddr, len: UserPtr<i32>, flags: u32) async sys_accept4, full;
    299 recvmmsg(fd: Fd, messages: UserAddr, count: u32, flags: u32, timeout: UserAddr) async message::sys_recvmmsg, full;
    307 sendmmsg(fd: Fd, messages: UserAddr, count: u32, flags: u32) async message::sys_sendmmsg, full;
}

/// A socket with the open file that it is.
#[derive(Clone, Copy)]
pub(crate) struct Sock<'a> {
    file: &'a Arc<OpenFile>,
    socket: &'a SocketFile,
}

impl<'a> Sock<'a> {
    /// The socket that `file` is, if it is one.
    pub(crate) fn of(file: &'a Arc<OpenFile>) -> Option<Sock<'a>> {
        SocketFile::of(file).map(|socket| Sock { file, socket })
    }

    /// The socket that `file` must be.
    ///
    /// # Errors
    /// ENOTSOCK.
    fn expect(file: &'a Arc<OpenFile>) -> Result<Sock<'a>> {
        Sock::of(file).ok_or(Errno::ENOTSOCK)
    }

    fn file(&self) -> &'a Arc<OpenFile> {
        self.file
    }

    fn socket(&self) -> &'a Arc<dyn Socket> {
        self.socket.socket()
    }

    /// The network namespace that it was made in.
    fn net(&self) -> &'a Arc<NetNamespace> {
        self.socket.net()
    }
}

/// The flags that stand for a read or write that must not wait.
fn flags_for(blocking: Blocking) -> MsgFlags {
    match blocking {
        Blocking::ByFlags => MsgFlags::empty(),
        Blocking::Never => MsgFlags::DONTWAIT,
    }
}

/// read(2) of a socket.
///
/// # Errors
/// As recv(2).
pub(crate) async fn read(t: &mut CurrentTask, sock: Sock<'_>, iov: &IoVec, blocking: Blocking) -> SyscallResult {
    // Not even an empty message is taken for an empty buffer (`sock_read_iter`).
    if iov.total == 0 {
        return Ok(0);
    }
    Ok(transfer::receive(t, sock, iov, flags_for(blocking)).await?.len as u64)
}

/// write(2) of a socket.
///
/// # Errors
/// As send(2).
pub(crate) async fn write(t: &mut CurrentTask, sock: Sock<'_>, iov: &IoVec, blocking: Blocking) -> SyscallResult {
    let call = SendCall { iov: iov.clone(), to: None, flags: flags_for(blocking), ancillary: Ancillary::default() };
    Ok(transfer::send(t, sock, call).await? as u64)
}

fn descriptor_limit(t: &CurrentTask) -> u64 {
    t.group.limits.get(Resource::OpenFiles).soft
}

/// `t` as the maker of a socket in `net`.
fn maker<'a>(t: &'a CurrentTask, net: &'a Arc<NetNamespace>) -> SocketMaker<'a> {
    SocketMaker {
        caller: t,
        net,
        inodes: &t.kernel().vfs.ids.inodes,
        memory: t.group.container.allowance().socket_memory(),
    }
}

fn install(t: &CurrentTask, socket: Arc<dyn Socket>, net: &Arc<NetNamespace>, flags: u32) -> Result<Fd> {
    let open_flags = if flags & SOCK_NONBLOCK != 0 { OpenFlags::NONBLOCK } else { OpenFlags::empty() };
    let file = t.kernel().vfs.open_socket(socket, net, open_flags, t.creds());
    t.fds().install(file, descriptor_limit(t), OnExec::close_if(flags & SOCK_CLOEXEC != 0))
}

fn result_fd(fd: Fd) -> SyscallResult {
    u64::try_from(fd.0).map_err(|_| Errno::EBADF.into())
}

/// Decodes the arguments of socket(2) and socketpair(2).
fn decode_kind(family: i32, kind: u32, protocol: i32) -> Result<(SocketKind, u32)> {
    let flags = kind & !SOCK_TYPE_MASK;
    if flags & !(SOCK_NONBLOCK | SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let family = u16::try_from(family).ok().filter(|f| *f < AF_MAX).ok_or(Errno::EAFNOSUPPORT)?;
    let socket_type = kind & SOCK_TYPE_MASK;
    // A type that is none, where an unknown family is EAFNOSUPPORT.
    if socket_type >= SOCK_MAX {
        return Err(Errno::EINVAL);
    }
    Ok((SocketKind { family, socket_type, protocol: protocol.cast_unsigned() }, flags))
}

fn sys_socket(t: &mut CurrentTask, family: i32, kind: u32, protocol: i32) -> SyscallResult {
    let (kind, flags) = decode_kind(family, kind, protocol)?;
    let net = t.namespaces().net.clone();
    let socket = t.kernel().vfs.registry.family(kind.family)?.new_socket(&maker(t, &net), kind)?;
    result_fd(install(t, socket, &net, flags)?)
}

fn sys_socketpair(t: &mut CurrentTask, family: i32, kind: u32, protocol: i32, fds: UserPtr<[i32; 2]>) -> SyscallResult {
    let (kind, flags) = decode_kind(family, kind, protocol)?;
    t.fds().check_free(2, descriptor_limit(t))?;
    // As on Linux the numbers are written before the sockets exist, so that a fault leaves nothing behind.
    t.mm().write(fds, &[-1; 2])?;
    let net = t.namespaces().net.clone();
    let (a, b) = t.kernel().vfs.registry.family(kind.family)?.new_pair(&maker(t, &net), kind)?;
    let a = install(t, a, &net, flags)?;
    let b = match install(t, b, &net, flags) {
        Ok(b) => b,
        Err(e) => {
            t.fds().close(a)?;
            return Err(e.into());
        }
    };
    t.mm().write(fds, &[a.0, b.0])?;
    Ok(0)
}

fn sys_bind(t: &mut CurrentTask, fd: Fd, addr: UserAddr, len: i32) -> SyscallResult {
    let file = t.fds().get(fd)?;
    let sock = Sock::expect(&file)?;
    let addr = address::read(t, addr, len)?;
    sock.socket().bind(t, addr.as_bytes())?;
    Ok(0)
}

fn sys_listen(t: &mut CurrentTask, fd: Fd, backlog: i32) -> SyscallResult {
    let file = t.fds().get(fd)?;
    let sock = Sock::expect(&file)?;
    // As Linux compares: a negative number is a large one.
    let backlog = backlog.cast_unsigned().min(SOMAXCONN) as usize;
    sock.socket().listen(t, backlog)?;
    Ok(0)
}

async fn sys_accept(t: &mut CurrentTask, fd: Fd, addr: UserAddr, len: UserPtr<i32>) -> SyscallResult {
    sys_accept4(t, fd, addr, len, 0).await
}

async fn sys_accept4(t: &mut CurrentTask, fd: Fd, addr: UserAddr, len: UserPtr<i32>, flags: u32) -> SyscallResult {
    if flags & !(SOCK_NONBLOCK | SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = t.fds().get(fd)?;
    let sock = Sock::expect(&file)?;
    // Before a connection is taken: it could not be put back.
    t.fds().check_free(1, descriptor_limit(t))?;
    let socket = sock.socket();
    let wait = socket_wait("accept", &**socket, BufferSide::Receive);
    let look = |t: &mut CurrentTask| Blocking::ByFlags.look(sock.file(), socket.accept(t));
    let new = t.wait_for(&(&**socket.core().queue(), PollEvents::READABLE), &wait, look).await??;
    if !addr.is_null() {
        let written =
            new.accepted_from().map_err(|_| Errno::ECONNABORTED).and_then(|peer| address::write(t, addr, len, &peer));
        if let Err(e) = written {
            // The connection was taken and can't be given: the peer sees its end.
            new.release();
            return Err(e.into());
        }
    }
    result_fd(install(t, new, sock.net(), flags)?)
}

async fn sys_connect(t: &mut CurrentTask, fd: Fd, addr: UserAddr, len: i32) -> SyscallResult {
    let file = t.fds().get(fd)?;
    let sock = Sock::expect(&file)?;
    let addr = address::read(t, addr, len)?;
    let socket = sock.socket();
    let wait = socket_wait("connect", &**socket, BufferSide::Send);
    let changes = (&**socket.core().queue(), PollEvents::WRITABLE);
    let mut pauses = Pauses::new();
    let connected = loop {
        let look = |t: &mut CurrentTask| match socket.connect(t, addr.as_bytes()) {
            Err(Errno::EAGAIN) if socket.connects_untold() => Poll::Ready(Err(Errno::EAGAIN)),
            done => Blocking::ByFlags.look(sock.file(), done),
        };
        match t.wait_for(&changes, &wait, look).await? {
            Err(Errno::EAGAIN) if !sock.file().is_nonblocking() && !wait.is_over() => pauses.pass(t, &wait).await?,
            done => break done,
        }
    };
    match connected {
        // Under way: a blocking call waits for the end below.
        Err(Errno::EINPROGRESS | Errno::EALREADY) if !sock.file().is_nonblocking() => {}
        done => {
            done?;
            return Ok(0);
        }
    }
    let finished = t.wait_for(&changes, &wait, |_| until_ready(socket.finish_connect())).await;
    // SO_SNDTIMEO leaves the attempt under way (socket(7)).
    finished.map_err(|e| e.or_timed_out(Errno::EINPROGRESS))??;
    Ok(0)
}

fn sys_getsockname(t: &mut CurrentTask, fd: Fd, addr: UserAddr, len: UserPtr<i32>) -> SyscallResult {
    let file = t.fds().get(fd)?;
    let sock = Sock::expect(&file)?;
    let name = sock.socket().local_address()?;
    address::write(t, addr, len, &name)?;
    Ok(0)
}

fn sys_getpeername(t: &mut CurrentTask, fd: Fd, addr: UserAddr, len: UserPtr<i32>) -> SyscallResult {
    let file = t.fds().get(fd)?;
    let sock = Sock::expect(&file)?;
    let name = sock.socket().peer_address()?;
    address::write(t, addr, len, &name)?;
    Ok(0)
}

fn sys_shutdown(t: &mut CurrentTask, fd: Fd, how: u32) -> SyscallResult {
    let file = t.fds().get(fd)?;
    let sock = Sock::expect(&file)?;
    sock.socket().shutdown(Shutdown::from_raw(how)?)?;
    Ok(0)
}
