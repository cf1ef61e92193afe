//! containerd/cgroups/stats/v1/metrics.proto, without what the runtime does not count.

use prost::Message;

use super::named;

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Metrics {
    #[prost(message, repeated, tag = "1")]
    pub(crate) hugetlb: Vec<HugetlbStat>,
    #[prost(message, optional, tag = "2")]
    pub(crate) pids: Option<PidsStat>,
    #[prost(message, optional, tag = "3")]
    pub(crate) cpu: Option<CPUStat>,
    #[prost(message, optional, tag = "4")]
    pub(crate) memory: Option<MemoryStat>,
    #[prost(message, optional, tag = "5")]
    pub(crate) blkio: Option<BlkIOStat>,
    #[prost(message, optional, tag = "9")]
    pub(crate) memory_oom_control: Option<MemoryOomControl>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct HugetlbStat {
    #[prost(uint64, tag = "1")]
    pub(crate) usage: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) max: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) failcnt: u64,
    #[prost(string, tag = "4")]
    pub(crate) pagesize: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct PidsStat {
    #[prost(uint64, tag = "1")]
    pub(crate) current: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) limit: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct CPUStat {
    #[prost(message, optional, tag = "1")]
    pub(crate) usage: Option<CPUUsage>,
    #[prost(message, optional, tag = "2")]
    pub(crate) throttling: Option<Throttle>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct CPUUsage {
    #[prost(uint64, tag = "1")]
    pub(crate) total: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) kernel: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) user: u64,
    #[prost(uint64, repeated, tag = "4")]
    pub(crate) per_cpu: Vec<u64>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Throttle {
    #[prost(uint64, tag = "1")]
    pub(crate) periods: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) throttled_periods: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) throttled_time: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct MemoryStat {
    #[prost(uint64, tag = "1")]
    pub(crate) cache: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) rss: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) rss_huge: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) mapped_file: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) dirty: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) writeback: u64,
    #[prost(uint64, tag = "7")]
    pub(crate) pg_pg_in: u64,
    #[prost(uint64, tag = "8")]
    pub(crate) pg_pg_out: u64,
    #[prost(uint64, tag = "9")]
    pub(crate) pg_fault: u64,
    #[prost(uint64, tag = "10")]
    pub(crate) pg_maj_fault: u64,
    #[prost(uint64, tag = "11")]
    pub(crate) inactive_anon: u64,
    #[prost(uint64, tag = "12")]
    pub(crate) active_anon: u64,
    #[prost(uint64, tag = "13")]
    pub(crate) inactive_file: u64,
    #[prost(uint64, tag = "14")]
    pub(crate) active_file: u64,
    #[prost(uint64, tag = "15")]
    pub(crate) unevictable: u64,
    #[prost(uint64, tag = "16")]
    pub(crate) hierarchical_memory_limit: u64,
    #[prost(uint64, tag = "17")]
    pub(crate) hierarchical_swap_limit: u64,
    #[prost(uint64, tag = "18")]
    pub(crate) total_cache: u64,
    #[prost(uint64, tag = "19")]
    pub(crate) total_rss: u64,
    #[prost(uint64, tag = "20")]
    pub(crate) total_rss_huge: u64,
    #[prost(uint64, tag = "21")]
    pub(crate) total_mapped_file: u64,
    #[prost(uint64, tag = "22")]
    pub(crate) total_dirty: u64,
    #[prost(uint64, tag = "23")]
    pub(crate) total_writeback: u64,
    #[prost(uint64, tag = "24")]
    pub(crate) total_pg_pg_in: u64,
    #[prost(uint64, tag = "25")]
    pub(crate) total_pg_pg_out: u64,
    #[prost(uint64, tag = "26")]
    pub(crate) total_pg_fault: u64,
    #[prost(uint64, tag = "27")]
    pub(crate) total_pg_maj_fault: u64,
    #[prost(uint64, tag = "28")]
    pub(crate) total_inactive_anon: u64,
    #[prost(uint64, tag = "29")]
    pub(crate) total_active_anon: u64,
    #[prost(uint64, tag = "30")]
    pub(crate) total_inactive_file: u64,
    #[prost(uint64, tag = "31")]
    pub(crate) total_active_file: u64,
    #[prost(uint64, tag = "32")]
    pub(crate) total_unevictable: u64,
    #[prost(message, optional, tag = "33")]
    pub(crate) usage: Option<MemoryEntry>,
    #[prost(message, optional, tag = "34")]
    pub(crate) swap: Option<MemoryEntry>,
    #[prost(message, optional, tag = "35")]
    pub(crate) kernel: Option<MemoryEntry>,
    #[prost(message, optional, tag = "36")]
    pub(crate) kernel_tcp: Option<MemoryEntry>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct MemoryEntry {
    #[prost(uint64, tag = "1")]
    pub(crate) limit: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) usage: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) max: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) failcnt: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct MemoryOomControl {
    #[prost(uint64, tag = "1")]
    pub(crate) oom_kill_disable: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) under_oom: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) oom_kill: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct BlkIOStat {
    #[prost(message, repeated, tag = "1")]
    pub(crate) io_service_bytes_recursive: Vec<BlkIOEntry>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) io_serviced_recursive: Vec<BlkIOEntry>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) io_queued_recursive: Vec<BlkIOEntry>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) io_service_time_recursive: Vec<BlkIOEntry>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) io_wait_time_recursive: Vec<BlkIOEntry>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) io_merged_recursive: Vec<BlkIOEntry>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) io_time_recursive: Vec<BlkIOEntry>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) sectors_recursive: Vec<BlkIOEntry>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct BlkIOEntry {
    #[prost(string, tag = "1")]
    pub(crate) op: String,
    #[prost(string, tag = "2")]
    pub(crate) device: String,
    #[prost(uint64, tag = "3")]
    pub(crate) major: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) minor: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) value: u64,
}

named!("io.containerd.cgroups.v1": Metrics);
