//! What is logged, and changing it while the sandbox runs.

use std::fs::File;
use std::os::fd::OwnedFd;

use moat_abi::nr;
use moat_control::ControlError;
use moat_control::spec::LogSpec;
use moat_jail::logging;
use moat_kernel::Kernel;
use moat_kernel::kernel::Strace;

/// Highest number of a system call, plus one.
const CALLS: u32 = 1024;

/// Which system calls `spec` wants logged.
///
/// # Errors
/// A name that no system call has.
pub(crate) fn strace(spec: &LogSpec) -> Result<Strace, String> {
    if !spec.strace {
        return Ok(Strace::Off);
    }
    if spec.strace_syscalls.is_empty() {
        return Ok(Strace::All);
    }
    let number = |name: &String| {
        let found = (0..CALLS).find(|n| nr::name(*n) == Some(name.as_str()));
        found.ok_or_else(|| format!("--strace-syscalls: no system call is named {name:?}"))
    };
    spec.strace_syscalls.iter().map(number).collect::<Result<_, _>>().map(Strace::Only)
}

/// Changes what is logged, and where if a descriptor came along.
pub(super) fn change(kernel: &Kernel, spec: &LogSpec, fds: Vec<OwnedFd>) -> Result<(), ControlError> {
    // Checked before anything is changed.
    let which = strace(spec).map_err(ControlError::Invalid)?;
    match fds.into_iter().next() {
        Some(file) => logging::start(spec, File::from(file)),
        None if !logging::set_level(spec) => {
            return Err(ControlError::Invalid("the sandbox was started without a debug log".into()));
        }
        None => {}
    }
    kernel.strace.set(which);
    Ok(())
}
