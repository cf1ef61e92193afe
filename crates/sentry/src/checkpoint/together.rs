//! [`Together`]: all containers of a sandbox that have processes, which are saved as one.

use std::sync::Arc;

use moat_control::{ContainerStatus, ControlError};
use moat_kernel::checkpoint::{Configured, KnownProcesses};
use moat_kernel::process::container::{ContainerGroup, MemoryCopy, SaveMemory};
use moat_sync::async_mutex::AsyncGuard;

use crate::container::GuestContainer;
use crate::registry::Registry;

/// The containers, the root container first.
pub(super) struct Together {
    root: Arc<GuestContainer>,
    all: Vec<Arc<GuestContainer>>,
}

/// The processes that were stopped to be saved; those of a container that was paused are not among them.
pub(super) struct Frozen<'a>(Vec<&'a ContainerGroup>);

impl Frozen<'_> {
    pub(super) fn thaw(&self) {
        self.0.iter().for_each(|processes| processes.thaw());
    }

    fn has(&self, processes: &ContainerGroup) -> bool {
        self.0.iter().any(|frozen| std::ptr::eq(*frozen, processes))
    }
}

impl Together {
    /// Those of a sandbox. Later ones that have ended are left out: nothing of them is left but their status, which is their client's.
    ///
    /// # Errors
    /// One that has not been started; a root container that has ended.
    pub(super) fn of(registry: &Registry) -> Result<Together, ControlError> {
        let root = registry.root().clone();
        let mut all = vec![root.clone()];
        all.extend(registry.all().into_iter().filter(|container| !Arc::ptr_eq(container, &root)));
        all.retain(|container| Arc::ptr_eq(container, &root) || container.status() != ContainerStatus::Stopped);
        let runs = |c: &&Arc<GuestContainer>| matches!(c.status(), ContainerStatus::Running | ContainerStatus::Paused);
        match all.iter().find(|container| !runs(container)) {
            Some(container) => Err(container.wrong_state("it cannot be saved")),
            None => Ok(Together { root, all }),
        }
    }

    pub(super) fn root(&self) -> &Arc<GuestContainer> {
        &self.root
    }

    pub(super) fn all(&self) -> &[Arc<GuestContainer>] {
        &self.all
    }

    pub(super) fn later(&self) -> impl Iterator<Item = &Arc<GuestContainer>> {
        self.all.iter().skip(1)
    }

    pub(super) fn configured(&self) -> Vec<Configured> {
        self.all.iter().map(|container| container.member.configured()).collect()
    }

    /// # Errors
    /// One that has no init yet.
    pub(super) fn known(&self) -> Result<Vec<KnownProcesses>, ControlError> {
        let known = |container: &Arc<GuestContainer>| {
            let init = container.init().ok_or_else(|| container.wrong_state("it cannot be saved"))?.clone();
            let executed = container.executed.lock().values().cloned().collect();
            Ok(KnownProcesses { init, executed })
        };
        self.all.iter().map(known).collect()
    }

    fn processes(&self) -> impl Iterator<Item = &ContainerGroup> {
        self.all.iter().map(|container| &*container.member.processes)
    }

    /// Keeps everybody else from pausing them, letting them go on, or bringing processes into them.
    pub(super) async fn turns(&self) -> Vec<AsyncGuard> {
        // In one order; and one save at a time holds them, so that no two can wait for each other.
        let mut turns = Vec::new();
        for container in &self.all {
            turns.push(container.turn.lock().await);
        }
        turns
    }

    /// Stops those that are not paused.
    ///
    /// # Errors
    /// One that can't be stopped; the others then go on.
    pub(super) async fn freeze(&self) -> Result<Frozen<'_>, ControlError> {
        // One after the other: what those that still run send to the stopped ones waits in queues, which are saved when all stand still.
        let mut frozen = Frozen(Vec::new());
        for processes in self.processes().filter(|processes| !processes.is_frozen()) {
            if let Err(errno) = processes.freeze().await {
                frozen.thaw();
                return Err(ControlError::errno("stopping the container's processes", errno));
            }
            frozen.0.push(processes);
        }
        Ok(frozen)
    }

    /// Has all tasks say what only they know; of the memory of those that were paused nothing is copied or watched.
    ///
    /// # Errors
    /// A task that does not, and what it is doing.
    pub(super) async fn begin_save(&self, frozen: &Frozen<'_>, memory: SaveMemory) -> Result<(), String> {
        for processes in self.processes() {
            // They stand still anyway, for as long as their client likes.
            let memory = if frozen.has(processes) { memory.clone() } else { SaveMemory::Still };
            processes.begin_save(memory).await?;
        }
        Ok(())
    }

    pub(super) fn end_save(&self) {
        self.processes().for_each(ContainerGroup::end_save);
    }

    pub(super) fn take_copies(&self) -> Vec<MemoryCopy> {
        self.processes().flat_map(ContainerGroup::take_copies).collect()
    }

    /// Whether one that runs has memory that is better written while it does.
    pub(super) fn is_worth_watching(&self) -> bool {
        self.processes().any(|processes| !processes.is_frozen() && processes.has_much_memory())
    }
}
