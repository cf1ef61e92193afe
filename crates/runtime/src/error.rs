//! [`Error`]: what can go wrong on the host's side.

use std::io;
use std::path::{Path, PathBuf};

use moat_abi::Errno;
use moat_control::start::BootErrorKind;
use moat_control::{BootError, ControlError};

/// The result of an operation on sandboxes.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a sandbox could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user asked for something that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The configuration asks for something that moat can't honour.
    #[error("{field} is not supported: {why}")]
    Unsupported {
        /// The field of config.json, or the flag.
        field: String,
        /// Why, or which values are.
        why: String,
    },
    /// A host call failed.
    #[error("{what}: {error}")]
    Host {
        /// What was tried.
        what: String,
        /// The host's error.
        error: io::Error,
    },
    /// A hook failed.
    #[error("{hook} failed: {how}{}", output_text(output))]
    Hook {
        /// Its kind and path.
        hook: String,
        /// Its exit status, or that it took too long.
        how: String,
        /// The end of what it said.
        output: String,
    },
    /// There is a container of that id.
    #[error("container with given ID already exists")]
    Exists(String),
    /// There is no container of that id.
    #[error("container does not exist")]
    NoContainer(String),
    /// It can't be done with a container in its state.
    #[error("{0}")]
    State(String),
    /// The command of a container, or of an exec in it, can't be started. The words are those by which Docker and
    /// Podman tell the cases apart.
    #[error("unable to start container process: exec: {command:?}: {}", command_text(command, *errno))]
    Command {
        /// `args[0]`.
        command: String,
        /// Why.
        errno: Errno,
    },
    /// The sandbox answered a request with an error.
    #[error("{0}")]
    Control(ControlError),
    /// The sandbox said why it could not start.
    #[error("the sandbox could not start: {0}")]
    Boot(BootError),
    /// The sandbox died.
    #[error("the sandbox died {when}: {how}{}", panic_log_text(panic_log, report.as_deref()))]
    Died {
        /// "while it started", "while it ran".
        when: &'static str,
        /// Its exit code or signal.
        how: String,
        /// The end of its panic log.
        panic_log: String,
        /// Where all of it is, if it is a report of a panic.
        report: Option<PathBuf>,
    },
}

fn output_text(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(": {output}") }
}

fn panic_log_text(log: &str, report: Option<&Path>) -> String {
    let place = report.map(|path| format!("; the report is in {}", path.display())).unwrap_or_default();
    if log.is_empty() { place } else { format!("{place}\n{}", log.trim_end()) }
}

/// Why a command can't be started, in Go's words.
fn command_text(command: &str, errno: Errno) -> String {
    match errno {
        Errno::ENOENT if !command.contains('/') => "executable file not found in $PATH".into(),
        Errno::ENOENT => format!("stat {command}: no such file or directory"),
        // The sentry's word for it.
        Errno::ELIBACC => format!(
            "{command}: no such file or directory: the file is there, but not the interpreter that it names (the dynamic \
             linker of another C library or machine, or its #! line)"
        ),
        errno => errno.to_string().to_lowercase(),
    }
}

impl From<moat_image::ImageError> for Error {
    fn from(error: moat_image::ImageError) -> Self {
        match error {
            moat_image::ImageError::Host { what, error } => Error::Host { what, error },
            other => Error::Invalid(other.to_string()),
        }
    }
}

impl From<ControlError> for Error {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Command { command, errno } => Error::Command { command, errno: Errno::from_raw(errno) },
            other => Error::Control(other),
        }
    }
}

impl Error {
    /// What a sandbox that did not start said; `command` is the one that its container was to run.
    pub(crate) fn boot(error: BootError, command: &str) -> Self {
        match (error.kind, error.errno) {
            (BootErrorKind::CannotExecute | BootErrorKind::CommandNotFound, Some(errno)) => {
                Error::Command { command: command.to_owned(), errno: Errno::from_raw(errno) }
            }
            _ => Error::Boot(error),
        }
    }

    /// A refusal of a field of the configuration.
    pub fn unsupported(field: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Unsupported { field: field.into(), why: why.into() }
    }

    /// The exit code of a command that fails with this error, as container tools expect it: 126 for a command that
    /// cannot be executed, 127 for one that does not exist, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Command { errno: Errno::ENOENT | Errno::ELIBACC, .. } => 127,
            Error::Command { .. } => 126,
            _ => 1,
        }
    }
}

/// Says what was tried when a host call fails.
pub(crate) trait Context<T> {
    /// Adds what was tried.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Host { what: what(), error: error.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_can_not_be_started() {
        let error = |command: &str, errno| Error::Command { command: command.into(), errno };
        let not_found = error("frob", Errno::ENOENT);
        assert_eq!(
            not_found.to_string(),
            "unable to start container process: exec: \"frob\": executable file not found in $PATH"
        );
        assert_eq!(not_found.exit_code(), 127);
        assert!(error("/frob", Errno::ENOENT).to_string().ends_with("stat /frob: no such file or directory"));
        let refused = error("/etc", Errno::EACCES);
        assert!(refused.to_string().ends_with(": permission denied"));
        assert_eq!(refused.exit_code(), 126);
    }
}
