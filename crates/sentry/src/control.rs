//! The control server: what answers [`moat_control::Request`]s.
//!
//! - [`server`]: connections and their tasks.
//! - [`request`]: which request does what.
//! - [`signal`]: signals to processes of a container.

mod request;
mod server;
mod signal;
mod stacks;

pub(crate) use request::exit_status;
pub(crate) use server::{Server, accept};
