//! Reading what is used from the controllers of version 1.

use std::path::Path;

use super::super::V1Dir;
use super::super::files::{parse_keyed, parse_list, read, read_if_there, read_number};
use super::super::v1::find;
use super::{
    BlockIo, BlockIoEntry, CpuSet, CpuUsage, HugePages, Memory, MemoryEntry, Pids, Stats, Throttling, huge_page_sizes,
};
use crate::error::Result;

/// Nanoseconds in the ticks of cpuacct.stat, of which every Linux has 100 a second.
const TICK_NS: u64 = 10_000_000;

/// What a cgroup uses; a controller that is not mounted counts nothing.
pub(in super::super) fn stats(dirs: &[V1Dir]) -> Result<Stats> {
    let mut stats = Stats::default();
    if let Some(dir) = find(dirs, "cpuacct") {
        stats.cpu.usage = cpu_usage(dir)?;
    }
    if let Some(dir) = find(dirs, "cpu") {
        stats.cpu.throttling = throttling(&read(dir, "cpu.stat")?);
    }
    if let Some(dir) = find(dirs, "cpuset") {
        stats.cpuset = cpuset(dir);
    }
    if let Some(dir) = find(dirs, "memory") {
        stats.memory = memory(dir)?;
    }
    if let Some(dir) = find(dirs, "pids") {
        stats.pids = pids(dir)?;
    }
    if let Some(dir) = find(dirs, "blkio") {
        stats.blkio = block_io(dir);
    }
    if let Some(dir) = find(dirs, "hugetlb") {
        for size in huge_page_sizes(dir, "usage_in_bytes") {
            let number = |file: &str| read_number(dir, &format!("hugetlb.{size}.{file}")).unwrap_or(0);
            let pages = HugePages {
                usage: number("usage_in_bytes"),
                max: number("max_usage_in_bytes"),
                failcnt: number("failcnt"),
            };
            stats.hugetlb.insert(size, pages);
        }
    }
    Ok(stats)
}

fn cpu_usage(dir: &Path) -> Result<CpuUsage> {
    let ticks = read(dir, "cpuacct.stat")?;
    let time = |name| {
        let found = parse_keyed(&ticks).find(|(key, _)| *key == name);
        found.map_or(0, |(_, ticks)| ticks.saturating_mul(TICK_NS))
    };
    let (percpu_kernel, percpu_user) = by_mode(&read_if_there(dir, "cpuacct.usage_all").unwrap_or_default());
    let percpu = read_if_there(dir, "cpuacct.usage_percpu").unwrap_or_default();
    Ok(CpuUsage {
        total: read_number(dir, "cpuacct.usage")?,
        percpu: percpu.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect(),
        percpu_kernel,
        percpu_user,
        kernel: time("system"),
        user: time("user"),
    })
}

/// Kernel and user times of cpuacct.usage_all: a line of headings, then "CPU USER SYSTEM".
fn by_mode(text: &str) -> (Vec<u64>, Vec<u64>) {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
            let (user, kernel) = (fields.next()?.ok()?, fields.next()?.ok()?);
            Some((kernel, user))
        })
        .unzip()
}

fn throttling(text: &str) -> Throttling {
    let mut throttling = Throttling::default();
    for (key, value) in parse_keyed(text) {
        match key {
            "nr_periods" => throttling.periods = value,
            "nr_throttled" => throttling.throttled_periods = value,
            "throttled_time" => throttling.throttled_time = value,
            _ => {}
        }
    }
    throttling
}

fn cpuset(dir: &Path) -> CpuSet {
    let number = |file: &str| read_number(dir, &format!("cpuset.{file}")).unwrap_or(0);
    let list = |file: &str| parse_list(&read_if_there(dir, &format!("cpuset.{file}")).unwrap_or_default());
    let level = read_if_there(dir, "cpuset.sched_relax_domain_level");
    CpuSet {
        cpus: list("cpus"),
        cpu_exclusive: number("cpu_exclusive"),
        mems: list("mems"),
        mem_hardwall: number("mem_hardwall"),
        mem_exclusive: number("mem_exclusive"),
        memory_migrate: number("memory_migrate"),
        memory_spread_page: number("memory_spread_page"),
        memory_spread_slab: number("memory_spread_slab"),
        memory_pressure: number("memory_pressure"),
        sched_load_balance: number("sched_load_balance"),
        sched_relax_domain_level: level.and_then(|text| text.parse().ok()).unwrap_or(0),
    }
}

fn memory(dir: &Path) -> Result<Memory> {
    let raw: std::collections::BTreeMap<String, u64> =
        parse_keyed(&read(dir, "memory.stat")?).map(|(key, value)| (key.to_owned(), value)).collect();
    // Kernels without accounting of swap or of the kernel's memory have no such files.
    let entry = |kind: &str| {
        let number = |file: &str| read_number(dir, &format!("memory{kind}.{file}"));
        let limit = number("limit_in_bytes").ok()?;
        Some(MemoryEntry {
            limit,
            usage: number("usage_in_bytes").unwrap_or(0),
            max: number("max_usage_in_bytes").unwrap_or(0),
            failcnt: number("failcnt").unwrap_or(0),
        })
    };
    Ok(Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: entry("").unwrap_or_default(),
        swap: entry(".memsw").unwrap_or_default(),
        kernel: entry(".kmem").unwrap_or_default(),
        kernel_tcp: entry(".kmem.tcp").unwrap_or_default(),
        raw,
    })
}

pub(super) fn pids(dir: &Path) -> Result<Pids> {
    let limit = read_number(dir, "pids.max")?;
    Ok(Pids { current: read_number(dir, "pids.current")?, limit: if limit == u64::MAX { 0 } else { limit } })
}

/// Statistics of the scheduler that is in use: BFQ's, CFQ's, or else those of throttling.
fn block_io(dir: &Path) -> BlockIo {
    let table = |file: &str| entries(&read_if_there(dir, file).unwrap_or_default());
    for prefix in ["blkio.bfq.", "blkio."] {
        let recursive = |name: &str| table(&format!("{prefix}{name}_recursive"));
        let serviced = recursive("io_serviced");
        if !serviced.is_empty() {
            return BlockIo {
                io_service_bytes_recursive: recursive("io_service_bytes"),
                io_serviced_recursive: serviced,
                io_queue_recursive: recursive("io_queued"),
                io_service_time_recursive: recursive("io_service_time"),
                io_wait_time_recursive: recursive("io_wait_time"),
                io_merged_recursive: recursive("io_merged"),
                io_time_recursive: recursive("time"),
                sectors_recursive: recursive("sectors"),
            };
        }
    }
    BlockIo {
        io_service_bytes_recursive: table("blkio.throttle.io_service_bytes_recursive"),
        io_serviced_recursive: table("blkio.throttle.io_serviced_recursive"),
        ..BlockIo::default()
    }
}

/// Lines of "MAJOR:MINOR VALUE" or "MAJOR:MINOR OP VALUE"; the totals at the end have no device.
fn entries(text: &str) -> Vec<BlockIoEntry> {
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split([' ', ':']).collect();
            let (major, minor, op, value) = match fields[..] {
                [major, minor, op, value] => (major, minor, op, value),
                [major, minor, value] => (major, minor, "", value),
                _ => return None,
            };
            let (major, minor, value) = (major.parse().ok()?, minor.parse().ok()?, value.parse().ok()?);
            Some(BlockIoEntry { major, minor, op: op.to_owned(), value })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_understood() {
        let table = entries("8:0 Read 12\n8:0 Total 12\n9:1 5\nTotal 17\n");
        assert_eq!(table.len(), 3);
        assert_eq!(table[0], BlockIoEntry { major: 8, minor: 0, op: "Read".into(), value: 12 });
        assert_eq!((table[2].op.as_str(), table[2].value), ("", 5));
        assert_eq!(by_mode("cpu user system\n0 8 4\n1 1 0\n"), (vec![4, 0], vec![8, 1]));
        let throttled = throttling("nr_periods 5\nnr_throttled 2\nthrottled_time 70\nnr_bursts 0\n");
        assert_eq!(throttled, Throttling { periods: 5, throttled_periods: 2, throttled_time: 70 });
    }
}
