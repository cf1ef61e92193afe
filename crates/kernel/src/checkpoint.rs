//! Processes, threads and what belongs to them in an image, and out of it.
//!
//! - [`survey`] and [`save()`]: from the kernel's objects to [`moat_image::state`]. A survey is the same walk while the guest runs: it gives
//!   what can't be saved, before anything is stopped.
//! - [`restore()`]: the same processes in a new kernel, ready to go on.
//! - `signals`, `threads`, `trace`, `xstate`, `ipc`, `namespaces`, `convert`: parts of both ways.
//!
//! What only a task itself knows it has written down before ([`crate::task`], `rest`): its container is frozen and being saved.
//!
//! # Invariants
//! - Whatever is not saved is refused by name, by the place where it was met.
//! - Objects that are shared are saved once and found again by their number: descriptor tables, memory, signal actions, filters.
//! - Nothing out of an image is more than the container's configuration allows: namespaces, profile, credentials and limits are its.

mod convert;
mod ipc;
mod namespaces;
mod restore;
mod save;
mod signals;
mod threads;
mod trace;
mod xstate;

use std::sync::Arc;

use moat_identity::{Limits, PidNamespace};
use moat_image::state::{SharedState, VdsoState};
use moat_vfs::MountNamespace;

use crate::kernel::Kernel;
use crate::process::container::ContainerGroup;
use crate::seccomp::Filter;
use crate::spawn::{ContainerPlace, Process};

pub use namespaces::{MadeNamespaces, kept_apart};
pub use restore::{GivenTerminal, Opened, RestoreRequest, restore};
pub use save::{Saved, save, survey};

/// A container as the configuration has made it.
pub struct Configured {
    /// Its processes.
    pub processes: Arc<ContainerGroup>,
    /// Its namespaces.
    pub place: ContainerPlace,
    /// Its mounts.
    pub mounts: Arc<MountNamespace>,
    /// Its seccomp profile.
    pub profile: Option<Arc<Filter>>,
}

impl Configured {
    /// Which namespaces it has in common with the first container of its sandbox.
    pub(crate) fn shared_with(&self, first: &Configured) -> SharedState {
        if Arc::ptr_eq(&self.processes, &first.processes) {
            return SharedState::default();
        }
        let (here, there) = (&self.place, &first.place);
        SharedState {
            pid: here.pid_ns.id == there.pid_ns.id,
            ipc: here.namespaces.ipc.id == there.namespaces.ipc.id,
            uts: here.namespaces.uts.id == there.namespaces.uts.id,
        }
    }
}

/// Where processes have the numbers that an image names them by: the container's pid namespace; of several, the outermost.
#[must_use]
pub fn numbers(kernel: &Kernel, containers: &[Configured]) -> Arc<PidNamespace> {
    match containers {
        [only] => only.place.pid_ns.clone(),
        _ => kernel.root_pid_ns.clone(),
    }
}

/// Processes of a container that others than the guest know.
pub struct KnownProcesses {
    /// Its init.
    pub init: Process,
    /// Those that were started in it, whose ends somebody may ask for.
    pub executed: Vec<Process>,
}

/// The vDSO as it is in a guest process, for the image.
#[must_use]
pub fn vdso(layout: &moat_platform::VdsoLayout, space: &dyn moat_platform::AddressSpace) -> VdsoState {
    threads::vdso(layout, space)
}

/// Hard limits that a process out of an image can't be beyond.
pub struct MostLimits(pub Option<Limits>);
