//! [`PacketSocket`]: a socket of AF_PACKET. Its options of level SOL_PACKET are in `options.rs`.

mod charge;
mod options;
pub(crate) mod persist;

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use moat_abi::ptrace::SockFprog;
use moat_abi::socket as abi;
use moat_abi::socket::{
    AF_PACKET, ETH_P_ALL, IFF_UP, MsgFlags, SOCK_RAW, SOL_PACKET, SOL_SOCKET, SockaddrLl, TpacketAuxdata, TpacketStats,
};
use moat_abi::{Errno, PollEvents, Result};
use moat_bpf::Program;
use moat_identity::NetNamespace;
use moat_identity::net::NetDevice;
use moat_image::Refusal;
use moat_image::state::SocketRef;
use moat_mm::Mappable;
use moat_net_inet::stack::{Tap, Tapped, stack_of};
use moat_sync::{LockClass, Mutex, WeakList};
use moat_vfs::Caller;
use moat_vfs::clock;
use moat_vfs::file::SaveFiles;
use moat_vfs::socket::{
    Ancillary, BufferSide, ControlMessage, Incoming, Outgoing, SockAddr, Socket, SocketCore, SocketKind, SocketMaker,
    answer_queue_ioctl,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::ring::{Ring, Slot};
use moat_net_inet::filter::{self, Subject};

/// Bytes of Ethernet's header, and of an address.
const ETHERNET: usize = 14;
const MAC: usize = 6;
/// What a frame counts for in a receive buffer beside its bytes.
const OVERHEAD: usize = 768;

struct Frame {
    bytes: Vec<u8>,
    /// Its length before the filter cut it.
    len: usize,
    from: SockaddrLl,
    network_at: u16,
}

#[derive(Default)]
struct PacketState {
    /// The protocol that is wanted, `ETH_P_ALL` for every one; none while it is 0.
    protocol: u16,
    /// The only device, or 0 for all.
    device: u32,
    filter: Option<Arc<Program>>,
    filter_locked: bool,
    frames: VecDeque<Frame>,
    /// What they count for.
    bytes: usize,
    ring: Option<Ring>,
    /// `TPACKET_V*`.
    version: u32,
    reserve: u32,
    statistics: TpacketStats,
    auxdata: bool,
    ignores_outgoing: bool,
    tapping: bool,
}

/// A socket of AF_PACKET.
pub(crate) struct PacketSocket {
    me: Weak<PacketSocket>,
    core: SocketCore,
    net: Arc<NetNamespace>,
    kind: SocketKind,
    uid: u32,
    state: Mutex<PacketState>,
}

/// The sockets of a namespace, for /proc/net/packet.
#[derive(Default)]
struct PacketTable(WeakList<PacketSocket>);

/// A socket as /proc/net/packet shows it.
pub(crate) struct Shown {
    pub(crate) socket_type: u32,
    pub(crate) protocol: u16,
    pub(crate) device: u32,
    pub(crate) running: bool,
    pub(crate) bytes: usize,
    pub(crate) uid: u32,
    pub(crate) ino: u64,
}

/// The sockets of a namespace.
pub(crate) fn sockets(net: &NetNamespace) -> Vec<Shown> {
    let Some(table) = net.extensions.get::<PacketTable>() else { return Vec::new() };
    let show = |s: &Arc<PacketSocket>| {
        let state = s.state.lock();
        Shown {
            socket_type: s.kind.socket_type,
            protocol: state.protocol,
            device: state.device,
            running: state.tapping,
            bytes: state.bytes,
            uid: s.uid,
            ino: s.core.ino(),
        }
    };
    table.0.alive().iter().map(show).collect()
}

fn parse(addr: &[u8]) -> Result<SockaddrLl> {
    let (a, _) = SockaddrLl::read_from_prefix(addr).map_err(|_| Errno::EINVAL)?;
    if a.sll_family == AF_PACKET { Ok(a) } else { Err(Errno::EINVAL) }
}

fn number(value: &[u8]) -> Result<u32> {
    value.first_chunk().map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)
}

impl PacketSocket {
    /// socket(2); the protocol is in the network's order.
    ///
    /// # Errors
    /// EAFNOSUPPORT in a namespace without a stack.
    pub(crate) fn new(maker: &SocketMaker<'_>, kind: SocketKind) -> Result<Arc<PacketSocket>> {
        stack_of(maker.net).ok_or(Errno::EAFNOSUPPORT)?;
        let protocol = u16::from_be(u16::try_from(kind.protocol & 0xffff).unwrap_or(0));
        let socket = Arc::new_cyclic(|me| PacketSocket {
            me: me.clone(),
            core: maker.core(),
            net: maker.net.clone(),
            kind,
            uid: maker.caller.creds().euid,
            state: Mutex::new(LockClass::Socket, PacketState { protocol, ..PacketState::default() }),
        });
        maker.net.extensions.get_or_init(PacketTable::default).0.add(socket.me.clone());
        // From here on it gets frames, as on Linux before bind(2).
        socket.begin();
        Ok(socket)
    }

    /// Sees frames from here on, once there is a protocol that is wanted.
    fn begin(&self) {
        let begin = {
            let mut s = self.state.lock();
            let begin = s.protocol != 0 && !s.tapping;
            s.tapping |= begin;
            begin
        };
        if begin {
            let me: Weak<dyn Tap> = self.me.clone();
            if let Some(stack) = stack_of(&self.net) {
                stack.add_tap(me);
            }
        }
    }

    fn is_raw(&self) -> bool {
        self.kind.socket_type == SOCK_RAW
    }

    fn device(&self, index: u32) -> Result<NetDevice> {
        self.net.device(index).ok_or(Errno::ENODEV)
    }

    /// Who sent a frame, and how it came.
    fn from(tapped: &Tapped<'_>, device: &NetDevice, protocol: u16) -> SockaddrLl {
        let to = tapped.bytes.get(..MAC).unwrap_or_default();
        // Of two that fit the first counts: a broadcast is also a multicast.
        let kind = match () {
            () if tapped.outgoing => abi::PACKET_OUTGOING,
            () if to == [0xff; MAC] => abi::PACKET_BROADCAST,
            () if to.first().is_some_and(|b| b & 1 != 0) => abi::PACKET_MULTICAST,
            () if to == device.address => abi::PACKET_HOST,
            () => abi::PACKET_OTHERHOST,
        };
        let mut address = [0; 8];
        if let (Some(to), Some(from)) = (address.get_mut(..MAC), tapped.bytes.get(MAC..MAC * 2)) {
            to.copy_from_slice(from);
        }
        SockaddrLl {
            sll_family: AF_PACKET,
            sll_protocol: protocol.to_be_bytes(),
            sll_ifindex: device.index.cast_signed(),
            sll_hatype: device.hardware_type,
            sll_pkttype: kind,
            sll_halen: 6,
            sll_addr: address,
        }
    }

    /// A frame with the header that the kernel makes for a socket of SOCK_DGRAM.
    fn with_header(device: &NetDevice, to: Option<&SockaddrLl>, protocol: u16, data: &[u8]) -> Vec<u8> {
        let destination = to.and_then(|t| t.sll_addr.get(..MAC)).unwrap_or(&[0; MAC]);
        [destination, &device.address, &protocol.to_be_bytes(), data].concat()
    }
}

impl Tap for PacketSocket {
    fn frame(&self, tapped: &Tapped<'_>) {
        let Some(protocol) = tapped.bytes.get(12..ETHERNET).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes)
        else {
            return;
        };
        let filter = {
            let s = self.state.lock();
            // What goes out is seen by those alone who want every protocol (`ptype_all`).
            let wanted = s.protocol == ETH_P_ALL || (s.protocol == protocol && !tapped.outgoing);
            if !wanted || (s.device != 0 && s.device != tapped.link) || (tapped.outgoing && s.ignores_outgoing) {
                return;
            }
            // It runs with the socket unlocked: it is the guest's, and may be long.
            s.filter.clone()
        };
        let Ok(device) = self.device(tapped.link) else { return };
        let from = PacketSocket::from(tapped, &device, protocol);
        let network_at = if self.is_raw() { ETHERNET } else { 0 };
        let bytes = if self.is_raw() { Some(tapped.bytes) } else { tapped.bytes.get(ETHERNET..) };
        let bytes = bytes.unwrap_or_default();
        let wanted = match filter {
            Some(program) => {
                let subject =
                    Subject { bytes, data_at: 0, network_at, protocol, kind: from.sll_pkttype, device: tapped.link };
                program.run(&subject).unwrap_or(0)
            }
            None => u32::MAX,
        };
        if wanted == 0 {
            return;
        }
        let kept = bytes.get(..usize::try_from(wanted).unwrap_or(usize::MAX)).unwrap_or(bytes);
        let room = self.core.buffer(BufferSide::Receive);
        let time = clock::now();
        let mut s = self.state.lock();
        s.statistics.tp_packets = s.statistics.tp_packets.saturating_add(1);
        // With a ring nothing is queued for recv(2).
        let taken = if let Some(ring) = &mut s.ring {
            ring.put(&Slot {
                bytes,
                network_at: u32::try_from(network_at).unwrap_or(0),
                wanted,
                from,
                seconds: u32::try_from(time.tv_sec & 0xffff_ffff).unwrap_or(0),
                nanoseconds: u32::try_from(time.tv_nsec).unwrap_or(0),
            })
        } else {
            let cost = kept.len().saturating_add(OVERHEAD);
            let memory = self.core.memory();
            let fits = s.bytes.saturating_add(cost) <= room && cost <= memory.room(s.bytes);
            if fits {
                memory.charge(cost);
                s.bytes = s.bytes.saturating_add(cost);
                let network_at = u16::try_from(network_at).unwrap_or(0);
                s.frames.push_back(Frame { bytes: kept.to_vec(), len: bytes.len(), from, network_at });
            }
            fits
        };
        if !taken {
            s.statistics.tp_drops = s.statistics.tp_drops.saturating_add(1);
        }
        drop(s);
        if taken {
            self.core.queue().wake(PollEvents::READ_READY);
        }
    }
}

impl Socket for PacketSocket {
    fn kind(&self) -> SocketKind {
        self.kind
    }

    fn core(&self) -> &SocketCore {
        &self.core
    }

    fn bind(&self, _caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        let a = parse(addr)?;
        let device = u32::try_from(a.sll_ifindex).map_err(|_| Errno::ENODEV)?;
        if device != 0 {
            self.device(device)?;
        }
        {
            let mut s = self.state.lock();
            s.device = device;
            let protocol = u16::from_be_bytes(a.sll_protocol);
            if protocol != 0 {
                s.protocol = protocol;
            }
            // What came before is of another device.
            self.drop_frames(&mut s);
        }
        self.begin();
        Ok(())
    }

    fn local_address(&self) -> Result<SockAddr> {
        let (device, protocol) = {
            let s = self.state.lock();
            (s.device, s.protocol)
        };
        let mut a = SockaddrLl {
            sll_family: AF_PACKET,
            sll_protocol: protocol.to_be_bytes(),
            sll_ifindex: device.cast_signed(),
            ..SockaddrLl::default()
        };
        // Bound to all links, or to one that has gone, it has no hardware address.
        if let Ok(device) = self.device(device) {
            (a.sll_hatype, a.sll_halen) = (device.hardware_type, 6);
            if let Some(to) = a.sll_addr.get_mut(..MAC) {
                to.copy_from_slice(&device.address);
            }
        }
        Ok(SockAddr::new(a.as_bytes()))
    }

    fn peer_address(&self) -> Result<SockAddr> {
        Err(Errno::EOPNOTSUPP)
    }

    fn send(&self, _caller: Option<&dyn Caller>, message: &mut Outgoing<'_>) -> Result<usize> {
        let to = message.to.map(parse).transpose()?;
        let (bound, own) = {
            let s = self.state.lock();
            (s.device, s.protocol)
        };
        let index = to.map_or(Ok(bound), |t| u32::try_from(t.sll_ifindex)).map_err(|_| Errno::ENXIO)?;
        let device = self.device(index).map_err(|_| Errno::ENXIO)?;
        if device.flags & IFF_UP == 0 {
            return Err(Errno::ENETDOWN);
        }
        let frame = if self.is_raw() {
            message.data.to_vec()
        } else {
            let protocol = to.map_or(own, |t| u16::from_be_bytes(t.sll_protocol));
            PacketSocket::with_header(&device, to.as_ref(), protocol, message.data)
        };
        // A raw frame brings its own header.
        if frame.len() < ETHERNET {
            return Err(Errno::EINVAL);
        }
        let most = usize::try_from(device.mtu).unwrap_or(usize::MAX).saturating_add(ETHERNET);
        if frame.len() > most {
            return Err(Errno::EMSGSIZE);
        }
        stack_of(&self.net).ok_or(Errno::ENETDOWN)?.send_frame(index, &frame)?;
        message.ancillary = Ancillary::default();
        Ok(message.data.len())
    }

    fn receive(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Incoming> {
        self.core.take_error()?;
        let mut s = self.state.lock();
        let auxdata = s.auxdata;
        let front = s.frames.front().ok_or(Errno::EAGAIN)?;
        let len = front.bytes.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), front.bytes.get(..len)) {
            to.copy_from_slice(from);
        }
        let from = Some(SockAddr::new(front.from.as_bytes()));
        let mut m = Incoming { len, full_len: front.bytes.len(), from, ..Incoming::default() };
        if len < m.full_len {
            m.flags |= MsgFlags::TRUNC;
        }
        if auxdata {
            let aux = TpacketAuxdata {
                tp_status: abi::TP_STATUS_USER,
                tp_len: u32::try_from(front.len).unwrap_or(u32::MAX),
                tp_snaplen: u32::try_from(front.bytes.len()).unwrap_or(u32::MAX),
                tp_net: front.network_at,
                ..TpacketAuxdata::default()
            };
            let data = aux.as_bytes().to_vec();
            m.ancillary.other.push(ControlMessage { level: SOL_PACKET, kind: abi::PACKET_AUXDATA, data });
        }
        if !flags.contains(MsgFlags::PEEK) {
            // Given back as it was charged, with what a frame costs besides its bytes.
            let cost = front.bytes.len().saturating_add(OVERHEAD);
            s.bytes = s.bytes.saturating_sub(cost);
            self.core.memory().release(cost);
            s.frames.pop_front();
        }
        Ok(m)
    }

    fn is_stream(&self) -> bool {
        false
    }

    fn get_option(&self, _caller: &dyn Caller, level: u32, name: u32, room: usize) -> Result<Vec<u8>> {
        if level != SOL_PACKET {
            return Err(Errno::ENOPROTOOPT);
        }
        let mut s = self.state.lock();
        let word = |value: u32| Ok(value.to_ne_bytes().to_vec());
        match name {
            abi::PACKET_STATISTICS => {
                // Reading begins a new count.
                let statistics = std::mem::take(&mut s.statistics);
                Ok(statistics.as_bytes().get(..room.min(8)).unwrap_or_default().to_vec())
            }
            abi::PACKET_AUXDATA => word(s.auxdata.into()),
            abi::PACKET_VERSION => word(s.version),
            abi::PACKET_RESERVE => word(s.reserve),
            abi::PACKET_IGNORE_OUTGOING => word(s.ignores_outgoing.into()),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn ask_option(&self, level: u32, name: u32, question: &[u8]) -> Option<Result<Vec<u8>>> {
        // The length of a version's header: the version is in the buffer.
        (level == SOL_PACKET && name == abi::PACKET_HDRLEN).then(|| match number(question)? {
            abi::TPACKET_V2 => Ok(32u32.to_ne_bytes().to_vec()),
            _ => Err(Errno::EINVAL),
        })
    }

    fn set_option(&self, caller: &dyn Caller, level: u32, name: u32, value: &[u8]) -> Result<()> {
        match (level, name) {
            (SOL_SOCKET, abi::SO_ATTACH_FILTER) => {
                if value.len() != size_of::<SockFprog>() {
                    return Err(Errno::EINVAL);
                }
                let program = filter::read(caller, value)?;
                let mut s = self.state.lock();
                if s.filter_locked {
                    return Err(Errno::EPERM);
                }
                s.filter = Some(Arc::new(program));
                Ok(())
            }
            (SOL_SOCKET, abi::SO_DETACH_FILTER) => {
                let mut s = self.state.lock();
                if s.filter_locked {
                    return Err(Errno::EPERM);
                }
                s.filter.take().map(drop).ok_or(Errno::ENOENT)
            }
            (SOL_SOCKET, abi::SO_LOCK_FILTER) => {
                let lock = number(value)? != 0;
                let mut s = self.state.lock();
                // The lock is for good: who gives the socket away can rely on the filter.
                if s.filter_locked && !lock {
                    return Err(Errno::EPERM);
                }
                s.filter_locked = lock;
                Ok(())
            }
            (SOL_PACKET, _) => self.set_packet_option(name, value),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn ioctl(&self, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        answer_queue_ioctl(caller, cmd, arg, || self.state.lock().frames.front().map_or(0, |f| f.bytes.len()))
    }

    fn poll(&self) -> PollEvents {
        let mut events = self.core.error_events() | PollEvents::WRITE_READY;
        let s = self.state.lock();
        if !s.frames.is_empty() || s.ring.as_ref().is_some_and(Ring::is_readable) {
            events |= PollEvents::READ_READY;
        }
        events
    }

    fn save(&self, saver: &mut dyn SaveFiles) -> std::result::Result<SocketRef, Refusal> {
        saver.network(&self.net)?;
        self.save_socket(saver)
    }

    fn mappable(&self) -> Result<Arc<dyn Mappable>> {
        let s = self.state.lock();
        let ring = s.ring.as_ref().ok_or(Errno::EINVAL)?;
        Ok(Arc::new(ring.mappable()))
    }

    fn release(&self) {
        let me: Weak<dyn Tap> = self.me.clone();
        if let Some(stack) = stack_of(&self.net) {
            stack.remove_tap(&me);
        }
        let mut s = self.state.lock();
        self.drop_frames(&mut s);
        s.ring = None;
    }
}
