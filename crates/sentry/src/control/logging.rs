//! What is logged, and changing it while the sandbox runs.

use std::fs::File;
use std::os::fd::OwnedFd;

use moat_abi::nr;
use moat_control::ControlError;
use moat_control::protocol::StraceCalls;
use moat_control::spec::LogSpec;
use moat_jail::logging;
use moat_kernel::Kernel;
use moat_kernel::strace::{Strace, Whose};

use super::signal;
use crate::container::GuestContainer;

/// Highest number of a system call, plus one.
const CALLS: u32 = 1024;

/// Which system calls `spec` wants logged.
///
/// # Errors
/// A name that no system call has.
pub(crate) fn strace(spec: &LogSpec) -> Result<Strace, String> {
    match (spec.strace, &spec.strace_syscalls[..]) {
        (false, _) => Ok(Strace::Off),
        (true, []) => Ok(Strace::All),
        (true, names) => only(names),
    }
}

fn only(names: &[String]) -> Result<Strace, String> {
    let number = |name: &String| {
        let found = (0..CALLS).find(|n| nr::name(*n) == Some(name.as_str()));
        found.ok_or_else(|| format!("--strace-syscalls: no system call is named {name:?}"))
    };
    names.iter().map(number).collect::<Result<_, _>>().map(Strace::Only)
}

/// Changes what is logged, and where if a descriptor came along.
pub(super) fn change(kernel: &Kernel, spec: &LogSpec, fds: Vec<OwnedFd>) -> Result<(), ControlError> {
    // Checked before anything is changed.
    let which = strace(spec).map_err(ControlError::Invalid)?;
    match fds.into_iter().next() {
        Some(file) => logging::start(spec, File::from(file), None),
        None if !logging::set_level(spec) => {
            return Err(ControlError::Invalid("the sandbox was started without a debug log".into()));
        }
        None => {}
    }
    kernel.change_watchers(|kernel| kernel.strace.set(Whose::All, which, |_| true));
    Ok(())
}

/// Changes which calls of a container, or of one of its processes, are logged, and where everything is if a descriptor came along.
pub(super) fn change_strace(
    container: &GuestContainer,
    pid: Option<i32>,
    calls: &StraceCalls,
    fds: Vec<OwnedFd>,
) -> Result<(), ControlError> {
    let which = match calls {
        StraceCalls::Off => Strace::Off,
        StraceCalls::All => Strace::All,
        StraceCalls::Only(names) => only(names).map_err(ControlError::Invalid)?,
    };
    // By the process itself, not by its number, which another may have later.
    let whose = match pid {
        None => Whose::Container(container.id.clone()),
        Some(pid) => {
            let group = signal::process(container, pid);
            let group = group.map_err(|errno| ControlError::errno(format!("looking for process {pid}"), errno))?;
            Whose::Process(group.id)
        }
    };
    match fds.into_iter().next() {
        Some(file) => logging::start(&LogSpec::default(), File::from(file), None),
        None if !logging::is_started() && which != Strace::Off => {
            let why = "the sandbox has no debug log: say where one is to be, --debug-log=FILE";
            return Err(ControlError::Invalid(why.into()));
        }
        None => {}
    }
    let kernel = container.member.processes.kernel();
    kernel.change_watchers(|kernel| kernel.strace.set(whose, which, |process| kernel.is_alive(process)));
    Ok(())
}
