//! What the guest is told of the host: CPUs, memory, name.

/// CPUs that this process may use, at least 1.
pub(crate) fn cpu_count() -> u32 {
    rustix::thread::sched_getaffinity(None).map_or(1, |cpus| cpus.count()).max(1)
}

/// The host's memory in bytes.
pub(crate) fn total_memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// The host's name.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
