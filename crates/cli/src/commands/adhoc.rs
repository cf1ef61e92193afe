//! `moat do`.

use std::io::IsTerminal;

use anyhow::Context;
use moat_control::ProfileKind;
use moat_profile::summary::Summary;
use moat_runtime::adhoc::{Request, Volume, blueprint};
use moat_runtime::attach::{SignalForwarder, Stdin};
use moat_runtime::sandbox::{InitFiles, SandboxFiles, Terminal};
use moat_runtime::terminal::TerminalGuard;
use moat_runtime::{ChildSandbox, Config};

use super::profile;
use super::recording::Recording;
use super::settings::LogFiles;
use crate::args::{Do, Global};

pub(super) fn run(config: &Config, global: &Global, flags: Do) -> anyhow::Result<u8> {
    let volumes = flags.volume.iter().map(|text| text.parse::<Volume>()).collect::<Result<_, _>>()?;
    let inherited = if flags.clear_env { Vec::new() } else { inherited_env() };
    let request = Request {
        args: flags.command,
        env: merged_env(inherited, &flags.env),
        cwd: flags.cwd.map(std::path::absolute).transpose().context("--cwd")?,
        root: flags.root,
        uid: flags.uid,
        gid: flags.gid,
        volumes,
        terminal: std::io::stdin().is_terminal(),
        host_nodes: config.host_nodes,
    };
    let blueprint = blueprint(request)?;
    for warning in &blueprint.warnings {
        tracing::warn!("{warning}");
    }
    let guard = if blueprint.process.terminal { TerminalGuard::of_stdin() } else { None };
    let signals = SignalForwarder::new(if guard.is_some() { Stdin::Terminal } else { Stdin::Other })?;
    let logs = LogFiles::open(config, global, "do", blueprint.id.as_str())?;
    let files = SandboxFiles {
        stdio: InitFiles { stdio: super::own_stdio()?, preserved: Vec::new(), terminal: Terminal::Shared },
        // It has no state on disk: nobody else is to reach it, and it ends with this command.
        listener: None,
        debug_log: logs.debug,
        panic_log: logs.panic,
        user_log: logs.user,
    };
    let sandbox = ChildSandbox::start(config, blueprint, files, None, |_| Ok(()))?;
    let start = |kind, pipe| sandbox.start_profile(kind, pipe);
    let tracing = flags.trace.as_deref().map(|path| Recording::trace(path, |pipe| start(ProfileKind::Trace, pipe)));
    let tracing = tracing.transpose()?;
    let summary = || Recording::begin("reading the summary", |pipe| start(ProfileKind::Times, pipe), Summary::read);
    let summary = flags.summary.then(summary).transpose()?;
    let profiles = profile::Session::begin(&flags.profiles, start)?;
    // Dropped at the end, with the rules that it has set.
    let uplink = sandbox.connect_outside()?;
    sandbox.start_root_over(uplink.as_ref())?;
    let status = sandbox.attend(&signals)?;
    if let Some(tracing) = tracing {
        tracing.end_trace()?;
    }
    profiles.finish()?;
    if let Some(summary) = summary {
        // Standard output is the command's.
        eprint!("\n{}", summary.end()?);
    }
    Ok(status.shell_code())
}

/// The caller's variables; those that are not UTF-8 stay behind.
fn inherited_env() -> Vec<String> {
    std::env::vars_os().filter_map(|(name, value)| Some(format!("{}={}", name.to_str()?, value.to_str()?))).collect()
}

/// `set` on top of `env`; a bare name is passed on from the caller's environment if it is there.
fn merged_env(mut env: Vec<String>, set: &[String]) -> Vec<String> {
    for setting in set {
        let (name, text) = match setting.split_once('=') {
            Some((name, _)) => (name, Some(setting.clone())),
            None => (setting.as_str(), std::env::var(setting).ok().map(|value| format!("{setting}={value}"))),
        };
        env.retain(|old| old.split_once('=').is_none_or(|(old_name, _)| old_name != name));
        env.extend(text);
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_replace() {
        let env = vec!["A=1".to_owned(), "B=2".to_owned()];
        assert_eq!(merged_env(env, &["A=3=4".into(), "C=".into()]), ["B=2", "A=3=4", "C="]);
    }
}
