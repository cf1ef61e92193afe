//! Containers that are to share another one's network (`docker run --network container:X`): they join its sandbox.
//!
//! The interfaces of a network namespace belong to the stack of one sandbox. A second sandbox in the namespace would find
//! nothing there; a second container in the same sandbox has the same interfaces, and the same loopback device.

use std::path::Path;

use moat_control::spec::NetworkMode;

use super::Container;
use crate::error::Result;
use crate::namespaces::{NetworkNamespace, Plan, Role, is_same};
use crate::{Sandbox, Store};

/// The running sandbox that has taken over the network namespace which `plan` would join.
///
/// # Errors
/// Of reading the store.
pub(super) fn find(store: &Store, plan: &Plan) -> Result<Option<Sandbox>> {
    let NetworkNamespace::Join(path) = &plan.network else { return Ok(None) };
    let roots = Container::all(store)?.into_iter().filter(|container| container.state.role == Role::Root);
    let mut sandboxes = roots.filter_map(|container| container.state.sandbox);
    // By inode and not by path: an engine mounts one namespace at several places.
    Ok(sandboxes.find(|sandbox| {
        let own = format!("/proc/{}/ns/net", sandbox.process.pid);
        sandbox.network == NetworkMode::Sandbox && is_same(path, Path::new(&own)) && sandbox.is_running()
    }))
}
