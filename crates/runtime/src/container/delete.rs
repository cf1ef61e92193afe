//! Cleaning up.

use super::{Container, HookState};
use crate::error::Result;
use crate::hooks::{self, HookKind};
use crate::namespaces::Role;
use crate::store::{ContainerState, Entry, Status};
use crate::{ContainerId, Error, Store, overlay};

/// Whether a container that runs is deleted too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Force {
    Yes,
    No,
}

impl Container {
    /// Removes a container and all that belongs to it, whatever state it was left in. With [`Force::Yes`] one that runs
    /// is killed, and one that does not exist is no error.
    ///
    /// # Errors
    /// [`Error::NoContainer`]; [`Error::State`] if it runs.
    pub fn delete(store: &Store, id: &ContainerId, force: Force) -> Result<()> {
        let entry = match store.lock(id) {
            Err(Error::NoContainer(_)) if force == Force::Yes => return Ok(()),
            other => other?,
        };
        let state = match entry.load() {
            Err(error) => {
                // Whoever was about to create it has died before anything else was made.
                entry.remove()?;
                // With --force the result is what was asked for: there is no such container.
                return if force == Force::Yes { Ok(()) } else { Err(error) };
            }
            Ok(state) => state,
        };
        let container = Container { store: store.clone(), id: id.clone(), state };
        let status = container.status();
        // As with runc one that is created can be deleted: its init has not run.
        if force == Force::No && matches!(status, Status::Running | Status::Paused) {
            return Err(Error::State(format!("cannot delete container {id} that is not stopped: {status}")));
        }
        let state = container.state;
        clean_up(entry, &state)?;
        // The OCI specification has them run when all that the container had is gone.
        if let Some(hooks) = &state.hooks {
            let hook_state = HookState::new(&state, Status::Stopped, None);
            hooks::run_all(HookKind::Poststop, HookKind::Poststop.of(hooks), &hook_state);
        }
        Ok(())
    }
}

/// Ends all that the state says there is, and removes it last. May be repeated.
pub(super) fn clean_up(entry: Entry, state: &ContainerState) -> Result<()> {
    // First: while it runs it holds the cgroup and has files open in the overlays' directories.
    if let Some(sandbox) = &state.sandbox {
        match state.role {
            Role::Root => sandbox.destroy()?,
            Role::Member => sandbox.destroy_container(&state.id)?,
        }
    }
    if let Some(waiter) = state.waiter {
        // It has been told of the end already, unless the sandbox forgot to tell.
        let _ = waiter.signal(moat_abi::Signal::SIGKILL);
    }
    if let Some(cgroup) = &state.cgroup {
        // What joins it is noted before: nothing of it is left in there. Processes of others stop the removal.
        cgroup.delete()?;
    }
    state.overlays.iter().try_for_each(|path| overlay::remove(path))?;
    entry.remove()
}
