//! `moat checkpoint`.

use std::path::absolute;

use anyhow::Context;
use moat_runtime::Config;
use moat_runtime::container::Afterwards;

use crate::args::Checkpoint;

pub(super) fn run(config: &Config, flags: &Checkpoint) -> anyhow::Result<u8> {
    let place = absolute(&flags.image_path).context("finding the place of the image")?;
    // As with runc, a container ends when it has been saved.
    let afterwards = if flags.leave_running { Afterwards::Runs } else { Afterwards::Gone };
    super::load(config, &flags.id)?.checkpoint(&place, afterwards)?;
    Ok(0)
}
