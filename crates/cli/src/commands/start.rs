//! `moat start`.

use moat_runtime::Config;

pub(super) fn run(config: &Config, id: &str) -> anyhow::Result<u8> {
    super::load(config, id)?.start()?;
    Ok(0)
}
