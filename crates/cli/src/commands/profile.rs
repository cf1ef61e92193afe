//! The profiles of `moat debug` and `moat do`: asked for, read, and written as files for viewers.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use moat_control::ProfileKind;
use moat_profile::{Profile, flame, pprof};
use moat_runtime::sandbox::Sandbox;

use super::recording::{Recording, create};
use crate::args::{ProfileFiles, Profiles};

/// A profile under way.
struct Running {
    kind: ProfileKind,
    /// Where it goes, if it is not only drawn.
    file: Option<PathBuf>,
    recording: Recording<Profile>,
}

/// The profiles under way that a command was asked for.
pub(super) struct Session {
    running: Vec<Running>,
    drawn: Option<PathBuf>,
}

impl Session {
    /// Begins those that the flags ask for; `start` tells the sandbox of one.
    pub(super) fn begin(
        flags: &ProfileFiles,
        start: impl Fn(ProfileKind, OwnedFd) -> moat_runtime::Result<()>,
    ) -> anyhow::Result<Session> {
        let mut running = Vec::new();
        for (kind, file) in wanted(flags)? {
            let symbols = flags.symbols.clone();
            let recording = Recording::begin(
                "reading a profile",
                |pipe| start(kind, pipe),
                move |from| Profile::read(kind, from, symbols),
            )?;
            running.push(Running { kind, file, recording });
        }
        Ok(Session { running, drawn: flags.flamegraph.clone() })
    }

    fn kinds(&self) -> impl Iterator<Item = ProfileKind> + '_ {
        self.running.iter().map(|running| running.kind)
    }

    /// Writes them. The sandbox has been told to end them, or has ended.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let drawn = self.drawn.as_deref();
        self.running.into_iter().try_for_each(|profile| finish(profile, drawn))
    }
}

/// Makes the profiles that the flags ask for.
pub(super) fn run(sandbox: &Sandbox, flags: &Profiles) -> anyhow::Result<()> {
    if wanted(&flags.files)?.is_empty() && flags.trace.is_none() && flags.pcap.is_none() {
        return Ok(());
    }
    thread::sleep(flags.delay);
    let start = |kind, pipe| sandbox.start_profile(kind, pipe);
    let tracing = flags.trace.as_deref().map(|path| Recording::trace(path, |pipe| start(ProfileKind::Trace, pipe)));
    let tracing = tracing.transpose()?;
    let capture = flags.pcap.as_deref().map(|path| Recording::capture(path, |pipe| start(ProfileKind::Packets, pipe)));
    let capture = capture.transpose()?;
    let session = Session::begin(&flags.files, start)?;
    // What tasks do is looked at once.
    if tracing.is_some() || capture.is_some() || session.kinds().any(|kind| kind != ProfileKind::Tasks) {
        thread::sleep(flags.duration);
    }
    // One after the other: each waits until everything has been written.
    session.kinds().try_for_each(|kind| sandbox.stop_profile(kind))?;
    if let Some(tracing) = tracing {
        sandbox.stop_profile(ProfileKind::Trace)?;
        tracing.end_trace()?;
    }
    if let Some(capture) = capture {
        sandbox.stop_profile(ProfileKind::Packets)?;
        capture.end_capture()?;
    }
    session.finish()
}

/// The kinds of profiles with their files.
fn wanted(flags: &ProfileFiles) -> anyhow::Result<Vec<(ProfileKind, Option<PathBuf>)>> {
    let files = [
        (ProfileKind::Cpu, &flags.profile_cpu),
        (ProfileKind::Heap, &flags.profile_heap),
        (ProfileKind::Tasks, &flags.profile_tasks),
        (ProfileKind::Block, &flags.profile_block),
        (ProfileKind::Mutex, &flags.profile_mutex),
    ];
    let mut wanted: Vec<_> = files.into_iter().filter_map(|(kind, file)| Some((kind, Some(file.clone()?)))).collect();
    match (flags.flamegraph.is_some(), wanted.len()) {
        (true, 0) => wanted.push((ProfileKind::Cpu, None)),
        (true, 2..) => bail!("--flamegraph draws one profile, and several are asked for"),
        _ => {}
    }
    Ok(wanted)
}

fn finish(running: Running, drawn: Option<&Path>) -> anyhow::Result<()> {
    let Running { kind, file, recording } = running;
    let profile = recording.end()?;
    // The rest is right, only less of it.
    if profile.dropped > 0 {
        tracing::warn!("{} samples of {kind:?} were lost", profile.dropped);
    }
    if let Some(path) = &file {
        let to = create(path)?;
        pprof::write(&profile, to).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(path) = drawn {
        if profile.stacks.is_empty() {
            bail!("nothing was seen: there is no flame graph to draw");
        }
        let title = format!("{kind:?}, {:.1} s", Duration::from_nanos(profile.duration_ns).as_secs_f64());
        let to = create(path)?;
        flame::write(&profile, &title, to).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
