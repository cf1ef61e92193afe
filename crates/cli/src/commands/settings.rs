//! Top-level flags become the runtime's configuration, and log files.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use moat_control::spec::{CallSites, FileAccess, HostNodes, HostUse, NetworkMode, PlatformKind, Sharing, SocketUse};
use moat_runtime::Config;
use moat_runtime::config::{DebugLog, Profiles, Rootless};

use crate::args::{self, Command, Global, LogFormat, Network, Platform, RootlessFlag, StraceFlag};
use crate::configuration::Configuration;

/// The runtime's configuration of a command that began at `began_ns` of CLOCK_MONOTONIC.
pub(super) fn config(flags: &Global, command: &Command, file: &Configuration, began_ns: u64) -> anyhow::Result<Config> {
    let (strace, strace_syscalls) = match &flags.strace {
        None | Some(StraceFlag::Off) => (false, Vec::new()),
        Some(StraceFlag::All) => (true, flags.strace_syscalls.clone()),
        Some(StraceFlag::Only(names)) => (true, names.clone()),
    };
    Ok(Config {
        root: match &flags.root {
            // It goes into state files, which later commands read from other directories.
            Some(root) => std::path::absolute(root).context("--root")?,
            None => default_root(),
        },
        platform: match flags.platform {
            Platform::Systrap => PlatformKind::Systrap,
            Platform::Ptrace => PlatformKind::Ptrace,
        },
        call_sites: if flags.systrap_disable_syscall_patching { CallSites::Trapped } else { CallSites::Rewritten },
        network: match (flags.network, command) {
            // `do` has no client that would have made interfaces.
            (Some(Network::None), _) | (None, Command::Do(_)) => NetworkMode::None,
            (Some(Network::Sandbox) | None, _) => NetworkMode::Sandbox,
            (Some(Network::Host), _) => NetworkMode::Host,
        },
        systemd_cgroup: flags.systemd_cgroup,
        ignore_cgroups: flags.ignore_cgroups,
        rootless: match flags.rootless {
            RootlessFlag::Auto => Rootless::Auto,
            RootlessFlag::True => Rootless::Yes,
            RootlessFlag::False => Rootless::No,
        },
        cpu_num_from_quota: flags.cpu_num_from_quota,
        files: if flags.directfs { FileAccess::Direct } else { FileAccess::Gofer },
        root_sharing: match flags.file_access {
            Some(args::FileAccess::Exclusive) => Sharing::Exclusive,
            Some(args::FileAccess::Shared) => Sharing::Shared,
            None => default_sharing(flags.root.as_deref()),
        },
        overlay: flags.overlay2.0.clone(),
        host_nodes: HostNodes {
            sockets: match flags.host_uds {
                args::HostUds::None => SocketUse::None,
                args::HostUds::Open => SocketUse::Open,
                args::HostUds::Create => SocketUse::Create,
                args::HostUds::All => SocketUse::All,
            },
            fifos: match flags.host_fifo {
                args::HostFifo::None => HostUse::None,
                args::HostFifo::Open => HostUse::Open,
            },
        },
        profiles: if flags.oci_seccomp { Profiles::Apply } else { Profiles::Ignore },
        debug_log: match (&flags.debug_log, strace || flags.debug, command) {
            (Some(path), _, _) => DebugLog::File(path.clone()),
            (None, true, Command::Do(_) | Command::Run(_)) => DebugLog::Stderr,
            // The sandbox outlives the command and its standard error.
            (None, ..) => DebugLog::None,
        },
        annotated_flags: file.allowed().clone(),
        debug: flags.debug,
        log_json: flags.log_format == LogFormat::Json,
        pod_init_config: flags.pod_init_config.clone(),
        strace,
        strace_syscalls,
        strace_log_size: flags.strace_log_size,
        startup_began_ns: flags.trace_startup.then_some(began_ns),
    })
}

/// Docker writes into the root file systems of running containers (docker cp), other clients do it from inside. It names its
/// own place for states in each call: its namespace of containerd, "moby" unless it was told another, below
/// runtime-NAME.
fn default_sharing(root: Option<&Path>) -> Sharing {
    // A daemon with ids remapped or beside another has a namespace of its own, but the same directory above.
    let is_dockers = |root: &Path| {
        let runtime = root.parent().and_then(Path::file_name).map(std::ffi::OsStr::as_encoded_bytes);
        root.ends_with("moby") || runtime.is_some_and(|name| name.starts_with(b"runtime-"))
    };
    if root.is_some_and(is_dockers) { Sharing::Shared } else { Sharing::Exclusive }
}

fn default_root() -> PathBuf {
    let uid = rustix::process::geteuid();
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        _ if uid.is_root() && !is_mapped_user() => "/run/moat".into(),
        Some(dir) => Path::new(&dir).join("moat"),
        None => format!("/run/user/{}/moat", uid.as_raw()).into(),
    }
}

/// Whether root is only that of a user namespace, made by an ordinary user who still is in the environment: so does
/// Podman call runtimes, and /run is not theirs. The same test as runc's.
fn is_mapped_user() -> bool {
    moat_runtime::identity::in_user_namespace() && std::env::var_os("USER").is_none_or(|user| user != "root")
}

/// Log files of a new sandbox.
pub(super) struct LogFiles {
    pub(super) debug: Option<OwnedFd>,
    pub(super) panic: Option<File>,
    pub(super) user: Option<OwnedFd>,
}

impl LogFiles {
    /// Opens those that are wanted.
    pub(super) fn open(config: &Config, flags: &Global, command: &str, id: &str) -> anyhow::Result<Self> {
        let debug = match &config.debug_log {
            DebugLog::None => None,
            DebugLog::Stderr => Some(std::io::stderr().as_fd().try_clone_to_owned().context("duplicating stderr")?),
            DebugLog::File(pattern) => Some(open_log(&expand(pattern, command, id), "debug log")?.into()),
        };
        let panic = flags.panic_log.as_deref().map(|path| open_log(&expand(path, command, id), "panic log"));
        let user = flags.user_log.as_deref().map(|path| open_log(path, "user log"));
        Ok(LogFiles { debug, panic: panic.transpose()?, user: user.transpose()?.map(Into::into) })
    }
}

fn open_log(path: &Path, what: &str) -> anyhow::Result<File> {
    // A pattern that ends in "/" names a directory, which need not be there yet.
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("making the directory of the {what} {}", path.display()))?;
    }
    let file = OpenOptions::new().read(true).append(true).create(true).open(path);
    file.with_context(|| format!("opening the {what} {}", path.display()))
}

fn expand(pattern: &Path, command: &str, id: &str) -> PathBuf {
    let mut pattern = pattern.to_string_lossy().into_owned();
    if pattern.ends_with('/') {
        pattern.push_str("moat.log.%TIMESTAMP%.%COMMAND%.%ID%.txt");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let timestamp = format!("{}.{:06}", now.as_secs(), now.subsec_micros());
    pattern.replace("%TIMESTAMP%", &timestamp).replace("%COMMAND%", command).replace("%ID%", id).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_shares_its_roots() {
        let of = |root: &str| default_sharing(Some(Path::new(root)));
        for root in ["/run/docker/runtime-moat/moby", "/x/runtime-moat/other", "/run/containerd/runc/moby"] {
            assert_eq!(of(root), Sharing::Shared, "{root}");
        }
        for root in ["/run/containerd/runc/k8s.io", "/run/moat", "/", "runtime-x"] {
            assert_eq!(of(root), Sharing::Exclusive, "{root}");
        }
        assert_eq!(default_sharing(None), Sharing::Exclusive);
    }

    #[test]
    fn log_names() {
        let path = |pattern: &str| expand(Path::new(pattern), "run", "c1").to_string_lossy().into_owned();
        assert_eq!(path("/tmp/x.log"), "/tmp/x.log");
        assert_eq!(path("/tmp/%COMMAND%-%ID%"), "/tmp/run-c1");
        let in_directory = path("/tmp/logs/");
        assert!(in_directory.starts_with("/tmp/logs/moat.log.") && in_directory.ends_with(".run.c1.txt"));
    }
}
