//! What a guest sees of the limits of its cgroup: the number of CPUs, and the size of memory.

use std::path::Path;

use moat_control::spec::{SharesSpec, TaskLimit};
use oci_spec::runtime::LinuxResources;

use super::files::{parse_keyed, parse_list, parse_number, read_if_there};
use super::{Cgroup, Layout, v1};
use crate::{Config, hardware};

/// CPUs that a quota leaves at least: with a single one, programs leave out locks that they need after all when
/// the quota is raised.
const MIN_CPUS_BY_QUOTA: u32 = 2;

/// The period of a quota that comes without one.
const DEFAULT_PERIOD_US: u64 = 100_000;

/// Limits of memory from here on are none: version 1 writes this for "unlimited", rounded to pages.
const UNLIMITED_BYTES: u64 = 0x7fff_ffff_ffff_f000;

impl Cgroup {
    /// Quota and period of the CPU time that its processes may use, the least on the way up, in microseconds; `None` if
    /// there is no quota.
    #[must_use]
    pub fn cpu_max_us(&self) -> Option<(u64, u64)> {
        match &self.layout {
            Layout::V1(dirs) => least(self.upwards(v1::find(dirs, "cpu")?, quota_v1)),
            Layout::V2 { path, .. } => least(self.upwards(path, quota_v2)),
        }
    }

    /// CPUs that its processes may run on; `None` if it has no cpuset.
    #[must_use]
    pub fn cpu_count(&self) -> Option<u32> {
        let text = match &self.layout {
            Layout::V1(dirs) => {
                let dir = v1::find(dirs, "cpuset")?;
                read_if_there(dir, "cpuset.effective_cpus").or_else(|| read_if_there(dir, "cpuset.cpus"))?
            }
            Layout::V2 { path, .. } => read_if_there(path, "cpuset.cpus.effective")?,
        };
        u32::try_from(parse_list(&text).len()).ok().filter(|&count| count > 0)
    }

    /// Bytes of memory that its processes may use; `None` if that is not limited.
    #[must_use]
    pub fn memory_limit(&self) -> Option<u64> {
        let limit = match &self.layout {
            Layout::V1(dirs) => {
                // The least of the limits up the tree: the kernel has worked it out there. On version 2 nobody has.
                let stat = read_if_there(v1::find(dirs, "memory")?, "memory.stat")?;
                parse_keyed(&stat).find(|(key, _)| *key == "hierarchical_memory_limit").map(|(_, value)| value)
            }
            Layout::V2 { path, .. } => {
                let limit = |dir: &Path| read_if_there(dir, "memory.max").and_then(|text| parse_number(&text));
                self.upwards(path, limit).into_iter().min()
            }
        };
        limit.filter(|&bytes| bytes < UNLIMITED_BYTES)
    }

    /// What `value` gives for a directory and those above it, up to the mount.
    fn upwards<T>(&self, dir: &Path, value: impl Fn(&Path) -> Option<T>) -> Vec<T> {
        let mounts: Vec<&Path> = self.dirs().into_iter().map(|(mount, _)| mount).collect();
        let below = |dir: &&Path| mounts.iter().any(|mount| dir.starts_with(mount));
        dir.ancestors().take_while(below).filter_map(value).collect()
    }
}

/// What the containers of a pod have together, as its annotations say; nothing of it is enforced by a cgroup of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PodSize {
    /// Quota and period of CPU time in microseconds.
    cpu_max_us: Option<(u64, u64)>,
    memory_bytes: Option<u64>,
    cpus: Option<u32>,
}

impl PodSize {
    /// From the annotations of the sandbox's container, by which containerd passes on the sum that kubelet has made.
    pub(crate) fn of<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Self {
        let number = |key: &str| -> Option<u64> {
            annotation(&format!("io.kubernetes.cri.sandbox-{key}"))?.parse().ok().filter(|&value| value > 0)
        };
        let cpu_max_us = number("cpu-quota").zip(number("cpu-period"));
        PodSize { cpu_max_us, memory_bytes: number("memory"), cpus: None }
    }

    /// No more than a configuration asks for: a unit of systemd's, which is to tell, is there only with a process in it.
    #[must_use]
    pub(crate) fn at_most(self, resources: &LinuxResources) -> Self {
        let positive =
            |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).filter(|&value| value > 0);
        let memory = resources.memory().as_ref().and_then(|memory| positive(memory.limit()));
        let cpu = resources.cpu().as_ref();
        let period = cpu.and_then(|cpu| cpu.period()).filter(|&period| period > 0).unwrap_or(DEFAULT_PERIOD_US);
        let quota = cpu.and_then(|cpu| positive(cpu.quota())).map(|quota| (quota, period));
        let cpus = cpu.and_then(|cpu| cpu.cpus().as_deref()).map(|cpus| parse_list(cpus).len());
        PodSize {
            cpu_max_us: least([self.cpu_max_us, quota].into_iter().flatten()),
            memory_bytes: self.memory_bytes.into_iter().chain(memory).min(),
            cpus: cpus.and_then(|count| u32::try_from(count).ok()).filter(|&count| count > 0),
        }
    }
}

/// What a container that is made without a cgroup is shown.
pub(crate) fn shares_of_host() -> SharesSpec {
    shares(None, PodSize::default(), &Config::default())
}

/// What the guest is shown of a cgroup, in a pod of this size: as many CPUs as it may use, but not the less for a quota than need be.
#[must_use]
pub fn shares(cgroup: Option<&Cgroup>, pod: PodSize, config: &Config) -> SharesSpec {
    let host = hardware::cpu_count();
    // No more than any of them: the host's, the cpuset's and the pod's.
    let count = cgroup.and_then(Cgroup::cpu_count).into_iter().chain(pod.cpus).fold(host, u32::min);
    let cpu_max_us = least([cgroup.and_then(Cgroup::cpu_max_us), pod.cpu_max_us].into_iter().flatten());
    let cpu_count = match cpu_max_us {
        // A quota of two CPUs' time can be used by many CPUs in turn; programs size their pools by it all the same.
        Some(max) if config.cpu_num_from_quota => by_quota(count, ratio(max)),
        _ => count,
    };
    let memory_max_bytes = cgroup.and_then(Cgroup::memory_limit).into_iter().chain(pod.memory_bytes).min();
    let memory = hardware::total_memory_bytes();
    SharesSpec {
        cpu_count,
        total_memory_bytes: memory_max_bytes.map_or(memory, |limit| limit.min(memory)),
        cpu_max_us,
        memory_max_bytes,
        tasks: TaskLimit::Kept,
    }
}

/// The least of several quotas.
fn least(quotas: impl IntoIterator<Item = (u64, u64)>) -> Option<(u64, u64)> {
    quotas.into_iter().reduce(|a, b| if ratio(a) <= ratio(b) { a } else { b })
}

/// CPUs' worth of time.
fn ratio((quota, period): (u64, u64)) -> f64 {
    quota as f64 / period as f64
}

/// Lowers `count` to a quota.
fn by_quota(count: u32, quota: f64) -> u32 {
    // Saturating, and a quota that is not a number is none.
    let needed = quota.ceil() as u32;
    if needed == 0 { count } else { count.min(needed.max(MIN_CPUS_BY_QUOTA)) }
}

fn quota_v1(dir: &Path) -> Option<(u64, u64)> {
    // -1 is no quota.
    let number = |file| read_if_there(dir, file)?.parse::<u64>().ok().filter(|&value| value > 0);
    number("cpu.cfs_quota_us").zip(number("cpu.cfs_period_us"))
}

fn quota_v2(dir: &Path) -> Option<(u64, u64)> {
    let text = read_if_there(dir, "cpu.max")?;
    let (quota, period) = text.split_once(' ')?;
    let number = |text: &str| text.parse::<u64>().ok().filter(|&value| value > 0);
    number(quota).zip(number(period))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn quotas_only_lower_and_never_below_two() {
        for (count, quota, expected) in
            [(8, 0.5, 2), (8, 2.0, 2), (8, 2.1, 3), (8, 100.0, 8), (1, 0.5, 1), (4, f64::NAN, 4), (4, 0.0, 4)]
        {
            assert_eq!(by_quota(count, quota), expected, "{count} {quota}");
        }
    }

    #[test]
    fn the_size_of_a_pod_is_in_its_annotations() {
        let of = |text: &'static [(&str, &str)]| {
            PodSize::of(|key| text.iter().find(|(name, _)| *name == key).map(|(_, value)| *value))
        };
        let all = &[
            ("io.kubernetes.cri.sandbox-cpu-quota", "50000"),
            ("io.kubernetes.cri.sandbox-cpu-period", "100000"),
            ("io.kubernetes.cri.sandbox-memory", "1048576"),
        ];
        assert_eq!(of(all), PodSize { cpu_max_us: Some((50_000, 100_000)), memory_bytes: Some(1 << 20), cpus: None });
        let zero = &[
            ("io.kubernetes.cri.sandbox-cpu-quota", "0"),
            ("io.kubernetes.cri.sandbox-cpu-period", "100000"),
            ("io.kubernetes.cri.sandbox-memory", "x"),
        ];
        assert_eq!(of(zero), PodSize::default());
        let asked = |json: &str| of(all).at_most(&serde_json::from_str(json).unwrap());
        assert_eq!(asked("{}"), of(all));
        let less = asked(r#"{"memory":{"limit":65536},"cpu":{"quota":25000,"cpus":"0-1,5"}}"#);
        assert_eq!(less, PodSize { cpu_max_us: Some((25_000, 100_000)), memory_bytes: Some(65536), cpus: Some(3) });
        assert_eq!(asked(r#"{"memory":{"limit":-1},"cpu":{"quota":-1,"period":50000}}"#), of(all));
    }

    #[test]
    fn limits_of_version_2_are_the_least_on_the_way_up() {
        let mount = std::env::temp_dir().join(format!("moat-seen-{}", std::process::id()));
        let (parent, path) = (mount.join("a"), mount.join("a/b"));
        fs::create_dir_all(&path).unwrap();
        for (dir, file, text) in [
            (&parent, "memory.max", "4096\n"),
            (&path, "memory.max", "max\n"),
            (&parent, "cpu.max", "max 100000\n"),
            (&path, "cpu.max", "150000 100000\n"),
            (&path, "cpuset.cpus.effective", "0-2,7\n"),
        ] {
            fs::write(dir.join(file), text).unwrap();
        }
        let cgroup = Cgroup { layout: Layout::V2 { mount: mount.clone(), path: path.clone() }, unit: None };
        assert_eq!((cgroup.memory_limit(), cgroup.cpu_count()), (Some(4096), Some(4)));
        assert_eq!(cgroup.cpu_max_us(), Some((150_000, 100_000)));
        let seen = |pod| shares(Some(&cgroup), pod, &Config::default());
        let alone = seen(PodSize::default());
        assert_eq!((alone.total_memory_bytes, alone.memory_max_bytes), (4096, Some(4096)));
        assert_eq!(alone.cpu_max_us, Some((150_000, 100_000)));
        // A pod's size only lowers.
        let small = PodSize { cpu_max_us: Some((1000, 2000)), memory_bytes: Some(1024), cpus: None };
        let large = PodSize { cpu_max_us: Some((90_000, 1000)), memory_bytes: Some(1 << 50), cpus: None };
        assert_eq!((seen(small).total_memory_bytes, seen(small).cpu_max_us), (1024, Some((1000, 2000))));
        assert_eq!(seen(large), alone);
        fs::write(parent.join("memory.max"), "max\n").unwrap();
        assert_eq!(cgroup.memory_limit(), None);
        fs::remove_dir_all(&mount).unwrap();
    }
}
