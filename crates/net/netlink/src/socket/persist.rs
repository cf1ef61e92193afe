//! Netlink sockets in an image, and out of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::Errno;
use moat_abi::socket::{AF_NETLINK, SOCK_DGRAM, SOCK_RAW};
use moat_image::state::{NetlinkDumpState, NetlinkSocketState, SocketRef};
use moat_image::{ImageError, Met, Refusal};
use moat_sync::{LockClass, Mutex};
use moat_vfs::OpenFile;
use moat_vfs::file::SaveFiles;
use moat_vfs::socket::{RestoreSockets, RestoredSockets, Socket, SocketKind};

use super::{NetlinkSocket, NetlinkState, NetlinkTable};
use crate::message::Answering;

/// Numbers that are no process's.
const OWN_NUMBERS: u32 = 0xf000_0000;

impl NetlinkSocket {
    pub(super) fn save_socket(&self, saver: &mut dyn SaveFiles) -> Result<SocketRef, Refusal> {
        let me = self.me.upgrade().ok_or_else(|| Refusal::new("a socket that is being closed"))?;
        let name = match saver.netlink_sockets().meet(Arc::as_ptr(&me).addr()) {
            Met::Before(name) => name,
            Met::First(name) => {
                // A survey is after what may refuse.
                let state = self.as_state(saver.pages().is_some());
                saver.netlink_sockets().fill(name, state);
                name
            }
        };
        Ok(SocketRef::Netlink(name.index()))
    }

    fn as_state(&self, with_data: bool) -> NetlinkSocketState {
        let dump = if with_data { self.rest_of_dump() } else { None };
        let s = self.state.lock();
        let waiting = if with_data { s.waiting.iter().map(|m| m.clone().into()).collect() } else { Vec::new() };
        NetlinkSocketState {
            socket_type: self.kind.socket_type,
            protocol: self.kind.protocol,
            core: self.core.save(),
            port: s.port,
            groups: s.groups,
            waiting,
            dump,
            overrun: s.waiting.is_congested(),
            untold: s.waiting.is_untold(),
        }
    }

    /// The messages of a dump that have not been read; it goes on with the same.
    fn rest_of_dump(&self) -> Option<NetlinkDumpState> {
        let (dump, to) = self.state.lock().dump.take()?;
        // Without the lock: what is listed has locks of its own.
        let messages: Vec<Vec<u8>> = dump.collect();
        let saved = NetlinkDumpState {
            messages: messages.iter().map(|m| m.clone().into()).collect(),
            seq: to.seq,
            port: to.port,
        };
        self.state.lock().dump = Some((Box::new(messages.into_iter()), to));
        Some(saved)
    }

    fn restore(request: &RestoreSockets<'_>, saved: &NetlinkSocketState) -> Result<Arc<NetlinkSocket>, ImageError> {
        let kind = SocketKind { family: AF_NETLINK, socket_type: saved.socket_type, protocol: saved.protocol };
        let protocol = crate::protocol(saved.protocol).filter(|_| [SOCK_RAW, SOCK_DGRAM].contains(&kind.socket_type));
        let protocol = protocol.ok_or_else(|| ImageError::state("a netlink socket of another protocol"))?;
        let dump = saved.dump.as_ref().map(|dump| {
            let messages: Vec<Vec<u8>> = dump.messages.iter().map(|m| m.to_vec()).collect();
            (Box::new(messages.into_iter()) as super::Dump, Answering { seq: dump.seq, port: dump.port })
        });
        let mut state = NetlinkState { port: saved.port, dump, ..NetlinkState::new(request.memory) };
        saved.waiting.iter().for_each(|m| state.waiting.put(m.to_vec()));
        state.waiting.set_untold(saved.untold);
        let core = request.core(&saved.core)?;
        if saved.overrun {
            // It may have been told before: better twice than never.
            core.set_error(Errno::ENOBUFS);
        }
        let socket = Arc::new_cyclic(|me| NetlinkSocket {
            me: me.clone(),
            core,
            net: request.net.clone(),
            kind,
            protocol,
            state: Mutex::new(LockClass::Socket, state),
        });
        let table = request.net.extensions.get_or_init(NetlinkTable::default);
        table.sockets.add(socket.me.clone());
        // No later socket may get its number.
        if saved.port >= OWN_NUMBERS {
            table.next_port.fetch_max(saved.port.saturating_add(1), Ordering::Relaxed);
        }
        // It is told of what changes from here on: also of the links that come now.
        socket.set_groups(|_| saved.groups);
        Ok(socket)
    }
}

/// The netlink sockets of an image that no open file has yet.
struct Restored(Vec<Option<Arc<NetlinkSocket>>>);

/// All of them.
///
/// # Errors
/// What is wrong with one.
pub(crate) fn restore<'a>(request: &RestoreSockets<'a>) -> Result<Box<dyn RestoredSockets + 'a>, ImageError> {
    let all = request.state.netlink_sockets.iter().map(|saved| NetlinkSocket::restore(request, saved).map(Some));
    Ok(Box::new(Restored(all.collect::<Result<_, _>>()?)))
}

impl RestoredSockets for Restored {
    fn take(&mut self, socket: SocketRef) -> Result<Arc<dyn Socket>, ImageError> {
        let SocketRef::Netlink(index) = socket else {
            return Err(ImageError::state("a socket that is not of netlink"));
        };
        let socket = usize::try_from(index).ok().and_then(|at| self.0.get_mut(at)).and_then(Option::take);
        Ok(socket.ok_or_else(|| ImageError::state(format!("netlink socket {index} is not there")))?)
    }

    fn fill(&self, _files: &[Arc<OpenFile>]) -> Result<(), ImageError> {
        Ok(())
    }
}
