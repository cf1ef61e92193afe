//! What a container uses, as containerd's clients read it: the figures of `moat events --stats`.

use moat_runtime::Container;
use moat_runtime::cgroup::{Cgroup, Stats, Version};
use moat_runtime::events::stats_of;

use crate::messages::{Any, v1, v2};
use crate::runtime::status;
use crate::ttrpc::{Code, Status};

/// Nanoseconds in a microsecond, in which version 2 counts.
const USEC: u64 = 1000;

/// The figures of a container, in the message of the host's version of cgroups.
pub(crate) fn of(container: &Container) -> Result<Any, Status> {
    let cgroup = container.state.cgroup.as_ref().ok_or_else(|| Code::NotFound.because("cgroup does not exist"))?;
    let stats = stats_of(container, cgroup).map_err(status)?;
    Ok(match cgroup.version() {
        Version::V1 => Any::pack(&of_v1(&stats, cgroup)),
        Version::V2 => Any::pack(&of_v2(&stats, cgroup)),
    })
}

fn of_v1(stats: &Stats, cgroup: &Cgroup) -> v1::Metrics {
    let entry = |memory: moat_runtime::cgroup::MemoryEntry| {
        let moat_runtime::cgroup::MemoryEntry { limit, usage, max, failcnt } = memory;
        Some(v1::MemoryEntry { limit, usage, max, failcnt })
    };
    let (cpu, memory) = (&stats.cpu, &stats.memory);
    let raw = |name: &str| memory.raw.get(name).copied().unwrap_or(0);
    let events = cgroup.memory_events();
    v1::Metrics {
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|(size, pages)| v1::HugetlbStat {
                usage: pages.usage,
                max: pages.max,
                failcnt: pages.failcnt,
                pagesize: size.clone(),
            })
            .collect(),
        pids: Some(v1::PidsStat { current: stats.pids.current, limit: stats.pids.limit }),
        cpu: Some(v1::CPUStat {
            usage: Some(v1::CPUUsage {
                total: cpu.usage.total,
                kernel: cpu.usage.kernel,
                user: cpu.usage.user,
                per_cpu: cpu.usage.percpu.clone(),
            }),
            throttling: Some(v1::Throttle {
                periods: cpu.throttling.periods,
                throttled_periods: cpu.throttling.throttled_periods,
                throttled_time: cpu.throttling.throttled_time,
            }),
        }),
        memory: Some(v1::MemoryStat {
            cache: memory.cache,
            rss: raw("rss"),
            rss_huge: raw("rss_huge"),
            mapped_file: raw("mapped_file"),
            dirty: raw("dirty"),
            writeback: raw("writeback"),
            pg_pg_in: raw("pgpgin"),
            pg_pg_out: raw("pgpgout"),
            pg_fault: raw("pgfault"),
            pg_maj_fault: raw("pgmajfault"),
            inactive_anon: raw("inactive_anon"),
            active_anon: raw("active_anon"),
            inactive_file: raw("inactive_file"),
            active_file: raw("active_file"),
            unevictable: raw("unevictable"),
            hierarchical_memory_limit: raw("hierarchical_memory_limit"),
            hierarchical_swap_limit: raw("hierarchical_memsw_limit"),
            total_cache: raw("total_cache"),
            total_rss: raw("total_rss"),
            total_rss_huge: raw("total_rss_huge"),
            total_mapped_file: raw("total_mapped_file"),
            total_dirty: raw("total_dirty"),
            total_writeback: raw("total_writeback"),
            total_pg_pg_in: raw("total_pgpgin"),
            total_pg_pg_out: raw("total_pgpgout"),
            total_pg_fault: raw("total_pgfault"),
            total_pg_maj_fault: raw("total_pgmajfault"),
            total_inactive_anon: raw("total_inactive_anon"),
            total_active_anon: raw("total_active_anon"),
            total_inactive_file: raw("total_inactive_file"),
            total_active_file: raw("total_active_file"),
            total_unevictable: raw("total_unevictable"),
            usage: entry(memory.usage),
            swap: entry(memory.swap),
            kernel: entry(memory.kernel),
            kernel_tcp: entry(memory.kernel_tcp),
        }),
        blkio: Some(block_io(stats)),
        memory_oom_control: events.map(|events| {
            let event = |name: &str| events.get(name).copied().unwrap_or(0);
            v1::MemoryOomControl {
                oom_kill_disable: event("oom_kill_disable"),
                under_oom: event("under_oom"),
                oom_kill: event("oom_kill"),
            }
        }),
    }
}

fn block_io(stats: &Stats) -> v1::BlkIOStat {
    let entries = |entries: &[moat_runtime::cgroup::BlockIoEntry]| {
        let entry = |entry: &moat_runtime::cgroup::BlockIoEntry| v1::BlkIOEntry {
            op: entry.op.clone(),
            device: String::new(),
            major: entry.major,
            minor: entry.minor,
            value: entry.value,
        };
        entries.iter().map(entry).collect()
    };
    let io = &stats.blkio;
    v1::BlkIOStat {
        io_service_bytes_recursive: entries(&io.io_service_bytes_recursive),
        io_serviced_recursive: entries(&io.io_serviced_recursive),
        io_queued_recursive: entries(&io.io_queue_recursive),
        io_service_time_recursive: entries(&io.io_service_time_recursive),
        io_wait_time_recursive: entries(&io.io_wait_time_recursive),
        io_merged_recursive: entries(&io.io_merged_recursive),
        io_time_recursive: entries(&io.io_time_recursive),
        sectors_recursive: entries(&io.sectors_recursive),
    }
}

fn of_v2(stats: &Stats, cgroup: &Cgroup) -> v2::Metrics {
    let (cpu, memory) = (&stats.cpu, &stats.memory);
    let raw = |name: &str| memory.raw.get(name).copied().unwrap_or(0);
    v2::Metrics {
        pids: Some(v2::PidsStat {
            current: stats.pids.current,
            // No limit is the largest number here.
            limit: if stats.pids.limit == 0 { u64::MAX } else { stats.pids.limit },
        }),
        cpu: Some(v2::CPUStat {
            usage_usec: cpu.usage.total.div_euclid(USEC),
            user_usec: cpu.usage.user.div_euclid(USEC),
            system_usec: cpu.usage.kernel.div_euclid(USEC),
            nr_periods: cpu.throttling.periods,
            nr_throttled: cpu.throttling.throttled_periods,
            throttled_usec: cpu.throttling.throttled_time.div_euclid(USEC),
            ..v2::CPUStat::default()
        }),
        memory: Some(v2::MemoryStat {
            anon: raw("anon"),
            file: raw("file"),
            kernel_stack: raw("kernel_stack"),
            slab: raw("slab"),
            sock: raw("sock"),
            shmem: raw("shmem"),
            file_mapped: raw("file_mapped"),
            file_dirty: raw("file_dirty"),
            file_writeback: raw("file_writeback"),
            anon_thp: raw("anon_thp"),
            inactive_anon: raw("inactive_anon"),
            active_anon: raw("active_anon"),
            inactive_file: raw("inactive_file"),
            active_file: raw("active_file"),
            unevictable: raw("unevictable"),
            slab_reclaimable: raw("slab_reclaimable"),
            slab_unreclaimable: raw("slab_unreclaimable"),
            pgfault: raw("pgfault"),
            pgmajfault: raw("pgmajfault"),
            workingset_refault: raw("workingset_refault"),
            workingset_activate: raw("workingset_activate"),
            workingset_nodereclaim: raw("workingset_nodereclaim"),
            pgrefill: raw("pgrefill"),
            pgscan: raw("pgscan"),
            pgsteal: raw("pgsteal"),
            pgactivate: raw("pgactivate"),
            pgdeactivate: raw("pgdeactivate"),
            pglazyfree: raw("pglazyfree"),
            pglazyfreed: raw("pglazyfreed"),
            thp_fault_alloc: raw("thp_fault_alloc"),
            thp_collapse_alloc: raw("thp_collapse_alloc"),
            usage: memory.usage.usage,
            usage_limit: memory.usage.limit,
            // The runtime counts memory and swap together, as version 1 does.
            swap_usage: memory.swap.usage.saturating_sub(memory.usage.usage),
            swap_limit: match memory.swap.limit {
                u64::MAX => u64::MAX,
                limit => limit.saturating_sub(memory.usage.limit),
            },
            max_usage: memory.usage.max,
            ..v2::MemoryStat::default()
        }),
        io: Some(v2::IOStat { usage: devices(stats) }),
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|(size, pages)| v2::HugeTlbStat {
                current: pages.usage,
                max: pages.max,
                pagesize: size.clone(),
                failcnt: pages.failcnt,
            })
            .collect(),
        memory_events: cgroup.memory_events().map(|events| {
            let event = |name: &str| events.get(name).copied().unwrap_or(0);
            v2::MemoryEvents {
                low: event("low"),
                high: event("high"),
                max: event("max"),
                oom: event("oom"),
                oom_kill: event("oom_kill"),
                oom_group_kill: event("oom_group_kill"),
            }
        }),
    }
}

/// The tables of the runtime, which has one for bytes and one for requests, by device.
fn devices(stats: &Stats) -> Vec<v2::IOEntry> {
    let mut devices: Vec<v2::IOEntry> = Vec::new();
    let bytes = stats.blkio.io_service_bytes_recursive.iter().map(|entry| (true, entry));
    let requests = stats.blkio.io_serviced_recursive.iter().map(|entry| (false, entry));
    for (is_bytes, entry) in bytes.chain(requests) {
        let (major, minor) = (entry.major, entry.minor);
        let index = devices.iter().position(|known| (known.major, known.minor) == (major, minor));
        let index = index.unwrap_or_else(|| {
            devices.push(v2::IOEntry { major, minor, ..v2::IOEntry::default() });
            devices.len().saturating_sub(1)
        });
        let Some(device) = devices.get_mut(index) else { continue };
        match (is_bytes, entry.op.as_str()) {
            (true, "Read") => device.rbytes = entry.value,
            (true, "Write") => device.wbytes = entry.value,
            (false, "Read") => device.rios = entry.value,
            (false, "Write") => device.wios = entry.value,
            _ => {}
        }
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_runtime::cgroup::BlockIoEntry;

    #[test]
    fn a_device_has_bytes_and_requests() {
        let entry = |minor, op: &str, value| BlockIoEntry { major: 8, minor, op: op.into(), value };
        let mut stats = Stats::default();
        stats.blkio.io_service_bytes_recursive = vec![entry(0, "Read", 1), entry(16, "Write", 2), entry(0, "Sync", 9)];
        stats.blkio.io_serviced_recursive = vec![entry(0, "Write", 3), entry(16, "Read", 4)];
        let first = v2::IOEntry { major: 8, minor: 0, rbytes: 1, wios: 3, ..v2::IOEntry::default() };
        let second = v2::IOEntry { major: 8, minor: 16, wbytes: 2, rios: 4, ..v2::IOEntry::default() };
        assert_eq!(devices(&stats), [first, second]);
    }
}
