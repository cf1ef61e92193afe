//! What a socket does with a connection: writing, reading, closing, options.

use moat_abi::Errno;

use super::connection::{Connection, ConnectionState};
use super::settings::Settings;
use crate::num::Narrow;
use crate::time::Time;

/// Whether more bytes follow soon (MSG_MORE): until then a segment that is not full waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Follows {
    Nothing,
    More,
}

/// Whether bytes that are read stay in the queue (MSG_PEEK).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Taking {
    Remove,
    Peek,
}

/// What a socket can do at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The state.
    pub state: ConnectionState,
    /// Bytes that can be read.
    pub readable: usize,
    /// The peer's stream has ended.
    pub read_ended: bool,
    /// A third of the send buffer is free.
    pub writable: bool,
    /// Nothing more can be written.
    pub write_ended: bool,
}

impl Connection {
    /// Takes bytes to send; gives how many.
    ///
    /// # Errors
    /// EAGAIN without room or before the connection stands; EPIPE after its end.
    pub fn write(&mut self, data: &[u8], follows: Follows) -> Result<usize, Errno> {
        match self.state {
            ConnectionState::SynSent | ConnectionState::SynReceived => {
                self.starved = true;
                return Err(Errno::EAGAIN);
            }
            ConnectionState::Established | ConnectionState::CloseWait if !self.finished => {}
            _ => return Err(Errno::EPIPE),
        }
        let n = self.room().min(data.len());
        let taken = data.get(..n).unwrap_or_default();
        // The writer is told when there is room.
        if taken.is_empty() && !data.is_empty() {
            self.starved = true;
            return Err(Errno::EAGAIN);
        }
        self.send.push(taken);
        // Only if all of it was taken: the rest comes in another call.
        self.more_after = (follows == Follows::More && n == data.len()).then(|| self.send.end());
        Ok(n)
    }

    /// Copies bytes that have come; gives how many.
    pub fn read(&mut self, buf: &mut [u8], taking: Taking, now: Time) -> usize {
        let n = self.receive.peek(0, buf);
        if taking == Taking::Remove { self.skip(n, now) } else { n }
    }

    /// Throws away bytes that have come; gives how many.
    pub fn skip(&mut self, n: usize, now: Time) -> usize {
        let n = self.receive.discard(n);
        self.grow_receive_buffer(n, now);
        // Worth a segment only where the window has grown enough.
        if n > 0 && self.synchronized() && !self.fin_received && self.window_opened() {
            self.ack.now = true;
        }
        n
    }

    /// What can be done.
    pub fn readiness(&mut self) -> Readiness {
        // As on Linux a third of the buffer, so that writers do not wake for a byte.
        let writable = self.room() > self.send_buffer / 3;
        let write_ended =
            self.finished || !matches!(self.state, ConnectionState::Established | ConnectionState::CloseWait);
        if !writable {
            self.starved = true;
        }
        Readiness {
            state: self.state,
            readable: self.receive.readable(),
            read_ended: self.read_ended(),
            writable,
            write_ended,
        }
    }

    /// Bytes that are not acknowledged (SIOCOUTQ).
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.send.len()
    }

    /// Ends the own stream: a FIN follows what was written.
    pub fn finish(&mut self) {
        let next = match self.state {
            ConnectionState::Established => ConnectionState::FinWait1,
            ConnectionState::CloseWait => ConnectionState::LastAck,
            _ => return,
        };
        self.finished = true;
        self.more_after = None;
        self.set_state(next);
    }

    /// The socket is closed: what was written is sent, what comes is refused. Unread bytes make it a reset (RFC 2525).
    pub fn release(&mut self, now: Time) {
        self.orphan = true;
        let unread = self.receive.readable() > 0;
        self.receive.clear();
        match self.state {
            ConnectionState::Closed | ConnectionState::TimeWait => {}
            ConnectionState::SynSent => self.close_with(None),
            _ if unread => self.abort(),
            ConnectionState::SynReceived => self.abort(),
            ConnectionState::FinWait2 => self.timers.end = Some(now.after(self.rules.fin_timeout_us)),
            _ => self.finish(),
        }
    }

    /// Ends the connection at once with a reset.
    pub fn abort(&mut self) {
        if self.state != ConnectionState::Closed {
            // Nobody knows of a connection before its SYN is answered; one in TIME_WAIT has ended.
            self.send_reset = !matches!(self.state, ConnectionState::SynSent | ConnectionState::TimeWait);
            self.receive.clear();
            self.close_with(None);
        }
    }

    /// Takes the error that ended the connection.
    pub fn take_error(&mut self) -> Option<Errno> {
        self.error.take()
    }

    /// An error of the path that has not ended the connection (IP_RECVERR shows it).
    #[must_use]
    pub fn soft_error(&self) -> Option<Errno> {
        self.soft_error
    }

    /// Takes the socket's options.
    pub fn set(&mut self, settings: Settings, now: Time) {
        let keeps =
            self.settings.keep_alive != settings.keep_alive || self.settings.keep_idle_us != settings.keep_idle_us;
        if let Some(size) = settings.send_buffer {
            self.send_buffer = size;
        }
        if let Some(size) = settings.receive_buffer {
            self.receive_buffer = size;
        }
        if let Some(most) = settings.max_segment {
            self.path_mss = self.path_mss.min(most.max(48));
            self.update_mss();
        }
        // What the cork held goes with the next output.
        if !settings.cork {
            self.timers.cork = None;
        }
        self.settings = settings;
        if keeps {
            self.arm_keep_alive(now);
        }
    }

    /// TCP_QUICKACK: acknowledges at once what waits for it, and what comes next.
    pub fn quick_ack(&mut self) {
        self.ack.interactive = false;
        self.ack.quick = self.ack.quick.max(16);
        if self.rcv_nxt > self.ack.told && self.synchronized() {
            self.ack.now = true;
        }
    }

    /// The sizes of the buffers: send, receive.
    #[must_use]
    pub fn buffers(&self) -> (usize, usize) {
        (self.send_buffer, self.receive_buffer)
    }

    /// The largest payload of a packet.
    #[must_use]
    pub fn max_segment(&self) -> u16 {
        self.mss.narrow()
    }
}
