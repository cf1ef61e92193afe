//! The start-sync pipe: one byte says "booted", JSON says why not.
//!
//! End-of-file without either means that the sandbox died before it could speak; the reader then looks at
//! the panic log.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use moat_abi::Errno;
use serde::{Deserialize, Serialize};

/// The byte that says that the sandbox is up.
const BOOTED: u8 = b'B';

/// The target of events that say what has been done of a start.
pub const STEPS: &str = "startup";

/// Bytes of the longest error that is read.
const MAX_ERROR_BYTES: u64 = 64 << 10;

/// Why a sandbox could not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct BootError {
    /// What was tried: "mounting the empty root".
    pub what: String,
    /// The host's error number, if a host call failed.
    pub errno: Option<i32>,
    /// Whose fault it is.
    pub kind: BootErrorKind,
}

/// What sort of failure it was, for the exit code of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootErrorKind {
    /// The sandbox itself could not be built: exit code 125 or 1.
    Sandbox,
    /// The guest's command was found but could not be executed: 126.
    CannotExecute,
    /// The guest's command does not exist: 127.
    CommandNotFound,
}

impl std::fmt::Display for BootError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)?;
        match self.errno {
            Some(errno) => write!(f, ": {}", Errno::from_raw(errno)),
            None => Ok(()),
        }
    }
}

impl BootError {
    /// A failure to build the sandbox that is no host call's.
    pub fn new(what: impl Into<String>) -> Self {
        BootError { what: what.into(), errno: None, kind: BootErrorKind::Sandbox }
    }

    /// A host call that failed while the sandbox was built.
    pub fn host(what: impl Into<String>, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => BootError { what: what.into(), errno: Some(errno), kind: BootErrorKind::Sandbox },
            None => BootError::new(format!("{}: {error}", what.into())),
        }
    }

    /// The guest's command could not be started: ENOENT says that it does not exist.
    pub fn command(command: &str, errno: Errno) -> Self {
        let kind = if errno == Errno::ENOENT { BootErrorKind::CommandNotFound } else { BootErrorKind::CannotExecute };
        BootError { what: format!("starting {command:?}"), errno: Some(errno.raw()), kind }
    }
}

/// The sandbox's end of the pipe. Closed without a word it tells the reader that the sandbox died.
///
/// Clones share the pipe; only the first word counts.
#[derive(Clone, Debug)]
pub struct StartSync(Arc<Mutex<Option<File>>>);

impl StartSync {
    /// Speaks through `pipe`.
    #[must_use]
    pub fn new(pipe: OwnedFd) -> Self {
        StartSync(Arc::new(Mutex::new(Some(File::from(pipe)))))
    }

    /// Says that the sandbox is up.
    ///
    /// # Errors
    /// EPIPE if the creator is gone; AlreadyExists if something was said before.
    pub fn booted(&self) -> io::Result<()> {
        self.take().ok_or(io::ErrorKind::AlreadyExists)?.write_all(&[BOOTED])
    }

    /// Says why the sandbox could not start; false if it was up already, or nobody is there to be told.
    #[must_use]
    pub fn failed(&self, error: &BootError) -> bool {
        let Some(mut pipe) = self.take() else { return false };
        serde_json::to_vec(error).is_ok_and(|json| pipe.write_all(&json).is_ok())
    }

    fn take(&self) -> Option<File> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What the creator reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartOutcome {
    /// The sandbox is up.
    Booted,
    /// It said why not.
    Failed(BootError),
    /// It died without a word.
    Died,
}

impl StartOutcome {
    /// Waits for the sandbox's word.
    ///
    /// # Errors
    /// Of the read.
    pub fn read_from(mut pipe: impl Read) -> io::Result<Self> {
        let mut first = [0];
        loop {
            match pipe.read(&mut first) {
                Ok(0) => return Ok(StartOutcome::Died),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if first[0] == BOOTED {
            return Ok(StartOutcome::Booted);
        }
        let mut json = first.to_vec();
        pipe.take(MAX_ERROR_BYTES).read_to_end(&mut json)?;
        // An error that was cut off can't be decoded: it died while speaking.
        Ok(serde_json::from_slice(&json).map_or(StartOutcome::Died, StartOutcome::Failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes() {
        assert_eq!(StartOutcome::read_from(&b"B"[..]).unwrap(), StartOutcome::Booted);
        assert_eq!(StartOutcome::read_from(&b""[..]).unwrap(), StartOutcome::Died);
        assert_eq!(StartOutcome::read_from(&b"{\"what\":"[..]).unwrap(), StartOutcome::Died);
        let error = BootError::command("frob", Errno::ENOENT);
        let json = serde_json::to_vec(&error).unwrap();
        assert_eq!(StartOutcome::read_from(&json[..]).unwrap(), StartOutcome::Failed(error.clone()));
        assert_eq!(error.kind, BootErrorKind::CommandNotFound);
        assert_eq!(error.to_string(), "starting \"frob\": No such file or directory");
    }
}
