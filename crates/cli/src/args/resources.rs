//! Flags of the commands about a container's use of the host.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use moat_runtime::update::parse_bytes;

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Say what it uses, once
    #[arg(long)]
    pub(crate) stats: bool,
    /// Add what the sandbox counts, under "metrics"
    #[arg(long)]
    pub(crate) metrics: bool,
    /// Time between two lines, like 5s or 1m30s
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub(crate) interval: Duration,
    /// The container's id
    pub(crate) id: String,
}

#[derive(Debug, Args)]
#[command(rename_all = "kebab-case")]
pub(crate) struct Update {
    /// Read a section linux.resources from FILE, "-" is standard input; other flags are ignored then
    #[arg(long, short, value_name = "FILE")]
    pub(crate) resources: Option<PathBuf>,
    /// Weight among others that use block devices, 10 to 1000
    #[arg(long)]
    pub(crate) blkio_weight: Option<u16>,
    /// Period of the CPU quota in microseconds
    #[arg(long)]
    pub(crate) cpu_period: Option<u64>,
    /// CPU time in each period in microseconds, -1 for no limit
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// CPU time beyond the quota that may be saved up, in microseconds
    #[arg(long)]
    pub(crate) cpu_burst: Option<u64>,
    /// Weight among others that use the CPUs
    #[arg(long)]
    pub(crate) cpu_share: Option<u64>,
    /// Period of the quota of realtime processes in microseconds
    #[arg(long)]
    pub(crate) cpu_rt_period: Option<u64>,
    /// CPU time of realtime processes in each period in microseconds
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// 1: runs only when nobody else wants to
    #[arg(long)]
    pub(crate) cpu_idle: Option<i64>,
    /// CPUs to run on, like 0-3,7
    #[arg(long)]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long)]
    pub(crate) cpuset_mems: Option<String>,
    /// Limit of memory, like 64m, -1 for none
    #[arg(long, value_parser = bytes, allow_negative_numbers = true)]
    pub(crate) memory: Option<i64>,
    /// Memory that is left to it when there is too little
    #[arg(long, value_parser = bytes, allow_negative_numbers = true)]
    pub(crate) memory_reservation: Option<i64>,
    /// Limit of memory and swap together, -1 for none
    #[arg(long, value_parser = bytes, allow_negative_numbers = true)]
    pub(crate) memory_swap: Option<i64>,
    /// Limit of processes and threads, -1 for none
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Accepted: the host's kernel has no such limit any more
    #[arg(long, value_name = "SIZE", hide = true)]
    pub(crate) kernel_memory: Option<String>,
    /// Accepted likewise
    #[arg(long, value_name = "SIZE", hide = true)]
    pub(crate) kernel_memory_tcp: Option<String>,
    /// The container's id
    pub(crate) id: String,
}

fn bytes(text: &str) -> Result<i64, String> {
    parse_bytes(text).map_err(|error| error.to_string())
}

/// A time as Go writes it: numbers with units, one after the other.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("invalid duration {text:?}");
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        // As in Go a number needs a unit.
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, unit) = rest.split_at_checked(digits).ok_or_else(invalid)?;
        let end = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
        let (unit, next) = unit.split_at_checked(end).ok_or_else(invalid)?;
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(invalid()),
        };
        let part = number.parse::<f64>().map_err(|_| invalid())? * seconds;
        // Too long a time is as wrong as no time.
        let part = Duration::try_from_secs_f64(part).map_err(|_| invalid())?;
        total = total.checked_add(part).ok_or_else(invalid)?;
        rest = next;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, ms) in [("5s", 5000), ("1m30s", 90_000), ("250ms", 250), ("1.5s", 1500), ("1h", 3_600_000)] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        for bad in ["", "5", "s", "5x", "-1s", "1s2", "1..2s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
