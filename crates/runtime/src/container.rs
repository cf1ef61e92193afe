//! [`Container`]: a container that outlives the command that made it.
//!
//! A container is its state in the [`Store`], and its sandbox. Commands that change it hold its lock; those that only
//! look at it, or that may take long, do not.

mod checkpoint;
mod create;
mod delete;
mod exec;
mod exec_process;
mod info;
mod lifecycle;
mod neighbour;

use moat_control::ContainerStatus;

use crate::cgroup::PodSize;
use crate::error::Result;
use crate::namespaces::Role;
use crate::store::{ContainerState, Entry, Status};
use crate::{ContainerId, Error, Sandbox, Store};

pub use checkpoint::{Afterwards, CheckpointOptions, PageCompression};
pub use create::{CreateOptions, Created};
pub use delete::Force;
pub use exec::{Attachment, Exec, ExecOptions, Paused};
pub use exec_process::ExecSettings;
pub use info::{ContainerInfo, HookState, ListedProcess, OCI_VERSION};

/// A container as it was when it was looked at.
#[derive(Clone, Debug)]
pub struct Container {
    store: Store,
    id: ContainerId,
    /// Its state file.
    pub state: ContainerState,
}

impl Container {
    /// Looks at a container.
    ///
    /// # Errors
    /// [`Error::NoContainer`].
    pub fn load(store: &Store, id: &ContainerId) -> Result<Self> {
        Ok(Container { store: store.clone(), id: id.clone(), state: store.read(id)? })
    }

    /// All containers that can be read; others are passed over with a warning.
    ///
    /// # Errors
    /// Of readdir(3).
    pub fn all(store: &Store) -> Result<Vec<Self>> {
        let load = |id: ContainerId| match Container::load(store, &id) {
            Ok(container) => Some(container),
            // It was deleted meanwhile.
            Err(Error::NoContainer(_)) => None,
            Err(error) => {
                tracing::warn!("load container {id}: {error}");
                None
            }
        };
        Ok(store.ids()?.into_iter().filter_map(load).collect())
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Its state: what was done with it last, unless it has ended since.
    #[must_use]
    pub fn status(&self) -> Status {
        // The state file still says "running" if nobody was there to note the end.
        match self.state.status {
            Status::Creating | Status::Stopped => self.state.status,
            status if self.is_alive() => status,
            _ => Status::Stopped,
        }
    }

    /// Its sandbox.
    ///
    /// # Errors
    /// [`Error::State`] if it has none yet.
    pub fn sandbox(&self) -> Result<&Sandbox> {
        self.state.sandbox.as_ref().ok_or_else(not_running)
    }

    /// The host process that stands for it: the sandbox, or its waiter; 0 if it has ended.
    #[must_use]
    pub fn pid(&self) -> i32 {
        let process = match self.state.role {
            Role::Root => self.state.sandbox.as_ref().map(|sandbox| sandbox.process),
            // The sandbox's process stands for the first container.
            Role::Member => self.state.waiter,
        };
        process.filter(|process| process.is_alive()).map_or(0, |process| process.pid)
    }

    /// The size of its pod.
    pub(crate) fn pod_size(&self) -> PodSize {
        pod_size(&self.store, &self.state)
    }

    fn is_alive(&self) -> bool {
        let Some(sandbox) = &self.state.sandbox else { return false };
        match self.state.role {
            Role::Root => sandbox.is_running(),
            Role::Member => {
                // A waiter lives as long as its container, unless somebody killed it.
                self.state.waiter.is_some_and(|waiter| waiter.is_alive())
                    || sandbox.is_running()
                        && sandbox.state(self.id.as_str()).is_ok_and(|state| state != ContainerStatus::Stopped)
            }
        }
    }

    /// Takes the lock and looks again.
    fn lock(&mut self) -> Result<Entry> {
        let entry = self.store.lock(&self.id)?;
        self.state = entry.load()?;
        Ok(entry)
    }
}

/// The size of a container's pod, as the annotations of the first container say.
fn pod_size(store: &Store, state: &ContainerState) -> PodSize {
    let first = state.sandbox.as_ref().map(|sandbox| &sandbox.id).filter(|id| **id != state.id);
    let first: Option<ContainerId> = first.and_then(|id| id.parse().ok());
    match first.and_then(|id| store.read(&id).ok()) {
        Some(first) => first.pod_size(),
        None => state.pod_size(),
    }
}

/// What clients expect to read.
fn not_running() -> Error {
    Error::State("container not running".into())
}
