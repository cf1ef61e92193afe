//! Bytes between guest memory and a socket: the loops behind send(2) and recv(2).

use std::task::Poll;

use moat_abi::signal::Signal;
use moat_abi::socket::MsgFlags;
use moat_abi::{Errno, PollEvents, Result};
use moat_kernel::{CurrentTask, SyscallError, Wait};
use moat_mm::iovec::IoVec;
use moat_vfs::socket::{Ancillary, BufferSide, Incoming, Outgoing, SockAddr, Socket};

use super::Sock;
use crate::fs::io::{file_wait, gather, scatter, with_scratch, writable};

/// Bytes of a stream that are moved at a time.
const CHUNK: usize = 128 * 1024;
/// Longest message with borders that is looked at; a socket's own limit is lower.
const LONGEST_MESSAGE: usize = 4 * 1024 * 1024;

/// How a call waits for a socket that is not ready.
pub(super) fn socket_wait(wchan: &'static str, socket: &dyn Socket, side: BufferSide) -> Wait {
    file_wait(wchan, socket.core().timeout(side))
}

/// What a send call asks for.
pub(super) struct SendCall {
    pub(super) iov: IoVec,
    pub(super) to: Option<SockAddr>,
    pub(super) flags: MsgFlags,
    pub(super) ancillary: Ancillary,
}

fn send_step(t: &mut CurrentTask, socket: &dyn Socket, call: &mut SendCall, done: usize) -> Result<usize> {
    let left = call.iov.total.saturating_sub(done);
    let stream = socket.is_stream();
    if !stream && left > LONGEST_MESSAGE {
        return Err(Errno::EMSGSIZE);
    }
    let want = if stream { left.min(CHUNK) } else { left };
    with_scratch(t, want, |t, buf| {
        let n = gather(t, &call.iov, done, buf);
        // A message is sent whole or not at all; of a stream what could be read goes.
        if n < want && (n == 0 || !stream) {
            return Err(Errno::EFAULT);
        }
        let mut message = Outgoing {
            data: buf.get(..n).unwrap_or_default(),
            to: call.to.as_ref().map(SockAddr::as_bytes),
            flags: call.flags,
            // Moved into the attempt and back: files are sent once, with the first bytes that are taken.
            ancillary: std::mem::take(&mut call.ancillary),
        };
        let sent = socket.send(Some(t), &mut message);
        call.ancillary = message.ancillary;
        sent
    })
}

/// Sends a message, or a stream's bytes until all are taken.
///
/// # Errors
/// Those of the socket, with SIGPIPE for a stream's EPIPE; EFAULT; an interruption. None once a byte has been taken.
pub(super) async fn send(t: &mut CurrentTask, sock: Sock<'_>, mut call: SendCall) -> Result<usize, SyscallError> {
    let socket = sock.socket();
    let nonblocking = call.flags.contains(MsgFlags::DONTWAIT) || sock.file().is_nonblocking();
    let wait = socket_wait("send", &**socket, BufferSide::Send);
    let mut done = 0;
    let look = |t: &mut CurrentTask| loop {
        match send_step(t, &**socket, &mut call, done) {
            Ok(n) => {
                done += n;
                // A message is never sent in parts.
                if done >= call.iov.total || !socket.is_stream() {
                    return Poll::Ready(Ok(()));
                }
            }
            Err(Errno::EAGAIN) if !nonblocking => return Poll::Pending,
            Err(e) => return Poll::Ready(Err(e)),
        }
    };
    let result = match t.wait_for(&(&**socket.core().queue(), PollEvents::WRITABLE), &wait, look).await {
        Ok(result) => result.map_err(SyscallError::from),
        Err(e) => Err(e.into()),
    };
    match result {
        Err(_) if done > 0 => Ok(done),
        Err(e) => {
            // Datagrams have no reader whose end would matter (send(2)).
            if e == Errno::EPIPE.into() && socket.is_stream() && !call.flags.contains(MsgFlags::NOSIGNAL) {
                t.send_to_self(Signal::SIGPIPE);
            }
            Err(e)
        }
        Ok(()) => Ok(done),
    }
}

fn receive_step(
    t: &mut CurrentTask,
    socket: &dyn Socket,
    iov: &IoVec,
    done: usize,
    flags: MsgFlags,
) -> Result<Incoming> {
    let left = iov.total.saturating_sub(done);
    let want = left.min(if socket.is_stream() { CHUNK } else { LONGEST_MESSAGE });
    // Before anything is taken from a stream: it could not be put back. A message that can't be copied is lost, as on Linux.
    let room = if socket.is_stream() { writable(t, iov, done, want) } else { want };
    if room == 0 && want > 0 {
        let there = socket.receive(&mut [0], flags | MsgFlags::PEEK)?;
        // Nothing there is the end; else the fault, with the bytes left where they are.
        return if there.len == 0 { Ok(there) } else { Err(Errno::EFAULT) };
    }
    with_scratch(t, room, |t, buf| {
        let m = socket.receive(buf, flags)?;
        let copied = scatter(t, iov, done, buf.get(..m.len).unwrap_or_default());
        // The rest of a message that could not be copied is gone.
        if copied < m.len { Err(Errno::EFAULT) } else { Ok(m) }
    })
}

/// Receives a message, or bytes of a stream: what is there, or with MSG_WAITALL all that fits.
///
/// # Errors
/// Those of the socket; EFAULT; an interruption. None once a byte of a stream has been received.
pub(super) async fn receive(
    t: &mut CurrentTask,
    sock: Sock<'_>,
    iov: &IoVec,
    flags: MsgFlags,
) -> Result<Incoming, SyscallError> {
    let socket = sock.socket();
    // The error queue is never waited for.
    let nonblocking = flags.intersects(MsgFlags::DONTWAIT | MsgFlags::ERRQUEUE) || sock.file().is_nonblocking();
    // By the call or by the file: sockets see one flag for both.
    let flags = if nonblocking { flags | MsgFlags::DONTWAIT } else { flags };
    let stream = socket.is_stream();
    // A stream has no empty messages.
    if stream && iov.total == 0 {
        return Ok(Incoming::default());
    }
    let peek = flags.contains(MsgFlags::PEEK);
    let target =
        // MSG_WAITALL asks for all; else SO_RCVLOWAT says how much is enough.
        if flags.contains(MsgFlags::WAITALL) && !peek { iov.total } else { socket.core().rcvlowat().min(iov.total) };
    let wait = socket_wait("recv", &**socket, BufferSide::Receive);
    let mut all = Incoming::default();
    let look = |t: &mut CurrentTask| loop {
        match receive_step(t, &**socket, iov, all.len, flags) {
            Ok(m) if !stream => {
                all = m;
                return Poll::Ready(Ok(()));
            }
            Ok(m) => {
                // An end, a border between messages, and a look stop the reading at once.
                let ended = m.len == 0 || m.complete || peek;
                // A short step has emptied the socket.
                let emptied = m.len < iov.total.saturating_sub(all.len).min(CHUNK);
                merge(&mut all, m);
                if ended || all.len >= iov.total || (emptied && all.len >= target) {
                    return Poll::Ready(Ok(()));
                }
            }
            // What there is suffices, so it does not wait for more.
            Err(Errno::EAGAIN) if all.len > 0 && all.len >= target => return Poll::Ready(Ok(())),
            Err(Errno::EAGAIN) if !(nonblocking || all.len > 0 && all.complete) => return Poll::Pending,
            Err(e) => return Poll::Ready(Err(e)),
        }
    };
    match t.wait_for(&(&**socket.core().queue(), PollEvents::READABLE), &wait, look).await {
        Ok(Ok(())) => Ok(all),
        Ok(Err(e)) => done_or(socket.as_ref(), all, e.into()),
        Err(e) => done_or(socket.as_ref(), all, e.into()),
    }
}

fn merge(all: &mut Incoming, m: Incoming) {
    all.len += m.len;
    all.full_len += m.full_len;
    all.flags |= m.flags;
    all.complete |= m.complete;
    all.from = all.from.or(m.from);
    if all.ancillary.is_empty() {
        all.ancillary = m.ancillary;
    } else {
        all.ancillary.files.extend(m.ancillary.files);
        all.ancillary.other.extend(m.ancillary.other);
    }
}

/// The bytes received, if any; an error of the socket then stays for the next call.
fn done_or(socket: &dyn Socket, all: Incoming, error: SyscallError) -> Result<Incoming, SyscallError> {
    if all.len == 0 {
        return Err(error);
    }
    if let SyscallError::Errno(e) = error
        && !matches!(e, Errno::EAGAIN | Errno::EFAULT | Errno::EINTR)
    // The caller's own errors are told by its next call anyway.
    {
        socket.core().set_error(e);
    }
    Ok(all)
}
