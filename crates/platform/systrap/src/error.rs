//! [`StartError`]: what keeps the platform from starting.

use moat_abi::Errno;
use moat_abi::siginfo::CLD_EXITED;

/// What the copy of the sentry exits with when it can't become the template.
pub mod end {
    pub const DOORBELL_ANSWERED: i32 = 124;
    pub const VDSO_STAYS: i32 = 125;
    pub const NOT_MAPPED: i32 = 126;
    pub const NOT_PROTECTED: i32 = 127;
}

/// Why the platform could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartError {
    /// The host's errno; ECHILD if the template ended.
    pub errno: Errno,
    /// How it ended: `CLD_*`, and its exit status or signal.
    pub ended: Option<(i32, i32)>,
}

impl From<Errno> for StartError {
    fn from(errno: Errno) -> StartError {
        StartError { errno, ended: None }
    }
}

impl From<rustix::io::Errno> for StartError {
    fn from(errno: rustix::io::Errno) -> StartError {
        Errno::from(errno).into()
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some((code, status)) = self.ended else { return self.errno.fmt(f) };
        match (code, status) {
            (CLD_EXITED, end::DOORBELL_ANSWERED) => f.write_str("a call that no kernel has seems to succeed here"),
            (CLD_EXITED, end::VDSO_STAYS) => f.write_str("the host did not move the vDSO"),
            (CLD_EXITED, end::NOT_MAPPED) => f.write_str("the host did not map the stub where it belongs"),
            (CLD_EXITED, end::NOT_PROTECTED) => f.write_str("the host does not let memory become executable"),
            (CLD_EXITED, status) => write!(f, "the template exited with {status}"),
            (_, signal) => write!(f, "the template was ended by signal {signal}"),
        }
    }
}

impl std::error::Error for StartError {}
