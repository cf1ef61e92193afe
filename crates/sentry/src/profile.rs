//! Profiles: what [`Request::StartProfile`](moat_control::Request::StartProfile) asks for.
//!
//! A [`Source`] knows how to see something; [`recorder`] has a thread for each profile under way, which writes what was seen to the
//! pipe that came with the request. Nothing waits for that thread: what it does not take in time is dropped, and counted.

mod guest_cpu;
mod heap;
mod mutex;
mod packets;
mod recorder;
mod sentry_cpu;
mod tasks;
mod times;
mod trace;
mod waits;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_control::profile::{Module, Record, Space};
use moat_control::{ControlError, ProfileKind};

use crate::registry::Registry;

use recorder::Output;
pub(crate) use recorder::Recorders;

/// Something that can be seen for a time.
trait Source: Send {
    /// Begins to look.
    fn start(&mut self) -> moat_abi::Result<()>;

    /// Writes what has been seen since the last call.
    fn collect(&mut self, to: &mut Output) -> io::Result<()>;

    /// Ends the looking, writes the rest, and gives how much was lost. Called once, whatever happened before.
    fn finish(&mut self, to: &mut Output) -> io::Result<u64>;
}

/// Begins a profile.
pub(crate) fn start(
    recorders: &Arc<Recorders>,
    registry: &Arc<Registry>,
    kind: ProfileKind,
    fds: Vec<OwnedFd>,
) -> Result<(), ControlError> {
    let source: Box<dyn Source> = match kind {
        ProfileKind::Cpu => Box::new(sentry_cpu::Cpu::new(registry.clone())),
        ProfileKind::Heap => Box::new(heap::Heap),
        ProfileKind::Tasks => Box::new(tasks::Tasks::new(registry.clone())),
        ProfileKind::Block => Box::new(waits::Waits(registry.clone())),
        ProfileKind::Mutex => Box::new(mutex::Locks),
        ProfileKind::Trace => Box::new(trace::Trace::new(registry.clone())),
        ProfileKind::Times => Box::new(times::Times::new(registry.clone())),
        ProfileKind::Packets => Box::new(packets::Packets::new(registry)?),
    };
    let Some(pipe) = fds.into_iter().next() else {
        return Err(ControlError::Invalid("a profile without a pipe to write it to".into()));
    };
    recorders.start(kind, source, pipe)
}

/// The programs and libraries of the sandbox process.
fn write_own_modules(to: &mut Output) -> io::Result<()> {
    for module in moat_host::sampling::modules::own() {
        let moat_host::sampling::modules::Module { path, bias, start, end, build_id } = module;
        to.write(&Record::Module(Module { space: Space::Sentry, path, bias, start, end, build_id, file: None }))?;
    }
    Ok(())
}
