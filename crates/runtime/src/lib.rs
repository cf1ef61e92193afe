//! Making and handling sandboxes from the host's side.
//!
//! [`adhoc`] (for `moat do`) and [`oci`] (for bundles) describe a container as a [`Blueprint`]; [`Sandbox`]
//! starts a sandbox process from it; [`attach`] stays with it to the end.

#![forbid(unsafe_code)]

pub mod adhoc;
pub mod attach;
pub mod blueprint;
pub mod cgroup;
pub mod config;
pub mod error;
pub mod events;
mod hardware;
pub mod hooks;
pub mod host_tree;
pub mod id;
pub mod identity;
pub mod namespaces;
pub mod oci;
pub mod sandbox;
pub mod terminal;
pub mod update;

pub use blueprint::Blueprint;
pub use config::Config;
pub use error::{Error, Result};
pub use id::ContainerId;
pub use sandbox::Sandbox;
