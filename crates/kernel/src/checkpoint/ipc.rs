//! System V objects: in the container's IPC namespace and those that its processes have made, whether a process uses them or not.

use std::collections::HashMap;
use std::sync::Arc;

use moat_identity::IpcNamespace;
use moat_image::refs::find;
use moat_image::state::{ProcessState, RegistryState, SandboxState, ShmState, SystemVState};
use moat_image::{ImageError, Ref, Refusal};
use moat_ipc::SystemV;
use moat_mm::Mappable;
use moat_vfs::persist::{Restorer, SaveFiles, Saver};

use super::Configured;
use super::namespaces::MadeNamespaces;
use crate::process::group::{GroupId, ThreadGroup};

/// Saves shared memory, before the address spaces that show it. `count` numbers the segments of all namespaces.
pub(super) fn segments(
    ipc: &IpcNamespace,
    count: &mut u32,
    files: &mut Saver,
) -> Result<RegistryState<ShmState>, Refusal> {
    let (state, memories) = SystemV::of(ipc).shm.save(files.pages())?;
    for memory in memories {
        let memory: Arc<dyn Mappable> = memory;
        files.segment(&memory, *count);
        *count = count.saturating_add(1);
    }
    Ok(state)
}

/// Saves the rest, once processes have names.
pub(super) fn others(
    ipc: &IpcNamespace,
    shm: RegistryState<ShmState>,
    processes: &HashMap<GroupId, Ref<ProcessState>>,
) -> SystemVState {
    let objects = SystemV::of(ipc);
    SystemVState { shm, sem: objects.sem.save(|group| processes.get(&group).copied()), msg: objects.msg.save() }
}

/// The IPC namespaces that containers were made with, each once, the first container's first.
pub(super) fn own(containers: &[Configured]) -> Vec<Arc<IpcNamespace>> {
    let first = containers.first();
    let shares = |c: &&Configured| first.is_some_and(|first| c.shared_with(first).ipc);
    let later = containers.iter().skip(1).filter(|c| !shares(c));
    first.into_iter().chain(later).map(|c| c.place.namespaces.ipc.clone()).collect()
}

/// The namespaces of an image, the containers' first, each with its objects.
fn all<'a>(
    own: &'a [Arc<IpcNamespace>],
    made: &'a MadeNamespaces,
    state: &'a SandboxState,
) -> impl Iterator<Item = (&'a Arc<IpcNamespace>, &'a SystemVState)> {
    let later = state.containers.iter().skip(1).filter(|c| !c.shared.ipc).map(|c| &c.system_v);
    let own = own.iter().zip(std::iter::once(&state.system_v).chain(later));
    // One for which the image has none is empty.
    let others = made.ipcs().iter().zip(&state.system_v_of_those);
    own.chain(others)
}

/// Makes the shared memory of an image, before the address spaces that show it.
///
/// # Errors
/// What is wrong with it.
pub(super) fn restore_segments(
    own: &[Arc<IpcNamespace>],
    made: &MadeNamespaces,
    files: &Restorer<'_>,
    pages: &moat_image::pages::Pages,
) -> Result<(), ImageError> {
    let mut segments = Vec::new();
    for (ipc, saved) in all(own, made, files.state()) {
        let memories = SystemV::of(ipc).shm.restore(&saved.shm, pages)?;
        segments.extend(memories.into_iter().map(|memory| memory as Arc<dyn Mappable>));
    }
    // One that was removed lives by its mappings: it is kept until they are there.
    files.set_segments(segments);
    Ok(())
}

/// Makes the other objects, once their processes are there.
///
/// # Errors
/// What is wrong with them.
pub(super) fn restore_others(
    own: &[Arc<IpcNamespace>],
    made: &MadeNamespaces,
    state: &SandboxState,
    groups: &[Arc<ThreadGroup>],
) -> Result<(), ImageError> {
    for (ipc, saved) in all(own, made, state) {
        let objects = SystemV::of(ipc);
        objects.sem.restore(&saved.sem, |process| find(groups, process).map(|group| group.id))?;
        objects.msg.restore(&saved.msg)?;
    }
    Ok(())
}
