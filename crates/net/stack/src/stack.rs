//! [`Stack`]: all of a network namespace's links, tables and connections.
//!
//! It makes no host call and has no lock: whoever owns it brings frames ([`Stack::receive`]) and the time ([`Stack::poll`]), and after
//! each call takes what came of it: frames to send ([`Stack::take_output`]), what is for sockets ([`Stack::take_deliveries`]), and whose
//! connections have changed ([`Stack::take_notices`]).
//!
//! # Invariants
//! - Nothing from outside is answered but what is sent to an own address, a group that was joined, or everybody.
//! - Packets to own addresses never leave; packets from own addresses never come in.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use moat_abi::Errno;

use crate::config::NetworkConfig;
use crate::connections::Connections;
use crate::counters::Counters;
use crate::device::DeviceFeatures;
use crate::groups::Groups;
use crate::neighbour::{Neighbour, Neighbours};
use crate::num::Narrow;
use crate::packet::{IpHeader, Packet};
use crate::reassembly::Reassembly;
use crate::route::{Path, Routes};
use crate::tcp::{Changes, Rules};
use crate::time::{MS, SECOND, Time};

/// Frames that wait for a link (`txqueuelen`), and how many let no more of TCP come.
const MOST_QUEUED: usize = 1000;
const ENOUGH_QUEUED: usize = 64;
/// Destinations whose path is known to be narrow, and how long that counts (`net.ipv4.route.mtu_expires`).
const MOST_PATHS: usize = 1024;
const PATH_US: u64 = 600 * SECOND;
/// Errors of ICMP that are sent: a burst, and so many a second (`net.ipv4.icmp_msgs_{burst,per_sec}`).
const ERROR_BURST: u64 = 50;
const ERROR_INTERVAL_US: u64 = MS;

/// Whoever wants to know what becomes of a connection or a listener. Called without any lock of the stack.
pub trait Observer: Send + Sync {
    /// Something has changed.
    fn changed(&self, changes: Changes);
}

/// A change, with whom it is to be told.
pub struct Notice {
    /// Whose connection it is.
    pub observer: Arc<dyn Observer>,
    /// What has changed.
    pub changes: Changes,
}

/// Counters of a link, as /proc/net/dev shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LinkCounters {
    pub received_bytes: u64,
    pub received_packets: u64,
    pub received_dropped: u64,
    pub sent_bytes: u64,
    pub sent_packets: u64,
    pub sent_dropped: u64,
    pub multicast: u64,
}

/// What has come for sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A datagram of UDP.
    Datagram(Datagram),
    /// A packet of a protocol that a raw socket wants, from its IP header.
    Raw {
        /// The link that it came over.
        link: u32,
        /// What its header says.
        header: IpHeader,
        /// All of it.
        packet: Vec<u8>,
        /// Where the payload begins.
        payload_at: usize,
    },
    /// ICMP says what became of a packet that was sent.
    Error(SendError),
}

/// A datagram of UDP that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The link that it came over.
    pub link: u32,
    /// What its header says.
    pub header: IpHeader,
    /// The number that IPv4's header had, by which its sender knows it in an error about it.
    pub id: u16,
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// What ICMP says of a packet that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendError {
    /// What the packet's header said.
    pub header: IpHeader,
    /// Its ports, if it had any.
    pub source_port: u16,
    /// See `source_port`.
    pub destination_port: u16,
    /// What it means.
    pub errno: Errno,
    /// Whether it ends a connection (`fatal` of `icmp_err_convert`).
    pub fatal: bool,
    /// Who says so, and how.
    pub offender: IpAddr,
    /// The message's type.
    pub kind: u8,
    /// The message's code.
    pub code: u8,
    /// The MTU, or what else the message tells.
    pub info: u32,
    /// What it has of the packet's payload.
    pub payload: Vec<u8>,
    /// The packet's headers of IP, as the message has them.
    pub headers: Vec<u8>,
}

/// One link's queue.
#[derive(Debug, Default)]
pub(crate) struct LinkState {
    pub(crate) features: Option<DeviceFeatures>,
    pub(crate) queue: VecDeque<Packet>,
    pub(crate) counters: LinkCounters,
    /// The device had no room; it is told when it has.
    pub(crate) stalled: bool,
}

/// The stack of a network namespace.
pub struct Stack {
    pub(crate) now: Time,
    pub(crate) routes: Routes,
    /// The highest number that a link has had.
    pub(crate) last_link: u32,
    pub(crate) links: HashMap<u32, LinkState>,
    pub(crate) counted: Counters,
    pub(crate) neighbours: Neighbours,
    pub(crate) groups: Groups,
    pub(crate) reassembly: Reassembly,
    pub(crate) tcp: Connections,
    pub(crate) rules: Rules,
    paths: HashMap<IpAddr, (u32, Time)>,
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) notices: Vec<Notice>,
    /// Packets to own addresses.
    pub(crate) looped: VecDeque<Packet>,
    /// How many sockets want packets of each protocol.
    pub(crate) raw: HashMap<u8, usize>,
    keys: RandomState,
    drawn: u64,
    /// The moment up to which the errors that may be sent are used up.
    errors_used: Time,
}

impl Stack {
    /// A stack of these interfaces. `features`: what the device of a link can do; `None` for a link without one.
    pub fn new(config: &NetworkConfig, features: impl Fn(u32) -> Option<DeviceFeatures>, now: Time) -> Stack {
        let mut neighbours = Neighbours::default();
        for n in &config.neighbours {
            neighbours.add_permanent((n.link, n.address), n.mac);
        }
        let links =
            config.links.iter().map(|l| (l.index, LinkState { features: features(l.index), ..LinkState::default() }));
        let mut stack = Stack {
            now,
            routes: Routes::new(config),
            last_link: config.links.iter().map(|l| l.index).max().unwrap_or(0),
            links: links.collect(),
            counted: Counters::default(),
            neighbours,
            groups: Groups::default(),
            reassembly: Reassembly::default(),
            tcp: Connections::default(),
            rules: Rules::default(),
            paths: HashMap::new(),
            deliveries: Vec::new(),
            notices: Vec::new(),
            looped: VecDeque::new(),
            raw: HashMap::new(),
            keys: RandomState::new(),
            drawn: 0,
            errors_used: now,
        };
        stack.join_own_groups();
        stack
    }

    /// Links, addresses and routes.
    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// The neighbours that are known.
    #[must_use]
    pub fn neighbours(&self) -> Vec<Neighbour> {
        self.neighbours.list(self.now)
    }

    /// What was received and sent in all.
    #[must_use]
    pub fn totals(&self) -> Counters {
        let alive: u64 = self.tcp.slots.values().map(|s| u64::from(s.connection.retransmitted())).sum();
        Counters { tcp_retransmitted: self.tcp.retransmitted.wrapping_add(alive), ..self.counted }
    }

    /// The counters of all links together.
    #[must_use]
    pub fn link_totals(&self) -> LinkCounters {
        self.links.values().fold(LinkCounters::default(), |a, l| LinkCounters {
            received_bytes: a.received_bytes.wrapping_add(l.counters.received_bytes),
            received_packets: a.received_packets.wrapping_add(l.counters.received_packets),
            received_dropped: a.received_dropped.wrapping_add(l.counters.received_dropped),
            sent_bytes: a.sent_bytes.wrapping_add(l.counters.sent_bytes),
            sent_packets: a.sent_packets.wrapping_add(l.counters.sent_packets),
            sent_dropped: a.sent_dropped.wrapping_add(l.counters.sent_dropped),
            multicast: a.multicast.wrapping_add(l.counters.multicast),
        })
    }

    /// The groups that are joined on each link.
    #[must_use]
    pub fn joined_groups(&self) -> Vec<(u32, IpAddr)> {
        self.groups.list()
    }

    /// The counters of a link.
    #[must_use]
    pub fn counters(&self, link: u32) -> LinkCounters {
        self.links.get(&link).map(|l| l.counters).unwrap_or_default()
    }

    /// Tells the time, which never goes back.
    // Threads look at the clock before they take the lock, so one may come with an older time.
    pub fn set_time(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    /// Says what counts for the connections that begin from here on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// A number that nobody outside can guess.
    pub(crate) fn random(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(1);
        self.keys.hash_one(self.drawn)
    }

    /// An address for a link that has none: local, of one device (`eth_random_addr`).
    pub fn random_mac(&mut self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.random().to_ne_bytes();
        [(a | 2) & 0xfe, b, c, d, e, f]
    }

    /// A number that belongs to `value`, and that nobody outside can guess.
    pub(crate) fn secret<T: std::hash::Hash>(&self, value: T) -> u32 {
        (self.keys.hash_one(value) & 0xffff_ffff).narrow()
    }

    /// Finds the way to a destination; its MTU is what is known of the path. See [`Routes::find`].
    ///
    /// # Errors
    /// As [`Routes::find`].
    pub fn path(&self, to: IpAddr, device: Option<u32>, source: Option<IpAddr>) -> Result<Path, Errno> {
        let mut path = self.routes.find(to, device, source)?;
        if let Some((mtu, until)) = self.paths.get(&to)
            && *until > self.now
        {
            path.mtu = path.mtu.min(*mtu);
        }
        Ok(path)
    }

    /// The path to a destination takes no more than this.
    pub(crate) fn narrow_path(&mut self, to: IpAddr, mtu: u32) {
        let now = self.now;
        if self.paths.len() >= MOST_PATHS {
            // Only when it is full: entries that are out of date do no harm.
            self.paths.retain(|_, (_, until)| *until > now);
        }
        // A full table takes no new destinations.
        if self.paths.len() < MOST_PATHS || self.paths.contains_key(&to) {
            self.paths.insert(to, (mtu, now.after(PATH_US)));
        }
    }

    /// Whether one more error of ICMP may be sent now.
    pub(crate) fn may_send_error(&mut self) -> bool {
        let burst = ERROR_INTERVAL_US.saturating_mul(ERROR_BURST);
        let earliest = Time::from_us(self.now.us().saturating_sub(burst));
        // Credit runs up for a burst and no more.
        let used = self.errors_used.max(earliest).after(ERROR_INTERVAL_US);
        let fine = used <= self.now;
        if fine {
            self.errors_used = used;
        }
        fine
    }

    /// A socket begins to want packets of a protocol.
    pub fn want_raw(&mut self, protocol: u8) {
        let count = self.raw.entry(protocol).or_insert(0);
        *count = count.saturating_add(1);
    }

    /// A socket no longer wants them.
    pub fn unwant_raw(&mut self, protocol: u8) {
        if let Some(count) = self.raw.get_mut(&protocol) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.raw.remove(&protocol);
            }
        }
    }

    /// Puts a frame into a link's queue.
    pub(crate) fn enqueue(&mut self, link: u32, packet: Packet) {
        let Some(state) = self.links.get_mut(&link) else { return };
        // A link without a device loses what is sent over it, and so does a full queue (`txqueuelen`).
        if state.features.is_none() || state.queue.len() >= MOST_QUEUED {
            state.counters.sent_dropped = state.counters.sent_dropped.saturating_add(1);
            return;
        }
        state.counters.sent_packets = state.counters.sent_packets.saturating_add(1);
        state.counters.sent_bytes = state.counters.sent_bytes.saturating_add(packet.len().narrow());
        state.queue.push_back(packet);
    }

    /// Whether a link's queue has room for more of TCP.
    pub(crate) fn has_room(&self, link: u32) -> bool {
        self.links.get(&link).is_none_or(|l| l.queue.len() < ENOUGH_QUEUED)
    }

    /// The links that have frames to send.
    #[must_use]
    pub fn links_with_output(&self) -> Vec<u32> {
        self.links.iter().filter(|(_, l)| !l.queue.is_empty() && !l.stalled).map(|(index, _)| *index).collect()
    }

    /// Takes the frames that are to be sent over a link.
    pub fn take_output(&mut self, link: u32) -> Vec<Packet> {
        self.links.get_mut(&link).map(|l| l.queue.drain(..).collect()).unwrap_or_default()
    }

    /// Gives back frames that the device had no room for. Nothing more is to be taken before [`Stack::link_writable`].
    pub fn untake_output(&mut self, link: u32, packets: Vec<Packet>) {
        if let Some(state) = self.links.get_mut(&link) {
            state.stalled = true;
            // To the front, in their order: frames of one connection must not overtake each other.
            for packet in packets.into_iter().rev() {
                state.queue.push_front(packet);
            }
        }
    }

    /// The device of a link has room again.
    pub fn link_writable(&mut self, link: u32) {
        if let Some(state) = self.links.get_mut(&link) {
            state.stalled = false;
        }
    }

    /// Takes what has come for sockets.
    pub fn take_deliveries(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.deliveries)
    }

    /// Takes what is to be told to observers.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// When [`Stack::poll`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let all = [self.tcp.deadline(), self.neighbours.deadline(), self.reassembly.deadline(), self.groups.deadline()];
        all.into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Time) {
        // First of all: what follows compares with it.
        self.set_time(now);
        self.poll_neighbours();
        self.reassembly.poll(self.now);
        self.poll_groups();
        self.poll_tcp();
        self.drain_looped();
    }
}
