//! Pids, credentials, sessions.

use serde::{Deserialize, Serialize};

use super::index::ContainerIndex;
use super::namespace::{PidNamespaceState, UserNamespaceState};
use super::terminal::ControllingTerminalState;
use crate::refs::{Named, Ref};

/// A process id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidState {
    /// Its numbers, that of the outermost namespace first.
    pub numbers: Vec<i32>,
    /// The innermost namespace.
    #[serde(default)]
    pub namespace: Option<Ref<PidNamespaceState>>,
    /// Whose that is, where none is named.
    #[serde(default)]
    pub container: ContainerIndex,
}

/// Who a task is. Ids are those of the first user namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of credentials(7)")]
pub struct CredentialsState {
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    pub groups: Vec<u32>,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub bounding: u64,
    pub ambient: u64,
    pub securebits: u32,
    pub no_new_privs: bool,
    #[serde(default)]
    pub user: Option<Ref<UserNamespaceState>>,
    #[serde(default)]
    pub container: ContainerIndex,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// That of its founder.
    pub pid: Ref<PidState>,
    /// Its controlling terminal.
    #[serde(default)]
    pub terminal: Option<ControllingTerminalState>,
    /// The number of the group that was in the foreground when its terminal was hung up.
    #[serde(default)]
    pub hung_up: Option<i32>,
}

/// A process group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessGroupState {
    /// That of its founder.
    pub pid: Ref<PidState>,
    /// Its session.
    pub session: Ref<SessionState>,
}

impl Named for PidState {
    const WHAT: &'static str = "pid";
}

impl Named for CredentialsState {
    const WHAT: &'static str = "credentials";
}

impl Named for SessionState {
    const WHAT: &'static str = "session";
}

impl Named for ProcessGroupState {
    const WHAT: &'static str = "process group";
}
