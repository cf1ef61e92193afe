//! [`TimeWait`]: what is left of a connection in TIME_WAIT that nobody holds. Busy ends have very many of these.

use super::connection::{Agreed, Connection, ConnectionState};
use super::settings::{Parameters, Rules, Settings};
use crate::time::Time;

/// What answers to stray segments take (`tcp_timewait_sock`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeWait {
    iss: u32,
    irs: u32,
    nxt: u64,
    rcv_nxt: u64,
    told: u64,
    edge: u64,
    agreed: Agreed,
    ts_recent: u32,
    timestamp_offset: u32,
    path_mss: u16,
    largest_window: u64,
    receive_buffer: usize,
    challenged: Option<Time>,
    /// When it is over.
    pub(crate) until: Time,
}

impl TimeWait {
    /// What is to be kept of a connection; `None` if that is not all.
    pub(crate) fn of(c: &Connection) -> Option<TimeWait> {
        if c.state != ConnectionState::TimeWait || c.ack.now || !c.pending.is_empty() {
            return None;
        }
        Some(TimeWait {
            iss: c.iss,
            irs: c.irs,
            nxt: c.nxt,
            rcv_nxt: c.rcv_nxt,
            told: c.ack.told,
            edge: c.ack.edge,
            agreed: c.agreed,
            ts_recent: c.ts_recent,
            timestamp_offset: c.timestamp_offset,
            path_mss: c.path_mss,
            largest_window: c.largest_window,
            receive_buffer: c.receive_buffer,
            challenged: c.ack.challenged,
            until: c.timers.end?,
        })
    }

    /// The connection again, for a segment that has come.
    pub(crate) fn connection(&self, rules: Rules, now: Time) -> Connection {
        let parameters = Parameters {
            iss: self.iss,
            timestamp_offset: self.timestamp_offset,
            path_mss: self.path_mss,
            largest_segment: 0,
            settings: Settings::default(),
            rules,
        };
        let mut c = Connection::new(parameters, ConnectionState::TimeWait, now);
        (c.irs, c.una, c.nxt, c.rcv_nxt) = (self.irs, self.nxt, self.nxt, self.rcv_nxt);
        (c.ack.told, c.ack.edge, c.ack.challenged) = (self.told, self.edge, self.challenged);
        (c.agreed, c.ts_recent, c.receive_buffer) = (self.agreed, self.ts_recent, self.receive_buffer);
        c.largest_window = self.largest_window;
        (c.finished, c.fin_received, c.orphan, c.send_syn) = (true, true, true, false);
        c.send = super::send_queue::SendQueue::new(self.nxt.saturating_sub(1));
        c.timers.end = Some(self.until);
        c
    }
}
