//! UDP sockets in an image, and out of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use moat_image::state::{DatagramState, SocketRef, UdpSocketState};
use moat_image::{ImageError, Met, Refusal};
use moat_sync::{LockClass, Mutex};
use moat_vfs::file::SaveFiles;
use moat_vfs::socket::RestoreSockets;

use super::segments::Filter;
use super::{SHUT_READ, SHUT_WRITE, UdpSocket, UdpState, cost};
use crate::errors::ErrorQueue;
use crate::inbox::{Datagram, Inbox};
use crate::options::InetOptions;
use crate::ports::Net;

impl UdpSocket {
    pub(super) fn save_socket(&self, saver: &mut dyn SaveFiles) -> Result<SocketRef, Refusal> {
        let me = self.me.upgrade().ok_or_else(|| Refusal::new("a socket that is being closed"))?;
        let name = match saver.udp_sockets().meet(Arc::as_ptr(&me).addr()) {
            Met::Before(name) => name,
            Met::First(name) => {
                let state = self.state(saver.pages().is_some())?;
                saver.udp_sockets().fill(name, state);
                name
            }
        };
        Ok(SocketRef::Udp(name.index()))
    }

    fn state(&self, with_data: bool) -> Result<UdpSocketState, Refusal> {
        let (local, bound_address, bound_port, peer) = {
            let s = self.state.lock();
            (s.local, s.bound_address, s.bound_port, s.peer)
        };
        // Each lock is given up before the next is taken.
        let (filter, filter_locked) = {
            let filter = self.filter.lock();
            (filter.save(), filter.locked)
        };
        // Those that came together are read one by one afterwards.
        let datagrams = |d: &Datagram| -> Vec<DatagramState> {
            let parts = super::segments::parts(&d.data, d.arrived.segment);
            parts.into_iter().map(|data| d.save(data)).collect()
        };
        Ok(UdpSocketState {
            family: self.family,
            core: self.core.save(),
            options: self.options.save()?,
            uid: self.uid,
            shutdown: self.shutdown.load(Ordering::Acquire),
            local,
            bound_address,
            bound_port,
            peer,
            binding: local.and_then(|local| self.net.udp.lock().save(self.id(), local.port())),
            // A survey is after what may refuse.
            datagrams: if with_data { self.inbox.all(datagrams).concat() } else { Vec::new() },
            errors: self.errors.save(),
            filter,
            filter_locked,
        })
    }

    /// One out of an image.
    ///
    /// # Errors
    /// What is wrong with it. That its address is one is not asked: the links come later.
    pub(crate) fn restore(request: &RestoreSockets<'_>, saved: &UdpSocketState) -> Result<Arc<UdpSocket>, ImageError> {
        let net = Net::of(request.net);
        let options = InetOptions::restore(request.net, saved.family, &saved.options)?;
        // What is in the table of ports is found there again when the socket is closed.
        if saved.binding.map(|b| b.port) != saved.local.map(|local| local.port()) {
            return Err(ImageError::state("a UDP socket with another port than it is bound to"));
        }
        let core = request.core(&saved.core)?;
        let errors = ErrorQueue::restore(&saved.errors)?;
        let filter = Filter::restore(saved.filter.as_deref(), saved.filter_locked)?;
        let socket = Arc::new_cyclic(|me| UdpSocket {
            me: me.clone(),
            family: saved.family,
            net,
            core,
            options,
            uid: saved.uid,
            shutdown: AtomicU8::new(saved.shutdown & (SHUT_READ | SHUT_WRITE)),
            state: Mutex::new(
                LockClass::Socket,
                UdpState {
                    local: saved.local,
                    bound_address: saved.bound_address,
                    bound_port: saved.bound_port,
                    peer: saved.peer,
                },
            ),
            inbox: Inbox::new(cost, request.memory.clone()),
            errors,
            filter,
        });
        socket.inbox.restore(&saved.datagrams);
        if let Some(binding) = &saved.binding {
            socket.net.udp.lock().restore(socket.id(), &socket.me, binding);
        }
        Ok(socket)
    }
}
