//! Security events: what monitors outside of the sandbox are told of while containers run.
//!
//! A [`Session`] says at which [`Point`]s something is told, with which [`Fields`], and to which sinks. The kernel asks [`Monitor`]
//! whether anybody wants to know ([`Monitor::is_on`], one load), and builds an [`Event`] only then.
//!
//! - [`points`]: the points and their fields, by runsc's names.
//! - [`messages`]: what is told, in the layout of gVisor's public protocol, so that its readers (Falco's among them) understand it.
//! - [`wire`]: packets of that protocol.
//! - [`sink`]: sockets, files of JSON lines.
//!
//! # Invariants
//! - A sink never holds up who tells it something: what it does not take at once is dropped, and counted.
#![forbid(unsafe_code)]

pub mod messages;
pub mod points;
pub mod session;
pub mod sink;
pub mod wire;

pub use messages::Event;
pub use points::{Fields, Form, Phase, Point};
pub use session::{Monitor, Session, SessionError};
pub use sink::Sink;
