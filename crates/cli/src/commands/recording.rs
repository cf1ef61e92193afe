//! [`Recording`]: what a sandbox writes into a pipe for as long as it is watched.

use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::{self, JoinHandle};

use anyhow::{Context, anyhow};
use moat_profile::capture::{self, Captured};
use moat_profile::trace::{self, Written};
use rustix::pipe::{PipeFlags, pipe_with};

/// A thread that takes in what the sandbox writes, and makes a `T` of it.
pub(super) struct Recording<T> {
    /// "reading a profile"
    doing: &'static str,
    reader: JoinHandle<io::Result<T>>,
}

impl<T: Send + 'static> Recording<T> {
    /// Has `start` give the sandbox the pipe, from whose other end `read` takes everything.
    pub(super) fn begin(
        doing: &'static str,
        start: impl FnOnce(OwnedFd) -> moat_runtime::Result<()>,
        read: impl FnOnce(File) -> io::Result<T> + Send + 'static,
    ) -> anyhow::Result<Recording<T>> {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC).context("making a pipe")?;
        // A sandbox that won't start has closed the pipe: the thread ends then, too.
        let reader = thread::spawn(move || read(File::from(from)));
        start(to)?;
        Ok(Recording { doing, reader })
    }

    /// As [`Recording::begin`], with a new file at `path` that `write` writes.
    fn into_file(
        doing: &'static str,
        path: &Path,
        start: impl FnOnce(OwnedFd) -> moat_runtime::Result<()>,
        write: impl FnOnce(File, BufWriter<File>) -> io::Result<T> + Send + 'static,
    ) -> anyhow::Result<Recording<T>> {
        // Made first: a path that can't be written is no reason to bother the sandbox.
        let file = create(path)?;
        Recording::begin(doing, start, move |from| write(from, file))
    }

    /// Waits until the sandbox has written everything.
    pub(super) fn end(self) -> anyhow::Result<T> {
        let read = self.reader.join().map_err(|_| anyhow!("{} failed", self.doing))?;
        read.context(self.doing)
    }
}

impl Recording<Written> {
    /// A trace, which is written to a file at `path`.
    pub(super) fn trace(
        path: &Path,
        start: impl FnOnce(OwnedFd) -> moat_runtime::Result<()>,
    ) -> anyhow::Result<Recording<Written>> {
        Recording::into_file("writing a trace", path, start, trace::write)
    }

    /// Waits until the trace is whole.
    pub(super) fn end_trace(self) -> anyhow::Result<()> {
        let written = self.end()?;
        if written.dropped > 0 {
            tracing::warn!("{} events of the trace were lost", written.dropped);
        }
        Ok(())
    }
}

impl Recording<Captured> {
    /// The packets of a network, which are written to a file at `path`.
    pub(super) fn capture(
        path: &Path,
        start: impl FnOnce(OwnedFd) -> moat_runtime::Result<()>,
    ) -> anyhow::Result<Recording<Captured>> {
        Recording::into_file("writing packets", path, start, capture::write)
    }

    /// Waits until the file is whole.
    pub(super) fn end_capture(self) -> anyhow::Result<()> {
        let captured = self.end()?;
        if captured.dropped > 0 {
            tracing::warn!("{} packets were not captured", captured.dropped);
        }
        Ok(())
    }
}

/// A new file for what was recorded.
pub(super) fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
    File::create(path).map(BufWriter::new).with_context(|| format!("creating {}", path.display()))
}
