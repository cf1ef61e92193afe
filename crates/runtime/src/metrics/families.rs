//! [`Family`]: readings under their names.
//!
//! Names are runsc's where the meaning is the same (`fs_opens`, `fs_reads`, all of `meta_*`); these counters do not end in `_total`
//! in Prometheus' format, because runsc's do not.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use moat_control::ContainerMetrics;
use moat_control::metrics::DeviceCounters;

use super::operations::operation;
use super::reading::Reading;
use super::usage::Usage;
use crate::store::Status;

/// What begins all names, like "moat_".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

impl Default for Prefix {
    fn default() -> Self {
        Prefix("moat_".into())
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let good =
            |(at, c): (usize, char)| c.is_ascii_alphabetic() || c == '_' || c == ':' || at > 0 && c.is_ascii_digit();
        if text.char_indices().all(good) { Ok(Prefix(text.to_owned())) } else { Err("no name can begin so".into()) }
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What samples of a family mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up; ends in `_total`.
    Counter,
    /// Only goes up; ends in `_total` in OpenMetrics only.
    PlainCounter,
    /// Goes up and down.
    Gauge,
}

/// Samples of one name.
#[derive(Clone, Debug)]
pub struct Family {
    /// Its name without prefix, and without `_total`.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// What its values mean.
    pub kind: Kind,
    /// It is about the process that answers, and has no prefix.
    pub is_of_process: bool,
    /// Its values.
    pub samples: Vec<Sample>,
}

/// Labels, in order.
pub type Labels = Vec<(&'static str, String)>;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What it is of.
    pub labels: Labels,
    /// The value.
    pub value: f64,
}

/// Families in the order in which they were named first.
#[derive(Debug, Default)]
pub struct Families(Vec<Family>);

impl Families {
    /// Adds a value.
    fn add(&mut self, name: &'static str, kind: Kind, help: &'static str, labels: Labels, value: impl Into<Value>) {
        let Value(value) = value.into();
        let sample = Sample { labels, value };
        match self.0.iter_mut().find(|family| family.name == name) {
            Some(family) => family.samples.push(sample),
            None => self.0.push(Family { name, help, kind, is_of_process: false, samples: vec![sample] }),
        }
    }

    /// Adds what a container uses and has done.
    pub fn add_reading(&mut self, reading: &Reading) {
        let about = |more: &[(&'static str, &str)]| labels_of(reading, more);
        let is = |yes: bool| u64::from(yes);
        let runs = matches!(reading.status, Status::Running | Status::Paused);
        if reading.is_root() {
            let meta = |more: &[(&'static str, &str)]| {
                let mut labels = about(more);
                // They are of the sandbox, whatever its first container is called.
                labels.retain(|(name, _)| *name != "container");
                labels
            };
            self.add("meta_sandbox_presence", Kind::Gauge, "1 for each sandbox that is known.", meta(&[]), 1);
            self.add("meta_sandbox_running", Kind::Gauge, "1 for each sandbox that runs, else 0.", meta(&[]), is(runs));
            if let Some(created) = reading.created_seconds {
                let help = "When the sandbox was created, seconds after 1970.";
                self.add("meta_sandbox_creation_time_seconds", Kind::Gauge, help, meta(&[]), created);
            }
        }
        let help = "1 with the container's state as a label.";
        self.add("container_state", Kind::Gauge, help, about(&[("state", &reading.status.to_string())]), 1);
        self.add_cgroup(reading);
        if let Some(metrics) = reading.metrics() {
            self.add_calls(reading, metrics);
            self.add_gauges(reading, metrics);
            for device in &metrics.network {
                self.add_device(reading, device);
            }
        }
    }

    fn add_cgroup(&mut self, reading: &Reading) {
        let about = |more: &[(&'static str, &str)]| labels_of(reading, more);
        if let Some(stats) = &reading.cgroup {
            let (usage, memory) = (&stats.cpu.usage, &stats.memory.usage);
            let help = "CPU time of the container's cgroup by mode of the host; \"total\" is exact.";
            for (mode, ns) in [("user", usage.user), ("system", usage.kernel), ("total", usage.total)] {
                self.add("cgroup_cpu_seconds", Kind::Counter, help, about(&[("mode", mode)]), seconds(ns));
            }
            let help = "Memory that the container's cgroup is charged with.";
            self.add("cgroup_memory_usage_bytes", Kind::Gauge, help, about(&[]), memory.usage);
            // No limit is the largest number of pages there is.
            if memory.limit > 0 && memory.limit < 1 << 62 {
                let help = "The limit of memory of the container's cgroup.";
                self.add("cgroup_memory_limit_bytes", Kind::Gauge, help, about(&[]), memory.limit);
            }
        }
        if let Some(kills) = reading.oom_kills {
            let help = "Processes that the host killed for want of memory.";
            self.add("oom_kills", Kind::Counter, help, about(&[]), kills);
        }
    }

    fn add_calls(&mut self, reading: &Reading, metrics: &ContainerMetrics) {
        let about = |more: &[(&'static str, &str)]| labels_of(reading, more);
        // runsc's names count operations, ours calls: several calls are one operation.
        let sum_of = |wanted: &str, class: Option<&str>| {
            let calls = metrics.calls.iter().filter(|call| operation(&call.name) == Some(wanted));
            calls.filter(|call| class.is_none_or(|class| call.class == class)).map(|call| call.count).sum::<u64>()
        };
        self.add("fs_opens", Kind::PlainCounter, "Files opened.", about(&[]), sum_of("open", Some("ok")));
        self.add("fs_reads", Kind::PlainCounter, "Reads of files.", about(&[]), sum_of("read", None));
        let mut operations: Vec<(&'static str, u64)> = Vec::new();
        let help = "System calls that have ended, by name and result.";
        for call in &metrics.calls {
            let labels = about(&[("call", &call.name), ("result", &call.class)]);
            self.add("syscalls", Kind::Counter, help, labels, call.count);
            if let Some(kind) = operation(&call.name) {
                match operations.iter_mut().find(|(known, _)| *known == kind) {
                    Some((_, count)) => *count = count.saturating_add(call.count),
                    None => operations.push((kind, call.count)),
                }
            }
        }
        for (kind, count) in operations {
            let help = "Operations on files, successful or not.";
            self.add("file_operations", Kind::Counter, help, about(&[("operation", kind)]), count);
        }
        let moved = &metrics.moved;
        let bytes = [
            ("read", moved.read),
            ("written", moved.written),
            ("received", moved.received),
            ("sent", moved.sent),
            ("copied", moved.copied),
        ];
        for (how, bytes) in bytes {
            let help = "Bytes that system calls have moved.";
            self.add("io_bytes", Kind::Counter, help, about(&[("direction", how)]), bytes);
        }
        let help = "Page faults and other exceptions that the host left to the sentry.";
        self.add("faults", Kind::Counter, help, about(&[]), metrics.faults);
        let help = "Threads kicked out of application code.";
        self.add("kicks", Kind::Counter, help, about(&[]), metrics.kicks);
        for (limit, count) in &metrics.forks_refused {
            let help = "Forks that a limit of tasks refused.";
            self.add("forks_refused", Kind::Counter, help, about(&[("limit", limit)]), *count);
        }
        for (kind, count) in metrics.sandbox.iter().flat_map(|sandbox| &sandbox.hand_offs) {
            let help = "Threads handed over between application code and the sentry, all of the sandbox.";
            self.add("hand_offs", Kind::Counter, help, about(&[("kind", kind)]), *count);
        }
    }

    fn add_gauges(&mut self, reading: &Reading, metrics: &ContainerMetrics) {
        let about = |more: &[(&'static str, &str)]| labels_of(reading, more);
        let help = "CPU time of application code with what the host does for it; CPU time that the sentry spent on its behalf.";
        for (mode, ns) in [("user", metrics.user_ns), ("system", metrics.system_ns)] {
            self.add("cpu_seconds", Kind::Counter, help, about(&[("mode", mode)]), seconds(ns));
        }
        if let Some(sandbox) = &metrics.sandbox {
            let help = "CPU time of the sandbox process, by mode of the host; the system time of its containers is part of it.";
            for (mode, ns) in [("user", sandbox.user_ns), ("system", sandbox.host_ns)] {
                self.add("sandbox_cpu_seconds", Kind::Counter, help, about(&[("mode", mode)]), seconds(ns));
            }
        }
        let usage = Usage::of(metrics, None);
        let details = usage.details.unwrap_or_default();
        let categories = [
            ("anonymous", usage.anonymous),
            ("file", usage.mapped.saturating_sub(details.sentry_file)),
            ("tmpfs", usage.tmpfs),
            ("sentry_heap", details.sentry_heap),
            ("sentry_file", details.sentry_file),
            ("page_tables", details.page_tables),
            ("swap", details.swap),
        ];
        for (category, bytes) in categories {
            let help = "Memory by category; what serves all containers of a sandbox is its first one's.";
            self.add("memory_bytes", Kind::Gauge, help, about(&[("category", category)]), bytes);
        }
        self.add("processes", Kind::Gauge, "Processes alive.", about(&[]), metrics.processes);
        self.add("threads", Kind::Gauge, "Threads alive.", about(&[]), metrics.threads);
        self.add("tasks", Kind::Gauge, "Tasks as their limit counts them, with zombies.", about(&[]), metrics.tasks);
        if let Some(max) = metrics.tasks_max {
            self.add("tasks_limit", Kind::Gauge, "The limit of tasks.", about(&[]), max);
        }
        let help = "Open file descriptors, those of shared tables once.";
        self.add("open_descriptors", Kind::Gauge, help, about(&[]), metrics.descriptors);
        let help = "Time since the container was made.";
        self.add("uptime_seconds", Kind::Gauge, help, about(&[]), seconds(metrics.uptime_ns));
    }

    fn add_device(&mut self, reading: &Reading, device: &DeviceCounters) {
        let mut add = |name, help, value: u64| {
            self.add(name, Kind::Counter, help, labels_of(reading, &[("device", &device.name)]), value);
        };
        add("network_receive_bytes", "Bytes that came in by an interface.", device.received_bytes);
        add("network_receive_packets", "Packets that came in by an interface.", device.received_packets);
        add("network_receive_dropped", "Packets that came in and were dropped.", device.received_dropped);
        add("network_transmit_bytes", "Bytes that went out by an interface.", device.sent_bytes);
        add("network_transmit_packets", "Packets that went out by an interface.", device.sent_packets);
        add("network_transmit_dropped", "Packets that were to go out and were dropped.", device.sent_dropped);
    }

    /// Adds what a metric server says of itself, which was started at `started` and has seen so many sandboxes.
    pub fn add_server(&mut self, started: SystemTime, readings: &[Reading], seen: u64) {
        let roots = || readings.iter().filter(|reading| reading.is_root());
        let running = roots().filter(|r| matches!(r.status, Status::Running | Status::Paused)).count();
        let broken = roots().filter(|r| matches!(r.counted, Some(Err(_)))).count();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let help = "1 for the metric server.";
        self.add("meta_metric_server_presence", Kind::Gauge, help, Vec::new(), 1);
        self.add("meta_num_sandboxes_running", Kind::Gauge, "Sandboxes that run.", Vec::new(), count(running));
        let help = "Sandboxes that run and give no metrics.";
        self.add("meta_num_sandboxes_broken_metrics", Kind::Gauge, help, Vec::new(), count(broken));
        let help = "Sandboxes that the metric server has seen.";
        self.add("meta_num_sandboxes", Kind::Counter, help, Vec::new(), seen);
        let since = started.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.add(
            "process_start_time_seconds",
            Kind::Gauge,
            "When this process was started.",
            Vec::new(),
            since.as_secs_f64(),
        );
        if let Some(family) = self.0.last_mut() {
            family.is_of_process = true;
        }
    }

    /// Them.
    #[must_use]
    pub fn into_vec(self) -> Vec<Family> {
        self.0
    }
}

/// A number as samples have it.
struct Value(f64);

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        // All values of samples are doubles; this is the conversion that the library has.
        Value(Duration::from_secs(value).as_secs_f64())
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Value(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value(value)
    }
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

/// What says whose a sample is, and more.
fn labels_of(reading: &Reading, more: &[(&'static str, &str)]) -> Labels {
    let mut labels = vec![("sandbox", reading.sandbox.clone()), ("container", reading.id.clone())];
    labels.extend(reading.pod_name.iter().map(|name| ("pod_name", name.clone())));
    labels.extend(reading.namespace_name.iter().map(|name| ("namespace_name", name.clone())));
    labels.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    labels
}
