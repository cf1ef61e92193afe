//! [`JailSpec`]: how a sandbox process or a gofer shuts itself in.

use serde::{Deserialize, Serialize};

/// What a process makes of itself before it serves anybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailSpec {
    /// Whom to run as.
    pub run_as: RunAs,
    /// Capabilities to keep besides those for file access, as a mask.
    pub capabilities: u64,
    /// Where its network namespace is from.
    pub network: NetworkOrigin,
    /// What the donated host trees are.
    pub trees: Trees,
}

/// Whom a process runs as in its user namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunAs {
    /// uid and gid 65534.
    Nobody,
    /// The creator's, because no other id is mapped.
    #[default]
    Creator,
}

/// Where a process's network namespace is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkOrigin {
    /// It was there before.
    #[default]
    Existing,
    /// It was made for this process: its loopback device is still down.
    New,
}

/// What the descriptors of host directories and files are that a process was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trees {
    /// Detached copies of mounts: `..` cannot leave them.
    Detached,
    /// Plain descriptors, because the creator may not copy mounts; the process replaces them by copies made in its own
    /// mount namespace.
    #[default]
    Attached,
}
