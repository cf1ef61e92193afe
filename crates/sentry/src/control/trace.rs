//! Sessions of security events: made, listed, deleted.

use std::os::fd::OwnedFd;

use moat_control::session::SessionConfig;
use moat_control::spec::{SessionSpec, TraceConflict};
use moat_control::{BootError, ControlError};
use moat_jail::DonatedFiles;
use moat_kernel::Kernel;
use moat_monitor::Session;
use moat_monitor::session::Conflict;

/// Makes a session; its sinks' descriptors are `fds`, in order.
pub(super) fn create(
    kernel: &Kernel,
    config: &SessionConfig,
    conflict: TraceConflict,
    fds: Vec<OwnedFd>,
) -> Result<(), ControlError> {
    let conflict = match conflict {
        TraceConflict::Refuse => Conflict::Refuse,
        TraceConflict::Replace => Conflict::Replace,
    };
    let invalid = |error: moat_monitor::SessionError| ControlError::Invalid(error.to_string());
    let session = Session::new(config, fds).map_err(invalid)?;
    kernel.change_watchers(|kernel| kernel.monitor.add(session, conflict)).map_err(invalid)
}

/// Deletes a session.
pub(super) fn delete(kernel: &Kernel, name: &str) -> Result<(), ControlError> {
    let removed = kernel.change_watchers(|kernel| kernel.monitor.remove(name));
    removed.map_err(|error| ControlError::Invalid(error.to_string()))
}

/// Makes the session that a sandbox has from the start, before anything is there that could be told of.
pub(crate) fn begin(kernel: &Kernel, spec: &SessionSpec, files: &mut DonatedFiles) -> Result<(), BootError> {
    let files = spec.files.iter().map(|fd| files.take(*fd)).collect::<Result<Vec<OwnedFd>, _>>()?;
    create(kernel, &spec.config, TraceConflict::Refuse, files).map_err(|error| BootError::new(error.to_string()))
}
