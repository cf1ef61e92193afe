//! TCP, RFC 9293: one connection as a machine of its own ([`connection`]), and its parts.
//!
//! - [`connection`]: the state; [`input`], [`ack`], [`output`], [`timers`], [`stream`], [`info`]: what is done with it.
//! - [`segment`]: segments in and out; [`time_wait`]: what is kept when all is said.
//! - [`send_queue`], [`receive_queue`]: bytes; [`scoreboard`]: what is under way.
//! - [`congestion`], [`rtt`], [`cubic`], [`hystart`], [`pacing`], [`ecn`], [`undo`]: estimates, and what follows from them.
//! - [`settings`]: what a connection is made with; [`cookie`]: one that is made of an acknowledgement alone.

mod ack;
mod congestion;
pub(crate) mod connection;
pub(crate) mod cookie;
mod cubic;
mod ecn;
mod hystart;
mod info;
mod input;
mod output;
mod pacing;
mod receive_queue;
mod rtt;
mod scoreboard;
pub(crate) mod segment;
mod send_queue;
mod settings;
mod stream;
mod time_wait;
mod timers;
mod undo;

pub use connection::{
    Changes, Connection, ConnectionState, MOST_RECEIVE_BUFFER, MOST_SEND_BUFFER, START_RECEIVE_BUFFER,
    START_SEND_BUFFER,
};
pub use segment::{Flags, Marks, Options, Segment, SegmentOut};
pub use settings::{CookieRule, Counters, EcnRule, Parameters, Rules, Settings};
pub use stream::{Follows, Readiness, Taking};
pub(crate) use time_wait::TimeWait;
