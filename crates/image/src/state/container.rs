//! Containers.

use serde::{Deserialize, Serialize};

use super::ipc::SystemVState;
use super::namespace::SettingState;
use super::process::ProcessState;
use crate::refs::Ref;

/// One container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Its id.
    pub id: String,
    /// What the pod calls it, by which another one is found to be the same.
    #[serde(default)]
    pub name: String,
    /// Its init.
    pub init: Ref<ProcessState>,
    /// The last number that its pid namespace gave.
    pub last_pid: i32,
    /// Processes that were started in it, whose ends somebody may ask for.
    pub executed: Vec<Ref<ProcessState>>,
    /// Its host name.
    pub hostname: Vec<u8>,
    /// Its domain name.
    pub domainname: Vec<u8>,
    /// What its processes have set below /proc/sys.
    #[serde(default)]
    pub settings: Vec<SettingState>,
    /// What it has in common with the root container.
    #[serde(default)]
    pub shared: SharedState,
    /// The System V objects of a later container that has an IPC namespace of its own.
    #[serde(default)]
    pub system_v: SystemVState,
}

/// Namespaces of the root container that a later one is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SharedState {
    pub pid: bool,
    pub ipc: bool,
    pub uts: bool,
}
