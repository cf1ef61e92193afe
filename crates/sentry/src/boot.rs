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
mod flags;
mod isolation;
pub mod seccomp;

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use moat_control::spec::{Lifetime, MAX_SPEC_BYTES};
use moat_control::{BootError, Connection, SandboxSpec, StartSync};

pub use args::{BootArgs, DonatedFiles};
pub use flags::BootFlags;
use moat_jail::{EXIT_FAILURE, logging, privileges};

/// `argv[0]` of the sandbox process.
pub const PROCESS_NAME: &str = "moat-sandbox";

/// Runs the sandbox process. `args` is argv after "boot".
pub fn main(args: impl Iterator<Item = OsString>) -> ! {
    let _ = rustix::thread::set_name(c"moat-sandbox");
    let code = match BootFlags::parse(args).and_then(|flags| Ok((claim_files(&flags)?, flags))) {
        Ok((files, flags)) => run(files, &flags),
        Err(error) => {
            eprintln!("moat boot: {error}");
            EXIT_FAILURE
        }
    };
    moat_host::process::exit_now(code)
}

fn claim_files(flags: &BootFlags) -> Result<DonatedFiles, BootError> {
    let first = moat_host::spawn::Donation::FIRST;
    let fds = moat_host::inherited::claim(first, flags.donated)
        .map_err(|e| BootError::host("taking over the donated descriptors", &e))?;
    Ok(DonatedFiles::new(first, fds))
}

fn run(mut files: DonatedFiles, flags: &BootFlags) -> i32 {
    let Ok(pipe) = files.take(flags.start_sync_fd) else { return EXIT_FAILURE };
    let start_sync = StartSync::new(pipe);
    if let Ok(panic_log) = files.take(flags.panic_log_fd) {
        logging::install_panic_hook(File::from(panic_log));
    }
    match boot_and_serve(files, flags, &start_sync) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "the sandbox ends");
            if !start_sync.failed(&error) {
                // Too late for the start pipe: the panic log is what the creator looks at.
                logging::write_panic_log(&error.to_string());
            }
            EXIT_FAILURE
        }
    }
}

fn boot_and_serve(mut files: DonatedFiles, flags: &BootFlags, start_sync: &StartSync) -> Result<(), BootError> {
    let mut spec = read_spec(files.take(flags.spec_fd)?)?;
    if let Some(fd) = spec.fds.debug_log {
        logging::start(&spec.logging, File::from(files.take(fd)?));
    }
    if spec.logging.debug {
        logging::load_symbols();
    }
    tracing::debug!(id = spec.container.id, "booting");
    let proc_dir = isolation::enter(&mut spec, &mut files, flags.trees)?;
    privileges::drop_all_but(flags.identity, privileges::DIRECT_FILE_ACCESS)?;
    if spec.lifetime == Lifetime::Attached {
        privileges::die_with_parent()?;
    }
    let status = File::from(files.take(spec.fds.status)?);
    let control = Connection::new(files.take(spec.fds.control)?);
    tracing::debug!("isolated");

    let args = BootArgs { spec, files, control, start_sync: start_sync.clone(), proc_dir };
    let exit = crate::kernel_main(args)?;
    tracing::debug!(?exit, "the guest's init has ended");
    // If nobody waits for the status there is nobody to tell.
    let _ = exit.write_to(status);
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
