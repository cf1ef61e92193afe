//! What each command does: flags in, calls on `moat-runtime`, an exit code out.

mod adhoc;
mod checkpoint;
mod clone;
mod create;
mod debug;
mod delete;
mod doctor;
mod documents;
mod events;
mod exec;
mod features;
#[cfg(feature = "host-calls")]
mod host_calls;
mod image;
mod install;
mod kill;
mod list;
mod metrics;
mod profile;
mod ps;
mod recording;
mod run;
mod screen;
mod settings;
mod spec;
mod top;
mod trace;
mod update;
mod wait;

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use moat_runtime::{Config, Container, ContainerId, Store};
use serde::Serialize;

use crate::args::{Arguments, Command};
use crate::configuration::Configuration;
use crate::descriptors::Inherited;

pub(crate) use doctor::hint;

/// Carries out a command, which began at `began_ns` of CLOCK_MONOTONIC; gives the exit code.
pub(crate) fn run(
    arguments: Arguments,
    inherited: Inherited,
    file: &Configuration,
    began_ns: u64,
) -> anyhow::Result<u8> {
    let Arguments { global, command } = arguments;
    // Flags, the configuration file and what a command implies come together here and nowhere else.
    let config = settings::config(&global, &command, file, began_ns)?;
    match command {
        Command::Create(flags) => create::run(&config, &global, flags, inherited),
        Command::Run(flags) => run::run(&config, &global, flags, inherited),
        Command::Do(flags) => adhoc::run(&config, &global, flags),
        Command::Exec(flags) => exec::run(&config, *flags, inherited),
        Command::Start(flags) => load(&config, &flags.id)?.start().map(|()| 0).map_err(Into::into),
        Command::State(flags) => list::state(&config, &flags.id),
        Command::Kill(flags) => kill::run(&config, &flags),
        Command::Delete(flags) => delete::run(&config, &flags),
        Command::List(flags) => list::run(&config, &flags),
        Command::Ps(flags) => ps::run(&config, &flags),
        Command::Events(flags) => events::run(&config, &flags),
        Command::Top(flags) => top::run(&config, &flags),
        Command::Usage(flags) => metrics::usage(&config, &flags),
        Command::ExportMetrics(flags) => metrics::export_metrics(&config, &flags),
        Command::MetricServer(flags) => metrics::serve(&config, &global, flags),
        Command::Update(flags) => update::run(&config, &flags),
        Command::Pause(flags) => load(&config, &flags.id)?.pause().map(|()| 0).map_err(Into::into),
        Command::Resume(flags) => load(&config, &flags.id)?.resume().map(|()| 0).map_err(Into::into),
        Command::Wait(flags) => wait::run(&config, &flags),
        Command::Checkpoint(flags) => checkpoint::run(&config, &flags),
        Command::Restore(flags) => run::restore(&config, &global, *flags, inherited),
        Command::Clone(flags) => clone::run(&config, &global, flags),
        Command::Image(flags) => image::run(&flags.command),
        Command::Spec(flags) => spec::run(&flags),
        Command::Features => features::run(),
        Command::Trace(flags) => trace::run(&config, &flags),
        Command::Debug(flags) => debug::run(&config, &global, &flags),
        #[cfg(feature = "host-calls")]
        Command::HostCalls(flags) => host_calls::run(&config, &flags),
        Command::Doctor(flags) => doctor::run(&flags),
        Command::Install(flags) => install::install(&flags),
        Command::Uninstall(flags) => install::uninstall(&flags),
        Command::Completion(flags) => documents::completion(flags.shell),
        Command::Man(flags) => documents::man(&flags.directory),
    }
}

fn store(config: &Config) -> Store {
    Store::new(config.root.clone())
}

fn load(config: &Config, id: &str) -> anyhow::Result<Container> {
    // An id that no container can have is one that none has.
    let id: ContainerId = id.parse()?;
    Ok(Container::load(&store(config), &id)?)
}

fn own_stdio() -> anyhow::Result<[OwnedFd; 3]> {
    let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().context("duplicating stdio");
    Ok([copy(std::io::stdin().as_fd())?, copy(std::io::stdout().as_fd())?, copy(std::io::stderr().as_fd())?])
}

/// Writes an answer, as people read it.
fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}

fn print(text: &str) -> anyhow::Result<()> {
    // Not print!, which panics when the reader of a pipe has gone.
    std::io::stdout().lock().write_all(text.as_bytes()).context("writing to standard output")
}
