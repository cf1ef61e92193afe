//! TCP, RFC 9293: one connection as a machine of its own ([`connection`]), and its parts.
//!
//! - [`connection`]: the state; [`input`], [`ack`], [`output`], [`timers`], [`stream`], [`info`]: what is done with it.
//! - [`segment`]: segments in and out.
//! - [`send_queue`], [`receive_queue`]: bytes; [`scoreboard`]: what is under way.
//! - [`rtt`], [`cubic`], [`hystart`]: estimates.

mod ack;
pub(crate) mod connection;
mod cubic;
mod hystart;
mod info;
mod input;
mod output;
mod receive_queue;
mod rtt;
mod scoreboard;
pub(crate) mod segment;
mod send_queue;
mod stream;
mod timers;

pub use connection::{
    Changes, Connection, ConnectionState, Counters, MOST_RECEIVE_BUFFER, MOST_SEND_BUFFER, Parameters,
    START_RECEIVE_BUFFER, START_SEND_BUFFER, Settings,
};
pub use segment::{Flags, Options, Segment, SegmentOut};
pub use stream::{Follows, Readiness, Taking};
