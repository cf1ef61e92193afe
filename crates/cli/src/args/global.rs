//! Flags of every command. Those of the store and the log come before the command, the others also after it.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args, ValueEnum};

use super::accepted::Accepted;
use super::lenient::truth;
use super::overlay::Overlay2;

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Where the state of containers is kept [default: /run/moat, or $XDG_RUNTIME_DIR/moat for an ordinary user]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Where messages for the caller go besides standard error
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) log: Option<PathBuf>,
    /// Format of messages in the log
    #[arg(long, value_enum, default_value = "text", global = true)]
    pub(crate) log_format: LogFormat,
    /// Log debug messages
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, value_parser = truth, value_name = "BOOL")]
    pub(crate) debug: bool,
    /// Where the sandbox logs; %TIMESTAMP%, %COMMAND% and %ID% are replaced, a name ending in "/" is a directory
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) debug_log: Option<PathBuf>,
    /// Say on standard error what a start takes its time for
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, value_parser = truth, value_name = "BOOL")]
    pub(crate) trace_startup: bool,
    /// Where a sandbox that breaks down says why; with the same replacements
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) panic_log: Option<PathBuf>,
    /// Where messages for the container's user go
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) user_log: Option<PathBuf>,
    /// Let systemd manage cgroups; cgroupsPath is then "slice:prefix:name"
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, value_parser = truth, value_name = "BOOL")]
    pub(crate) systemd_cgroup: bool,
    /// Make no cgroups
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, value_parser = truth, value_name = "BOOL")]
    pub(crate) ignore_cgroups: bool,
    /// Show as many CPUs as the CPU quota is worth, 2 at least
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = ArgAction::Set, value_parser = truth, value_name = "BOOL")]
    pub(crate) cpu_num_from_quota: bool,
    /// Pass over cgroups that an ordinary user may not make
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_enum, default_value = "auto", action = ArgAction::Set)]
    pub(crate) rootless: RootlessFlag,
    /// How guest code runs
    #[arg(long, global = true, value_enum, default_value = "systrap")]
    pub(crate) platform: Platform,
    /// Have each system call trap, rather than rewrite the call sites that trap often
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, value_parser = truth, value_name = "BOOL")]
    pub(crate) systrap_disable_syscall_patching: bool,
    /// What guests see of the network [default: sandbox; none for do]
    #[arg(long, global = true, value_enum)]
    pub(crate) network: Option<Network>,
    /// Whether others may change a root file system while its container runs [default: exclusive; shared where Docker keeps its containers, for docker cp]
    #[arg(long, global = true, value_enum)]
    pub(crate) file_access: Option<FileAccess>,
    /// Where changes to the root file system of a bundle go, or with all: to its bind mounts, too: none, into itself, or root:memory, root:self or root:dir=PATH, with ,size=BYTES and ,nr_inodes=N after it
    #[arg(long, global = true, default_value = "none")]
    pub(crate) overlay2: Overlay2,
    /// Let the sandbox open files of the host itself, by directory descriptors
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = ArgAction::Set, value_parser = truth, value_name = "BOOL")]
    pub(crate) directfs: bool,
    /// Apply the seccomp profile of config.json to the container's processes
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = ArgAction::Set, value_parser = truth, value_name = "BOOL")]
    pub(crate) oci_seccomp: bool,
    /// Which Unix sockets of the host guests may use: none; open, to connect to those in their trees; create, so that the host connects to theirs; or all
    #[arg(long, global = true, value_enum, default_value = "none")]
    pub(crate) host_uds: HostUds,
    /// Which FIFOs of the host guests may use: none, or open, to share those in their trees with the host
    #[arg(long, global = true, value_enum, default_value = "none")]
    pub(crate) host_fifo: HostFifo,
    /// What opens a character device: emulated-only, the guest's kernel
    #[arg(long, global = true, value_enum, default_value = "emulated-only")]
    pub(crate) character_device_policy: CharacterDevicePolicy,
    /// Log guest system calls, to the debug log or else to standard error: true, false or names
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "CALLS")]
    pub(crate) strace: Option<StraceFlag>,
    /// Log only these system calls
    #[arg(long, global = true, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) strace_syscalls: Vec<String>,
    /// Bytes of a buffer that --strace shows
    #[arg(long, global = true, value_name = "BYTES", default_value_t = 1024)]
    pub(crate) strace_log_size: u32,
    /// Begin new sandboxes with the session of security events that is in this file, under "trace_session"
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) pod_init_config: Option<PathBuf>,
    /// Where metric-server listens: a path, or HOST:PORT, with %RUNTIME_ROOT% replaced; other commands need not be told
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) metric_server: Option<String>,
    #[command(flatten)]
    pub(crate) accepted: Accepted,
}

/// The value of --strace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StraceFlag {
    Off,
    All,
    Only(Vec<String>),
}

impl FromStr for StraceFlag {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "true" | "1" | "all" | "on" | "" => StraceFlag::All,
            "false" | "0" | "off" => StraceFlag::Off,
            names => StraceFlag::Only(names.split(',').map(str::to_owned).collect()),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RootlessFlag {
    #[value(alias = "1")]
    True,
    #[value(alias = "0")]
    False,
    Auto,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Platform {
    /// Seccomp traps and shared memory
    Systrap,
    /// ptrace(2): slower, works nearly everywhere
    Ptrace,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Network {
    /// A loopback device only
    None,
    /// The sandbox's network namespace
    Sandbox,
    /// The host's network
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileAccess {
    /// Nobody else changes it: it is cached
    Exclusive,
    /// Others may change it: it is asked each time
    Shared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HostUds {
    /// None of them
    None,
    /// They connect to those in their trees
    Open,
    /// What they bind in their trees is the host's, for its processes to connect to
    Create,
    /// Both
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HostFifo {
    /// None of them: what goes through them stays in the sandbox
    None,
    /// They open those in their trees
    Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CharacterDevicePolicy {
    /// Drivers of the guest's kernel; what it has none for is ENXIO
    EmulatedOnly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}
