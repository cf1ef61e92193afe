//! [`ContainerGroup`]: what the processes of one container have in common, as members of a cgroup of Linux have.
//!
//! A process is born into its parent's and can't leave it, whatever namespaces it makes. It is what is listed, signalled
//! and counted when somebody outside asks about a container.

use std::sync::Arc;

use moat_sync::{LockClass, Mutex};

use crate::kernel::kernel;
use crate::process::group::ThreadGroup;
use crate::task::usage::Usage;

/// The processes of a container.
pub struct ContainerGroup {
    /// Usage of processes that have ended.
    dead: Mutex<Usage>,
}

impl ContainerGroup {
    /// A container without processes.
    #[must_use]
    pub fn new() -> Arc<ContainerGroup> {
        Arc::new(ContainerGroup { dead: Mutex::new(LockClass::Process, Usage::default()) })
    }

    /// Its processes, zombies included, eldest first. The family must not be locked.
    #[must_use]
    pub fn processes(&self) -> Vec<Arc<ThreadGroup>> {
        let family = kernel().family.lock();
        family.nodes().filter(|n| std::ptr::eq(&*n.group.container, self)).map(|n| n.group.clone()).collect()
    }

    /// Counts what a thread that ends has used.
    pub fn add_dead(&self, usage: &Usage) {
        self.dead.lock().add(usage);
    }

    /// What its ended threads have used.
    #[must_use]
    pub fn dead_usage(&self) -> Usage {
        *self.dead.lock()
    }
}
