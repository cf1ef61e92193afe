//! What clients read about a container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use moat_control::ProcessInfo;
use serde::Serialize;

use super::Container;
use crate::error::{Context, Result};
use crate::sandbox::HostPids;
use crate::store::{ContainerState, Status};

/// The version of the OCI runtime specification that states follow.
pub const OCI_VERSION: &str = "1.2.0";

/// The output of `state`, and of `list`: the OCI state and what runc adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerInfo {
    /// [`OCI_VERSION`].
    pub oci_version: &'static str,
    /// Its id.
    pub id: String,
    /// The host process that stands for it, or 0.
    pub pid: i32,
    /// Its state.
    pub status: Status,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Its root file system on the host.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Annotations of its configuration.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The name of the user who created it, in `list`.
    pub owner: String,
}

/// What a hook reads: the OCI state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookState<'a> {
    oci_version: &'static str,
    id: &'a str,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    bundle: &'a PathBuf,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl<'a> HookState<'a> {
    /// The state at a point where a container is `status` and `pid` stands for it.
    #[must_use]
    pub fn new(state: &'a ContainerState, status: Status, pid: Option<i32>) -> Self {
        HookState {
            oci_version: OCI_VERSION,
            id: &state.id,
            status,
            pid,
            bundle: &state.bundle,
            annotations: &state.annotations,
        }
    }
}

/// A guest process and the host process that runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedProcess {
    /// The guest's.
    pub guest: ProcessInfo,
    /// The host's, if it has one.
    pub host_pid: Option<i32>,
}

impl Container {
    /// What is known of it.
    #[must_use]
    pub fn info(&self) -> ContainerInfo {
        let state = &self.state;
        let status = self.status();
        ContainerInfo {
            oci_version: OCI_VERSION,
            id: state.id.clone(),
            // The OCI specification asks for none of a container that has stopped: the number may be another's by now.
            pid: if status == Status::Stopped { 0 } else { self.pid() },
            status,
            bundle: state.bundle.clone(),
            rootfs: state.rootfs.clone(),
            created: state.created.clone(),
            annotations: state.annotations.clone(),
            owner: String::new(),
        }
    }

    /// Its processes; none if it has ended.
    ///
    /// # Errors
    /// Of the sandbox.
    pub fn processes(&self) -> Result<Vec<ListedProcess>> {
        if matches!(self.status(), Status::Stopped | Status::Creating) {
            return Ok(Vec::new());
        }
        let sandbox = self.sandbox()?;
        let guests = sandbox.processes(self.id.as_str())?;
        // The sandbox knows its processes by the pids of its own namespace only.
        let pids = HostPids::of_sandbox(sandbox.process.pid).context(|| "reading /proc".into())?;
        let list = |guest: ProcessInfo| ListedProcess { host_pid: pids.get(guest.sandbox_pid), guest };
        Ok(guests.into_iter().map(list).collect())
    }
}
