//! What the re-executed `moat boot` process does before the guest's kernel exists.
//!
//! It takes over its donated descriptors, reads the [`SandboxSpec`], shuts itself into an empty read-only root
//! ([`isolation`]), gives up what it does not need ([`moat_jail::privileges`]) and calls [`crate::kernel_main`]. Whatever
//! fails is said over the start pipe.
//!
//! # Invariants
//! - One thread until `kernel_main`: credentials and capabilities are per-thread on Linux.
//! - No host path is opened after [`isolation::enter`]: files are reached from donated descriptors only.

mod args;
mod isolation;
pub mod seccomp;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use moat_control::spec::{ClockSpec, FileAccess, Lifetime, MAX_SPEC_BYTES, NetworkMode, NetworkOrigin};
use moat_control::start::STEPS;
use moat_control::{BootError, Connection, Listener, SandboxSpec, StartSync};
use moat_host::clock::namespace;
use moat_jail::startup::StartupTimes;
use moat_jail::{DonatedFiles, StartFds, logging, privileges};

pub use args::BootArgs;

/// `argv[0]` of the sandbox process.
pub const PROCESS_NAME: &str = "moat-sandbox";

/// Runs the sandbox process. `args` is argv after "boot".
pub fn main(args: impl Iterator<Item = OsString>) -> ! {
    moat_jail::process::main(c"moat-sandbox", args, boot_and_serve)
}

fn boot_and_serve(mut files: DonatedFiles, fds: &StartFds, start_sync: &StartSync) -> Result<u8, BootError> {
    logging::report_more(moat_kernel::task::recent::report);
    let mut spec = read_spec(files.take(fds.spec)?)?;
    // The host's /proc is still there, and only one thread.
    let clocks = go_on(&mut spec);
    start_logging(&spec, &mut files)?;
    if let Err(error) = clocks {
        tracing::warn!(%error, "the monotonic clock does not go on from the image's");
    }
    tracing::info!(target: STEPS, "its description is read");
    if spec.logging.debug {
        logging::load_symbols();
    }
    tracing::debug!(id = spec.container.id, "booting");
    if spec.network == NetworkMode::Host {
        // While the host's /proc is still there.
        moat_net_host::ports::read_host_limit();
        if spec.jail.network == NetworkOrigin::New {
            moat_host::net::bring_loopback_up().map_err(|errno| {
                BootError::host("bringing the loopback device up", &io::Error::from_raw_os_error(errno.raw()))
            })?;
        }
    }
    // Mounting takes privileges, which go next.
    isolation::enter(&mut spec, &mut files)?;
    let capabilities = match spec.files {
        FileAccess::Direct => privileges::DIRECT_FILE_ACCESS,
        FileAccess::Gofer => privileges::NONE,
    };
    privileges::drop_all_but(spec.jail.run_as, capabilities | privileges::over_network(&spec.jail))?;
    if spec.lifetime == Lifetime::Attached {
        privileges::die_with_parent()?;
    }
    let status = File::from(files.take(spec.fds.status)?);
    let control = Connection::new(files.take(spec.fds.control)?);
    let listener = match spec.fds.listener {
        Some(fd) => Some(Listener::new(files.take(fd)?)),
        None => None,
    };
    tracing::debug!("isolated");
    tracing::info!(target: STEPS, "shut in, without privileges");

    let args = BootArgs { spec, files, control, listener, start_sync: start_sync.clone() };
    let exit = crate::kernel_main(args)?;
    tracing::debug!(?exit, "the guest's init has ended");
    // If nobody waits for the status there is nobody to tell.
    let _ = exit.write_to(status);
    // A shim that has become the parent takes it for the container's.
    Ok(exit.shell_code())
}

/// Has the clocks go on from those of the image, if there is one that says so. Without time namespaces they are the host's.
fn go_on(spec: &mut SandboxSpec) -> io::Result<()> {
    let Some(image) = &mut spec.container.restore else { return Ok(()) };
    let Some(ClockSpec { monotonic_ns, boottime_ns, .. }) = image.clocks else { return Ok(()) };
    let change = namespace::go_on_from(monotonic_ns, boottime_ns).inspect_err(|_| image.clocks = None)?;
    // Steps are counted from a time of the clock of before.
    let shifted = |ns| i128::from(ns).saturating_add(change).try_into().unwrap_or(0);
    spec.logging.startup_began_ns = spec.logging.startup_began_ns.map(shifted);
    Ok(())
}

fn start_logging(spec: &SandboxSpec, files: &mut DonatedFiles) -> Result<(), BootError> {
    let steps = match (spec.fds.startup_log, spec.logging.startup_began_ns) {
        (Some(fd), Some(began_ns)) => Some(StartupTimes::new(PROCESS_NAME, began_ns, File::from(files.take(fd)?))),
        _ => None,
    };
    match (spec.fds.debug_log, steps) {
        (Some(fd), steps) => logging::start(&spec.logging, File::from(files.take(fd)?), steps),
        (None, Some(steps)) => logging::start_with_steps(steps),
        (None, None) => {}
    }
    Ok(())
}

fn read_spec(fd: OwnedFd) -> Result<SandboxSpec, BootError> {
    let mut bytes = Vec::new();
    File::from(fd)
        .take(MAX_SPEC_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|e| BootError::host("reading the sandbox spec", &e))?;
    SandboxSpec::decode(&bytes).map_err(|e| BootError::new(e.to_string()))
}
