//! [`Error`]: what can go wrong on the host's side.

use std::io;

use moat_control::BootError;
use moat_control::start::BootErrorKind;

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
    /// The sandbox said why it could not start.
    #[error("the sandbox could not start: {0}")]
    Boot(BootError),
    /// The sandbox died.
    #[error("the sandbox died {when}: {how}{}", panic_log_text(panic_log))]
    Died {
        /// "while it started", "while it ran".
        when: &'static str,
        /// Its exit code or signal.
        how: String,
        /// The end of its panic log.
        panic_log: String,
    },
}

fn output_text(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(": {output}") }
}

fn panic_log_text(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("\n{}", log.trim_end()) }
}

impl From<BootError> for Error {
    fn from(error: BootError) -> Self {
        Error::Boot(error)
    }
}

impl Error {
    /// A refusal of a field of the configuration.
    pub fn unsupported(field: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Unsupported { field: field.into(), why: why.into() }
    }

    /// The exit code of a command that fails with this error, as container tools expect it: 126 for a command that
    /// cannot be executed, 127 for one that does not exist, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Boot(BootError { kind: BootErrorKind::CannotExecute, .. }) => 126,
            Error::Boot(BootError { kind: BootErrorKind::CommandNotFound, .. }) => 127,
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
