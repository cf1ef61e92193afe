//! The guest's init as the sandbox spec describes it.

use serde::{Deserialize, Serialize};

/// A process to start in the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// argv; `args[0]` is looked up in the guest's PATH if it has no slash. Never empty.
    pub args: Vec<String>,
    /// The environment, `NAME=value`.
    pub env: Vec<String>,
    /// Absolute guest path.
    pub cwd: String,
    /// Real, effective and saved uid.
    pub uid: u32,
    /// Real, effective and saved gid.
    pub gid: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// File mode creation mask; 0o022 if not given.
    pub umask: Option<u32>,
    /// Capability sets.
    pub capabilities: CapabilitySpec,
    /// Resource limits that differ from the default.
    pub rlimits: Vec<RlimitSpec>,
    /// prctl(PR_SET_NO_NEW_PRIVS).
    pub no_new_privs: bool,
    /// /proc/self/oom_score_adj.
    pub oom_score_adj: Option<i32>,
    /// How signals treat it.
    pub init: InitSignals,
    /// Stdio is a terminal, which becomes the controlling terminal of the guest's session.
    pub terminal: bool,
    /// Rows and columns that the terminal starts with.
    pub console_size: Option<(u16, u16)>,
}

/// How signals treat the guest's init.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InitSignals {
    /// As pid_namespaces(7) has it: a signal without a handler does nothing to it.
    #[default]
    Protected,
    /// As any other process: ^C ends a command that does not know that it is an init.
    Ordinary,
}

/// Capability sets as bit masks: bit N is capability N of capabilities(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CapabilitySpec {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub bounding: u64,
    pub ambient: u64,
}

impl CapabilitySpec {
    /// The number of the last capability that moat's guests know, CAP_CHECKPOINT_RESTORE.
    pub const LAST: u8 = 40;

    /// What the host's root user has: all capabilities effective, permitted and in the bounding set.
    #[must_use]
    pub fn full() -> Self {
        let all = (1u64 << (Self::LAST + 1)) - 1;
        CapabilitySpec { effective: all, permitted: all, inheritable: 0, bounding: all, ambient: 0 }
    }
}

/// A resource limit. `u64::MAX` is RLIM_INFINITY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RlimitSpec {
    /// RLIMIT_* number.
    pub resource: u32,
    /// rlim_cur.
    pub soft: u64,
    /// rlim_max.
    pub hard: u64,
}
