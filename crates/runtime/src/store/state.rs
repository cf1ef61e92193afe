//! [`ContainerState`]: the state file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use oci_spec::runtime::Hooks;
use serde::{Deserialize, Serialize};

use super::MAX_STATE_BYTES;
use crate::cgroup::{Cgroup, PodSize};
use crate::error::{Context, Result};
use crate::namespaces::Role;
use crate::process_id::ProcessId;
use crate::{ContainerId, Error, Sandbox, timestamp};

/// The version of [`ContainerState`]'s layout; a state of another one is refused.
pub const STATE_VERSION: u32 = 1;

/// What is known of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerState {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// Its id.
    pub id: String,
    /// What was done with it last. Whether it has ended since is not written here: see [`crate::Container::status`].
    pub status: Status,
    /// Canonical path of its bundle.
    pub bundle: PathBuf,
    /// Its root file system on the host.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339 with nanoseconds.
    pub created: String,
    /// The uid that created it.
    pub owner: u32,
    /// Annotations of its configuration.
    pub annotations: BTreeMap<String, String>,
    /// Its place in the sandbox.
    pub role: Role,
    /// Its cgroup, from before it is made.
    pub cgroup: Option<Cgroup>,
    /// Directories that overlays have their files in, from before they are made.
    #[serde(default)]
    pub overlays: Vec<PathBuf>,
    /// The sandbox process, from before it runs anything.
    pub sandbox: Option<Sandbox>,
    /// The waiter that stands for a later container of a sandbox.
    pub waiter: Option<ProcessId>,
    /// Hooks that are still to be run.
    pub hooks: Option<Hooks>,
    /// Its init has a terminal.
    pub terminal: bool,
}

/// How far a container has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

impl ContainerState {
    /// The size of the pod that it is the first container of.
    pub(crate) fn pod_size(&self) -> PodSize {
        PodSize::of(|key| self.annotations.get(key).map(String::as_str))
    }

    /// A container that is about to be created.
    #[must_use]
    pub fn new(id: &ContainerId, bundle: &Path, rootfs: &Path, now: SystemTime) -> Self {
        ContainerState {
            version: STATE_VERSION,
            id: id.to_string(),
            status: Status::Creating,
            bundle: bundle.to_owned(),
            rootfs: rootfs.to_owned(),
            created: timestamp::rfc3339_nanos(now),
            owner: rustix::process::getuid().as_raw(),
            annotations: BTreeMap::new(),
            // What is found here before a step has noted itself is what there is to clean up: nothing.
            role: Role::Root,
            cgroup: None,
            overlays: Vec::new(),
            sandbox: None,
            waiter: None,
            hooks: None,
            terminal: false,
        }
    }

    pub(super) fn read(id: &ContainerId, path: &Path) -> Result<Self> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::NoContainer(id.to_string())),
            other => other.context(|| format!("opening {}", path.display()))?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_STATE_BYTES).read_to_end(&mut bytes).context(|| format!("reading {}", path.display()))?;
        let state: Self = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Invalid(format!("malformed state file {}: {error}", path.display())))?;
        if state.version != STATE_VERSION {
            return Err(Error::Invalid(format!(
                "state file {} has version {}, expected {STATE_VERSION}",
                path.display(),
                state.version
            )));
        }
        Ok(state)
    }
}
