//! Sockets into an image. Out of it they come in `restore.rs`.

use std::sync::Arc;

use moat_image::state::{SocketRef, UnixBacklogState, UnixBoundState, UnixSocketState};
use moat_image::{Met, Ref, Refusal};
use moat_vfs::file::SaveFiles;
use moat_vfs::socket::Socket;

use super::{Phase, UnixSocket};
use crate::endpoint::Endpoint;
use crate::name::{Flavor, Name};

impl UnixSocket {
    pub(super) fn save_socket(&self, saver: &mut dyn SaveFiles) -> Result<SocketRef, Refusal> {
        if self.host.is_any() {
            return Err(Refusal::new("a UNIX socket that the host has an end of"));
        }
        let me = self.me.upgrade().ok_or_else(|| Refusal::new("a UNIX socket that is being closed"))?;
        Ok(SocketRef::Unix(me.saved_as(saver).index()))
    }

    /// Its name in the image.
    fn saved_as(self: &Arc<Self>, saver: &mut dyn SaveFiles) -> Ref<UnixSocketState> {
        match saver.unix_sockets().meet(Arc::as_ptr(self).addr()) {
            Met::Before(name) => name,
            Met::First(name) => {
                let me = self.clone();
                saver.later(Box::new(move |saver| {
                    let state = me.state(saver)?;
                    saver.unix_sockets().fill(name, state);
                    Ok(())
                }));
                name
            }
        }
    }

    fn state(&self, saver: &mut dyn SaveFiles) -> Result<UnixSocketState, Refusal> {
        let (backlog, peer_creds, datagram_peer) = {
            let state = self.state.lock();
            let backlog = match &state.phase {
                Phase::Listening(b) => Some((b.limit, b.creds.clone(), b.ready.iter().cloned().collect::<Vec<_>>())),
                Phase::Fresh | Phase::Connecting | Phase::Connected | Phase::Released => None,
            };
            (backlog, state.peer_creds.clone(), state.datagram_peer.clone())
        };
        // Unlocked from here on: each of these says for itself what it is.
        let peer = if self.flavor == Flavor::Datagram { datagram_peer } else { self.peer.get().cloned() };
        let backlog = backlog.map(|(limit, creds, ready)| UnixBacklogState {
            limit: u64::try_from(limit).unwrap_or(u64::MAX),
            creds: creds.save(saver),
            ready: ready.iter().map(|socket| socket.saved_as(saver)).collect(),
        });
        Ok(UnixSocketState {
            endpoint: self.endpoint.saved_as(saver),
            socket_type: self.kind().socket_type,
            maker: self.maker.save(saver),
            peer: peer.as_ref().map(|peer: &Arc<Endpoint>| peer.saved_as(saver)),
            peer_creds: peer_creds.map(|creds| creds.save(saver)),
            bound: self.bound(saver)?,
            backlog,
        })
    }

    /// How others find it.
    fn bound(&self, saver: &mut dyn SaveFiles) -> Result<Option<UnixBoundState>, Refusal> {
        let Some(name) = self.endpoint.name() else { return Ok(None) };
        match &*name {
            Name::Abstract { text, flavor } => {
                let at = (*flavor, text.clone());
                let owner = self.local.abstracts.lock().get(&at).cloned();
                Ok(owner.filter(|owner| owner.ptr_eq(&self.me)).map(|_| UnixBoundState::Abstract))
            }
            Name::File { key, path, .. } => {
                let owner = self.family.files.lock().get(key).cloned();
                if !owner.is_some_and(|owner| owner.ptr_eq(&self.me)) {
                    return Ok(None);
                }
                if path.dentry.is_deleted() {
                    // Nobody finds it any more, unless by another link.
                    let links = path.inode().metadata().map_or(0, |meta| meta.nlink);
                    let refusal = || Refusal::new("a UNIX socket with a second name, whose first is gone,");
                    return if links == 0 { Ok(None) } else { Err(refusal()) };
                }
                Ok(Some(UnixBoundState::File(saver.path(path)?)))
            }
            Name::Shown { .. } => Ok(None),
        }
    }
}
