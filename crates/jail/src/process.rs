//! [`main`]: the frame of a re-executed process, in which every failure is told to its creator.

use std::ffi::{CStr, OsString};
use std::fs::File;

use moat_control::{BootError, StartSync};

use crate::{DonatedFiles, EXIT_FAILURE, StartFlags, logging};

/// Runs `work` as a process called `name` and ends it with the code that it gives. `args` is argv after the command's name.
///
/// An error of `work` is said over the start pipe, or into the panic log when something was said there before.
pub fn main(
    name: &CStr,
    args: impl Iterator<Item = OsString>,
    work: fn(DonatedFiles, &StartFlags, &StartSync) -> Result<u8, BootError>,
) -> ! {
    let _ = rustix::thread::set_name(name);
    let code = match StartFlags::parse(args).and_then(|flags| Ok((claim_files(&flags)?, flags))) {
        Ok((files, flags)) => run(files, &flags, work),
        Err(error) => {
            eprintln!("moat: {error}");
            EXIT_FAILURE
        }
    };
    moat_host::process::exit_now(code)
}

fn claim_files(flags: &StartFlags) -> Result<DonatedFiles, BootError> {
    let first = moat_host::spawn::Donation::FIRST;
    let fds = moat_host::inherited::claim(first, flags.donated)
        .map_err(|e| BootError::host("taking over the donated descriptors", &e))?;
    Ok(DonatedFiles::new(first, fds))
}

fn run(
    mut files: DonatedFiles,
    flags: &StartFlags,
    work: fn(DonatedFiles, &StartFlags, &StartSync) -> Result<u8, BootError>,
) -> i32 {
    let Ok(pipe) = files.take(flags.start_sync_fd) else { return EXIT_FAILURE };
    let start_sync = StartSync::new(pipe);
    if let Ok(panic_log) = files.take(flags.panic_log_fd) {
        logging::install_panic_hook(File::from(panic_log));
    }
    match work(files, flags, &start_sync) {
        Ok(code) => i32::from(code),
        Err(error) => {
            tracing::error!(%error, "the process ends");
            if !start_sync.failed(&error) {
                // Too late for the start pipe: the panic log is what the creator looks at.
                logging::write_panic_log(&error.to_string());
            }
            EXIT_FAILURE
        }
    }
}
