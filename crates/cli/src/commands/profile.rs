//! The profiles of `moat debug`: asked for, read, and written as files for viewers.

use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use moat_control::ProfileKind;
use moat_profile::trace::{self, Written};
use moat_profile::{Profile, flame, pprof};
use moat_runtime::sandbox::Sandbox;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::args::Profiles;

/// A profile under way.
struct Running {
    kind: ProfileKind,
    /// Where it goes, if it is not only drawn.
    file: Option<PathBuf>,
    reader: JoinHandle<io::Result<Profile>>,
}

/// A trace that is being written.
pub(super) struct Tracing(JoinHandle<io::Result<Written>>);

impl Tracing {
    /// Gives the pipe that the sandbox is to write to.
    pub(super) fn begin(path: &Path) -> anyhow::Result<(Tracing, OwnedFd)> {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC).context("making a pipe")?;
        let file = create(path)?;
        Ok((Tracing(thread::spawn(move || trace::write(File::from(from), file))), to))
    }

    /// Waits until the sandbox has written everything.
    pub(super) fn end(self) -> anyhow::Result<()> {
        let written = self.0.join().map_err(|_| anyhow!("writing a trace failed"))?.context("writing a trace")?;
        if written.dropped > 0 {
            tracing::warn!("{} events of the trace were lost", written.dropped);
        }
        Ok(())
    }
}

/// Makes the profiles that the flags ask for.
pub(super) fn run(sandbox: &Sandbox, flags: &Profiles) -> anyhow::Result<()> {
    let wanted = wanted(flags)?;
    if wanted.is_empty() && flags.trace.is_none() {
        return Ok(());
    }
    thread::sleep(flags.delay);
    let mut running = Vec::new();
    // Files are made first: a path that can't be written is no reason to bother the sandbox.
    let traced = flags.trace.as_deref().map(Tracing::begin).transpose()?;
    let traced = match traced {
        Some((tracing, pipe)) => {
            sandbox.start_profile(ProfileKind::Trace, pipe)?;
            Some(tracing)
        }
        None => None,
    };
    for (kind, file) in wanted {
        let (reader, pipe) = reader(kind, flags.symbols.clone())?;
        sandbox.start_profile(kind, pipe)?;
        running.push(Running { kind, file, reader });
    }
    // What tasks do is looked at once.
    if traced.is_some() || running.iter().any(|running| running.kind != ProfileKind::Tasks) {
        thread::sleep(flags.duration);
    }
    // One after the other: each waits until everything has been written.
    for profile in &running {
        sandbox.stop_profile(profile.kind)?;
    }
    if let Some(tracing) = traced {
        sandbox.stop_profile(ProfileKind::Trace)?;
        tracing.end()?;
    }
    let drawn = flags.flamegraph.as_deref();
    running.into_iter().try_for_each(|profile| finish(profile, drawn))
}

/// The kinds of profiles with their files.
fn wanted(flags: &Profiles) -> anyhow::Result<Vec<(ProfileKind, Option<PathBuf>)>> {
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

/// A pipe for a sandbox to write to, and a thread that reads it.
fn reader(kind: ProfileKind, symbols: Option<PathBuf>) -> anyhow::Result<(JoinHandle<io::Result<Profile>>, OwnedFd)> {
    let (from, to) = pipe_with(PipeFlags::CLOEXEC).context("making a pipe")?;
    let reader = thread::spawn(move || Profile::read(kind, File::from(from), symbols));
    Ok((reader, to))
}

fn finish(running: Running, drawn: Option<&Path>) -> anyhow::Result<()> {
    let Running { kind, file, reader } = running;
    let read = reader.join().map_err(|_| anyhow!("reading a profile failed"))?;
    let profile = read.context("reading a profile")?;
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

fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
    File::create(path).map(BufWriter::new).with_context(|| format!("creating {}", path.display()))
}
