//! [`main`]: the frame of a re-executed process, in which every failure is told to its creator.

use std::ffi::{CStr, OsString};
use std::fs::File;

use moat_control::spec::FdNumber;
use moat_control::{BootError, StartSync};

use crate::{DonatedFiles, EXIT_FAILURE, logging};

/// The descriptors that a process needs first, by number: what its command line says. Only `moat-runtime` makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFds {
    /// How many descriptors are donated, from 3 on.
    donated: usize,
    /// The encoded spec of what to do, which names the others.
    pub spec: FdNumber,
    /// Write end of the start pipe.
    start_sync: FdNumber,
    /// Where the last words go.
    panic_log: FdNumber,
}

impl StartFds {
    /// Parses argv after the command's name; the last argument is the container's id and is there for ps(1) only.
    ///
    /// # Errors
    /// An unknown flag, a missing one or a malformed number.
    pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Self, BootError> {
        let mut fds = StartFds { donated: 0, spec: -1, start_sync: -1, panic_log: -1 };
        for arg in args {
            let arg = arg.into_string().map_err(|_| BootError::new("a flag is not UTF-8"))?;
            let Some((name, value)) = arg.strip_prefix("--").and_then(|flag| flag.split_once('=')) else { continue };
            match name {
                "donated" => fds.donated = number(name, value)?,
                "spec-fd" => fds.spec = number(name, value)?,
                "start-sync-fd" => fds.start_sync = number(name, value)?,
                "panic-log-fd" => fds.panic_log = number(name, value)?,
                _ => return Err(BootError::new(format!("unknown flag {arg:?}"))),
            }
        }
        if fds.spec < 0 || fds.start_sync < 0 || fds.panic_log < 0 {
            return Err(BootError::new("this is an internal command: it is started by the others"));
        }
        Ok(fds)
    }

    fn claim(&self) -> Result<DonatedFiles, BootError> {
        let first = moat_host::spawn::Donation::FIRST;
        let fds = moat_host::inherited::claim(first, self.donated)
            .map_err(|e| BootError::host("taking over the donated descriptors", &e))?;
        Ok(DonatedFiles::new(first, fds))
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, BootError> {
    value.parse().map_err(|_| BootError::new(format!("--{name}={value} is not a number")))
}

/// Runs `work` as a process called `name` and ends it with the code that it gives. `args` is argv after the command's name.
///
/// An error of `work` is said over the start pipe, or into the panic log when something was said there before.
pub fn main(
    name: &CStr,
    args: impl Iterator<Item = OsString>,
    work: fn(DonatedFiles, &StartFds, &StartSync) -> Result<u8, BootError>,
) -> ! {
    let _ = rustix::thread::set_name(name);
    let code = match StartFds::parse(args).and_then(|fds| Ok((fds.claim()?, fds))) {
        Ok((files, fds)) => run(files, &fds, work),
        Err(error) => {
            eprintln!("moat: {error}");
            EXIT_FAILURE
        }
    };
    moat_host::process::exit_now(code)
}

fn run(
    mut files: DonatedFiles,
    fds: &StartFds,
    work: fn(DonatedFiles, &StartFds, &StartSync) -> Result<u8, BootError>,
) -> i32 {
    let Ok(pipe) = files.take(fds.start_sync) else { return EXIT_FAILURE };
    let start_sync = StartSync::new(pipe);
    if let Ok(panic_log) = files.take(fds.panic_log) {
        logging::install_panic_hook(File::from(panic_log));
    }
    match work(files, fds, &start_sync) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<StartFds, BootError> {
        StartFds::parse(args.iter().map(OsString::from))
    }

    #[test]
    fn all_flags() {
        let fds = parse(&["--donated=4", "--spec-fd=3", "--start-sync-fd=4", "--panic-log-fd=5", "some-id"]).unwrap();
        assert_eq!(fds, StartFds { donated: 4, spec: 3, start_sync: 4, panic_log: 5 });
    }

    #[test]
    fn refusals() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--spec-fd=3", "--start-sync-fd=4", "--panic-log-fd=5", "--frob=1"]).is_err());
        assert!(parse(&["--spec-fd=three", "--start-sync-fd=4", "--panic-log-fd=5"]).is_err());
    }
}
