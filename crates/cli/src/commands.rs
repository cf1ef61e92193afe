//! What each command does: flags in, one call on `moat-runtime`, an exit code out.

mod adhoc;
mod run;

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use moat_control::spec::{NetworkMode, PlatformKind};
use moat_runtime::attach::{SignalForwarder, Stdin};
use moat_runtime::config::{DebugLog, OverlayRoot};
use moat_runtime::sandbox::SandboxFiles;
use moat_runtime::terminal::TerminalGuard;
use moat_runtime::{Blueprint, Config, Sandbox};

use crate::args::{Arguments, Command, Global, LogFormat, Network, Overlay2, Platform};

/// Carries out a command; gives the exit code.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<u8> {
    let config = config(&arguments.global);
    match arguments.command {
        Command::Do(flags) => adhoc::run(&config, flags),
        Command::Run(flags) => run::run(&config, flags),
    }
}

fn config(flags: &Global) -> Config {
    let debug_log = match (&flags.debug_log, flags.strace || flags.debug) {
        (Some(path), _) => DebugLog::File(path.clone()),
        (None, true) => DebugLog::Stderr,
        (None, false) => DebugLog::None,
    };
    Config {
        platform: match flags.platform {
            Platform::Systrap => PlatformKind::Systrap,
            Platform::Ptrace => PlatformKind::Ptrace,
        },
        network: match flags.network {
            Network::None => NetworkMode::None,
            Network::Sandbox => NetworkMode::Sandbox,
            Network::Host => NetworkMode::Host,
        },
        systemd_cgroup: false,
        ignore_cgroups: false,
        cpu_num_from_quota: true,
        overlay_root: match flags.overlay2 {
            Overlay2::None => OverlayRoot::None,
            Overlay2::RootMemory => OverlayRoot::Memory,
        },
        debug_log,
        debug: flags.debug,
        log_json: flags.log_format == LogFormat::Json,
        strace: flags.strace,
        strace_syscalls: flags.strace_syscalls.clone(),
        strace_log_size: flags.strace_log_size,
    }
}

/// Runs a container with the caller's stdio to its end.
fn run_attached(config: &Config, blueprint: Blueprint, command: &str) -> anyhow::Result<u8> {
    for warning in &blueprint.warnings {
        tracing::warn!("{warning}");
    }
    let terminal = if blueprint.process.terminal { TerminalGuard::of_stdin() } else { None };
    let signals = SignalForwarder::new(if terminal.is_some() { Stdin::Terminal } else { Stdin::Other })?;
    let files = SandboxFiles {
        stdio: own_stdio()?,
        debug_log: open_debug_log(&config.debug_log, command, blueprint.id.as_str())?,
        user_log: None,
    };
    let sandbox = Sandbox::start(config, blueprint, files)?;
    Ok(sandbox.attend(&signals)?.shell_code())
}

fn own_stdio() -> anyhow::Result<[OwnedFd; 3]> {
    let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().context("duplicating stdio");
    Ok([copy(std::io::stdin().as_fd())?, copy(std::io::stdout().as_fd())?, copy(std::io::stderr().as_fd())?])
}

fn open_debug_log(log: &DebugLog, command: &str, id: &str) -> anyhow::Result<Option<OwnedFd>> {
    match log {
        DebugLog::None => Ok(None),
        DebugLog::Stderr => Ok(Some(std::io::stderr().as_fd().try_clone_to_owned().context("duplicating stderr")?)),
        DebugLog::File(pattern) => {
            let path = debug_log_path(pattern, command, id);
            let file: File = OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path)
                .with_context(|| format!("opening the debug log {}", path.display()))?;
            Ok(Some(file.into()))
        }
    }
}

fn debug_log_path(pattern: &Path, command: &str, id: &str) -> PathBuf {
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
    fn debug_log_names() {
        let path = |pattern: &str| debug_log_path(Path::new(pattern), "run", "c1").to_string_lossy().into_owned();
        assert_eq!(path("/tmp/x.log"), "/tmp/x.log");
        assert_eq!(path("/tmp/%COMMAND%-%ID%"), "/tmp/run-c1");
        let in_directory = path("/tmp/logs/");
        assert!(in_directory.starts_with("/tmp/logs/moat.log.") && in_directory.ends_with(".run.c1.txt"));
    }
}
