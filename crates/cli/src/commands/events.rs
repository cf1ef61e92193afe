//! `moat events`.

use std::io;

use moat_runtime::container::Container;
use moat_runtime::events::Detail;
use moat_runtime::store::Status;
use moat_runtime::{Config, Error, events};

use crate::args::Events;

pub(super) fn run(config: &Config, flags: &Events) -> anyhow::Result<u8> {
    let container: Container = super::load(config, &flags.id)?;
    // Its cgroup may still be there, with figures of nobody.
    if container.status() == Status::Stopped {
        return Err(Error::State(format!("container with id {} is not running", flags.id)).into());
    }
    let cgroup = container.state.cgroup.as_ref();
    let cgroup = cgroup.ok_or_else(|| Error::State("the container has no cgroup that would count".into()))?;
    let mut out = io::stdout().lock();
    let detail = if flags.metrics { Detail::Metrics } else { Detail::Stats };
    if flags.stats {
        events::stats(&container, cgroup, detail, &mut out)?;
    } else {
        events::follow(&container, cgroup, detail, flags.interval, &mut out)?;
    }
    Ok(0)
}
