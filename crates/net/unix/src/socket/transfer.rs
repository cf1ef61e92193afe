//! Sending and receiving of one message or piece of a stream.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::socket::MsgFlags;
use moat_abi::{Errno, Result};
use moat_vfs::Caller;
use moat_vfs::socket::{Incoming, Outgoing, Socket};

use super::{UnixSocket, real_creds};
use crate::endpoint::{Attached, Endpoint, QueueLimit, SHUT_READ, SHUT_WRITE};
use crate::name::Flavor;
use crate::names::{self, Found};
use crate::rights::Rights;

impl UnixSocket {
    /// What goes with data that is being sent to `to`.
    fn attach(&self, caller: Option<&dyn Caller>, to: &Endpoint, message: &Outgoing<'_>) -> Result<Attached> {
        // Either end may ask for them (`maybe_add_creds`).
        let wanted = |e: &Endpoint| e.core.has(moat_vfs::socket::CoreFlags::PASSCRED);
        let creds = match &message.ancillary.creds {
            Some(c) => Some(c.clone()),
            None if wanted(to) || wanted(&self.endpoint) => Some(caller.map_or_else(|| self.maker.clone(), real_creds)),
            None => None,
        };
        let rights = match message.ancillary.files.as_slice() {
            [] => None,
            files => Some(Rights::new(&self.family.in_flight, files, caller)?),
        };
        Ok(Attached { creds, rights })
    }

    pub(super) fn send_connected(&self, caller: Option<&dyn Caller>, message: &mut Outgoing<'_>) -> Result<usize> {
        if message.to.is_some() && self.flavor == Flavor::Stream {
            return Err(if self.peer.get().is_some() { Errno::EISCONN } else { Errno::EOPNOTSUPP });
        }
        let peer = self.peer.get().ok_or(Errno::ENOTCONN)?;
        // A stream that has ended says EPIPE; the error is left for who reads.
        if self.flavor == Flavor::SeqPacket {
            self.endpoint.core.take_error()?;
        }
        if self.endpoint.shutdown_bits() & SHUT_WRITE != 0 {
            return Err(Errno::EPIPE);
        }
        self.endpoint.core.take_error()?;
        let attached = self.attach(caller, peer, message)?;
        let n = match self.flavor {
            Flavor::Stream => peer.push_bytes(&self.endpoint, message.data, attached)?,
            // A peer that is gone has closed both halves of this end, which the check above has seen or will see.
            _ => peer
                .push_packet(&self.endpoint, message.data, QueueLimit::None, attached)
                .map_err(|e| if e == Errno::ECONNREFUSED { Errno::EPIPE } else { e })?,
        };
        // What was attached goes with the first part of a long message only.
        message.ancillary = moat_vfs::socket::Ancillary::default();
        Ok(n)
    }

    pub(super) fn send_datagram(&self, caller: Option<&dyn Caller>, message: &mut Outgoing<'_>) -> Result<usize> {
        self.endpoint.core.take_error()?;
        if let Some(c) = caller {
            self.bind_if_credentials_pass(c)?;
        }
        let to = match (message.to, caller) {
            (Some(addr), Some(caller)) => match names::find(caller, self, addr)? {
                Found::Socket(other) => other.endpoint.clone(),
                Found::Node(_) if self.endpoint.shutdown_bits() & SHUT_WRITE != 0 => return Err(Errno::EPIPE),
                Found::Node(node) => return self.host.send_to(&node, self.endpoint.core.queue(), message),
            },
            _ => self.datagram_peer().ok_or(Errno::ENOTCONN)?,
        };
        self.check_may_send(&to)?;
        if self.endpoint.shutdown_bits() & SHUT_WRITE != 0 {
            return Err(Errno::EPIPE);
        }
        let attached = self.attach(caller, &to, message)?;
        // A peer that talks to nobody else is held back by this end's buffer alone.
        let limit = if to.only_from.load(Ordering::Acquire) == self.endpoint.id() {
            QueueLimit::None
        } else {
            QueueLimit::Short
        };
        let sent = to.push_packet(&self.endpoint, message.data, limit, attached);
        if sent == Err(Errno::ECONNREFUSED) && message.to.is_none() {
            self.forget_peer(&to);
        }
        message.ancillary = moat_vfs::socket::Ancillary::default();
        sent
    }

    /// The peer is gone: the socket is as good as unconnected.
    fn forget_peer(&self, gone: &Arc<Endpoint>) {
        let mut state = self.state.lock();
        if state.datagram_peer.as_ref().is_some_and(|p| Arc::ptr_eq(p, gone)) {
            state.datagram_peer = None;
            self.endpoint.only_from.store(0, Ordering::Release);
        }
    }

    pub(super) fn receive_stream(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Incoming> {
        let Some(peer) = self.peer.get() else { return Err(Errno::EINVAL) };
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EINVAL);
        }
        match self.endpoint.take_bytes(peer, buf, flags, self.pass_creds()) {
            Err(Errno::EAGAIN) => {
                self.endpoint.core.take_error()?;
                if self.endpoint.shutdown_bits() & SHUT_READ == 0 {
                    return Err(Errno::EAGAIN);
                }
                // Data may have come between the look at the queue and the end: it is read first.
                if self.endpoint.has_data() { Err(Errno::EAGAIN) } else { Ok(Incoming::default()) }
            }
            mut done => {
                if let Ok(m) = &mut done {
                    m.from = peer.name().map(|n| n.to_sockaddr());
                }
                done
            }
        }
    }

    pub(super) fn receive_packet(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Incoming> {
        if self.flavor == Flavor::SeqPacket && self.peer.get().is_none() {
            return Err(Errno::ENOTCONN);
        }
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut done = self.endpoint.take_packet(buf, flags);
        if done.as_ref().err() == Some(&Errno::EAGAIN) && self.flavor == Flavor::Datagram {
            match self.host.receive_datagram(buf, flags) {
                Err(Errno::EAGAIN) => {}
                got => return got,
            }
        }
        if done.as_ref().err() == Some(&Errno::EAGAIN) {
            self.endpoint.core.take_error()?;
            // Messages from before the end are read first.
            if self.endpoint.shutdown_bits() & SHUT_READ != 0 && !self.endpoint.has_data() {
                return Ok(Incoming::default());
            }
        } else if self.flavor == Flavor::SeqPacket
            && let Ok(m) = &mut done
        {
            m.flags |= MsgFlags::EOR;
        }
        done
    }
}
