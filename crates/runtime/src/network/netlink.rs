//! [`Netlink`]: questions and changes by rtnetlink(7), in the network namespace of the calling thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Bytes of the largest datagram that the kernel sends for a dump.
const DATAGRAM_BYTES: usize = 64 << 10;

/// Messages of one dump that are read: more than any container has devices, addresses or routes.
const MOST_MESSAGES: usize = 100_000;

/// RTMGRP_LINK, and addresses and routes of IPv4 and IPv6.
const NEWS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// A socket of NETLINK_ROUTE.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens one.
    ///
    /// # Errors
    /// Of socket(2).
    pub(super) fn open() -> io::Result<Self> {
        // NETLINK_ROUTE is protocol 0.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        // Port 0 is the kernel.
        rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// All objects that `request`, an `RTM_GET*` message, asks for.
    ///
    /// # Errors
    /// The kernel's; InvalidData for an answer that can't be read.
    pub(super) fn dump(&mut self, request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(request, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut objects = Vec::new();
        loop {
            for message in self.receive()? {
                match message.payload {
                    NetlinkPayload::InnerMessage(object) if objects.len() < MOST_MESSAGES => objects.push(object),
                    // A dump can fail half way: the errno comes with its end.
                    NetlinkPayload::Done(done) => return errno(done.code).map(|()| objects),
                    NetlinkPayload::Error(error) => errno(error.raw_code())?,
                    NetlinkPayload::InnerMessage(_) => return Err(malformed("a dump does not end")),
                    _ => {}
                }
            }
        }
    }

    /// Makes a change and waits until it is made.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn change(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        // Without NLM_F_ACK the kernel answers errors only.
        self.send(request, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        loop {
            for message in self.receive()? {
                if let NetlinkPayload::Error(error) = message.payload {
                    return errno(error.raw_code());
                }
            }
        }
    }

    fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        // Answers carry it: what an earlier request that failed has left behind is told apart by it.
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        rustix::net::send(&self.socket, &bytes, SendFlags::empty())?;
        Ok(())
    }

    /// The messages of the next datagram that answer the last request.
    fn receive(&self) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        // TRUNC gives the length of the datagram, even if it did not fit.
        let (_, length) =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::TRUNC))?;
        let mut rest = buffer.get(..length).ok_or_else(|| malformed("a datagram is too long"))?;
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            // Messages are padded to four bytes, but for the last.
            let length =
                usize::try_from(message.header.length).ok().and_then(|length| length.checked_next_multiple_of(4));
            // A length of less than a header would never come to the end.
            rest = length.and_then(|length| rest.get(length.max(16)..)).unwrap_or_default();
            // The rest of an earlier dump is no answer to this request.
            if message.header.sequence_number == self.sequence {
                messages.push(message);
            }
        }
        Ok(messages)
    }
}

/// A socket that is readable when links, addresses or routes have changed.
pub(super) struct Monitor(OwnedFd);

impl Monitor {
    /// Opens one.
    ///
    /// # Errors
    /// Of socket(2) and bind(2).
    pub(super) fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, NEWS))?;
        Ok(Monitor(socket))
    }

    /// Throws away what has come: who hears of a change looks at all there is.
    ///
    /// # Errors
    /// Of recv(2).
    pub(super) fn drain(&self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match rustix::net::recv(&self.0, &mut buffer, RecvFlags::DONTWAIT) {
                // ENOBUFS: more than the socket holds, which is no less of a change.
                Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::NOBUFS) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The result that a code of NLMSG_ERROR or NLMSG_DONE says: a negative errno, or 0.
fn errno(code: i32) -> io::Result<()> {
    if code < 0 { Err(io::Error::from_raw_os_error(code.saturating_neg())) } else { Ok(()) }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("rtnetlink: {what}"))
}
