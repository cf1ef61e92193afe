//! The control server: what answers [`moat_control::Request`]s.
//!
//! - [`server`]: connections and their tasks.
//! - [`request`]: which request does what.
//! - [`life`]: containers come and go; [`exec`]: processes that join them; [`signal`]: signals to their processes.
//! - [`inspect`], [`metrics`], [`stacks`], [`logging`], [`trace`]: looking at what goes on.

mod exec;
#[cfg(feature = "host-calls")]
mod host_calls;
mod inspect;
mod life;
mod logging;
mod metrics;
mod request;
mod server;
mod signal;
mod stacks;
mod trace;

pub(crate) use logging::strace;
pub(crate) use request::exit_status;
pub(crate) use server::{Server, accept};
pub(crate) use trace::begin as begin_session;
