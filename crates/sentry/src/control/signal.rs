//! Signals to processes of a container, from outside of the sandbox.

use std::sync::Arc;

use moat_abi::Errno;
use moat_abi::siginfo::{SI_USER, SigInfo};
use moat_abi::signal::Signal;
use moat_control::{ControlError, SignalTarget};
use moat_kernel::process::group::ThreadGroup;
use moat_kernel::signal::send::{Origin, Target};
use moat_kernel::spawn::Process;

use crate::container::GuestContainer;

/// Sends signal `number`.
pub(super) fn send(container: &GuestContainer, number: i32, target: SignalTarget) -> Result<(), ControlError> {
    let failed = |errno| ControlError::errno(format!("sending signal {number}"), errno);
    let signal = Signal::new(number).ok_or_else(|| failed(Errno::EINVAL))?;
    let init = matches!(target, SignalTarget::Init | SignalTarget::All | SignalTarget::Foreground)
        || matches!(target, SignalTarget::Process(pid) | SignalTarget::ForegroundOf(pid) if container.init().is_some_and(|init| init.pid() == pid));
    // An init that has not run ends by this alone; others still get a signal that is for all.
    if init && container.abort(signal) && target != SignalTarget::All {
        return Ok(());
    }
    match target {
        SignalTarget::Init => container.init().ok_or(Errno::ESRCH).and_then(|init| init.signal(signal)),
        SignalTarget::Foreground => {
            container.init().ok_or(Errno::ESRCH).and_then(|init| init.signal_foreground(signal))
        }
        SignalTarget::All => {
            for group in container.member.processes.processes() {
                // A process that has ended takes it as well.
                let _ = from_outside(&group, signal);
            }
            Ok(())
        }
        SignalTarget::Process(pid) => process(container, pid).and_then(|group| from_outside(&group, signal)),
        SignalTarget::ForegroundOf(pid) => {
            process(container, pid).and_then(|group| Process::from(group).signal_foreground(signal))
        }
    }
    .map_err(failed)
}

/// The container's process with this number in its pid namespace.
///
/// # Errors
/// ESRCH, also for one of another container that shares the namespace.
pub(super) fn process(container: &GuestContainer, pid: i32) -> Result<Arc<ThreadGroup>, Errno> {
    let group = container.member.processes.kernel().process(&container.member.place.pid_ns, pid).ok_or(Errno::ESRCH)?;
    if Arc::ptr_eq(&group.container, &container.member.processes) { Ok(group) } else { Err(Errno::ESRCH) }
}

fn from_outside(group: &ThreadGroup, signal: Signal) -> Result<(), Errno> {
    group.send(Target::Process, SigInfo::kill(signal, SI_USER, 0, 0), Origin::Outside)
}
