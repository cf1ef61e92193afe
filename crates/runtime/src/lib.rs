//! Making and handling sandboxes from the host's side.
//!
//! [`adhoc`] (for `moat do`) and [`oci`] (for bundles) describe a container as a [`Blueprint`]; [`sandbox`] starts a
//! sandbox process from it and asks things of it; [`attach`] stays with it to the end. [`Container`] does all of that for
//! containers that outlive a command, whose state is in the [`store`]. [`metrics`] are what monitoring systems
//! read of them, [`monitor`] opens what security events are told to.

#![forbid(unsafe_code)]

pub mod adhoc;
pub mod attach;
pub mod blueprint;
pub mod cgroup;
pub mod config;
pub mod console;
pub mod container;
pub mod error;
pub mod events;
mod gofer;
mod hardware;
pub mod hooks;
mod host_tree;
pub mod id;
pub mod identity;
pub mod metrics;
pub mod monitor;
pub mod namespaces;
pub mod network;
pub mod node_maker;
pub mod oci;
mod oom_score;
pub mod overlay;
pub mod process_id;
pub mod sandbox;
pub mod store;
pub mod terminal;
pub mod timestamp;
pub mod update;
pub mod waiter;

pub use blueprint::Blueprint;
pub use config::Config;
pub use container::Container;
pub use error::{Error, Result};
pub use id::ContainerId;
pub use sandbox::{ChildSandbox, Sandbox};
pub use store::Store;
