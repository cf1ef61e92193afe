//! Saving a sandbox: survey, freeze, walk, pages, header.

use std::fs::File;
use std::os::fd::OwnedFd;

use moat_control::protocol::AfterCheckpoint;
use moat_control::{ContainerStatus, ControlError};
use moat_image::header::Header;
use moat_image::pages::PagesWriter;
use moat_image::state::ClockState;
use moat_image::{ImageError, SandboxState, Table, directory};
use moat_kernel::Kernel;
use moat_kernel::checkpoint::{self, Configured, KnownProcesses, Saved};
use moat_sync::block_in_place;
use moat_vfs::persist::Saver;

use crate::container::GuestContainer;
use crate::registry::Registry;

/// Saves the root container into the files `state` and `pages`.
///
/// # Errors
/// What can't be saved: the container then goes on as it did. What the host refuses.
pub(crate) async fn save(
    registry: &Registry,
    container: &GuestContainer,
    then: AfterCheckpoint,
    fds: Vec<OwnedFd>,
) -> Result<(), ControlError> {
    let Ok([state, pages]) = <[OwnedFd; 2]>::try_from(fds) else {
        return Err(ControlError::Invalid("a checkpoint takes two files".into()));
    };
    if registry.all().len() > 1 {
        return Err(ControlError::CantSave("a sandbox with more than one container can't be saved yet".into()));
    }
    if !matches!(container.status(), ContainerStatus::Running | ContainerStatus::Paused) {
        return Err(container.wrong_state("it cannot be saved"));
    }
    let refused = |refusal: moat_image::Refusal| ControlError::CantSave(refusal.to_string());
    let (configured, known) = (configured(container), known(container));
    checkpoint::survey(&configured, &known, saver(container, None)).map_err(refused)?;
    let processes = &container.member.processes;
    let was_frozen = processes.is_frozen();
    if !was_frozen {
        let frozen = processes.freeze().await;
        frozen.map_err(|errno| ControlError::errno("stopping the container's processes", errno))?;
    }
    let saved = match processes.begin_save().await {
        Ok(()) => block_in_place(|| write(container, &configured, &known, (state.into(), pages.into()))),
        Err(what) => Err(ControlError::CantSave(what)),
    };
    processes.end_save();
    if !was_frozen && (saved.is_err() || then == AfterCheckpoint::GoOn) {
        processes.thaw();
    }
    saved
}

fn configured(container: &GuestContainer) -> Configured {
    let member = &container.member;
    Configured {
        processes: member.processes.clone(),
        place: member.place.clone(),
        mounts: member.fs.namespace.clone(),
        profile: member.profile.clone(),
    }
}

fn known(container: &GuestContainer) -> KnownProcesses {
    let executed = container.executed.lock().values().cloned().collect();
    KnownProcesses { init: container.init.clone(), executed }
}

fn saver(container: &GuestContainer, pages: Option<PagesWriter>) -> Saver {
    Saver::new(container.member.fs.namespace.clone(), container.donated(), pages)
}

/// Writes the image of a container whose tasks are all at rest.
fn write(
    container: &GuestContainer,
    configured: &Configured,
    known: &KnownProcesses,
    (state_file, pages_file): (File, File),
) -> Result<(), ControlError> {
    let failed = |e: ImageError| ControlError::Invalid(e.to_string());
    let kernel = container.member.processes.kernel();
    let mut id = [0; 16];
    moat_host::random::fill(&mut id);
    let pages = PagesWriter::new(pages_file, id).map_err(failed)?;
    let saved = checkpoint::save(configured, known, saver(container, Some(pages)));
    let saved = saved.map_err(|refusal| ControlError::CantSave(refusal.to_string()))?;
    let (state, pages_len) = write_pages(kernel, &container.id, saved).map_err(failed)?;
    let created_s = i64::try_from(state.clocks.realtime_ns / 1_000_000_000).unwrap_or(i64::MAX);
    let header = Header {
        version: env!("CARGO_PKG_VERSION").into(),
        id,
        created_s,
        cpu_features: moat_host::cpu_features::features(),
        platform: kernel.platform.name().into(),
        pages_len,
        sections: Vec::new(),
    };
    directory::write_state(&state_file, header, &state).map_err(failed)
}

/// Writes guest memory; gives the whole state, and the length of `pages`.
fn write_pages(kernel: &Kernel, id: &str, saved: Saved) -> Result<(SandboxState, u64), ImageError> {
    let Saved { mut state, memories, pages } = saved;
    let mut pages = pages.ok_or_else(|| ImageError::Unfit("nowhere to write pages to".into()))?;
    state.clocks = clocks(kernel);
    let mut table = Table::default();
    for (mm, mut memory) in memories {
        let space = mm.space();
        if table.is_empty() {
            state.vdso = checkpoint::vdso(&kernel.platform.vdso(), &**space);
        }
        let present = memory.present(space.host_pid())?;
        memory.write_pages(&**space, &present, &mut pages)?;
        table.push(memory.state);
    }
    state.memories = table;
    for container in &mut state.containers {
        id.clone_into(&mut container.id);
    }
    Ok((state, pages.finish()?))
}

fn clocks(kernel: &Kernel) -> ClockState {
    ClockState {
        monotonic_ns: moat_host::clock::monotonic_ns(),
        boottime_ns: moat_host::clock::boottime_ns(),
        realtime_ns: moat_host::clock::realtime_ns(),
        booted_boottime_ns: kernel.boot_boottime_ns,
        booted_realtime_ns: kernel.boot_realtime_ns,
    }
}
