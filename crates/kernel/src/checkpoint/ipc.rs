//! System V objects: in the container's IPC namespace, whether a process uses them or not.

use std::collections::HashMap;
use std::sync::Arc;

use moat_identity::IpcNamespace;
use moat_image::refs::find;
use moat_image::state::{ProcessState, RegistryState, SandboxState, ShmState, SystemVState};
use moat_image::{ImageError, Ref, Refusal};
use moat_ipc::SystemV;
use moat_mm::Mappable;
use moat_vfs::persist::{Restorer, SaveFiles, Saver};

use crate::process::group::{GroupId, ThreadGroup};

/// Saves shared memory, before the address spaces that show it.
pub(super) fn segments(ipc: &IpcNamespace, files: &mut Saver) -> Result<RegistryState<ShmState>, Refusal> {
    let (state, memories) = SystemV::of(ipc).shm.save(files.pages())?;
    for (index, memory) in (0..).zip(memories) {
        let memory: Arc<dyn Mappable> = memory;
        files.segment(&memory, index);
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

/// Makes the shared memory of an image, before the address spaces that show it.
///
/// # Errors
/// What is wrong with it.
pub(super) fn restore_segments(
    ipc: &IpcNamespace,
    state: &SandboxState,
    files: &Restorer<'_>,
    pages: &moat_image::pages::Pages,
) -> Result<(), ImageError> {
    let memories = SystemV::of(ipc).shm.restore(&state.system_v.shm, pages)?;
    // One that was removed lives by its mappings: it is kept until they are there.
    files.set_segments(memories.into_iter().map(|memory| memory as Arc<dyn Mappable>).collect());
    Ok(())
}

/// Makes the other objects, once their processes are there.
///
/// # Errors
/// What is wrong with them.
pub(super) fn restore_others(
    ipc: &IpcNamespace,
    state: &SandboxState,
    groups: &[Arc<ThreadGroup>],
) -> Result<(), ImageError> {
    let objects = SystemV::of(ipc);
    objects.sem.restore(&state.system_v.sem, |process| find(groups, process).map(|group| group.id))?;
    objects.msg.restore(&state.system_v.msg)
}
