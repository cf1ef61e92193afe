//! `moat run`.

use moat_control::spec::Lifetime;
use moat_runtime::attach::{SignalForwarder, Stdin};
use moat_runtime::container::Force;
use moat_runtime::terminal::TerminalGuard;
use moat_runtime::{Config, Container};

use super::create::create;
use crate::args::{Global, Run};
use crate::descriptors::Inherited;

pub(super) fn run(config: &Config, global: &Global, flags: Run, inherited: Inherited) -> anyhow::Result<u8> {
    let lifetime = if flags.detach { Lifetime::Detached } else { Lifetime::Attached };
    if flags.detach {
        let created = create(config, global, flags.create, inherited, lifetime, "run")?;
        return start_or_delete(config, created.container).map(|_| 0);
    }
    // The guest's terminal is the caller's, if it has one.
    let guard = TerminalGuard::of_stdin();
    let signals = SignalForwarder::new(if guard.is_some() { Stdin::Terminal } else { Stdin::Other })?;
    // The signals are held back until the guest runs: none ends this command half way.
    let mut created = create(config, global, flags.create, inherited, lifetime, "run")?;
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
fn start_or_delete(config: &Config, mut container: Container) -> anyhow::Result<Container> {
    match container.start() {
        Ok(()) => Ok(container),
        Err(error) => {
            let _ = Container::delete(&super::store(config), container.id(), Force::Yes);
            Err(error.into())
        }
    }
}
