//! What `moat events` prints: lines of JSON, as runc's.

use std::io::Write;
use std::time::{Duration, Instant};

use moat_control::ContainerMetrics;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::cgroup::{Cgroup, OomEvent, OomWatch, Pids, Stats};
use crate::container::Container;
use crate::error::{Context, Error, Result};

/// One line.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Stats>,
    /// What runc does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<&'a ContainerMetrics>,
}

/// What statistics say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What runc's say.
    Stats,
    /// Also what the sandbox counts: the figures of [`crate::metrics`].
    Metrics,
}

/// Prints what a container uses, once.
///
/// # Errors
/// The cgroup is gone; of writing.
pub fn stats(container: &Container, cgroup: &Cgroup, detail: Detail, out: &mut impl Write) -> Result<()> {
    let stats = stats_of(container, cgroup)?;
    print_stats(container, detail, &stats, out)
}

fn print_stats(container: &Container, detail: Detail, stats: &Stats, out: &mut impl Write) -> Result<()> {
    let id = container.id().as_str();
    let metrics = match detail {
        Detail::Stats => None,
        // A container may have ended meanwhile.
        Detail::Metrics => container.sandbox().and_then(|sandbox| sandbox.metrics(id)).ok(),
    };
    print(&Event { kind: "stats", id, data: Some(stats), metrics: metrics.as_ref() }, out)
}

/// The host's figures, but for tasks: those are the guest's, as its sandbox counts them.
///
/// # Errors
/// The cgroup is gone.
pub fn stats_of(container: &Container, cgroup: &Cgroup) -> Result<Stats> {
    let mut stats = cgroup.stats()?;
    match container.sandbox().and_then(|sandbox| sandbox.event(container.id().as_str())) {
        Ok(event) => stats.pids = Pids { current: event.tasks, limit: event.tasks_max.unwrap_or(0) },
        Err(error) => tracing::debug!(%error, "the number of tasks is the host's"),
    }
    Ok(stats)
}

/// Prints what a container uses each `interval`, and each time that memory runs out, until its cgroup is gone.
///
/// # Errors
/// An interval of zero; of writing.
pub fn follow(
    container: &Container,
    cgroup: &Cgroup,
    detail: Detail,
    interval: Duration,
    out: &mut impl Write,
) -> Result<()> {
    if interval.is_zero() {
        return Err(Error::Invalid("duration interval must be greater than 0".into()));
    }
    let id = container.id().as_str();
    // Without the memory controller there are still statistics.
    let mut watch = cgroup.oom_events().inspect_err(|error| tracing::debug!(%error, "no events of memory")).ok();
    let mut next = Instant::now() + interval;
    while cgroup.exists() {
        match wait(watch.as_mut(), next)? {
            OomEvent::Oom => print(&Event { kind: "oom", id, data: None, metrics: None }, out)?,
            OomEvent::Gone => return Ok(()),
            OomEvent::Nothing if Instant::now() >= next => {
                next += interval;
                match stats_of(container, cgroup) {
                    Ok(stats) => print_stats(container, detail, &stats, out)?,
                    // It went away between the look at it and the reading.
                    Err(_) if !cgroup.exists() => return Ok(()),
                    Err(error) => tracing::warn!(%error, "no statistics"),
                }
            }
            // Woken early: the loop looks whether the cgroup is still there.
            OomEvent::Nothing => {}
        }
    }
    Ok(())
}

/// Waits for an event, or until `deadline`.
fn wait(watch: Option<&mut OomWatch>, deadline: Instant) -> Result<OomEvent> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).map_err(|_| Error::Invalid("the interval is too long".into()))?;
    // Without a watch there is nothing but the next statistics to wait for.
    let Some(watch) = watch else {
        std::thread::sleep(left);
        return Ok(OomEvent::Nothing);
    };
    let mut fds = [PollFd::from_borrowed_fd(watch.fd(), PollFlags::IN)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => Ok(OomEvent::Nothing),
        Ok(_) => Ok(watch.read()),
        Err(error) => Err(error).context(|| "waiting for events".into()),
    }
}

fn print(event: &Event<'_>, out: &mut impl Write) -> Result<()> {
    let line = serde_json::to_string(event).map_err(|error| Error::Invalid(error.to_string()))?;
    // Flushed line by line, for readers of a pipe.
    writeln!(out, "{line}").and_then(|()| out.flush()).context(|| "writing an event".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_runcs() {
        let mut out = Vec::new();
        print(&Event { kind: "oom", id: "c1", data: None, metrics: None }, &mut out).unwrap();
        let stats = Stats::default();
        print(&Event { kind: "stats", id: "c1", data: Some(&stats), metrics: None }, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("{\"type\":\"oom\",\"id\":\"c1\"}\n{\"type\":\"stats\",\"id\":\"c1\",\"data\":{\"cpu\":"),
            "{text}"
        );
    }
}
