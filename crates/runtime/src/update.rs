//! What `moat update` changes: limits of a running container, from a file or from flags, with runc's meaning.

use std::io::Read;

use moat_control::spec::SharesSpec;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use crate::Config;
use crate::cgroup;
use crate::container::Container;
use crate::error::{Context, Error, Result};

/// Bytes of the largest file of resources that is read.
const MAX_RESOURCES_BYTES: u64 = 1 << 20;

/// Limits given by flags; those that are not stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Limits {
    pub blkio_weight: Option<u16>,
    pub cpu_period: Option<u64>,
    pub cpu_quota: Option<i64>,
    pub cpu_burst: Option<u64>,
    pub cpu_share: Option<u64>,
    pub cpu_rt_period: Option<u64>,
    pub cpu_rt_runtime: Option<i64>,
    pub cpu_idle: Option<i64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    /// In bytes, as the next two; -1 is "unlimited".
    pub memory: Option<i64>,
    pub memory_reservation: Option<i64>,
    pub memory_swap: Option<i64>,
    pub pids_limit: Option<i64>,
}

impl Limits {
    /// As a section of a configuration.
    #[must_use]
    pub fn resources(&self) -> LinuxResources {
        let mut memory = LinuxMemory::default();
        memory.set_limit(self.memory);
        memory.set_reservation(self.memory_reservation);
        memory.set_swap(self.memory_swap);
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(self.cpu_share);
        cpu.set_quota(self.cpu_quota);
        cpu.set_period(self.cpu_period);
        cpu.set_burst(self.cpu_burst);
        cpu.set_idle(self.cpu_idle);
        cpu.set_realtime_period(self.cpu_rt_period);
        cpu.set_realtime_runtime(self.cpu_rt_runtime);
        cpu.set_cpus(self.cpuset_cpus.clone());
        cpu.set_mems(self.cpuset_mems.clone());
        let mut io = LinuxBlockIo::default();
        io.set_weight(self.blkio_weight);
        // 0 leaves the limit as it is.
        let mut pids = LinuxPids::default();
        pids.set_limit(self.pids_limit.unwrap_or(0));
        let mut resources = LinuxResources::default();
        resources.set_devices(None);
        resources.set_memory(Some(memory)).set_cpu(Some(cpu)).set_block_io(Some(io)).set_pids(Some(pids));
        resources
    }
}

/// Reads a section `linux.resources`; all other flags are ignored then.
///
/// # Errors
/// Of reading; malformed JSON.
pub fn read_resources(source: impl Read) -> Result<LinuxResources> {
    let mut text = Vec::new();
    source.take(MAX_RESOURCES_BYTES).read_to_end(&mut text).context(|| "reading the resources".into())?;
    crate::oci::parse(&text, "the resources")
}

/// A number of bytes like "64m", "1.5GiB" or "-1".
///
/// # Errors
/// Anything else.
pub fn parse_bytes(text: &str) -> Result<i64> {
    let invalid = || Error::Invalid(format!("invalid size: {text:?}"));
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, suffix) = lower.split_at_checked(end).ok_or_else(invalid)?;
    let shift = match suffix.trim_start_matches(' ') {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(invalid()),
    };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(1 << shift).ok_or_else(invalid);
    }
    let bytes = number.parse::<f64>().map_err(|_| invalid())? * (1_i64 << shift) as f64;
    // Exact up to 2^53, beyond which nobody cares.
    if bytes.is_finite() && bytes < i64::MAX as f64 { Ok(bytes as i64) } else { Err(invalid()) }
}

impl Container {
    /// Changes its limits, and what its processes see of them.
    ///
    /// # Errors
    /// It has no cgroup; a limit that can't be applied, by name.
    pub fn update(&self, config: &Config, resources: &LinuxResources) -> Result<()> {
        let cgroup = self.state.cgroup.as_ref();
        let cgroup =
            cgroup.ok_or_else(|| Error::Invalid("the container has no cgroup whose limits could be changed".into()))?;
        cgroup.update(resources)?;
        // Read again: what the containers see is what the host applies.
        let shares = cgroup::shares(Some(cgroup), self.pod_size(), config);
        self.sandbox()?.update(self.id().as_str(), SharesSpec { tasks: cgroup::task_limit(Some(resources)), ..shares })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("-1", -1), ("0", 0), ("64m", 64 << 20), ("64M", 64 << 20), ("1.5GiB", 3 << 29), ("7", 7), ("2 kb", 2048)]
        {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "-2", "m", "1x", "99999999p", "1.2.3", "ä"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_and_files_say_the_same() {
        let flags = Limits { memory: Some(5), cpu_share: Some(7), cpuset_cpus: Some("0".into()), ..Limits::default() };
        let file =
            read_resources(br#"{"memory":{"limit":5},"cpu":{"shares":7,"cpus":"0"},"more":1}"#.as_slice()).unwrap();
        let (flags, memory) = (flags.resources(), file.memory().unwrap());
        assert_eq!(flags.memory().unwrap().limit(), memory.limit());
        assert_eq!(flags.cpu(), file.cpu());
        assert!(read_resources(b"{".as_slice()).is_err());
    }
}
