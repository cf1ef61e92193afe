//! Namespaces that processes have made. Where none is named, it is the container's.

use serde::{Deserialize, Serialize};

use crate::refs::{Named, Ref};

/// A user namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespaceState {
    /// The one that it was made in; it comes before it.
    pub parent: Option<Ref<UserNamespaceState>>,
    /// Effective ids of who made it.
    pub owner: (u32, u32),
    /// Who made it had CAP_SETFCAP.
    pub setfcap: bool,
    /// Its uids, once its map was written: inside, of the first user namespace, and how many.
    pub uids: Option<Vec<(u32, u32, u32)>>,
    /// Its gids.
    pub gids: Option<Vec<(u32, u32, u32)>>,
    /// "deny" was written to /proc/PID/setgroups.
    pub setgroups_denied: bool,
}

/// A UTS namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct UtsNamespaceState {
    pub hostname: Vec<u8>,
    pub domainname: Vec<u8>,
    /// Its owner.
    #[serde(default)]
    pub user: Option<Ref<UserNamespaceState>>,
}

/// A pid namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidNamespaceState {
    /// The one that it was made in; it comes before it.
    pub parent: Option<Ref<PidNamespaceState>>,
    /// Its owner.
    pub user: Option<Ref<UserNamespaceState>>,
    /// The number given last.
    pub last_pid: i32,
    /// Its init has ended: no process can come into it.
    pub closed: bool,
}

/// A setting of /proc/sys that has another value than the configuration, or a new namespace, gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingState {
    /// The path below /proc/sys.
    pub path: String,
    /// Its text.
    pub value: String,
}

/// An IPC namespace. Its message queues of POSIX name it; its objects of System V are beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpcNamespaceState {
    /// Its owner.
    pub user: Option<Ref<UserNamespaceState>>,
    /// What a new one does not have.
    pub settings: Vec<SettingState>,
}

/// A network namespace with nothing but its loopback device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetNamespaceState {
    /// Its owner.
    pub user: Option<Ref<UserNamespaceState>>,
    /// That device is up.
    pub loopback_up: bool,
    /// What a new one does not have.
    pub settings: Vec<SettingState>,
}

/// A cgroup namespace. Its root is the container's cgroup: there is no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupNamespaceState {
    /// Its owner.
    pub user: Option<Ref<UserNamespaceState>>,
}

/// A namespace of any kind, as a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum NamespaceRef {
    User(Option<Ref<UserNamespaceState>>),
    Uts(Option<Ref<UtsNamespaceState>>),
    Pid(Option<Ref<PidNamespaceState>>),
    Ipc(Option<Ref<IpcNamespaceState>>),
    Cgroup(Option<Ref<CgroupNamespaceState>>),
    Net(Option<Ref<NetNamespaceState>>),
    /// The container's.
    Mount,
    Time,
}

impl Named for UserNamespaceState {
    const WHAT: &'static str = "user namespace";
}

impl Named for UtsNamespaceState {
    const WHAT: &'static str = "UTS namespace";
}

impl Named for PidNamespaceState {
    const WHAT: &'static str = "pid namespace";
}

impl Named for IpcNamespaceState {
    const WHAT: &'static str = "IPC namespace";
}

impl Named for NetNamespaceState {
    const WHAT: &'static str = "network namespace";
}

impl Named for CgroupNamespaceState {
    const WHAT: &'static str = "cgroup namespace";
}
