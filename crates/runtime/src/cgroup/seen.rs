//! What a guest sees of the limits of its cgroup: the number of CPUs, and the size of memory.

use std::path::Path;

use super::files::{parse_keyed, parse_list, parse_number, read_if_there};
use super::{Cgroup, Layout, v1};
use crate::{Config, hardware};

/// CPUs that a quota leaves at least: with a single one, programs leave out locks that they need after all when
/// the quota is raised.
const MIN_CPUS_BY_QUOTA: u32 = 2;

/// Limits of memory from here on are none: version 1 writes this for "unlimited", rounded to pages.
const UNLIMITED_BYTES: u64 = 0x7fff_ffff_ffff_f000;

impl Cgroup {
    /// CPUs' worth of time that its processes may use; `None` if there is no quota.
    #[must_use]
    pub fn cpu_quota(&self) -> Option<f64> {
        let least = |quotas: Vec<f64>| quotas.into_iter().reduce(f64::min);
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

/// CPUs that a guest sees: as many as the sandbox may use, but not the less for a quota than need be.
#[must_use]
pub fn cpu_count(cgroup: Option<&Cgroup>, config: &Config) -> u32 {
    let host = hardware::cpu_count();
    let Some(cgroup) = cgroup else { return host };
    let count = cgroup.cpu_count().map_or(host, |count| count.min(host));
    match cgroup.cpu_quota() {
        Some(quota) if config.cpu_num_from_quota => by_quota(count, quota),
        _ => count,
    }
}

/// Lowers `count` to a quota.
fn by_quota(count: u32, quota: f64) -> u32 {
    // Saturating, and a quota that is not a number is none.
    let needed = quota.ceil() as u32;
    if needed == 0 { count } else { count.min(needed.max(MIN_CPUS_BY_QUOTA)) }
}

/// Bytes of memory that a guest sees.
#[must_use]
pub fn total_memory_bytes(cgroup: Option<&Cgroup>) -> u64 {
    let host = hardware::total_memory_bytes();
    cgroup.and_then(Cgroup::memory_limit).map_or(host, |limit| limit.min(host))
}

fn quota_v1(dir: &Path) -> Option<f64> {
    let number = |file| read_if_there(dir, file)?.parse::<i64>().ok();
    ratio(number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
}

fn quota_v2(dir: &Path) -> Option<f64> {
    let text = read_if_there(dir, "cpu.max")?;
    let (quota, period) = text.split_once(' ')?;
    ratio(quota.parse().ok()?, period.parse().ok()?)
}

fn ratio(quota: i64, period: i64) -> Option<f64> {
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
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
        assert_eq!((cgroup.memory_limit(), cgroup.cpu_quota(), cgroup.cpu_count()), (Some(4096), Some(1.5), Some(4)));
        assert_eq!(total_memory_bytes(Some(&cgroup)), 4096);
        fs::write(parent.join("memory.max"), "max\n").unwrap();
        assert_eq!(cgroup.memory_limit(), None);
        fs::remove_dir_all(&mount).unwrap();
    }
}
