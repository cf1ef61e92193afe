//! Limits on version 1: Documentation/admin-guide/cgroup-v1 of the kernel.
//!
//! libcgroups has these too, but it looks for the hierarchies again for each container, wants the devices controller and puts
//! all controllers' cgroups at one path, where runc's relative paths differ from controller to controller.

use std::io;
use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::V1Dir;
use super::files::{read, read_number, try_write, write};
use crate::error::{Context, Error, Result};

/// Applies what `resources` asks for, which [`super::limits::asked_for`] has gone over.
pub(super) fn apply(dirs: &[V1Dir], resources: &LinuxResources) -> Result<()> {
    let dir = |controller: &str, field: &str| find(dirs, controller).ok_or_else(|| missing(field, controller));
    if resources.unified().is_some() {
        return Err(Error::unsupported("linux.resources.unified", "the host has version 1 of cgroups"));
    }
    if let Some(cpu) = resources.cpu() {
        if cpu.cpus().is_some() || cpu.mems().is_some() {
            cpuset(dir("cpuset", "linux.resources.cpu.cpus")?, cpu)?;
        }
        if cpu_needs_controller(cpu) {
            set_cpu(dir("cpu", "linux.resources.cpu")?, cpu)?;
        }
    }
    if let Some(memory) = resources.memory() {
        set_memory(dir("memory", "linux.resources.memory")?, memory)?;
    }
    if let Some(pids) = resources.pids() {
        let dir = dir("pids", "linux.resources.pids")?;
        // 0 and below mean no limit, as for runc.
        if pids.limit() > 0 { write(dir, "pids.max", pids.limit())? } else { write(dir, "pids.max", "max")? }
    }
    if let Some(io) = resources.block_io() {
        set_block_io(dir("blkio", "linux.resources.blockIO")?, io)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let dir = dir("hugetlb", "linux.resources.hugepageLimits")?;
        let size = page_size(limit.page_size())?;
        write(dir, &format!("hugetlb.{size}.limit_in_bytes"), limit.limit())?;
        // Reservations are charged apart since Linux 5.7; without this limit a guest could reserve what it may not use.
        if dir.join(format!("hugetlb.{size}.rsvd.limit_in_bytes")).exists() {
            write(dir, &format!("hugetlb.{size}.rsvd.limit_in_bytes"), limit.limit())?;
        }
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id() {
            write(dir("net_cls", "linux.resources.network.classID")?, "net_cls.classid", class)?;
        }
        for priority in network.priorities().iter().flatten() {
            let dir = dir("net_prio", "linux.resources.network.priorities")?;
            write(dir, "net_prio.ifpriomap", format!("{} {}", priority.name(), priority.priority()))?;
        }
    }
    if let Some(rdma) = resources.rdma() {
        super::set_rdma(dir("rdma", "linux.resources.rdma")?, rdma)?;
    }
    Ok(())
}

/// The cgroup in a controller's hierarchy.
pub(super) fn find<'a>(dirs: &'a [V1Dir], controller: &str) -> Option<&'a Path> {
    dirs.iter().find(|dir| dir.controllers.iter().any(|name| name == controller)).map(|dir| dir.path.as_path())
}

fn missing(field: &str, controller: &str) -> Error {
    Error::unsupported(field, format!("the host has no cgroup controller {controller:?} mounted"))
}

/// A page size as it is part of a file's name.
pub(super) fn page_size(text: &str) -> Result<&str> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    match text.split_at_checked(digits) {
        Some((number, "KB" | "MB" | "GB")) if !number.is_empty() => Ok(text),
        _ => Err(Error::Invalid(format!("linux.resources.hugepageLimits: {text:?} is not a page size like \"2MB\""))),
    }
}

/// Gives a new cpuset, and those above it, the CPUs and memory nodes of its parent: without any it takes no processes.
pub(super) fn fill_cpuset(mount: &Path, path: &Path) -> Result<()> {
    let mut current = mount.to_owned();
    let below = path.strip_prefix(mount).unwrap_or(Path::new(""));
    let mut values = [read(mount, "cpuset.cpus")?, read(mount, "cpuset.mems")?];
    for component in below.components() {
        current.push(component);
        for (file, value) in ["cpuset.cpus", "cpuset.mems"].into_iter().zip(&mut values) {
            match read(&current, file)? {
                // No process can be put into a cpuset without CPUs or memory nodes, and new ones have none: they get
                // their parent's.
                own if own.is_empty() => write(&current, file, &value)?,
                own => *value = own,
            }
        }
    }
    Ok(())
}

fn cpuset(dir: &Path, cpu: &LinuxCpu) -> Result<()> {
    if let Some(cpus) = cpu.cpus() {
        write(dir, "cpuset.cpus", cpus)?;
    }
    if let Some(mems) = cpu.mems() {
        write(dir, "cpuset.mems", mems)?;
    }
    Ok(())
}

fn cpu_needs_controller(cpu: &LinuxCpu) -> bool {
    cpu.shares().is_some()
        || cpu.quota().is_some()
        || cpu.period().is_some()
        || cpu.burst().is_some()
        || cpu.idle().is_some()
        || cpu.realtime_period().is_some()
        || cpu.realtime_runtime().is_some()
}

fn set_cpu(dir: &Path, cpu: &LinuxCpu) -> Result<()> {
    if let Some(period) = cpu.realtime_period() {
        write(dir, "cpu.rt_period_us", period)?;
    }
    if let Some(runtime) = cpu.realtime_runtime() {
        write(dir, "cpu.rt_runtime_us", runtime)?;
    }
    if let Some(shares) = cpu.shares() {
        write(dir, "cpu.shares", shares)?;
        // The kernel takes any number and keeps the nearest one that it can use.
        match read_number(dir, "cpu.shares")? {
            kept if kept < shares => return Err(Error::Invalid(format!("the maximum allowed cpu-shares is {kept}"))),
            kept if kept > shares => return Err(Error::Invalid(format!("the minimum allowed cpu-shares is {kept}"))),
            _ => {}
        }
    }
    let mut period = cpu.period();
    if let Some(value) = period {
        match try_write(dir, "cpu.cfs_period_us", &value.to_string()) {
            Ok(()) => period = None,
            // With the old quota it may exceed the parent's share; with the new one it need not.
            Err(error) if is(&error, libc::EINVAL) && cpu.quota().is_some() => {}
            Err(error) => {
                return Err(error).context(|| format!("writing \"{value}\" to {}/cpu.cfs_period_us", dir.display()));
            }
        }
    }
    if let Some(quota) = cpu.quota() {
        write(dir, "cpu.cfs_quota_us", quota)?;
        if let Some(period) = period {
            write(dir, "cpu.cfs_period_us", period)?;
        }
    }
    if let Some(burst) = cpu.burst() {
        write(dir, "cpu.cfs_burst_us", burst)?;
    }
    if let Some(idle) = cpu.idle() {
        write(dir, "cpu.idle", idle)?;
    }
    Ok(())
}

fn set_memory(dir: &Path, memory: &LinuxMemory) -> Result<()> {
    let mut swap = memory.swap();
    // The limit of memory and swap can't stay below one of memory that goes: unlimited are both then, as with runc.
    if memory.limit() == Some(-1) && swap.is_none() && dir.join(SWAP).exists() {
        swap = Some(-1);
    }
    let limit = |value: Option<i64>| value.map_or(Ok(()), |value| set_memory_limit(dir, value));
    let set_swap = |value: Option<i64>| value.map_or(Ok(()), |value| write(dir, SWAP, value));
    // The limit of memory may never be above that of memory and swap, not even between the two writes.
    let swap_first = match (memory.limit(), swap) {
        (Some(_), Some(-1)) => true,
        (Some(_), Some(swap)) => {
            u64::try_from(swap).is_ok_and(|swap| read_number(dir, LIMIT).is_ok_and(|now| now < swap))
        }
        _ => false,
    };
    if swap_first {
        set_swap(swap)?;
        limit(memory.limit())?;
    } else {
        limit(memory.limit())?;
        set_swap(swap)?;
    }
    if let Some(reservation) = memory.reservation() {
        write(dir, "memory.soft_limit_in_bytes", reservation)?;
    }
    if let Some(tcp) = memory.kernel_tcp() {
        write(dir, "memory.kmem.tcp.limit_in_bytes", tcp)?;
    }
    if memory.disable_oom_killer() == Some(true) {
        write(dir, "memory.oom_control", 1)?;
    }
    match memory.swappiness() {
        Some(value @ 0..=100) => write(dir, "memory.swappiness", value),
        Some(value) => {
            Err(Error::Invalid(format!("linux.resources.memory.swappiness {value} is not between 0 and 100")))
        }
        None => Ok(()),
    }
}

const LIMIT: &str = "memory.limit_in_bytes";
const SWAP: &str = "memory.memsw.limit_in_bytes";

fn set_memory_limit(dir: &Path, value: i64) -> Result<()> {
    match try_write(dir, LIMIT, &value.to_string()) {
        Err(error) if is(&error, libc::EBUSY) => {
            let (usage, peak) = (read(dir, "memory.usage_in_bytes")?, read(dir, "memory.max_usage_in_bytes")?);
            Err(Error::Invalid(format!(
                "unable to set memory limit to {value} (current usage: {usage}, peak usage: {peak})"
            )))
        }
        result => result.context(|| format!("writing \"{value}\" to {}/{LIMIT}", dir.display())),
    }
}

fn set_block_io(dir: &Path, io: &LinuxBlockIo) -> Result<()> {
    // CFQ's file, or BFQ's.
    let file = |plain: &'static str, bfq: &'static str| if dir.join(plain).exists() { plain } else { bfq };
    if let Some(weight) = io.weight() {
        write(dir, file("blkio.weight", "blkio.bfq.weight"), weight)?;
    }
    if let Some(weight) = io.leaf_weight() {
        write(dir, "blkio.leaf_weight", weight)?;
    }
    for device in io.weight_device().iter().flatten() {
        let number = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = device.weight().filter(|&weight| weight != 0) {
            write(dir, file("blkio.weight_device", "blkio.bfq.weight_device"), format!("{number} {weight}"))?;
        }
        if let Some(weight) = device.leaf_weight().filter(|&weight| weight != 0) {
            write(dir, "blkio.leaf_weight_device", format!("{number} {weight}"))?;
        }
    }
    throttle(dir, "blkio.throttle.read_bps_device", io.throttle_read_bps_device())?;
    throttle(dir, "blkio.throttle.write_bps_device", io.throttle_write_bps_device())?;
    throttle(dir, "blkio.throttle.read_iops_device", io.throttle_read_iops_device())?;
    throttle(dir, "blkio.throttle.write_iops_device", io.throttle_write_iops_device())
}

fn throttle(dir: &Path, file: &str, devices: &Option<Vec<LinuxThrottleDevice>>) -> Result<()> {
    devices
        .iter()
        .flatten()
        .try_for_each(|device| write(dir, file, format!("{}:{} {}", device.major(), device.minor(), device.rate())))
}

fn is(error: &io::Error, errno: i32) -> bool {
    error.raw_os_error() == Some(errno)
}
