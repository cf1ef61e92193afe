//! `moat exec`.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use moat_runtime::attach::{SignalForwarder, Stdin};
use moat_runtime::container::{Attachment, ExecOptions, ExecSettings, Paused};
use moat_runtime::terminal::TerminalGuard;
use moat_runtime::{Config, Error, oci};

use crate::args::Exec;
use crate::descriptors::Inherited;

/// Bytes of the largest process file that is read.
const MAX_PROCESS_BYTES: u64 = 8 << 20;

pub(super) fn run(config: &Config, flags: Exec, inherited: Inherited) -> anyhow::Result<u8> {
    refuse(&flags)?;
    let container = super::load(config, &flags.id)?;
    // A file describes the whole process; flags change the container's init.
    let process = match &flags.process {
        Some(path) => read_process(path)?,
        None => container.exec_process(settings(&flags)?)?,
    };
    let (process, warnings) = oci::process(&process)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let attachment = if flags.detach { Attachment::Detached } else { Attachment::Attached };
    let guard = if process.terminal && !flags.detach { TerminalGuard::of_stdin() } else { None };
    let signals = match attachment {
        Attachment::Attached => {
            Some(SignalForwarder::new(if guard.is_some() { Stdin::Terminal } else { Stdin::Other })?)
        }
        Attachment::Detached => None,
    };
    let exec = container.exec(ExecOptions {
        process,
        stdio: super::own_stdio()?,
        preserved: inherited.fds,
        attachment,
        console_socket: flags.console_socket,
        pid_file: flags.pid_file,
        internal_pid_file: flags.internal_pid_file,
        paused: if flags.ignore_paused { Paused::Ignored } else { Paused::Refused },
    })?;
    match (exec, signals) {
        (Some(exec), Some(signals)) => Ok(exec.attend(&signals)?.shell_code()),
        // Detached, there is nobody to wait for.
        _ => Ok(0),
    }
}

fn refuse(flags: &Exec) -> anyhow::Result<()> {
    if flags.process_label.as_deref().is_some_and(|label| !label.is_empty()) {
        tracing::warn!("--process-label is ignored: guest code never runs with the host's files");
    }
    if !flags.cgroup.is_empty() {
        // A limit that would not hold; the two others add to isolation that the sandbox has without them.
        return Err(Error::unsupported("--cgroup", "all processes of a sandbox are in its cgroup").into());
    }
    if flags.apparmor.as_deref().is_some_and(|profile| !profile.is_empty()) {
        tracing::warn!("--apparmor is ignored: guest code never runs with the host's files");
    }
    Ok(())
}

fn read_process(path: &Path) -> anyhow::Result<oci::Process> {
    let shown = path.display();
    // Looked at first, so that a wrong path does not fill the memory.
    let length = fs::metadata(path).with_context(|| format!("reading {shown}"))?.len();
    if length > MAX_PROCESS_BYTES {
        bail!("{shown} is larger than {MAX_PROCESS_BYTES} bytes");
    }
    let bytes = fs::read(path).with_context(|| format!("reading {shown}"))?;
    Ok(oci::parse(&bytes, &shown.to_string())?)
}

fn settings(flags: &Exec) -> anyhow::Result<ExecSettings> {
    let (uid, gid) = match flags.user.as_deref().map(parse_user) {
        None => (None, None),
        Some(Some((uid, gid))) => (Some(uid), gid),
        Some(None) => bail!("--user {:?} is not UID[:GID]", flags.user.as_deref().unwrap_or_default()),
    };
    Ok(ExecSettings {
        args: flags.command.clone(),
        env: flags.env.clone(),
        cwd: flags.cwd.clone(),
        uid,
        gid,
        additional_gids: flags.additional_gids.clone(),
        capabilities: flags.cap.clone(),
        terminal: flags.tty,
        no_new_privs: flags.no_new_privs,
    })
}

fn parse_user(text: &str) -> Option<(u32, Option<u32>)> {
    match text.split_once(':') {
        None => Some((text.parse().ok()?, None)),
        Some((uid, gid)) => Some((uid.parse().ok()?, Some(gid.parse().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        assert_eq!(parse_user("1000"), Some((1000, None)));
        assert_eq!(parse_user("1000:5"), Some((1000, Some(5))));
        for bad in ["", "root", "1:", "1:x", "-1"] {
            assert_eq!(parse_user(bad), None, "{bad}");
        }
    }
}
