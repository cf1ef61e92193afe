//! Raw and ping sockets in an image, and out of it.

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::socket::{IPPROTO_ICMP, IPPROTO_ICMPV6, SOCK_DGRAM, SOCK_RAW};
use moat_image::state::{RawSocketState, SocketRef};
use moat_image::{ImageError, Met, Refusal};
use moat_sync::{LockClass, Mutex};
use moat_vfs::file::SaveFiles;
use moat_vfs::socket::{RestoreSockets, SocketKind};

use super::{RawSocket, RawState, RawTable, SHUT_READ, SHUT_WRITE, cost};
use crate::errors::ErrorQueue;
use crate::inbox::Inbox;
use crate::options::InetOptions;
use crate::ports::Net;

impl RawSocket {
    pub(super) fn save_socket(&self, saver: &mut dyn SaveFiles) -> Result<SocketRef, Refusal> {
        let me = self.me.upgrade().ok_or_else(|| Refusal::new("a socket that is being closed"))?;
        let name = match saver.raw_sockets().meet(Arc::as_ptr(&me).addr()) {
            Met::Before(name) => name,
            Met::First(name) => {
                let state = self.state(saver.pages().is_some())?;
                saver.raw_sockets().fill(name, state);
                name
            }
        };
        Ok(SocketRef::Raw(name.index()))
    }

    fn state(&self, with_data: bool) -> Result<RawSocketState, Refusal> {
        if !self.errors.is_empty() {
            return Err(Refusal::new("a raw socket with errors of the network that nobody has read"));
        }
        // Each lock is given up before the next is taken.
        let packets = if with_data { self.inbox.all(|d| d.save(&d.data)) } else { Vec::new() };
        let options = self.options.save()?;
        let s = self.state.lock();
        Ok(RawSocketState {
            family: self.kind.family,
            socket_type: self.kind.socket_type,
            protocol: self.kind.protocol,
            core: self.core.save(),
            options,
            uid: self.uid,
            local: s.local,
            peer: s.peer,
            number: s.number,
            header_included: s.header_included,
            filter: s.filter,
            shutdown: s.shutdown,
            packets,
        })
    }

    /// One out of an image.
    ///
    /// # Errors
    /// What socket(2) would never have given; a raw socket in a container that may have none.
    pub(crate) fn restore(request: &RestoreSockets<'_>, saved: &RawSocketState) -> Result<Arc<RawSocket>, ImageError> {
        let kind = SocketKind { family: saved.family, socket_type: saved.socket_type, protocol: saved.protocol };
        match (kind.socket_type, kind.protocol) {
            (SOCK_DGRAM, IPPROTO_ICMP | IPPROTO_ICMPV6) => {}
            (SOCK_RAW, 1..=255) if request.may(Cap::NET_RAW) => {}
            (SOCK_RAW, 1..=255) => {
                return Err(ImageError::Unfit("a raw socket, which takes CAP_NET_RAW".into()));
            }
            _ => return Err(ImageError::state("a raw socket of another kind")),
        }
        let options = InetOptions::restore(request.net, saved.family, &saved.options)?;
        let net = Net::of(request.net);
        let stack = net.stack().ok_or_else(|| ImageError::Unfit("a raw socket in a network without links".into()))?;
        let state = RawState {
            local: saved.local,
            peer: saved.peer,
            number: saved.number,
            header_included: saved.header_included,
            filter: saved.filter,
            shutdown: saved.shutdown & (SHUT_READ | SHUT_WRITE),
        };
        let core = request.core(&saved.core)?;
        let socket = Arc::new_cyclic(|me| RawSocket {
            me: me.clone(),
            kind,
            net,
            core,
            options,
            uid: saved.uid,
            state: Mutex::new(LockClass::Socket, state),
            inbox: Inbox::new(cost, request.memory.clone()),
            errors: ErrorQueue::new(),
        });
        socket.inbox.restore(&saved.packets);
        request.net.extensions.get_or_init(RawTable::default).0.add(socket.me.clone());
        if let Ok(protocol) = u8::try_from(kind.protocol) {
            stack.change(|s| s.want_raw(protocol));
        }
        Ok(socket)
    }
}
