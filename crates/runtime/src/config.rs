//! [`Config`]: what the top-level flags say, the same for each command.

use std::collections::BTreeSet;
use std::path::PathBuf;

use moat_control::spec::{CallSites, FileAccess, HostNodes, LogSpec, NetworkMode, PlatformKind, Sharing};

use crate::overlay::OverlayFlag;

/// Settings that hold for all containers.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where the state of containers is kept.
    pub root: PathBuf,
    /// How guest code runs.
    pub platform: PlatformKind,
    /// How system calls enter the sentry, on systrap.
    pub call_sites: CallSites,
    /// What guests see of the network.
    pub network: NetworkMode,
    /// The cgroup is managed by systemd, and cgroupsPath is "slice:prefix:name".
    pub systemd_cgroup: bool,
    /// No cgroups are made, whatever the configuration asks for.
    pub ignore_cgroups: bool,
    /// Errors of cgroups that an ordinary user must expect are passed over.
    pub rootless: Rootless,
    /// The number of CPUs in the guest follows from the CPU quota.
    pub cpu_num_from_quota: bool,
    /// How sandboxes reach the host's files.
    pub files: FileAccess,
    /// Whether others may change the root file system of a bundle while its container runs.
    pub root_sharing: Sharing,
    /// Changes to trees of the host do not reach them.
    pub overlay: Option<OverlayFlag>,
    /// Whether guests may connect to sockets of the host, and open its FIFOs.
    pub host_nodes: HostNodes,
    /// Whether config.json's `linux.seccomp` is applied.
    pub profiles: Profiles,
    /// Flags that annotations of a bundle may set; whoever made this has looked at them.
    pub annotated_flags: BTreeSet<String>,
    /// Where the sandbox logs.
    pub debug_log: DebugLog,
    /// Debug messages too.
    pub debug: bool,
    /// Logs are JSON lines.
    pub log_json: bool,
    /// The file with the session of security events that new sandboxes begin with.
    pub pod_init_config: Option<PathBuf>,
    /// Guest system calls are logged.
    pub strace: bool,
    /// Only these are.
    pub strace_syscalls: Vec<String>,
    /// Bytes of a buffer that are shown of each.
    pub strace_log_size: u32,
    /// When the command began, in nanoseconds of CLOCK_MONOTONIC, if steps of the start are to be told on its standard error.
    pub startup_began_ns: Option<u64>,
}

/// Whether moat runs for an ordinary user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Rootless {
    /// It depends on who runs it.
    #[default]
    Auto,
    Yes,
    No,
}

impl Config {
    /// Whether cgroups that may not be made are done without.
    #[must_use]
    pub fn is_rootless(&self) -> bool {
        match self.rootless {
            Rootless::Auto => !rustix::process::geteuid().is_root(),
            Rootless::Yes => true,
            Rootless::No => false,
        }
    }

    /// What a sandbox is to log.
    #[must_use]
    pub fn log_spec(&self) -> LogSpec {
        LogSpec {
            debug: self.debug,
            json: self.log_json,
            strace: self.strace,
            strace_syscalls: self.strace_syscalls.clone(),
            strace_log_size: self.strace_log_size,
            startup_began_ns: self.startup_began_ns,
        }
    }
}

/// Whether the seccomp profiles of containers are applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profiles {
    /// As configured.
    #[default]
    Apply,
    /// Calls are not checked: they never reach the host in any case.
    Ignore,
}

/// Where the sandbox logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DebugLog {
    /// Nowhere.
    #[default]
    None,
    /// To the standard error of the command.
    Stderr,
    /// To a file, with %TIMESTAMP%, %COMMAND% and %ID% replaced; a name ending in "/" is a directory.
    File(PathBuf),
}
