//! Flags of the commands that say what containers use.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use moat_runtime::metrics::Prefix;

use super::lenient::truth;
use super::resources::duration;

#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// Say also what the categories are made of, and what the cgroup says
    #[arg(long)]
    pub(crate) full: bool,
    /// Accepted: usage is always asked of the sandbox
    #[arg(long, hide = true)]
    pub(crate) fd: bool,
    /// The container's id
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct ExportMetrics {
    /// What all names begin with; runsc_ for dashboards that were made for runsc
    #[arg(long, value_name = "PREFIX", default_value_t)]
    pub(crate) exporter_prefix: Prefix,
    /// Write OpenMetrics instead of Prometheus' text format
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, value_name = "BOOL", value_parser = truth)]
    pub(crate) openmetrics: bool,
    /// The container's id
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Time between two looks, like 2s or 500ms
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "TIME")]
    pub(crate) interval: Duration,
    /// End after so many looks
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) iterations: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct MetricServer {
    /// What all names begin with; runsc_ for dashboards that were made for runsc
    #[arg(long, value_name = "PREFIX", default_value_t)]
    pub(crate) exporter_prefix: Prefix,
    /// File for the pid of the server, written when it listens and removed when it ends
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Accepted: a store without containers has none to tell of
    #[arg(long, hide = true)]
    pub(crate) allow_unknown_root: bool,
}
