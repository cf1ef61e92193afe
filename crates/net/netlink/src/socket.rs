//! [`NetlinkSocket`]: requests in, answers and what groups are told out.

pub(crate) mod persist;
mod queue;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use moat_abi::cap::Cap;
use moat_abi::netlink as nl;
use moat_abi::netlink::{NLM_F_ACK, NLM_F_DUMP, Nlmsghdr};
use moat_abi::socket::{AF_NETLINK, MsgFlags, SOL_NETLINK, SockaddrNl};
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::NetNamespace;
use moat_image::Refusal;
use moat_image::state::SocketRef;
use moat_net_inet::configuration::{Change, Observer, observe};
use moat_sync::{LockClass, Mutex, WeakList};
use moat_vfs::Caller;
use moat_vfs::file::SaveFiles;
use moat_vfs::socket::{
    Ancillary, BufferSide, Incoming, Outgoing, SockAddr, Socket, SocketCore, SocketKind, SocketMaker, SocketMemory,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::message::{Answering, done, error};
use queue::{Pushed, Queue};

const HEADER: usize = size_of::<Nlmsghdr>();
/// Bytes of a piece of a dump, at least and at most (`netlink_dump`).
const PIECE: usize = 8 << 10;
const MOST_PIECE: usize = 32 << 10;
/// Groups that a socket can be a member of.
const GROUPS: u32 = 64;

/// A request, and for whom it is.
pub(crate) struct Request<'a> {
    pub(crate) caller: Option<&'a dyn Caller>,
    pub(crate) net: &'a Arc<NetNamespace>,
    pub(crate) header: Nlmsghdr,
    pub(crate) body: &'a [u8],
    pub(crate) to: Answering,
}

impl Request<'_> {
    pub(crate) fn is_dump(&self) -> bool {
        // Either bit (`rtnetlink_rcv_msg`).
        self.header.nlmsg_flags & NLM_F_DUMP != 0
    }

    /// What a change takes (`netlink_net_capable`).
    ///
    /// # Errors
    /// EPERM.
    pub(crate) fn check_admin(&self) -> Result<()> {
        let may = self.caller.is_some_and(|c| c.creds().has_cap_in(&self.net.user_ns, Cap::NET_ADMIN));
        if may { Ok(()) } else { Err(Errno::EPERM) }
    }
}

/// The messages of a dump, one by one; its end is told by the socket.
pub(crate) type Dump = Box<dyn Iterator<Item = Vec<u8>> + Send>;

/// An answer.
pub(crate) enum Reply {
    Messages(Vec<Vec<u8>>),
    Dump(Dump),
}

/// A protocol of netlink.
pub(crate) trait Protocol: Send + Sync {
    /// Answers a request, or does what it says.
    ///
    /// # Errors
    /// What the sender is told.
    fn answer(&self, request: &Request<'_>) -> Result<Reply>;

    /// The message that tells `group` of a change, if that concerns it.
    fn tell(&self, _net: &NetNamespace, _group: u32, _change: &Change) -> Option<Vec<u8>> {
        None
    }
}

/// A protocol that tells nothing and takes nothing.
pub(crate) struct Silent;

impl Protocol for Silent {
    fn answer(&self, _: &Request<'_>) -> Result<Reply> {
        Err(Errno::EPERM)
    }
}

struct NetlinkState {
    port: u32,
    /// The groups: a bit each, from group 1 on.
    groups: u64,
    waiting: Queue,
    dump: Option<(Dump, Answering)>,
    observing: bool,
}

impl NetlinkState {
    fn new(memory: &Arc<SocketMemory>) -> NetlinkState {
        NetlinkState { port: 0, groups: 0, waiting: Queue::new(memory.clone()), dump: None, observing: false }
    }
}

/// A socket of AF_NETLINK.
pub(crate) struct NetlinkSocket {
    me: Weak<NetlinkSocket>,
    core: SocketCore,
    net: Arc<NetNamespace>,
    kind: SocketKind,
    protocol: &'static dyn Protocol,
    state: Mutex<NetlinkState>,
}

/// What a network namespace has of AF_NETLINK.
pub(crate) struct NetlinkTable {
    /// The next port number that is no process's.
    next_port: AtomicU32,
    sockets: WeakList<NetlinkSocket>,
}

impl Default for NetlinkTable {
    fn default() -> NetlinkTable {
        NetlinkTable { next_port: AtomicU32::new(0xf000_0000), sockets: WeakList::default() }
    }
}

/// A socket as /proc/net/netlink shows it.
pub(crate) struct Shown {
    pub(crate) protocol: u32,
    pub(crate) port: u32,
    pub(crate) groups: u32,
    pub(crate) ino: u64,
}

/// The sockets of a namespace.
pub(crate) fn sockets(net: &NetNamespace) -> Vec<Shown> {
    let Some(table) = net.extensions.get::<NetlinkTable>() else { return Vec::new() };
    let show = |s: &Arc<NetlinkSocket>| {
        let state = s.state.lock();
        let groups = u32::try_from(state.groups & u64::from(u32::MAX)).unwrap_or(0);
        Shown { protocol: s.kind.protocol, port: state.port, groups, ino: s.core.ino() }
    };
    table.sockets.alive().iter().map(show).collect()
}

/// The bit of a group, which are numbered from 1.
fn bit_of(group: u32) -> u64 {
    group.checked_sub(1).and_then(|by| 1u64.checked_shl(by)).unwrap_or(0)
}

/// The number of an address of AF_NETLINK.
fn address(addr: &[u8]) -> Result<SockaddrNl> {
    let (a, _) = SockaddrNl::read_from_prefix(addr).map_err(|_| Errno::EINVAL)?;
    if a.nl_family == AF_NETLINK { Ok(a) } else { Err(Errno::EINVAL) }
}

impl NetlinkSocket {
    pub(crate) fn new(
        maker: &SocketMaker<'_>,
        kind: SocketKind,
        protocol: &'static dyn Protocol,
    ) -> Arc<NetlinkSocket> {
        let socket = Arc::new_cyclic(|me| NetlinkSocket {
            me: me.clone(),
            core: maker.core(),
            net: maker.net.clone(),
            kind,
            protocol,
            state: Mutex::new(LockClass::Socket, NetlinkState::new(maker.memory)),
        });
        maker.net.extensions.get_or_init(NetlinkTable::default).sockets.add(socket.me.clone());
        socket
    }

    /// A port number of its own if it has none yet (`netlink_autobind`).
    fn port(&self, caller: Option<&dyn Caller>) -> u32 {
        let mut s = self.state.lock();
        if s.port == 0 {
            // The first socket of a process has its number; others any.
            let own = caller.and_then(|c| c.task()).map_or(0, |t| t.process_pid().number()).cast_unsigned();
            let table = self.net.extensions.get_or_init(NetlinkTable::default);
            s.port = if own == 0 { table.next_port.fetch_add(1, Ordering::Relaxed) } else { own };
        }
        s.port
    }

    /// Becomes a member of groups, or ceases to be.
    fn set_groups(&self, f: impl FnOnce(u64) -> u64) {
        let begin = {
            let mut s = self.state.lock();
            s.groups = f(s.groups);
            let begin = s.groups != 0 && !s.observing;
            s.observing |= begin;
            begin
        };
        if begin {
            let me: Weak<dyn Observer> = self.me.clone();
            observe(&self.net, me);
        }
    }

    /// Answers the requests of one message (`netlink_rcv_skb`).
    fn take_requests(&self, caller: Option<&dyn Caller>, data: &[u8]) -> Result<()> {
        let port = self.port(caller);
        let mut rest = data;
        while let Ok((header, _)) = Nlmsghdr::read_from_prefix(rest) {
            let len = usize::try_from(header.nlmsg_len).unwrap_or(usize::MAX);
            // A length that does not fit ends the datagram without an error (`netlink_rcv_skb`).
            let Some(body) = rest.get(HEADER..len) else { break };
            rest = rest.get(nl::align(len)..).unwrap_or_default();
            // Answers and control messages of guests concern nobody.
            if header.nlmsg_flags & nl::NLM_F_REQUEST == 0 || header.nlmsg_type < nl::NLMSG_MIN_TYPE {
                continue;
            }
            let to = Answering { seq: header.nlmsg_seq, port };
            let request = Request { caller, net: &self.net, header, body, to };
            let answer = self.protocol.answer(&request);
            self.enqueue(&header, to, answer);
        }
        Ok(())
    }

    /// Takes a message, or has the reader told that it has missed one, and is to ask anew (netlink(7)).
    fn push(&self, s: &mut NetlinkState, message: Vec<u8>) {
        if s.waiting.push(message, self.core.buffer(BufferSide::Receive)) == Pushed::Overrun {
            self.core.set_error(Errno::ENOBUFS);
        }
    }

    fn enqueue(&self, header: &Nlmsghdr, to: Answering, answer: Result<Reply>) {
        {
            let mut s = self.state.lock();
            match answer {
                Err(e) => self.push(&mut s, error(header, to, Some(e))),
                // One at a time, as on Linux.
                Ok(Reply::Dump(_)) if s.dump.is_some() => self.push(&mut s, error(header, to, Some(Errno::EBUSY))),
                Ok(Reply::Dump(dump)) => s.dump = Some((Box::new(dump.fuse()), to)),
                Ok(Reply::Messages(messages)) => {
                    messages.into_iter().for_each(|message| self.push(&mut s, message));
                    if header.nlmsg_flags & NLM_F_ACK != 0 {
                        self.push(&mut s, error(header, to, None));
                    }
                }
            }
        }
        self.core.queue().wake(PollEvents::READ_READY);
    }

    /// Makes the next piece of the dump, if there is one and nothing else waits.
    fn advance_dump(&self, room: usize) {
        let (mut dump, to) = {
            let mut s = self.state.lock();
            if !s.waiting.is_empty() {
                return;
            }
            let Some(dump) = s.dump.take() else { return };
            dump
        };
        // Without the lock: what is listed has locks of its own.
        let room = room.clamp(PIECE, MOST_PIECE);
        let mut piece = Vec::new();
        let mut over = false;
        while piece.len() < room {
            let Some(message) = dump.next() else {
                over = true;
                break;
            };
            piece.extend(message);
        }
        // The end is a message of its own, so that who reads nothing of the others gets it (`netlink_dump`).
        let ends = over && piece.is_empty();
        if ends {
            piece = done(to);
        }
        let mut s = self.state.lock();
        s.waiting.put(piece);
        if !ends {
            s.dump = Some((dump, to));
        }
    }
}

impl Observer for NetlinkSocket {
    fn changed(&self, net: &NetNamespace, changes: &[Change]) {
        let groups = self.state.lock().groups;
        let members = (1..=GROUPS).filter(|g| groups & bit_of(*g) != 0);
        let told: Vec<Vec<u8>> = changes
            .iter()
            .flat_map(|change| members.clone().filter_map(move |group| self.protocol.tell(net, group, change)))
            .collect();
        // Most sockets are members of no group that a change concerns: they are not woken.
        if told.is_empty() {
            return;
        }
        {
            let mut s = self.state.lock();
            told.into_iter().for_each(|message| self.push(&mut s, message));
        }
        self.core.queue().wake(PollEvents::READ_READY);
    }
}

impl Socket for NetlinkSocket {
    fn kind(&self) -> SocketKind {
        self.kind
    }

    fn core(&self) -> &SocketCore {
        &self.core
    }

    fn bind(&self, caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        let a = address(addr)?;
        {
            let mut s = self.state.lock();
            if s.port != 0 && a.nl_pid != 0 && s.port != a.nl_pid {
                return Err(Errno::EINVAL);
            }
            if s.port == 0 {
                s.port = a.nl_pid;
            }
        }
        // The first 32 groups are set; what was added above them stays.
        self.set_groups(|g| (g & !u64::from(u32::MAX)) | u64::from(a.nl_groups));
        self.port(Some(caller));
        Ok(())
    }

    fn connect(&self, caller: &dyn Caller, addr: &[u8]) -> Result<()> {
        address(addr)?;
        self.port(Some(caller));
        Ok(())
    }

    fn local_address(&self) -> Result<SockAddr> {
        let s = self.state.lock();
        let nl_groups = u32::try_from(s.groups & u64::from(u32::MAX)).unwrap_or(0);
        let name = SockaddrNl { nl_family: AF_NETLINK, nl_pid: s.port, nl_groups, ..SockaddrNl::default() };
        Ok(SockAddr::new(name.as_bytes()))
    }

    fn peer_address(&self) -> Result<SockAddr> {
        Ok(SockAddr::new(SockaddrNl { nl_family: AF_NETLINK, ..SockaddrNl::default() }.as_bytes()))
    }

    fn send(&self, caller: Option<&dyn Caller>, message: &mut Outgoing<'_>) -> Result<usize> {
        if let Some(to) = message.to
            && address(to)?.nl_pid != 0
        {
            // No process has a port that others may write to.
            return Err(Errno::ECONNREFUSED);
        }
        self.take_requests(caller, message.data)?;
        message.ancillary = Ancillary::default();
        Ok(message.data.len())
    }

    fn receive(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Incoming> {
        // Once, before what is left.
        self.core.take_error()?;
        self.advance_dump(buf.len());
        let mut s = self.state.lock();
        let front = s.waiting.front().ok_or(Errno::EAGAIN)?;
        let len = front.len().min(buf.len());
        buf[..len].copy_from_slice(&front[..len]);
        let mut m = Incoming { len, full_len: front.len(), ..Incoming::default() };
        m.from = Some(SockAddr::new(SockaddrNl { nl_family: AF_NETLINK, ..SockaddrNl::default() }.as_bytes()));
        if len < m.full_len {
            m.flags |= MsgFlags::TRUNC;
        }
        if !flags.contains(MsgFlags::PEEK) {
            s.waiting.pop();
        }
        Ok(m)
    }

    fn is_stream(&self) -> bool {
        false
    }

    fn get_option(&self, _caller: &dyn Caller, level: u32, name: u32, _room: usize) -> Result<Vec<u8>> {
        match (level, name) {
            (SOL_NETLINK, nl::NETLINK_LIST_MEMBERSHIPS) => {
                // There is no list before the first (`netlink_realloc_groups`).
                let groups = self.state.lock().groups;
                Ok(if groups == 0 { Vec::new() } else { groups.to_ne_bytes().to_vec() })
            }
            (SOL_NETLINK, nl::NETLINK_NO_ENOBUFS) => {
                Ok(u32::from(self.state.lock().waiting.is_untold()).to_ne_bytes().to_vec())
            }
            (SOL_NETLINK, nl::NETLINK_PKTINFO..=nl::NETLINK_GET_STRICT_CHK) => Ok(0u32.to_ne_bytes().to_vec()),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn set_option(&self, _caller: &dyn Caller, level: u32, name: u32, value: &[u8]) -> Result<()> {
        let number = value.first_chunk().map(|b| u32::from_ne_bytes(*b));
        match (level, name) {
            (SOL_NETLINK, nl::NETLINK_ADD_MEMBERSHIP | nl::NETLINK_DROP_MEMBERSHIP) => {
                let group = number.filter(|g| (1..=GROUPS).contains(g)).ok_or(Errno::EINVAL)?;
                let bit = bit_of(group);
                let add = name == nl::NETLINK_ADD_MEMBERSHIP;
                self.set_groups(|g| if add { g | bit } else { g & !bit });
                Ok(())
            }
            (SOL_NETLINK, _) if number.is_none() => Err(Errno::EINVAL),
            (SOL_NETLINK, nl::NETLINK_NO_ENOBUFS) => {
                self.state.lock().waiting.set_untold(number != Some(0));
                Ok(())
            }
            // Hints about the form of answers, which programs set without looking whether they took effect.
            (SOL_NETLINK, nl::NETLINK_PKTINFO..=nl::NETLINK_GET_STRICT_CHK) => Ok(()),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn save(&self, saver: &mut dyn SaveFiles) -> std::result::Result<SocketRef, Refusal> {
        saver.network(&self.net)?;
        self.save_socket(saver)
    }

    fn poll(&self) -> PollEvents {
        let mut events = self.core.error_events() | PollEvents::WRITE_READY;
        let s = self.state.lock();
        if !s.waiting.is_empty() || s.dump.is_some() {
            events |= PollEvents::READ_READY;
        }
        events
    }
}
