//! [`Connection`]: one TCP connection, RFC 9293, as a machine without clock, packets or sockets.
//!
//! Whoever owns it gives it segments ([`Connection::input`]), tells it the time ([`Connection::on_timer`] when
//! [`Connection::deadline`] has come) and takes what it has to send ([`Connection::output`]) after each change.
//!
//! # Invariants
//! - Positions count a stream's numbers from its SYN, which is 0; they never wrap. `una <= nxt <= end of the send queue + 1`.
//! - What is held of either stream is bounded by the buffers, whatever the peer sends.

use moat_abi::Errno;

use super::congestion::{Congestion, Ecn, Pacer, TailProbe, Undo};
use super::cubic::Cubic;
use super::receive_queue::ReceiveQueue;
use super::rtt::RttEstimator;
use super::scoreboard::Scoreboard;
use super::segment::{SegmentOut, TIMESTAMP_ROOM};
use super::send_queue::SendQueue;
use super::settings::{Counters, Parameters, Rules, Settings};
use crate::num::Narrow;
use crate::time::{MS, SECOND, Time};

/// Where a connection is in its life; the numbers are Linux's (`TCP_ESTABLISHED` ...).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
#[repr(u8)]
pub enum ConnectionState {
    Established = 1,
    SynSent = 2,
    SynReceived = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Closed = 7,
    CloseWait = 8,
    LastAck = 9,
    Closing = 11,
}

/// Starting and greatest sizes of the buffers (`net.ipv4.tcp_{r,w}mem`).
pub const START_RECEIVE_BUFFER: usize = 131_072;
/// See [`START_RECEIVE_BUFFER`].
pub const MOST_RECEIVE_BUFFER: usize = 6_291_456;
/// See [`START_RECEIVE_BUFFER`].
pub const START_SEND_BUFFER: usize = 87_040;
/// See [`START_RECEIVE_BUFFER`].
pub const MOST_SEND_BUFFER: usize = 4_194_304;
/// How long TIME_WAIT and an orphan's FIN_WAIT2 last.
pub(crate) const TIME_WAIT_US: u64 = 60 * SECOND;
/// The shift of the windows that are told: the greatest buffer fits.
pub(crate) const WINDOW_SCALE: u8 = 7;

/// What has changed for the socket since it was asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// There is more to read, or an end of it.
    pub read: bool,
    /// There may be room to write.
    pub write: bool,
    /// The state changed, or there is an error.
    pub state: bool,
}

impl Changes {
    /// Whether anything has.
    #[must_use]
    pub fn any(self) -> bool {
        self.read || self.write || self.state
    }
}

/// The moments at which something is due.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timers {
    pub(crate) rto: Option<Time>,
    pub(crate) probe: Option<Time>,
    pub(crate) reorder: Option<Time>,
    pub(crate) persist: Option<Time>,
    pub(crate) delayed_ack: Option<Time>,
    pub(crate) cork: Option<Time>,
    pub(crate) pace: Option<Time>,
    pub(crate) keep_alive: Option<Time>,
    pub(crate) end: Option<Time>,
}

/// What both ends agreed on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Agreed {
    pub(crate) timestamps: bool,
    pub(crate) sack: bool,
    pub(crate) ecn: bool,
    /// Shifts of the peer's windows and of the own ones.
    pub(crate) send_scale: u8,
    pub(crate) receive_scale: u8,
}

/// When the own acknowledgements are sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AckPolicy {
    /// One is due with the next segment, at once.
    pub(crate) now: bool,
    /// Quick ones that are left at the beginning.
    pub(crate) quick: u32,
    /// The application answers what it gets: its data carries the acknowledgements.
    pub(crate) interactive: bool,
    /// When data came last.
    pub(crate) received_at: Time,
    /// The peer's largest segment.
    pub(crate) peer_segment: u64,
    /// The receive position, and the right edge of the window, that were told last.
    pub(crate) told: u64,
    pub(crate) edge: u64,
    /// When an answer to a nonsensical segment was sent last.
    pub(crate) challenged: Option<Time>,
}

/// How the receive buffer grows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReceiveTuning {
    pub(crate) began: Time,
    /// Bytes that the application took since then, and in the best such time.
    pub(crate) taken: u64,
    pub(crate) best: u64,
    /// The round trip that the peer's echoes show.
    pub(crate) rtt: u64,
}

/// A TCP connection.
pub struct Connection {
    pub(crate) state: ConnectionState,
    pub(crate) settings: Settings,
    pub(crate) rules: Rules,
    pub(crate) error: Option<Errno>,
    /// An error that counts if the connection is given up.
    pub(crate) soft_error: Option<Errno>,
    pub(crate) changes: Changes,
    pub(crate) agreed: Agreed,
    pub(crate) counters: Counters,

    pub(crate) iss: u32,
    pub(crate) una: u64,
    pub(crate) nxt: u64,
    pub(crate) send: SendQueue,
    /// Nothing follows what is in the send queue.
    pub(crate) finished: bool,
    pub(crate) send_window: u64,
    pub(crate) largest_window: u64,
    /// The receive position and the acknowledgement of the segment that set the window.
    pub(crate) window_from: (u64, u64),
    /// The largest payload that the peer and the path take, with all options.
    pub(crate) mss: u64,
    pub(crate) peer_mss: u16,
    pub(crate) path_mss: u16,
    pub(crate) largest_segment: u64,
    /// Where the last segment that was not full ends (Minshall's variant of Nagle).
    pub(crate) small_end: u64,
    /// Until where the sender has said that more follows (MSG_MORE).
    pub(crate) more_after: Option<u64>,
    pub(crate) board: Scoreboard,
    pub(crate) rtt: RttEstimator,
    pub(crate) cc: Cubic,
    pub(crate) pacer: Pacer,
    pub(crate) ecn: Ecn,
    pub(crate) congestion: Congestion,
    /// What there was before the window became smaller, in case that was a mistake.
    pub(crate) undo: Option<Undo>,
    pub(crate) window_limited: bool,
    pub(crate) duplicate_acks: u64,
    pub(crate) tail_probe: Option<TailProbe>,
    /// Probes that were not answered, and since when nothing was acknowledged.
    pub(crate) unanswered: u32,
    pub(crate) stuck_since: Option<Time>,
    pub(crate) sent_at: Time,
    /// Nobody knows when its SYN was answered.
    pub(crate) unmeasured: bool,
    pub(crate) heard_at: Time,
    /// A SYN, or a probe, is to be sent.
    pub(crate) send_syn: bool,
    pub(crate) send_probe: bool,
    pub(crate) send_reset: bool,
    /// What timers have made, to go before all else.
    pub(crate) pending: Vec<SegmentOut>,
    pub(crate) send_buffer: usize,
    /// The writer found no room.
    pub(crate) starved: bool,

    pub(crate) irs: u32,
    pub(crate) rcv_nxt: u64,
    pub(crate) receive: ReceiveQueue,
    pub(crate) fin_received: bool,
    /// Where the peer's stream ends, if a FIN came ahead of a gap.
    pub(crate) fin_at: Option<u64>,
    /// What comes is thrown away: the reader has closed.
    pub(crate) orphan: bool,
    pub(crate) ack: AckPolicy,
    pub(crate) receive_buffer: usize,
    pub(crate) tuning: ReceiveTuning,
    pub(crate) ts_recent: u32,
    pub(crate) timestamp_offset: u32,

    pub(crate) timers: Timers,
}

impl Connection {
    pub(crate) fn new(p: Parameters, state: ConnectionState, now: Time) -> Connection {
        let path_mss = p.path_mss.min(p.settings.max_segment.unwrap_or(u16::MAX)).max(48);
        // Before the peer has said what it takes (RFC 9293, section 3.7.1).
        let mss = u64::from(path_mss.min(536));
        Connection {
            state,
            error: None,
            soft_error: None,
            changes: Changes::default(),
            agreed: Agreed::default(),
            counters: Counters::default(),
            iss: p.iss,
            una: 0,
            nxt: 0,
            // Position 0 is the SYN's.
            send: SendQueue::new(1),
            finished: false,
            send_window: 0,
            largest_window: 0,
            window_from: (0, 0),
            mss,
            peer_mss: 536,
            path_mss,
            largest_segment: u64::from(p.largest_segment),
            small_end: 0,
            more_after: None,
            board: Scoreboard::default(),
            rtt: RttEstimator::default(),
            cc: Cubic::new(mss),
            pacer: Pacer::default(),
            ecn: Ecn::default(),
            congestion: Congestion::Open,
            undo: None,
            window_limited: false,
            duplicate_acks: 0,
            tail_probe: None,
            unanswered: 0,
            stuck_since: None,
            sent_at: now,
            unmeasured: false,
            heard_at: now,
            send_syn: true,
            send_probe: false,
            send_reset: false,
            pending: Vec::new(),
            send_buffer: p.settings.send_buffer.unwrap_or(START_SEND_BUFFER),
            starved: false,
            irs: 0,
            rcv_nxt: 0,
            receive: ReceiveQueue::default(),
            fin_received: false,
            fin_at: None,
            orphan: false,
            // The first segments are acknowledged at once, so that the peer's window grows quickly.
            ack: AckPolicy { quick: 16, peer_segment: 536, ..AckPolicy::default() },
            receive_buffer: p.settings.receive_buffer.unwrap_or(START_RECEIVE_BUFFER),
            tuning: ReceiveTuning { began: now, ..ReceiveTuning::default() },
            ts_recent: 0,
            timestamp_offset: p.timestamp_offset,
            settings: p.settings,
            rules: p.rules,
            timers: Timers::default(),
        }
    }

    /// A connection that is to be opened: its first output is a SYN.
    #[must_use]
    pub fn connect(p: Parameters, now: Time) -> Connection {
        Connection::new(p, ConnectionState::SynSent, now)
    }

    /// Where it is in its life.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        self.state
    }

    /// What has changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// When [`Connection::on_timer`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let t = &self.timers;
        let all = [t.rto, t.probe, t.reorder, t.persist, t.delayed_ack, t.cork, t.pace, t.keep_alive, t.end];
        all.into_iter().flatten().min()
    }

    /// The peer's stream has ended, or nothing can come any more.
    #[must_use]
    pub fn read_ended(&self) -> bool {
        self.fin_received || matches!(self.state, ConnectionState::Closed | ConnectionState::TimeWait)
    }

    pub(crate) fn synchronized(&self) -> bool {
        !matches!(self.state, ConnectionState::SynSent | ConnectionState::SynReceived | ConnectionState::Closed)
    }

    /// The number of a position in the own stream.
    pub(crate) fn seq(&self, position: u64) -> u32 {
        low(position).wrapping_add(self.iss)
    }

    /// The position of a number in the own stream, near what is under way; `None` for one before its beginning.
    pub(crate) fn sent_position(&self, number: u32) -> Option<u64> {
        near(self.una, number.wrapping_sub(self.seq(self.una)))
    }

    /// The number of a position in the peer's stream.
    pub(crate) fn peer_seq(&self, position: u64) -> u32 {
        low(position).wrapping_add(self.irs)
    }

    /// The position of a number in the peer's stream.
    pub(crate) fn received_position(&self, number: u32) -> Option<u64> {
        near(self.rcv_nxt, number.wrapping_sub(self.peer_seq(self.rcv_nxt)))
    }

    /// The clock of timestamps, in milliseconds.
    pub(crate) fn timestamp(&self, now: Time) -> u32 {
        low(now.us() / MS).wrapping_add(self.timestamp_offset)
    }

    /// The largest payload with the options that each segment has.
    pub(crate) fn update_mss(&mut self) {
        let most = self.peer_mss.min(self.path_mss);
        let options = if self.agreed.timestamps { TIMESTAMP_ROOM } else { 0 };
        self.mss = u64::from(most).saturating_sub(options.narrow()).max(36);
    }

    /// The position behind all that will be sent: the FIN counts.
    pub(crate) fn send_end(&self) -> u64 {
        self.send.end().saturating_add(u64::from(self.finished))
    }

    pub(crate) fn set_state(&mut self, state: ConnectionState) {
        self.state = state;
        self.changes.state = true;
    }

    /// The connection is over.
    pub(crate) fn close_with(&mut self, error: Option<Errno>) {
        // The first reason counts.
        self.error = self.error.or(error);
        self.timers = Timers::default();
        self.board.clear();
        self.send.clear();
        self.pending.clear();
        self.set_state(ConnectionState::Closed);
        // Everybody who waits looks again.
        self.changes.read = true;
        self.changes.write = true;
    }

    /// Remembers when the peer last showed that it is there.
    pub(crate) fn enter_time_wait(&mut self, now: Time) {
        self.timers = Timers { end: Some(now.after(TIME_WAIT_US)), ..Timers::default() };
        self.board.clear();
        self.send.clear();
        self.set_state(ConnectionState::TimeWait);
    }
}

/// The low half of a position.
fn low(position: u64) -> u32 {
    let [a, b, c, d, ..] = position.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The position at a distance from `base`, which is negative from 2^31 on.
fn near(base: u64, distance: u32) -> Option<u64> {
    base.checked_add_signed(i64::from(distance.cast_signed()))
}
