//! `moat debug`.

use anyhow::bail;
use moat_abi::Signal;
use moat_control::protocol::StraceCalls;
use moat_control::spec::LogSpec;
use moat_runtime::sandbox::outside;
use moat_runtime::{Config, Sandbox};

use super::kill::parse_signal;
use super::profile;
use super::ps::table;
use super::settings::LogFiles;
use crate::args::{Debug, Global, StraceFlag};

pub(super) fn run(config: &Config, global: &Global, flags: &Debug) -> anyhow::Result<u8> {
    let container = super::load(config, &flags.id)?;
    let sandbox = container.sandbox()?;
    if let Some(signal) = &flags.signal {
        // The host process, not one in the container.
        let number = parse_signal(signal)?;
        let Some(signal) = Signal::new(number) else { bail!("unknown signal {signal:?}") };
        sandbox.process.signal(signal)?;
    }
    if flags.log_level.is_some() {
        let debug = match flags.log_level.as_deref() {
            None | Some("warning" | "warn" | "info") => false,
            Some("debug") => true,
            Some(other) => bail!("--log-level {other:?} is not warning, info or debug"),
        };
        let logs = LogFiles::open(config, global, "debug", &flags.id)?;
        sandbox.change_logging(LogSpec { debug, strace: false, ..config.log_spec() }, logs.debug)?;
    }
    if let Some(strace) = &global.strace {
        let names = &global.strace_syscalls;
        let calls = match strace {
            StraceFlag::Off => StraceCalls::Off,
            StraceFlag::All if names.is_empty() => StraceCalls::All,
            StraceFlag::All => StraceCalls::Only(names.clone()),
            StraceFlag::Only(names) => StraceCalls::Only(names.clone()),
        };
        // With --debug-log the sandbox logs into that file from now on.
        let logs = LogFiles::open(config, global, "debug", &flags.id)?;
        sandbox.change_strace(&flags.id, flags.pid, calls, logs.debug)?;
    }
    if flags.ps {
        let text = container.processes().map(|processes| table(&processes));
        super::print(&or_from_outside(sandbox, text)?)?;
    }
    if flags.stacks {
        super::print(&or_from_outside(sandbox, sandbox.stacks())?)?;
    }
    profile::run(sandbox, &flags.profiles)?;
    Ok(0)
}

/// What the sandbox said; if it runs and says nothing, what the host knows of it.
fn or_from_outside(sandbox: &Sandbox, text: moat_runtime::Result<String>) -> anyhow::Result<String> {
    match text {
        Ok(text) => Ok(text),
        Err(error) if sandbox.is_running() => Ok(outside::report(sandbox, &error.to_string())),
        Err(error) => Err(error.into()),
    }
}
