//! `moat top`: what all containers use, again and again.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use moat_runtime::metrics::Reading;
use moat_runtime::metrics::server::read_all;
use moat_runtime::{Config, metrics};

use super::screen::Screen;
use crate::args::Top;

pub(super) fn run(config: &Config, flags: &Top) -> anyhow::Result<u8> {
    let store = super::store(config);
    let screen = Screen::open()?;
    // Rates take two readings: the first page has none.
    let mut before = Counts::default();
    screen.run(flags.interval, flags.iterations, || {
        let readings = read_all(&store);
        let now = Counts::of(&readings);
        let text = table(&readings, &now, &before);
        before = now;
        Ok(text)
    })?;
    Ok(0)
}

/// Counters of all containers at a moment.
#[derive(Default)]
struct Counts {
    when: Option<Instant>,
    of: HashMap<String, Count>,
}

/// What rates are made of.
#[derive(Clone, Copy, Default)]
struct Count {
    cpu_ns: u64,
    calls: u64,
    files: u64,
    network: u64,
}

impl Counts {
    fn of(readings: &[Reading]) -> Counts {
        let of = readings.iter().map(|reading| (reading.id.clone(), Count::of(reading)));
        Counts { when: Some(Instant::now()), of: of.collect() }
    }

    /// Of a container, what it did a second since `before`; nothing if it was not there then.
    fn rates(&self, before: &Counts, id: &str) -> Option<[f64; 4]> {
        let seconds = self.when?.checked_duration_since(before.when?)?.as_secs_f64();
        let (now, then) = (self.of.get(id)?, before.of.get(id)?);
        let pairs =
            [(now.cpu_ns, then.cpu_ns), (now.calls, then.calls), (now.files, then.files), (now.network, then.network)];
        let difference = |(now, then): (u64, u64)| Duration::from_nanos(now.saturating_sub(then)).as_secs_f64() * 1e9;
        (seconds > 0.0).then(|| pairs.map(|pair| difference(pair) / seconds))
    }
}

impl Count {
    fn of(reading: &Reading) -> Count {
        let Some(metrics) = reading.metrics() else { return Count::default() };
        let sum = |values: &[u64]| values.iter().fold(0u64, |sum, value| sum.saturating_add(*value));
        let moved = &metrics.moved;
        let frames = metrics.network.iter().filter(|device| device.name != "lo");
        Count {
            // The cgroup's is exact, and has the sentry's own time in it.
            cpu_ns: match &reading.cgroup {
                Some(stats) => stats.cpu.usage.total,
                None => sum(&[metrics.user_ns, metrics.system_ns]),
            },
            calls: metrics.calls.iter().fold(0, |sum, call| call.count.saturating_add(sum)),
            files: sum(&[moved.read, moved.written, moved.copied]),
            network: frames.fold(0, |all, device| sum(&[all, device.received_bytes, device.sent_bytes])),
        }
    }
}

fn table(readings: &[Reading], now: &Counts, before: &Counts) -> String {
    let header = ["STATE", "CPU%", "MEMORY", "TASKS", "FDS", "CALLS/s", "FILES/s", "NET/s", "UPTIME"];
    let mut text = format!("{:<24}", "CONTAINER");
    for name in header {
        let _ = write!(text, " {name:>8}");
    }
    text.push('\n');
    for reading in readings {
        // Ids are checked when a container is made.
        let id: String = reading.id.chars().take(24).collect();
        let _ = write!(text, "{id:<24} {:>8}", reading.status.to_string());
        let rates = now.rates(before, &reading.id);
        let rate = |at: usize| rates.and_then(|rates| rates.get(at).copied());
        let metrics = reading.metrics();
        // The host's number has the sandbox's own memory in it, which a limit counts too.
        let memory = match (&reading.cgroup, metrics) {
            (Some(stats), _) => Some(stats.memory.usage.usage),
            (None, Some(metrics)) => Some(metrics::Usage::of(metrics, None).total),
            (None, None) => None,
        };
        let cells = [
            rate(0).map(|ns| format!("{:.1}", ns / 1e7)),
            memory.map(bytes),
            metrics.map(|metrics| metrics.tasks.to_string()),
            metrics.map(|metrics| metrics.descriptors.to_string()),
            rate(1).map(|calls| format!("{calls:.0}")),
            rate(2).map(|n| bytes(whole(n))),
            rate(3).map(|n| bytes(whole(n))),
            metrics.map(|metrics| duration(Duration::from_nanos(metrics.uptime_ns))),
        ];
        for cell in &cells {
            let _ = write!(text, " {:>8}", cell.as_deref().unwrap_or("-"));
        }
        if matches!(reading.counted, Some(Err(_))) {
            text.push_str("  does not answer");
        }
        text.push('\n');
    }
    text
}

/// The whole part of a rate.
fn whole(value: f64) -> u64 {
    Duration::try_from_secs_f64(value).map_or(0, |seconds| seconds.as_secs())
}

/// Bytes with three or four digits and a unit.
fn bytes(n: u64) -> String {
    let units = ["B", "K", "M", "G", "T"];
    let (mut value, mut unit) = (n, 0usize);
    while value >= 10_000 && unit.saturating_add(1) < units.len() {
        value /= 1024;
        unit = unit.saturating_add(1);
    }
    format!("{value}{}", units.get(unit).unwrap_or(&""))
}

fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, hours, minutes, seconds) => format!("{hours:02}:{minutes:02}:{seconds:02}"),
        (days, hours, ..) => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_control::ContainerMetrics;
    use moat_control::metrics::CallCount;
    use moat_runtime::store::Status;

    fn reading(calls: u64, ns: u64) -> Reading {
        let call = CallCount { name: "read".into(), class: "ok".into(), count: calls };
        let metrics = ContainerMetrics {
            calls: vec![call],
            user_ns: ns,
            tasks: 3,
            uptime_ns: 90_061_000_000_000,
            ..Default::default()
        };
        Reading {
            id: "c1".into(),
            sandbox: "c1".into(),
            pod_name: None,
            namespace_name: None,
            status: Status::Running,
            created_seconds: None,
            counted: Some(Ok(metrics)),
            cgroup: None,
            oom_kills: None,
        }
    }

    #[test]
    fn rates_are_differences() {
        let mut before = Counts::of(&[reading(100, 0)]);
        before.when = Instant::now().checked_sub(Duration::from_secs(1));
        let readings = [reading(1100, 500_000_000)];
        let text = table(&readings, &Counts::of(&readings), &before);
        let cells: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!((cells[0], cells[1], cells[4], cells[9]), ("c1", "running", "3", "1d01h"));
        let (cpu, calls): (f64, f64) = (cells[2].parse().unwrap(), cells[6].parse().unwrap());
        assert!((45.0..=50.1).contains(&cpu) && (900.0..=1000.0).contains(&calls), "{text}");
        // The first look has nothing to compare with.
        let first = table(&readings, &Counts::of(&readings), &Counts::default());
        assert_eq!(first.lines().nth(1).unwrap().split_whitespace().nth(2), Some("-"));
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!([bytes(0), bytes(9999), bytes(10_240), bytes(3 << 30)], ["0B", "9999B", "10K", "3072M"]);
        assert_eq!(duration(Duration::from_secs(3661)), "01:01:01");
    }
}
