//! `moat run`.

use moat_control::spec::Lifetime;
use moat_runtime::{Config, ContainerId, oci};

use crate::args::Run;

pub(super) fn run(config: &Config, flags: Run) -> anyhow::Result<u8> {
    let id: ContainerId = flags.id.parse()?;
    let blueprint = oci::blueprint(config, id, &flags.bundle, Lifetime::Attached)?;
    super::run_attached(config, blueprint, "run")
}
