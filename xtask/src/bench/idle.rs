//! Memory and processor time of a run that does nothing, over all of its processes.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::test::leftovers;

/// Long enough for everything lazy to have happened.
const SETTLE: Duration = Duration::from_secs(2);
const WATCH: Duration = Duration::from_secs(2);

/// What all processes together use.
pub struct Usage {
    /// Proportional set size: shared pages count by the share.
    pub pss_bytes: u64,
    /// Processor time, user and system, in one second of wall time.
    pub cpu_ns_per_s: u64,
}

/// Starts the command, lets it settle, measures it and its descendants, and ends them.
pub fn measure(mut command: Command) -> Result<Usage> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    std::thread::sleep(SETTLE);
    let early = child.try_wait()?;
    let before = cpu_ticks();
    let start = Instant::now();
    std::thread::sleep(WATCH);
    let ticks = cpu_ticks().saturating_sub(before);
    let seconds = start.elapsed().as_secs_f64();
    let pss_bytes = pss_of_all();
    leftovers::kill_descendants();
    // Killing may have reaped it as well.
    let _ = child.wait();
    if let Some(status) = early {
        bail!("it ended early: {status}");
    }
    let ns = ticks as f64 * 1e9 / rustix::param::clock_ticks_per_second() as f64;
    Ok(Usage { pss_bytes, cpu_ns_per_s: (ns / seconds) as u64 })
}

/// The proportional set size of all descendants.
pub fn pss_of_all() -> u64 {
    leftovers::living().iter().map(|(pid, _)| pss(pid.as_raw_pid())).sum()
}

fn pss(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:")).unwrap_or_default();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap_or_default();
    kilobytes * 1024
}

/// The sum of utime and stime over all descendants (proc_pid_stat(5), fields 14 and 15).
fn cpu_ticks() -> u64 {
    let ticks = |pid: i32| -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut numbers = fields.split(' ').skip(11).map_while(|f| f.parse::<u64>().ok());
        Some(numbers.next()? + numbers.next()?)
    };
    leftovers::living().iter().filter_map(|(pid, _)| ticks(pid.as_raw_pid())).sum()
}
