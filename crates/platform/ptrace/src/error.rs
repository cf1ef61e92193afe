//! [`SetupError`]: what keeps the platform from starting.

use moat_abi::Errno;

/// Why the platform could not be started.
#[derive(Clone, Debug, thiserror::Error)]
#[error("ptrace platform: {step}: {errno}")]
pub struct SetupError {
    /// What was being done.
    pub step: &'static str,
    /// How it failed.
    pub errno: Errno,
}

impl SetupError {
    pub(crate) fn at(step: &'static str) -> impl FnOnce(Errno) -> SetupError {
        move |errno| SetupError { step, errno }
    }
}
