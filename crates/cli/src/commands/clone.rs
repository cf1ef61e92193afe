//! `moat clone`.

use anyhow::bail;
use moat_control::spec::Lifetime;
use moat_runtime::Config;

use super::create::create;
use super::run::start_or_delete;
use crate::args::{CloneContainer, Create, Global};
use crate::descriptors::Inherited;

/// Saves a running container in memory and restores it as often as is asked for. The clones share the saved memory until they write.
pub(super) fn run(config: &Config, global: &Global, flags: CloneContainer) -> anyhow::Result<u8> {
    let names = match (flags.count, flags.clones.as_slice()) {
        (None | Some(1), names) => names.to_vec(),
        (Some(count), [name]) => (1..=count).map(|n| format!("{name}-{n}")).collect(),
        (Some(_), _) => bail!("--count takes one new id, which the numbers are added to"),
    };
    // Looked at before anything is made, so that a wrong id leaves nothing behind.
    let mut container = super::load(config, &flags.id)?;
    let bundle = flags.bundle.unwrap_or_else(|| container.state.bundle.clone());
    let image = container.snapshot()?;
    // One after the other: each is there for good, whatever becomes of the next.
    for id in names {
        let flags = Create { bundle: bundle.clone(), id, ..Create::default() };
        let (nothing, image) = (Inherited::default(), Some(image.clone()));
        let created = create(config, global, flags, nothing, Lifetime::Detached, "clone", image)?;
        start_or_delete(config, created.container)?;
    }
    Ok(0)
}
