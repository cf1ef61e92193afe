//! What systemd is told of the limits of a unit, so that it does not undo what is written beside it: [`Told`].
//!
//! libcgroups makes properties of the sections of `linux.resources`, but takes a weight of `unified` for shares and its `cpu.max` for
//! microseconds of a second, knows no `max`, sends sets of processors as another type than systemd has, and takes what a
//! section does not name for unlimited. So it is told the same in the words that it gets right. What is not a number here is not told:
//! the host's kernel, to which everything is written too, refuses it.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxCpu, LinuxResources};

/// What libcgroups is told, and what it can't tell.
pub(super) struct Told {
    pub(super) resources: LinuxResources,
    /// Assignments for systemctl(1), `set-property`.
    pub(super) assignments: Vec<String>,
}

/// Quota and period in the words of cpu.max: "50000 100000", or "max 100000".
pub(super) fn parse_cpu_max(text: &str) -> Option<(i64, Option<u64>)> {
    let mut words = text.split_ascii_whitespace();
    let quota = match words.next()? {
        "max" => -1,
        number => number.parse().ok().filter(|&quota| quota > 0)?,
    };
    match words.next() {
        None => Some((quota, None)),
        Some(period) => Some((quota, Some(period.parse().ok()?))),
    }
}

impl Told {
    /// `cpu_max` is what the cgroup has.
    pub(super) fn of(resources: &LinuxResources, cpu_max: Option<&str>) -> Told {
        let mut assignments = Vec::new();
        let mut cpu = resources.cpu().clone().unwrap_or_default();
        let mut unified = HashMap::new();
        for (name, property) in [(cpu.cpus().clone(), "AllowedCPUs"), (cpu.mems().clone(), "AllowedMemoryNodes")] {
            assignments.extend(name.map(|set| format!("{property}={set}")));
        }
        cpu.set_cpus(None).set_mems(None);
        for (name, value) in resources.unified().iter().flatten() {
            let value = value.trim();
            let number = if value == "max" { Some(u64::MAX) } else { value.parse().ok() };
            match name.as_str() {
                "cpu.weight" => assignments.extend(number.map(|weight| format!("CPUWeight={weight}"))),
                "cpu.max" => {
                    if let Some((quota, period)) = parse_cpu_max(value) {
                        let period = period.or(cpu.period());
                        cpu.set_quota(Some(quota)).set_period(period);
                    }
                }
                "cpuset.cpus" => assignments.push(format!("AllowedCPUs={value}")),
                "cpuset.mems" => assignments.push(format!("AllowedMemoryNodes={value}")),
                "memory.min" | "memory.low" | "memory.high" | "memory.max" => {
                    unified.extend(number.map(|number| (name.clone(), number.to_string())));
                }
                "pids.max" => {
                    let tasks = if value == "max" { Some(-1) } else { value.parse::<i64>().ok() };
                    unified.extend(tasks.map(|tasks| (name.clone(), tasks.to_string())));
                }
                // No property of a unit's.
                _ => {}
            }
        }
        let mut told = resources.clone();
        told.set_cpu(complete(cpu, cpu_max));
        told.set_unified(Some(unified).filter(|unified| !unified.is_empty()));
        Told { resources: told, assignments }
    }
}

/// With the quota and the period that stay as they are, if anything is left of it.
fn complete(mut cpu: LinuxCpu, cpu_max: Option<&str>) -> Option<LinuxCpu> {
    if cpu == LinuxCpu::default() {
        return None;
    }
    if let Some((quota, period)) = cpu_max.and_then(parse_cpu_max) {
        let (quota, period) = (cpu.quota().or(Some(quota)), cpu.period().or(period));
        cpu.set_quota(quota).set_period(period);
    }
    Some(cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(json: &str, cpu_max: Option<&str>) -> Told {
        Told::of(&serde_json::from_str(json).unwrap(), cpu_max)
    }

    #[test]
    fn what_is_unified_is_told_in_other_words() {
        let json = r#"{"unified":{"cpu.weight":"500","cpu.max":"20000 50000","memory.high":"max","pids.max":"max","io.max":"x"}}"#;
        let told = told(json, None);
        let cpu = told.resources.cpu().clone().unwrap();
        assert_eq!((cpu.shares(), cpu.quota(), cpu.period()), (None, Some(20_000), Some(50_000)));
        let unified = told.resources.unified().clone().unwrap();
        assert_eq!((unified["memory.high"].as_str(), unified["pids.max"].as_str()), ("18446744073709551615", "-1"));
        assert_eq!((unified.len(), told.assignments), (2, vec!["CPUWeight=500".to_owned()]));
    }

    #[test]
    fn what_is_not_named_stays() {
        let quota = |told: Told| told.resources.cpu().as_ref().map(|cpu| (cpu.quota(), cpu.period()));
        assert_eq!(quota(told(r#"{"cpu":{"shares":7}}"#, Some("50000 100000\n"))), Some((Some(50_000), Some(100_000))));
        assert_eq!(quota(told(r#"{"cpu":{"shares":7}}"#, Some("max 100000\n"))), Some((Some(-1), Some(100_000))));
        assert_eq!(quota(told(r#"{"cpu":{"quota":9}}"#, Some("max 100000\n"))), Some((Some(9), Some(100_000))));
    }

    #[test]
    fn processors_are_for_another_to_tell() {
        let told = told(r#"{"cpu":{"cpus":"0-1"},"unified":{"cpuset.mems":"0","cpu.weight":"x"}}"#, Some("9 10"));
        assert_eq!(told.assignments, ["AllowedCPUs=0-1", "AllowedMemoryNodes=0"]);
        assert!(told.resources.cpu().is_none() && told.resources.unified().is_none());
    }
}
