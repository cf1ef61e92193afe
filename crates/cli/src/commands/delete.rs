//! `moat delete`.

use moat_runtime::container::Force;
use moat_runtime::{Config, Container, ContainerId};

use crate::args::Delete;

pub(super) fn run(config: &Config, flags: &Delete) -> anyhow::Result<u8> {
    let force = if flags.force { Force::Yes } else { Force::No };
    for id in &flags.ids {
        let id: ContainerId = id.parse()?;
        Container::delete(&super::store(config), &id, force)?;
    }
    Ok(0)
}
