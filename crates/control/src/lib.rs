//! What crosses the boundary between the `moat` command and the sandbox process.
//!
//! [`SandboxSpec`] goes in once, through a memfd, when the sandbox starts. The start pipe ([`start`]) says
//! "booted" or why not; the status pipe ([`status`]) says how the guest's init ended; every other
//! conversation is a [`Request`] and a [`Response`] over a [`Connection`].
//!
//! The sandbox is the less trusted side: what it sends is length-limited and decoded into plain data.

#![forbid(unsafe_code)]

pub mod connection;
pub mod listener;
pub mod metrics;
pub mod profile;
pub mod protocol;
pub mod session;
pub mod spec;
pub mod start;
pub mod status;

pub use connection::Connection;
pub use listener::{Listener, Peer};
pub use metrics::ContainerMetrics;
pub use protocol::{
    ContainerStatus, ControlError, EventInfo, ExecLifetime, ExecuteArgs, ProcessInfo, ProfileKind, Request, Response,
    SignalTarget,
};
pub use spec::{ContainerSpec, SandboxSpec};
pub use start::{BootError, StartSync};
pub use status::ExitStatus;
