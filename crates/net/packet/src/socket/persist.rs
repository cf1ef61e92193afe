//! Packet sockets in an image, and out of it.

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::ptrace::SockFilter;
use moat_abi::socket::{AF_PACKET, SOCK_DGRAM, SOCK_RAW, SockaddrLl, TpacketStats};
use moat_bpf::{Loads, Program};
use moat_image::state::{FrameState, PacketSocketState, SocketRef};
use moat_image::{ImageError, Met, Refusal};
use moat_sync::{LockClass, Mutex};
use moat_vfs::OpenFile;
use moat_vfs::file::SaveFiles;
use moat_vfs::socket::{RestoreSockets, RestoredSockets, Socket, SocketKind};
use zerocopy::{FromBytes, IntoBytes};

use super::{Frame, OVERHEAD, PacketSocket, PacketState, PacketTable};

impl PacketSocket {
    pub(super) fn save_socket(&self, saver: &mut dyn SaveFiles) -> Result<SocketRef, Refusal> {
        let me = self.me.upgrade().ok_or_else(|| Refusal::new("a socket that is being closed"))?;
        let name = match saver.packet_sockets().meet(Arc::as_ptr(&me).addr()) {
            Met::Before(name) => name,
            Met::First(name) => {
                let state = self.as_state(saver.pages().is_some())?;
                saver.packet_sockets().fill(name, state);
                name
            }
        };
        Ok(SocketRef::Packet(name.index()))
    }

    fn as_state(&self, with_data: bool) -> Result<PacketSocketState, Refusal> {
        let s = self.state.lock();
        // Its frames are in memory that programs map.
        if s.ring.is_some() {
            return Err(Refusal::new("a packet socket with a ring"));
        }
        let frame = |f: &Frame| FrameState {
            bytes: f.bytes.clone(),
            len: u64::try_from(f.len).unwrap_or(u64::MAX),
            from: f.from.as_bytes().to_vec(),
            network_at: f.network_at,
        };
        let filter = s.filter.as_ref();
        Ok(PacketSocketState {
            socket_type: self.kind.socket_type,
            protocol_argument: self.kind.protocol,
            core: self.core.save(),
            uid: self.uid,
            protocol: s.protocol,
            device: s.device,
            filter: filter.map(|f| f.instructions().iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect()),
            filter_locked: s.filter_locked,
            // A survey is after what may refuse.
            frames: if with_data { s.frames.iter().map(frame).collect() } else { Vec::new() },
            version: s.version,
            reserve: s.reserve,
            statistics: (s.statistics.tp_packets, s.statistics.tp_drops),
            auxdata: s.auxdata,
            ignores_outgoing: s.ignores_outgoing,
        })
    }

    fn restore(request: &RestoreSockets<'_>, saved: &PacketSocketState) -> Result<Arc<PacketSocket>, ImageError> {
        let wrong = |what: &str| ImageError::state(format!("a packet socket's {what}"));
        // As socket(2) asks, of the configuration: the image may say what it likes of its processes.
        if !request.may(Cap::NET_RAW) {
            return Err(ImageError::Unfit("a packet socket, which takes CAP_NET_RAW".into()));
        }
        if ![SOCK_RAW, SOCK_DGRAM].contains(&saved.socket_type) {
            return Err(wrong("type"));
        }
        let kind = SocketKind { family: AF_PACKET, socket_type: saved.socket_type, protocol: saved.protocol_argument };
        let program = |instructions: &Vec<(u16, u8, u8, u32)>| {
            let instructions =
                instructions.iter().map(|(code, jt, jf, k)| SockFilter { code: *code, jt: *jt, jf: *jf, k: *k });
            // Checked as if it were attached.
            Program::new(instructions.collect(), Loads::Packet).map(Arc::new).map_err(|_| wrong("filter"))
        };
        let mut state = PacketState {
            protocol: saved.protocol,
            device: saved.device,
            filter: saved.filter.as_ref().map(program).transpose()?,
            filter_locked: saved.filter_locked,
            version: saved.version,
            reserve: saved.reserve,
            statistics: TpacketStats { tp_packets: saved.statistics.0, tp_drops: saved.statistics.1 },
            auxdata: saved.auxdata,
            ignores_outgoing: saved.ignores_outgoing,
            ..PacketState::default()
        };
        for f in &saved.frames {
            let from = SockaddrLl::read_from_bytes(&f.from).map_err(|_| wrong("frames"))?;
            let len = usize::try_from(f.len).map_err(|_| wrong("frames"))?;
            state.bytes = state.bytes.saturating_add(f.bytes.len()).saturating_add(OVERHEAD);
            state.frames.push_back(Frame { bytes: f.bytes.clone(), len, from, network_at: f.network_at });
        }
        let core = request.core(&saved.core)?;
        core.memory().charge(state.bytes);
        let socket = Arc::new_cyclic(|me| PacketSocket {
            me: me.clone(),
            core,
            net: request.net.clone(),
            kind,
            uid: saved.uid,
            state: Mutex::new(LockClass::Socket, state),
        });
        request.net.extensions.get_or_init(PacketTable::default).0.add(socket.me.clone());
        // On the stack that is there: one that comes in its place takes over who looks on.
        socket.begin();
        Ok(socket)
    }
}

/// The packet sockets of an image that no open file has yet.
struct Restored(Vec<Option<Arc<PacketSocket>>>);

/// All of them.
///
/// # Errors
/// What is wrong with one.
pub(crate) fn restore<'a>(request: &RestoreSockets<'a>) -> Result<Box<dyn RestoredSockets + 'a>, ImageError> {
    let all = request.state.packet_sockets.iter().map(|saved| PacketSocket::restore(request, saved).map(Some));
    Ok(Box::new(Restored(all.collect::<Result<_, _>>()?)))
}

impl RestoredSockets for Restored {
    fn take(&mut self, socket: SocketRef) -> Result<Arc<dyn Socket>, ImageError> {
        let SocketRef::Packet(index) = socket else {
            return Err(ImageError::state("a socket that is no packet socket"));
        };
        let socket = usize::try_from(index).ok().and_then(|at| self.0.get_mut(at)).and_then(Option::take);
        Ok(socket.ok_or_else(|| ImageError::state(format!("packet socket {index} is not there")))?)
    }

    fn fill(&self, _files: &[Arc<OpenFile>]) -> Result<(), ImageError> {
        Ok(())
    }
}
