//! `moat update`.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::Context;
use moat_runtime::store::Status;
use moat_runtime::update::{self, Limits};
use moat_runtime::{Config, Error};

use crate::args::Update;

pub(super) fn run(config: &Config, flags: &Update) -> anyhow::Result<u8> {
    let container = super::load(config, &flags.id)?;
    if container.status() == Status::Stopped {
        return Err(Error::State("container not running".into()).into());
    }
    let resources = match flags.resources.as_deref() {
        None => limits(flags).resources(),
        // As runc: "-" is standard input. With a file the other flags do not count.
        Some(path) if path == Path::new("-") => update::read_resources(io::stdin().lock())?,
        Some(path) => update::read_resources(File::open(path).with_context(|| format!("opening {}", path.display()))?)?,
    };
    container.update(config, &resources)?;
    Ok(0)
}

fn limits(flags: &Update) -> Limits {
    Limits {
        blkio_weight: flags.blkio_weight,
        cpu_period: flags.cpu_period,
        cpu_quota: flags.cpu_quota,
        cpu_burst: flags.cpu_burst,
        cpu_share: flags.cpu_share,
        cpu_rt_period: flags.cpu_rt_period,
        cpu_rt_runtime: flags.cpu_rt_runtime,
        cpu_idle: flags.cpu_idle,
        cpuset_cpus: flags.cpuset_cpus.clone(),
        cpuset_mems: flags.cpuset_mems.clone(),
        memory: flags.memory,
        memory_reservation: flags.memory_reservation,
        memory_swap: flags.memory_swap,
        pids_limit: flags.pids_limit,
    }
}
