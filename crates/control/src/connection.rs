//! [`Connection`]: control messages over a SOCK_SEQPACKET socket.
//!
//! A message too long for one packet travels in a memfd, which is the last of its descriptors.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::protocol::{Body, Message, PROTOCOL_VERSION};
use crate::spec::MAX_SPEC_BYTES;
use crate::{Request, Response};

/// Bytes of the largest packet.
const MAX_PACKET_BYTES: usize = 64 << 10;

/// Descriptors in one message, at most: SCM_MAX_FD of the kernel.
pub const MAX_FDS: usize = 253;

/// One end of a control connection.
#[derive(Debug)]
pub struct Connection(Arc<OwnedFd>);

impl Connection {
    /// Speaks over a connected SOCK_SEQPACKET socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Connection(Arc::new(socket))
    }

    /// A connection and its other end, which is to be donated.
    ///
    /// # Errors
    /// EMFILE, ENFILE.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Connection::new(ours), theirs))
    }

    /// The socket, for those who wait for it by other means.
    #[must_use]
    pub fn socket(&self) -> &Arc<OwnedFd> {
        &self.0
    }

    /// Sends a request and waits for its response.
    ///
    /// # Errors
    /// Of the socket; UnexpectedEof if the sandbox is gone; InvalidData for a malformed answer.
    pub fn call(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<Response> {
        self.send(request, fds)?;
        match self.receive()? {
            Some((response, _)) => Ok(response),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Sends a request with descriptors; its response is to be had by [`Connection::next_response`].
    ///
    /// # Errors
    /// Of the socket.
    pub fn send_request(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send(request, fds)
    }

    /// Sends a request and does not wait: its response is to be had by [`Connection::next_response`]. Never blocks.
    ///
    /// # Errors
    /// Of the socket; WouldBlock if the peer has not read for long.
    pub fn post(&self, request: &Request) -> io::Result<()> {
        self.send_with(request, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    /// Receives the next response; `None` when the peer has closed.
    ///
    /// # Errors
    /// As [`Connection::next_request`].
    pub fn next_response(&self) -> io::Result<Option<Response>> {
        Ok(self.next_response_with_fds()?.map(|(response, _)| response))
    }

    /// As [`Connection::next_response`], with the descriptors that came with it.
    ///
    /// # Errors
    /// As [`Connection::next_request`].
    pub fn next_response_with_fds(&self) -> io::Result<Option<(Response, Vec<OwnedFd>)>> {
        self.receive()
    }

    /// Receives the next request; `None` when the peer has closed.
    ///
    /// # Errors
    /// WouldBlock on a non-blocking socket; InvalidData for a malformed request.
    pub fn next_request(&self) -> io::Result<Option<(Request, Vec<OwnedFd>)>> {
        self.receive()
    }

    /// Answers a request.
    ///
    /// # Errors
    /// Of the socket.
    pub fn respond(&self, response: &Response, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send(response, fds)
    }

    fn send<T: Serialize>(&self, body: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(body, fds, SendFlags::NOSIGNAL)
    }

    fn send_with<T: Serialize>(&self, body: &T, fds: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
        let packet = serde_json::to_vec(&Message { version: PROTOCOL_VERSION, body: Body::Inline(body) })?;
        if packet.len() <= MAX_PACKET_BYTES {
            return self.send_packet(&packet, fds, flags);
        }
        // A packet has to fit into the socket's buffer, whose size is the host's to say; a file has no such limit.
        let (memfd, length) = body_in_memfd(body)?;
        let packet = serde_json::to_vec(&Message { version: PROTOCOL_VERSION, body: Body::<()>::InMemfd(length) })?;
        let mut all = fds.to_vec();
        all.push(memfd.as_fd());
        self.send_packet(&packet, &all, flags)
    }

    fn send_packet(&self, packet: &[u8], fds: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && (fds.len() > MAX_FDS || !control.push(SendAncillaryMessage::ScmRights(fds))) {
            return Err(invalid("too many descriptors"));
        }
        sendmsg(&*self.0, &[IoSlice::new(packet)], &mut control, flags)?;
        Ok(())
    }

    fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MAX_PACKET_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut receive =
            || recvmsg(&*self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let received = match receive() {
            // The peer died with messages that it had not read. That is said once, before what it had sent itself.
            Err(rustix::io::Errno::CONNRESET) => receive()?,
            other => other?,
        };
        // Taken in before any check, so that they are closed whatever comes.
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        // No packet is empty: this is the end.
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(invalid("control message truncated"));
        }
        let message: Message<T> = serde_json::from_slice(bytes.get(..received.bytes).unwrap_or_default())?;
        if message.version != PROTOCOL_VERSION {
            return Err(invalid("control message of another version of moat"));
        }
        let body = match message.body {
            Body::Inline(body) => body,
            Body::InMemfd(length) => {
                let memfd = fds.pop().ok_or_else(|| invalid("control message without its body"))?;
                read_body(memfd, length)?
            }
        };
        Ok(Some((body, fds)))
    }
}

fn body_in_memfd<T: Serialize>(body: &T) -> io::Result<(File, u64)> {
    let json = serde_json::to_vec(body)?;
    let length = u64::try_from(json.len()).unwrap_or(u64::MAX);
    // The receiver would refuse it; so the sender knows why.
    if length > MAX_SPEC_BYTES {
        return Err(invalid("control message too large"));
    }
    let mut memfd = File::from(memfd_create("moat-message", MemfdFlags::CLOEXEC)?);
    memfd.write_all(&json)?;
    // The receiver reads at the same position.
    memfd.rewind()?;
    Ok((memfd, length))
}

fn read_body<T: DeserializeOwned>(memfd: OwnedFd, length: u64) -> io::Result<T> {
    // The other side may be the sandbox, which is not trusted to keep to it.
    if length > MAX_SPEC_BYTES {
        return Err(invalid("control message too large"));
    }
    let mut json = Vec::new();
    File::from(memfd).take(length).read_to_end(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SignalTarget;

    #[test]
    fn a_peer_that_read_nothing_is_heard_to_the_end() {
        let (client, theirs) = Connection::pair().unwrap();
        let server = Connection::new(theirs);
        client.send_request(&Request::Wait("c".into()), &[]).unwrap();
        server.respond(&Response::Done, &[]).unwrap();
        drop(server);
        assert_eq!(client.next_response().unwrap(), Some(Response::Done));
        assert!(client.next_response().unwrap().is_none());
    }

    #[test]
    fn a_request_with_a_descriptor_and_its_response() {
        let (client, theirs) = Connection::pair().unwrap();
        let server = Connection::new(theirs);
        let request = Request::Signal { id: "c".into(), signal: 15, target: SignalTarget::Init };
        client.send(&request, &[client.as_fd()]).unwrap();
        let (got, fds) = server.next_request().unwrap().unwrap();
        assert_eq!(got, request);
        assert_eq!(fds.len(), 1);
        server.respond(&Response::Done, &[]).unwrap();
        assert_eq!(client.receive::<Response>().unwrap().unwrap().0, Response::Done);
        drop((client, fds));
        assert!(server.next_request().unwrap().is_none());
    }

    #[test]
    fn a_long_message_travels_in_a_memfd() {
        let (client, theirs) = Connection::pair().unwrap();
        let server = Connection::new(theirs);
        let request = Request::Wait("x".repeat(MAX_PACKET_BYTES));
        client.send(&request, &[client.as_fd()]).unwrap();
        let (got, fds) = server.next_request().unwrap().unwrap();
        assert_eq!((got, fds.len()), (request, 1));
        let too_long = Request::Wait("x".repeat(usize::try_from(MAX_SPEC_BYTES).unwrap()));
        assert_eq!(client.send(&too_long, &[]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn garbage_is_an_error() {
        let (client, theirs) = Connection::pair().unwrap();
        rustix::io::write(&theirs, b"{]").unwrap();
        assert_eq!(client.receive::<Response>().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
