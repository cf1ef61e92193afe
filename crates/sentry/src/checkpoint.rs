//! Saving a sandbox: survey, freeze, walk, pages, header.

mod together;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use moat_control::ControlError;
use moat_control::protocol::{AfterCheckpoint, PageCompression};
use moat_fs_mqueue::NamespaceQueues;
use moat_identity::{IpcNamespace, Namespaces, NetNamespace};
use moat_image::ClockState;
use moat_image::directory::{self, Image, ImageFiles};
use moat_image::header::Header;
use moat_image::pages::{Base, PagesWriter};
use moat_image::{Compression, ImageError, Refusal, SandboxState};
use moat_kernel::Kernel;
use moat_kernel::checkpoint::{self, Configured, KnownProcesses, Saved};
use moat_kernel::process::container::{MemoryCopy, SaveMemory};
use moat_mm::{Changes, MemoryManager, Precopy, Present, SavedMemory, WhichPages};
use moat_net_inet::links::{LinkState, add_loopback};
use moat_net_inet::shape::loopback_alone;
use moat_sync::block_in_place;
use moat_vfs::persist::{OwnNamespaces, SaveFiles, SavedContainer, SavedNamespaces, Saver};

use crate::container::GuestContainer;
use crate::registry::Registry;
use together::Together;

/// Saves the sandbox, by its root container, into the files `state` and `pages`.
///
/// # Errors
/// What can't be saved: the containers then go on as they did. What the host refuses.
pub(crate) async fn save(
    registry: &Registry,
    container: &GuestContainer,
    then: AfterCheckpoint,
    compression: PageCompression,
    fds: Vec<OwnedFd>,
) -> Result<(), ControlError> {
    let mut files = fds.into_iter().map(File::from);
    let (Some(state), Some(pages)) = (files.next(), files.next()) else {
        return Err(ControlError::Invalid("a checkpoint takes two files".into()));
    };
    if !std::ptr::eq(container, &**registry.root()) {
        return Err(ControlError::CantSave(
            "a container in the sandbox of another one can't be saved without that one".into(),
        ));
    }
    // One after the other: tasks say once what they know.
    let _saving = container.saving.lock().await;
    let together = Together::of(registry)?;
    let refused = |refusal: Refusal| ControlError::CantSave(refusal.to_string());
    let (configured, known) = (together.configured(), together.known()?);
    // While everything runs: what can't be saved costs the containers nothing.
    let surveyed = saver(&together, None).and_then(|saver| checkpoint::survey(&configured, &known, saver));
    surveyed.map_err(refused)?;
    container.refuse_changed_network().map_err(refused)?;
    // Looked through while everything runs, too: it may be as large as the sandbox.
    let base = match (files.next(), files.next()) {
        (Some(state), Some(pages)) => Some(ImageFiles { state, pages, bases: files.collect() }),
        _ => None,
    };
    let base = base.map(|files| block_in_place(|| Base::new(Image::read(files)?))).transpose();
    let base = base.map_err(|e: ImageError| ControlError::Invalid(format!("the base: {e}")))?;
    let mut output = Output::new(pages, format_of(compression), base)?;
    let goes_on = then == AfterCheckpoint::GoOn;
    // What is not done while it runs has to be done while it does not.
    if goes_on && output.pages.is_plain() {
        output.ahead = copy_ahead(&together, &mut output.pages).await?;
    }
    // Who has paused one decides when it goes on, but not before it is saved.
    let turns = together.turns().await;
    let stopped = Instant::now();
    let frozen = together.freeze().await?;
    // A copy pays where a container is to go on; one that is paused, or is about to end, has the time.
    let but = output.ahead.iter().filter(|ahead| ahead.has_caught_up()).map(|ahead| ahead.memory().id());
    let memory = if goes_on { SaveMemory::Copied { but: but.collect() } } else { SaveMemory::Still };
    let walked = match together.begin_save(&frozen, memory).await {
        Ok(()) => block_in_place(|| walk(&together, &configured, &known, output)),
        Err(what) => Err(ControlError::CantSave(what)),
    };
    together.end_save();
    // From here on pages come from copies, if there are any, and all else is in memory.
    if walked.is_err() || goes_on {
        frozen.thaw();
        drop(turns);
        tracing::debug!(us = u64::try_from(stopped.elapsed().as_micros()).unwrap_or(u64::MAX), "saved and running");
    }
    let walked = walked?;
    let written = block_in_place(|| walked.finish(container, &state));
    if written.is_err() {
        frozen.thaw();
    }
    written.map_err(|e| ControlError::Invalid(e.to_string()))
}

/// Writes what there is much of while the container runs. It stands still for a moment, in which its threads see to it that what they
/// write to from then on is known.
async fn copy_ahead(together: &Together, pages: &mut PagesWriter) -> Result<Vec<Precopy>, ControlError> {
    let turns = together.turns().await;
    if !together.is_worth_watching() {
        return Ok(Vec::new());
    }
    let stopped = Instant::now();
    let frozen = together.freeze().await?;
    let begun = together.begin_save(&frozen, SaveMemory::Watched).await;
    let watches = together.take_copies();
    together.end_save();
    frozen.thaw();
    drop(turns);
    tracing::debug!(
        us = u64::try_from(stopped.elapsed().as_micros()).unwrap_or(u64::MAX),
        watches = watches.len(),
        "watched"
    );
    begun.map_err(ControlError::CantSave)?;
    let watches = watches.into_iter().filter_map(MemoryCopy::into_watch);
    let copied: Result<Vec<_>, _> =
        block_in_place(|| watches.map(|(mm, watch)| Precopy::begin(mm, watch, pages)).collect());
    copied.map_err(|e: ImageError| ControlError::Invalid(e.to_string()))
}

/// Where pages go, and what is there already.
struct Output {
    pages: PagesWriter,
    id: [u8; 16],
    ahead: Vec<Precopy>,
}

impl Output {
    fn new(pages: File, compression: Compression, base: Option<Base>) -> Result<Output, ControlError> {
        let mut id = [0; 16];
        moat_host::random::fill(&mut id);
        let pages = PagesWriter::new(pages, id).map_err(|e| ControlError::Invalid(e.to_string()))?;
        Ok(Output { pages: pages.compressed(compression).based_on(base), id, ahead: Vec::new() })
    }
}

fn format_of(compression: PageCompression) -> Compression {
    match compression {
        PageCompression::None => Compression::None,
        PageCompression::Lz4 => Compression::Lz4,
        PageCompression::Zstd => Compression::Zstd,
    }
}

fn saver(together: &Together, pages: Option<PagesWriter>) -> Result<Saver, Refusal> {
    // Of all of them: mounts that are gone, or have come, would be as they were before.
    together.all().iter().try_for_each(|container| container.refuse_changed_mounts())?;
    let container = together.root();
    let (place, mounts) = (&container.member.place, container.member.fs.namespace.clone());
    let kernel = container.member.processes.kernel();
    let own = |c: &Arc<GuestContainer>| OwnNamespaces {
        namespaces: c.member.place.namespaces.clone(),
        pids: c.member.place.pid_ns.clone(),
        mounts: c.member.fs.namespace.id(),
    };
    let later = together.later().map(own).collect();
    let known = SavedNamespaces::new(own(container), later, mounts.user_ns().clone(), kernel.root_pid_ns.clone());
    let saved =
        |c: &Arc<GuestContainer>| SavedContainer { namespace: c.member.fs.namespace.clone(), donated: c.donated() };
    let mut saver = Saver::new(together.all().iter().map(saved).collect(), known, pages);
    // Queues are in their namespace, whether anything has them open or a mount shows them.
    let tables = kernel.vfs.tables();
    let queues = |ipc: &IpcNamespace| NamespaceQueues::of(tables, ipc).fs.clone();
    // One that containers share is the first one's, since its queues have names by then.
    for (index, container) in (0..).zip(together.all()) {
        saver.namespaces().enter(index);
        queues(&container.member.place.namespaces.ipc).save_queues(None, &mut saver);
    }
    // What their processes have, the walk meets; what they keep besides, it does not.
    saver.namespaces().enter(0);
    let (ipcs, nets) = checkpoint::kept_apart(&together.configured());
    for ipc in ipcs {
        let new = IpcNamespace::new(0, ipc.user_ns.clone());
        let settings = container.settings_besides(
            Namespaces { ipc: ipc.clone(), ..(*place.namespaces).clone() },
            Namespaces { ipc: new, ..(*place.namespaces).clone() },
        );
        let name = saver.namespaces().add_ipc(&ipc, settings)?;
        queues(&ipc).save_queues(name, &mut saver);
    }
    for net in nets {
        // Links, addresses and routes would be lost in silence.
        let what = "what was set up in a network namespace of the guest's own";
        let loopback = loopback_alone(&net).ok_or_else(|| Refusal::new(what))?;
        let new = NetNamespace::new(0, net.user_ns.clone());
        add_loopback(&new, LinkState::Down);
        let settings = container.settings_besides(
            Namespaces { net: net.clone(), ..(*place.namespaces).clone() },
            Namespaces { net: new, ..(*place.namespaces).clone() },
        );
        saver.namespaces().add_net(&net, loopback == LinkState::Up, settings)?;
    }
    Ok(saver)
}

/// What is known of a container while all its tasks are at rest, and memory that has yet to be written.
struct Walked {
    state: SandboxState,
    pages: PagesWriter,
    memories: Vec<Left>,
    id: [u8; 16],
    /// The processes that the copies are in.
    _copies: Vec<MemoryCopy>,
}

/// What is yet to be written of an address space.
struct Left {
    memory: SavedMemory,
    present: Present,
    copy: Option<Arc<MemoryManager>>,
    /// What was written before it stood still, and has changed since.
    ahead: Option<(Precopy, Changes)>,
}

/// Saves a container whose tasks are all at rest; of its memory what no copy has.
fn walk(
    together: &Together,
    configured: &[Configured],
    known: &[KnownProcesses],
    output: Output,
) -> Result<Walked, ControlError> {
    let failed = |e: ImageError| ControlError::Invalid(e.to_string());
    let Output { pages, id, ahead } = output;
    let refused = |refusal: Refusal| ControlError::CantSave(refusal.to_string());
    // It may have changed since the survey.
    together.root().refuse_changed_network().map_err(refused)?;
    let saved = saver(together, Some(pages)).and_then(|saver| checkpoint::save(configured, known, saver));
    let saved = saved.map_err(refused)?;
    let copies = together.take_copies();
    begin_pages(together, saved, copies, ahead, id).map_err(failed)
}

fn begin_pages(
    together: &Together,
    saved: Saved,
    copies: Vec<MemoryCopy>,
    mut ahead: Vec<Precopy>,
    id: [u8; 16],
) -> Result<Walked, ImageError> {
    let kernel = together.root().member.processes.kernel();
    let Saved { mut state, memories, pages } = saved;
    let mut pages = pages.ok_or_else(|| ImageError::Unfit("nowhere to write pages to".into()))?;
    state.clocks = clocks(kernel);
    for (saved, container) in state.containers.iter_mut().zip(together.all()) {
        container.id.clone_into(&mut saved.id);
        container.name.clone_into(&mut saved.name);
        saved.settings = container.changed_settings();
    }
    let mut left = Vec::new();
    for (mm, mut memory) in memories {
        let space = mm.space();
        if left.is_empty() {
            state.vdso = checkpoint::vdso(&kernel.platform.vdso(), &**space);
        }
        let copy = copies.iter().find_map(|copy| copy.of(&mm)).cloned();
        let ahead = ahead.iter().position(|ahead| Arc::ptr_eq(ahead.memory(), &mm)).map(|at| ahead.swap_remove(at));
        // Of the original, in which nothing changes before it goes on; the copy was made of the same pages.
        let (present, ahead) = match ahead {
            None => (memory.present(space.host_pid())?, None),
            Some(ahead) => {
                let changes = ahead.stop(&memory, copy.is_some())?;
                (memory.present_besides(space.host_pid())?, Some((ahead, changes)))
            }
        };
        let now = if copy.is_some() { WhichPages::NotInherited } else { WhichPages::All };
        memory.write_pages(&**space, &present, now, &mut pages)?;
        left.push(Left { memory, present, copy, ahead });
    }
    Ok(Walked { state, pages, memories: left, id, _copies: copies })
}

impl Walked {
    /// Writes what is left, and the state.
    fn finish(mut self, container: &GuestContainer, file: &File) -> Result<(), ImageError> {
        // First of all: as long as they are watched, what runs again pays for each page that it writes to.
        self.memories.iter_mut().filter_map(|left| left.ahead.as_mut()).for_each(|(ahead, _)| ahead.end_watch());
        let ahead = self.memories.iter().filter(|left| left.ahead.is_some()).count();
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        for Left { mut memory, present, copy, ahead } in self.memories {
            if let Some((ahead, changes)) = ahead {
                let copied = copy.as_ref().map(|copy| &**copy.space());
                let segments = ahead.finish(changes, copied, &memory, &mut self.pages)?;
                memory.add_segments(segments);
            }
            // A copy of the address space was made when the tasks were at rest: they run again, and change their own.
            if let Some(copy) = copy {
                memory.write_pages(&**copy.space(), &present, WhichPages::Inherited, &mut self.pages)?;
            }
            self.state.memories.push(memory.state);
        }
        let created_s = i64::try_from(self.state.clocks.realtime_ns / 1_000_000_000).unwrap_or(i64::MAX);
        let header = Header {
            version: env!("CARGO_PKG_VERSION").into(),
            id: self.id,
            created_s,
            clocks: Some(self.state.clocks),
            cpu_features: moat_host::cpu_features::features(),
            platform: container.member.processes.kernel().platform.name().into(),
            compression: self.pages.compression(),
            ahead,
            bases: self.pages.chain(),
            pages_len: self.pages.finish()?,
            sections: Vec::new(),
        };
        directory::write_state(file, header, &self.state)
    }
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
