//! `moat checkpoint`.

use std::path::absolute;

use anyhow::Context;
use moat_runtime::Config;
use moat_runtime::container::{Afterwards, CheckpointOptions, PageCompression};

use crate::args::{Checkpoint, Compression};

pub(super) fn run(config: &Config, flags: &Checkpoint) -> anyhow::Result<u8> {
    let place = absolute(&flags.image_path).context("finding the place of the image")?;
    // As with runc, a container ends when it has been saved.
    let afterwards = if flags.leave_running { Afterwards::Runs } else { Afterwards::Gone };
    let compression = match flags.compression {
        Compression::None => PageCompression::None,
        Compression::Lz4 => PageCompression::Lz4,
        Compression::Zstd => PageCompression::Zstd,
    };
    let options = CheckpointOptions { afterwards, compression, base: flags.base.as_deref() };
    super::load(config, &flags.id)?.checkpoint(&place, options)?;
    Ok(0)
}
