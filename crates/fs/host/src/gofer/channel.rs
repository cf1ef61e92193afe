//! [`Channel`]: messages with at most one descriptor over a SOCK_SEQPACKET socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

/// Bytes of the largest message: below what a socket's buffer holds by default, so that one always fits in.
pub const MAX_MESSAGE_BYTES: usize = 72 << 10;

/// One end of a connection, with the buffer of its messages.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    buffer: Box<[u8]>,
}

impl Channel {
    /// Speaks over a connected SOCK_SEQPACKET socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Channel {
        Channel { socket, buffer: vec![0; MAX_MESSAGE_BYTES].into_boxed_slice() }
    }

    /// Two connected sockets.
    ///
    /// # Errors
    /// EMFILE, ENFILE.
    pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
        Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
    }

    /// Sends a message. Sleeps while the peer's buffer is full.
    ///
    /// # Errors
    /// InvalidData if the message is too long; EPIPE if the peer is gone.
    pub fn send<T: Serialize>(&mut self, message: &T, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = postcard::to_slice(message, &mut self.buffer).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let fds = fd.as_slice();
        loop {
            // Made for each attempt, which uses it up.
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            match sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                sent => return Ok(sent.map(drop)?),
            }
        }
    }

    /// Waits for the next message and the descriptor that came with it; `None` when the peer has closed.
    ///
    /// # Errors
    /// InvalidData for a message that is malformed, too long, or has bytes left over or too many descriptors.
    pub fn receive<'a, T: Deserialize<'a>>(&'a mut self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let iov = &mut [IoSliceMut::new(&mut self.buffer)];
            match recvmsg(&self.socket, iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                received => break received?,
            }
        };
        // Taken in before any check, so that it is closed whatever comes.
        let mut fd = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut rights) = message {
                fd = rights.next();
            }
        }
        // No message is empty: the peer has closed.
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let bytes = self.buffer.get(..received.bytes).ok_or(io::ErrorKind::InvalidData)?;
        match postcard::take_from_bytes(bytes) {
            Ok((message, [])) => Ok(Some((message, fd))),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Channel, Channel) {
        let (a, b) = Channel::pair().expect("socketpair");
        (Channel::new(a), Channel::new(b))
    }

    #[test]
    fn a_message_and_a_descriptor_arrive() {
        let (mut a, mut b) = pair();
        let (pipe, _) = rustix::pipe::pipe().expect("pipe");
        a.send(&(7u32, "text"), Some(pipe.as_fd())).expect("send");
        let (message, fd) = b.receive::<(u32, &str)>().expect("receive").expect("not closed");
        assert_eq!(message, (7, "text"));
        assert!(fd.is_some());
        drop(a);
        assert!(b.receive::<u32>().expect("receive").is_none());
    }

    #[test]
    fn malformed_messages_are_errors() {
        let (a, mut b) = pair();
        // A string longer than the message, bytes left over, no UTF-8.
        for bytes in [&b"\xff\xff\xff\x7fx"[..], b"\x01xy", b"\x01\xff"] {
            rustix::io::write(a.as_fd(), bytes).expect("write");
            assert!(b.receive::<&str>().is_err(), "{bytes:?}");
        }
        let too_long = vec![0; MAX_MESSAGE_BYTES + 1];
        rustix::io::write(a.as_fd(), &too_long).expect("write");
        assert!(b.receive::<()>().is_err());
    }

    #[test]
    fn a_message_that_is_too_long_is_not_sent() {
        let (mut a, _b) = pair();
        assert!(a.send(&vec![1u8; MAX_MESSAGE_BYTES], None).is_err());
    }
}
