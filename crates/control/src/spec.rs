//! [`SandboxSpec`]: everything the sentry needs to know to start a sandbox.
//!
//! It is made by `moat-runtime` from flags or an OCI bundle, after validation, and holds no host paths that
//! the sentry would have to open: host files are donated descriptors, named by number.

mod device;
mod gofer;
mod jail;
mod mount;
mod process;
mod seccomp;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::session::SessionConfig;

pub use device::{DeviceRule, DeviceSpec, NodeKind, NodeSpec, RuleDevices};
pub use gofer::{GoferSpec, GoferTree, TreeKind};
pub use jail::{JailSpec, NetworkOrigin, RunAs, Trees};
pub use mount::{
    Backing, DevptsOptions, FileBind, FileOverlay, GoferBind, HostNodes, HostUse, MountFlags, MountKind, MountSpec,
    Overlay, OverlayLimits, RootSpec, Sharing, SocketUse, TmpfsOptions,
};
pub use process::{CapabilitySpec, InitSignals, ProcessSpec, RlimitSpec};
pub use seccomp::{BpfInstruction, SeccompSpec};

/// The version of [`SandboxSpec`]'s layout; boot refuses another one.
pub const SPEC_VERSION: u32 = 6;

/// Bytes of the largest encoded spec that boot reads.
pub const MAX_SPEC_BYTES: u64 = 16 << 20;

/// The number of a donated file descriptor in the sandbox process.
pub type FdNumber = i32;

/// All that a new sandbox is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// [`SPEC_VERSION`].
    pub version: u32,
    /// How the process shuts itself in.
    pub jail: JailSpec,
    /// How guest code runs.
    pub platform: PlatformKind,
    /// How system calls enter the sentry, on systrap.
    pub call_sites: CallSites,
    /// What the guest sees of the network.
    pub network: NetworkMode,
    /// How the sentry reaches the host's files.
    pub files: FileAccess,
    /// Which ids the guest has.
    pub ids: IdView,
    /// The root container; its id is also the sandbox's.
    pub container: ContainerSpec,
    /// Whether the sandbox dies with the command that started it.
    pub lifetime: Lifetime,
    /// What is logged.
    pub logging: LogSpec,
    /// Donated descriptors that every sandbox has.
    pub fds: DonatedFds,
    /// The session of security events that it begins with.
    pub session: Option<SessionSpec>,
}

/// Which user and group ids a guest has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdView {
    /// All, whatever they are on the host.
    All,
    /// Those of the sandbox's own user namespace, which the configuration has chosen.
    Namespace,
    /// Those of its creator's user namespace, which has not all: lines of uid_map and gid_map.
    Creator(Vec<[u32; 3]>, Vec<[u32; 3]>),
}

/// A session of security events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSpec {
    /// What is told, and to whom.
    pub config: SessionConfig,
    /// The descriptors of its sinks, one for each but those that are nobody, in order.
    pub files: Vec<FdNumber>,
}

/// What happens to a session of security events with the name of a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TraceConflict {
    /// It stays, and the new one is refused.
    Refuse,
    /// It is deleted.
    Replace,
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its id.
    pub id: String,
    /// What its pod calls it, by which it is found in an image; empty if it has no such name.
    #[serde(default)]
    pub name: String,
    /// uname's nodename, unless it shares the sandbox's.
    pub hostname: String,
    /// uname's domainname.
    pub domainname: String,
    /// Which namespaces it shares with the sandbox's root container; the root container shares none.
    pub shared: SharedNamespaces,
    /// Its init.
    pub process: ProcessSpec,
    /// Whether it may connect to sockets of the host, and open its FIFOs; of a later container what the first one's says.
    #[serde(default)]
    pub host_nodes: HostNodes,
    /// Its init's stdin, stdout and stderr.
    pub stdio: [FdNumber; 3],
    /// Its init's descriptors 3, 4, ...
    pub preserved: Vec<FdNumber>,
    /// The socket of the process that makes nodes of devices in its trees, if it may have any and no gofer serves them.
    pub node_maker: Option<FdNumber>,
    /// The root file system.
    pub root: RootSpec,
    /// The other mounts, in the order in which they are made.
    pub mounts: Vec<MountSpec>,
    /// Nodes that are made when the mounts are there.
    pub devices: Vec<DeviceSpec>,
    /// Which devices it may use, in their order; without any, all.
    pub device_rules: Vec<DeviceRule>,
    /// Guest paths that are hidden: a file becomes /dev/null, a directory an empty read-only tmpfs.
    pub masked_paths: Vec<String>,
    /// Guest paths that are made read-only.
    pub readonly_paths: Vec<String>,
    /// Values of /proc/sys, by dotted or slashed name.
    pub sysctls: BTreeMap<String, String>,
    /// What the calls of all its processes are checked by.
    pub seccomp: Option<SeccompSpec>,
    /// What it may use.
    pub shares: SharesSpec,
    /// The image that its processes come out of, in place of its init's program.
    pub restore: Option<RestoreSpec>,
}

/// The files of an image, open for reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreSpec {
    /// What it is, and the kernel's state.
    pub state: FdNumber,
    /// Guest memory.
    pub pages: FdNumber,
    /// That of the images that it is based on, the nearest first.
    pub bases: Vec<FdNumber>,
    /// How guests get it.
    pub loading: PageLoading,
    /// From where clocks go on, if the image says it early enough.
    pub clocks: Option<ClockSpec>,
}

/// From where the clocks of a restored sandbox go on, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSpec {
    /// CLOCK_MONOTONIC.
    pub monotonic_ns: u64,
    /// CLOCK_BOOTTIME.
    pub boottime_ns: u64,
    /// CLOCK_BOOTTIME when the sandbox booted.
    pub booted_ns: u64,
}

/// How guests get their memory out of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PageLoading {
    /// They map the file.
    Mapped,
    /// It is copied: what is on the file's medium may not be executed, as their memory may.
    Copied,
}

/// What a container's cgroup lets it use, as its processes see it. The host enforces all but the number of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharesSpec {
    /// CPUs that there seem to be.
    pub cpu_count: u32,
    /// Memory that there seems to be, in bytes.
    pub total_memory_bytes: u64,
    /// Quota and period of CPU time in microseconds, if it is limited.
    pub cpu_max_us: Option<(u64, u64)>,
    /// Memory that may be used, in bytes, if it is limited.
    pub memory_max_bytes: Option<u64>,
    /// How many tasks there may be.
    pub tasks: TaskLimit,
}

/// How many tasks a container may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskLimit {
    /// As many as before; at first, any number.
    #[default]
    Kept,
    /// Any number.
    Unlimited,
    /// So many.
    Max(u64),
}

/// Namespaces that a container has in common with the root container. Network is always shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SharedNamespaces {
    pub pid: bool,
    pub ipc: bool,
    pub uts: bool,
}

/// How guest code runs on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlatformKind {
    /// Seccomp traps and shared slots.
    #[default]
    Systrap,
    /// PTRACE_SYSEMU.
    Ptrace,
}

impl PlatformKind {
    /// "systrap" or "ptrace".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            PlatformKind::Systrap => "systrap",
            PlatformKind::Ptrace => "ptrace",
        }
    }
}

/// How system calls of application code enter the sentry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallSites {
    /// Those that trap often are rewritten.
    #[default]
    Rewritten,
    /// Each call traps.
    Trapped,
}

/// How the sentry reaches the host's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileAccess {
    /// By directory descriptors of its own.
    #[default]
    Direct,
    /// By asking a gofer process, one for each container.
    Gofer,
}

/// What the guest sees of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// A loopback interface only.
    #[default]
    None,
    /// The interfaces of the sandbox's network namespace, served by a stack in the sentry.
    Sandbox,
    /// The host's sockets.
    Host,
}

/// Whether the sandbox outlives the command that started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lifetime {
    /// The sandbox is killed when its creator dies.
    Attached,
    /// The sandbox lives until it is destroyed.
    Detached,
}

/// What the sentry logs, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// Debug messages are wanted too.
    pub debug: bool,
    /// JSON lines instead of text.
    pub json: bool,
    /// Each guest system call is logged.
    pub strace: bool,
    /// Only these system calls are logged by `strace`; all if empty.
    pub strace_syscalls: Vec<String>,
    /// Bytes of a buffer argument that `strace` shows.
    pub strace_log_size: u32,
    /// When the command began, in nanoseconds of CLOCK_MONOTONIC, if it is to be told what the start takes its time for.
    pub startup_began_ns: Option<u64>,
}

/// Descriptors donated to every sandbox, by number in its process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DonatedFds {
    /// The sandbox's end of the control connection of the creator.
    pub control: FdNumber,
    /// A listening SOCK_SEQPACKET socket for further control connections.
    pub listener: Option<FdNumber>,
    /// Write end of the pipe that carries the exit status of the guest's init.
    pub status: FdNumber,
    /// Where debug messages go.
    pub debug_log: Option<FdNumber>,
    /// Messages for the container's user.
    pub user_log: Option<FdNumber>,
    /// Where steps of the start are told.
    pub startup_log: Option<FdNumber>,
}

/// A spec that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Not the JSON of a spec.
    #[error("malformed sandbox spec: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Made by another version of moat.
    #[error("sandbox spec has version {0}, expected {SPEC_VERSION}")]
    Version(u32),
}

impl SandboxSpec {
    /// Encodes the spec for donation.
    ///
    /// # Errors
    /// A string that JSON cannot say.
    pub fn encode(&self) -> Result<Vec<u8>, SpecError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Decodes a donated spec.
    ///
    /// # Errors
    /// Malformed input, or a spec of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, SpecError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        match serde_json::from_slice::<Self>(bytes) {
            Ok(spec) if spec.version == SPEC_VERSION => Ok(spec),
            Ok(spec) => Err(SpecError::Version(spec.version)),
            // The version explains more than a missing field does.
            Err(error) => match serde_json::from_slice::<Versioned>(bytes) {
                Ok(v) if v.version != SPEC_VERSION => Err(SpecError::Version(v.version)),
                _ => Err(error.into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_named() {
        let error = SandboxSpec::decode(br#"{"version": 7}"#).unwrap_err();
        assert!(matches!(error, SpecError::Version(7)), "{error}");
    }

    #[test]
    fn malformed_is_an_error() {
        assert!(matches!(SandboxSpec::decode(b"{}").unwrap_err(), SpecError::Malformed(_)));
        assert!(matches!(SandboxSpec::decode(b"\xff").unwrap_err(), SpecError::Malformed(_)));
    }
}
