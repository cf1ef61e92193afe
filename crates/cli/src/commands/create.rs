//! `moat create`.

use moat_control::spec::Lifetime;
use moat_runtime::blueprint::ImageSource;
use moat_runtime::container::{CreateOptions, Created};
use moat_runtime::{Config, Container, ContainerId};

use super::settings::LogFiles;
use crate::args::{Create, Global};
use crate::descriptors::Inherited;

pub(super) fn run(config: &Config, global: &Global, flags: Create, inherited: Inherited) -> anyhow::Result<u8> {
    create(config, global, flags, inherited, Lifetime::Detached, "create", None)?;
    Ok(0)
}

/// What `create` and `run` have in common.
pub(super) fn create(
    config: &Config,
    global: &Global,
    flags: Create,
    inherited: Inherited,
    lifetime: Lifetime,
    command: &str,
    image: Option<ImageSource>,
) -> anyhow::Result<Created> {
    let id: ContainerId = flags.id.parse()?;
    // Opened here, with the caller's rights and working directory: the sandbox reaches neither.
    let logs = LogFiles::open(config, global, command, id.as_str())?;
    let options = CreateOptions {
        bundle: flags.bundle,
        lifetime,
        stdio: super::own_stdio()?,
        preserved: inherited.fds,
        listening: inherited.listening,
        console_socket: flags.console_socket,
        pid_file: flags.pid_file,
        debug_log: logs.debug,
        panic_log: logs.panic,
        user_log: logs.user,
        image,
    };
    Ok(Container::create(config, &id, options)?)
}
