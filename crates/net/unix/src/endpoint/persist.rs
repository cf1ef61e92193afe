//! Endpoints into an image, and out of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_image::state::{UnixAttachedState, UnixEndpointState, UnixPacketState, UnixPieceState};
use moat_image::{ImageError, Met, Ref, Refusal, refs::find};
use moat_vfs::OpenFile;
use moat_vfs::file::SaveFiles;
use moat_vfs::socket::{RestoreSockets, SocketCore, SocketCreds};

use super::{Attached, Charge, Endpoint, Packet, SHUT_READ, SHUT_WRITE, Segment, cost};
use crate::name::Name;
use crate::rights::{InFlight, Rights};

/// What goes with data, taken out of the queue's lock.
struct Copied {
    creds: Option<SocketCreds>,
    files: Vec<Arc<OpenFile>>,
    files_uid: u32,
}

impl Copied {
    fn of(attached: &Attached) -> Copied {
        let rights = attached.rights.as_ref();
        Copied {
            creds: attached.creds.clone(),
            files: rights.map(Rights::peek).unwrap_or_default(),
            files_uid: rights.map_or(0, Rights::uid),
        }
    }

    fn save(self, saver: &mut dyn SaveFiles) -> Result<UnixAttachedState, Refusal> {
        let in_flight = |refusal: Refusal| refusal.at("a descriptor in flight");
        let mut files = Vec::new();
        for file in &self.files {
            files.push(saver.open_file(file).map_err(in_flight)?);
        }
        let creds = self.creds.map(|creds| creds.save(saver));
        Ok(UnixAttachedState { creds, files, files_uid: self.files_uid })
    }
}

/// The bytes of a name, as an image has it.
fn text_of(name: &Name) -> serde_bytes::ByteBuf {
    serde_bytes::ByteBuf::from(name.text())
}

impl Endpoint {
    /// Its name in the image.
    pub(crate) fn saved_as(self: &Arc<Self>, saver: &mut dyn SaveFiles) -> Ref<UnixEndpointState> {
        match saver.unix_endpoints().meet(Arc::as_ptr(self).addr()) {
            Met::Before(name) => name,
            Met::First(name) => {
                let me = self.clone();
                // Its queue leads to others, to any depth.
                saver.later(Box::new(move |saver| {
                    let state = me.save(saver)?;
                    saver.unix_endpoints().fill(name, state);
                    Ok(())
                }));
                name
            }
        }
    }

    fn save(&self, saver: &mut dyn SaveFiles) -> Result<UnixEndpointState, Refusal> {
        let with_data = saver.pages().is_some();
        let mut pieces = Vec::new();
        let mut packets = Vec::new();
        {
            let inbox = self.inbox.lock();
            let mut at = 0_usize;
            for segment in &inbox.segments {
                // A survey is after what may refuse.
                let mut data = vec![0; if with_data { segment.len } else { 0 }];
                inbox.bytes.peek(&mut data, at);
                at = at.saturating_add(segment.len);
                pieces.push((data, Copied::of(&segment.attached)));
            }
            for packet in &inbox.packets {
                let data = if with_data { packet.data.to_vec() } else { Vec::new() };
                let from = packet.from.as_deref().map(text_of);
                packets.push((data, from, packet.charge.sender.clone(), Copied::of(&packet.attached)));
            }
        }
        // From here on unlocked: files and other endpoints are asked.
        let mut state = UnixEndpointState {
            core: self.core.save(),
            shutdown: self.shutdown_bits(),
            name: self.name().as_deref().map(text_of),
            only_from: self.only_from.load(Ordering::Acquire),
            starved: self.starved.load(Ordering::SeqCst),
            pieces: Vec::new(),
            packets: Vec::new(),
        };
        for (data, attached) in pieces {
            state.pieces.push(UnixPieceState { data, attached: attached.save(saver)? });
        }
        for (data, from, sender, attached) in packets {
            let (sender, attached) = (sender.saved_as(saver), attached.save(saver)?);
            state.packets.push(UnixPacketState { data, from, sender, attached });
        }
        Ok(state)
    }

    /// One out of an image, with nothing in its queue.
    pub(crate) fn restored(core: SocketCore, saved: &UnixEndpointState) -> Arc<Endpoint> {
        let endpoint = Endpoint::new(core);
        endpoint.shutdown.store(saved.shutdown & (SHUT_READ | SHUT_WRITE), Ordering::Release);
        endpoint.only_from.store(saved.only_from, Ordering::Release);
        endpoint.starved.store(saved.starved, Ordering::SeqCst);
        endpoint
    }

    /// Ends an endpoint out of an image whose socket is gone.
    pub(crate) fn end_restored(&self) {
        self.inbox.lock().dead = true;
        self.shutdown.fetch_or(SHUT_READ | SHUT_WRITE, Ordering::AcqRel);
    }

    /// Puts a piece of a stream back that `peer` has sent. Nobody is woken: who waits looks first.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn put_piece_back(
        &self,
        peer: &Endpoint,
        saved: &UnixPieceState,
        around: &Around<'_>,
    ) -> Result<(), ImageError> {
        let attached = around.attached(&saved.attached)?;
        if saved.data.is_empty() {
            return Err(ImageError::state("an empty piece of a stream"));
        }
        let mut inbox = self.inbox.lock();
        inbox.bytes.push(&saved.data);
        inbox.segments.push_back(Segment { len: saved.data.len(), attached });
        peer.take_up(saved.data.len());
        Ok(())
    }

    /// Puts a message back, as above.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn put_packet_back(
        &self,
        sender: &Arc<Endpoint>,
        from: Option<Arc<Name>>,
        saved: &UnixPacketState,
        around: &Around<'_>,
    ) -> Result<(), ImageError> {
        let attached = around.attached(&saved.attached)?;
        let bytes = cost(saved.data.len());
        sender.take_up(bytes);
        let charge = Charge { sender: sender.clone(), bytes };
        let data = saved.data.clone().into();
        self.inbox.lock().packets.push_back(Packet { data, from, attached, charge });
        Ok(())
    }
}

/// What the contents of queues are restored with.
pub(crate) struct Around<'a> {
    pub(crate) request: &'a RestoreSockets<'a>,
    pub(crate) in_flight: &'a Arc<InFlight>,
    pub(crate) files: &'a [Arc<OpenFile>],
}

impl Around<'_> {
    fn attached(&self, saved: &UnixAttachedState) -> Result<Attached, ImageError> {
        let creds = saved.creds.as_ref().map(|creds| self.request.creds(creds)).transpose()?;
        let files = saved.files.iter().map(|file| find(self.files, *file).cloned());
        let files: Vec<_> = files.collect::<Result<_, _>>()?;
        let rights = match files.as_slice() {
            [] => None,
            _ => Some(
                Rights::restored(self.in_flight, files, saved.files_uid)
                    .map_err(|errno| ImageError::state(format!("descriptors in flight: {errno}")))?,
            ),
        };
        Ok(Attached { creds, rights })
    }
}
