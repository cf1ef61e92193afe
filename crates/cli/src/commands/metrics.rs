//! `moat usage`, `moat export-metrics` and `moat metric-server`.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use moat_runtime::Config;
use moat_runtime::metrics::server::{Address, Server, export};
use moat_runtime::metrics::{Format, Reading, Usage};

use crate::args::{self, ExportMetrics, Global, MetricServer};

pub(super) fn usage(config: &Config, flags: &args::Usage) -> anyhow::Result<u8> {
    let reading = Reading::of(&super::load(config, &flags.id)?);
    let charged = reading.cgroup.as_ref().map(|stats| stats.memory.usage.usage);
    let Some(metrics) = reading.counted else { bail!("container {} is not running", flags.id) };
    let mut usage = Usage::of(&metrics?, charged);
    if !flags.full {
        usage.details = None;
    }
    super::print_json(&usage)?;
    Ok(0)
}

pub(super) fn export_metrics(config: &Config, flags: &ExportMetrics) -> anyhow::Result<u8> {
    let reading = Reading::of(&super::load(config, &flags.id)?);
    match &reading.counted {
        None => bail!("container {} is not running", flags.id),
        Some(Err(error)) => bail!("the sandbox of container {} gives no metrics: {error}", flags.id),
        Some(Ok(_)) => {}
    }
    let format = if flags.openmetrics { Format::OpenMetrics } else { Format::Prometheus };
    super::print(&export(&reading, &flags.exporter_prefix, format))?;
    Ok(0)
}

pub(super) fn serve(config: &Config, global: &Global, flags: MetricServer) -> anyhow::Result<u8> {
    let Some(address) = &global.metric_server else {
        bail!("say where to listen: --metric-server=PATH, or --metric-server=HOST:PORT, before the command");
    };
    let address: Address = address.replace("%RUNTIME_ROOT%", &config.root.to_string_lossy()).parse()?;
    let server = Server::bind(&address, super::store(config), flags.exporter_prefix)?;
    if let Some(file) = &flags.pid_file {
        fs::write(file, std::process::id().to_string()).with_context(|| format!("writing {}", file.display()))?;
    }
    super::print(&format!("listening on {}\n", server.address()))?;
    let served = server.run();
    if let Some(file) = flags.pid_file.as_deref().filter(|file: &&Path| file.exists()) {
        fs::remove_file(file).with_context(|| format!("removing {}", file.display()))?;
    }
    served?;
    Ok(0)
}
