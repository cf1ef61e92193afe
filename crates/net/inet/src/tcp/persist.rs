//! TCP sockets into an image. Out of it they come in `restore.rs`.

use std::sync::Arc;

use moat_image::state::{SocketRef, TcpPhaseState, TcpSocketState};
use moat_image::{Met, Ref, Refusal};
use moat_vfs::file::SaveFiles;

use super::{Phase, TcpSocket};

impl TcpSocket {
    pub(super) fn save_socket(&self, saver: &mut dyn SaveFiles) -> Result<SocketRef, Refusal> {
        let me = self.me.upgrade().ok_or_else(|| Refusal::new("a socket that is being closed"))?;
        Ok(SocketRef::Tcp(me.saved_as(saver)?.index()))
    }

    fn saved_as(self: &Arc<Self>, saver: &mut dyn SaveFiles) -> Result<Ref<TcpSocketState>, Refusal> {
        match saver.tcp_sockets().meet(Arc::as_ptr(self).addr()) {
            Met::Before(name) => Ok(name),
            Met::First(name) => {
                // One in a listener's queue does not listen itself: this goes no deeper.
                let state = self.save_state(saver)?;
                saver.tcp_sockets().fill(name, state);
                Ok(name)
            }
        }
    }

    fn save_state(&self, saver: &mut dyn SaveFiles) -> Result<TcpSocketState, Refusal> {
        enum Copied {
            Listening(usize, Vec<Arc<TcpSocket>>),
            Connected(Arc<super::TcpEnd>, std::net::SocketAddr, bool),
            Other(TcpPhaseState),
            Remote(moat_net_stack::ConnectionId),
        }
        let (bound, phase) = {
            let state = self.state.lock();
            let phase = match &state.phase {
                Phase::Closed | Phase::Released => Copied::Other(TcpPhaseState::Closed),
                Phase::Listening(b) => Copied::Listening(b.limit, b.all().cloned().collect()),
                Phase::Connecting { to } => Copied::Other(TcpPhaseState::Connecting { to: *to }),
                Phase::Connected(c) => Copied::Connected(c.peer.clone(), c.addr, c.announced),
                Phase::Remote(r) => Copied::Remote(r.id),
            };
            (state.bound, phase)
        };
        // Unlocked from here on: other sockets are asked.
        let phase = match phase {
            Copied::Other(phase) => phase,
            Copied::Remote(id) => TcpPhaseState::Outside { stands: self.remote_stands(id) },
            Copied::Connected(peer, addr, announced) => {
                TcpPhaseState::Connected { peer: peer.saved_as(saver), addr, announced }
            }
            Copied::Listening(limit, sockets) => {
                let mut ready = Vec::new();
                for socket in sockets {
                    ready.push(socket.saved_as(saver)?.index());
                }
                TcpPhaseState::Listening { limit: u64::try_from(limit).unwrap_or(u64::MAX), ready }
            }
        };
        Ok(TcpSocketState {
            family: self.family,
            end: self.end.saved_as(saver),
            options: self.options.save()?,
            uid: self.uid,
            bound: bound.map(|b| (b.addr, b.by_caller)),
            binding: bound.and_then(|b| self.net.tcp.lock().save(self.id(), b.addr.port())),
            phase,
        })
    }
}
