//! `moat run`.

use anyhow::Context;
use moat_control::spec::Lifetime;
use moat_runtime::attach::{SignalForwarder, Stdin};
use moat_runtime::blueprint::ImageSource;
use moat_runtime::container::Force;
use moat_runtime::terminal::TerminalGuard;
use moat_runtime::{Config, Container};

use super::create::create;
use crate::args::{Global, Restore, Run};
use crate::descriptors::Inherited;

pub(super) fn run(config: &Config, global: &Global, flags: Run, inherited: Inherited) -> anyhow::Result<u8> {
    begin(config, global, flags, inherited, None)
}

/// `moat restore`: the same, with the processes of an image in place of the init's program.
pub(super) fn restore(config: &Config, global: &Global, flags: Restore, inherited: Inherited) -> anyhow::Result<u8> {
    // The sandbox is made by a process elsewhere in the end.
    let image = std::path::absolute(&flags.image_path).context("finding the image")?;
    begin(config, global, flags.run, inherited, Some(ImageSource::Directory(image)))
}

fn begin(
    config: &Config,
    global: &Global,
    flags: Run,
    inherited: Inherited,
    image: Option<ImageSource>,
) -> anyhow::Result<u8> {
    let command = if image.is_some() { "restore" } else { "run" };
    let lifetime = if flags.detach { Lifetime::Detached } else { Lifetime::Attached };
    if flags.detach {
        let created = create(config, global, flags.create, inherited, lifetime, command, image)?;
        return start_or_delete(config, created.container).map(|_| 0);
    }
    // The guest's terminal is the caller's, if it has one.
    let guard = TerminalGuard::of_stdin();
    let signals = SignalForwarder::new(if guard.is_some() { Stdin::Terminal } else { Stdin::Other })?;
    // The signals are held back until the guest runs: none ends this command half way.
    let mut created = create(config, global, flags.create, inherited, lifetime, command, image)?;
    let outcome = created.run(&signals);
    if !flags.keep {
        let id = created.container.id().clone();
        // With an error to report already another one does not matter.
        let deleted = Container::delete(&super::store(config), &id, Force::Yes);
        if outcome.is_ok() {
            deleted?;
        }
    }
    Ok(outcome?.shell_code())
}

/// A container that can't be started is of no use to anybody.
pub(super) fn start_or_delete(config: &Config, mut container: Container) -> anyhow::Result<Container> {
    match container.start() {
        Ok(()) => Ok(container),
        Err(error) => {
            let _ = Container::delete(&super::store(config), container.id(), Force::Yes);
            Err(error.into())
        }
    }
}
