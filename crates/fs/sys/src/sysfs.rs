//! sysfs: CPUs, memory settings, network devices.

use std::sync::Arc;

use moat_abi::Result;
use moat_abi::socket::{IFF_LOOPBACK, IFF_LOWER_UP, IFF_RUNNING};
use moat_abi::stat::SYSFS_MAGIC;
use moat_identity::Namespaces;
use moat_identity::net::NetDevice;
use moat_kernel::Kernel;
use moat_kernel::process::container::ContainerGroup;
use moat_vfs::filesystem::FileSystem;

use crate::tree::{File, TreeFs, empty_dir, file};

fn cpu_range(cpus: usize) -> String {
    match cpus {
        0 | 1 => "0".into(),
        n => format!("0-{}", n - 1),
    }
}

/// A mask of CPUs `first` to `end`, `end` not included, as sysfs writes it: words of 32 bits, the last CPUs' first.
fn cpu_mask(cpus: usize, first: usize, end: usize) -> String {
    let word = |n: usize| {
        let bits = (0..32usize).filter(|bit| (first..end).contains(&n.saturating_mul(32).saturating_add(*bit)));
        bits.fold(0u32, |word, bit| word | 1u32.wrapping_shl(u32::try_from(bit).unwrap_or(0)))
    };
    let words = cpus.div_ceil(32).max(1);
    // The first word is as wide as there are CPUs for it, the others are whole.
    let width = cpus.saturating_sub(1).checked_rem(32).map_or(1, |last| last.saturating_add(4) / 4).max(1);
    let texts = (0..words).rev().map(|n| match n.saturating_add(1) == words {
        true => format!("{:0width$x}", word(n)),
        false => format!("{:08x}", word(n)),
    });
    texts.collect::<Vec<_>>().join(",")
}

/// The one node of memory, whose sizes are all of the machine's.
fn node_meminfo(total_memory: u64) -> String {
    let kib = total_memory / 1024;
    let lines = [("MemTotal", kib), ("MemFree", kib), ("MemUsed", 0)];
    lines.map(|(name, kib)| format!("Node 0 {:<16}{kib:>8} kB", format!("{name}:"))).join("\n")
}

fn constant(path: &str, text: &'static str) -> File {
    file(path, move || text.to_owned())
}

/// The files of a network device. They stay as they were when the file system was mounted.
fn net_device(device: &NetDevice) -> Vec<File> {
    let loopback = device.flags & IFF_LOOPBACK != 0;
    let state = match device.flags & IFF_RUNNING {
        // The kernel sets no operational state for it: IF_OPER_UNKNOWN.
        _ if loopback => "unknown",
        0 => "down",
        _ => "up",
    };
    let address = device.address.map(|byte| format!("{byte:02x}")).join(":");
    // What follows from the driver's state is not among them (`netdev->flags`).
    let flags = device.flags & !(IFF_RUNNING | IFF_LOWER_UP);
    let texts = [
        ("address", address),
        ("flags", format!("{flags:#x}")),
        ("ifindex", device.index.to_string()),
        ("mtu", device.mtu.to_string()),
        ("operstate", state.to_owned()),
        ("type", device.hardware_type.to_string()),
    ];
    let name = &device.name;
    texts.map(|(file_name, text)| file(format!("class/net/{name}/{file_name}"), move || text.clone())).into()
}

/// `cpus` CPUs, of which a container sees its share as far as one list says it all.
fn files(cpus: usize, total_memory: u64, container: &Option<Arc<ContainerGroup>>, devices: &[NetDevice]) -> Vec<File> {
    let cpu_list = || {
        let container = container.clone();
        move || cpu_range(container.as_ref().map_or(cpus, |c| c.allowance().cpu_count()))
    };
    let mut all = vec![
        empty_dir("block"),
        empty_dir("bus"),
        empty_dir("class/block"),
        empty_dir("class/power_supply"),
        empty_dir("dev/block"),
        empty_dir("dev/char"),
        empty_dir("firmware"),
        empty_dir("fs/cgroup"),
        empty_dir("kernel/debug"),
        empty_dir("kernel/security"),
        empty_dir("module"),
        empty_dir("power"),
        file("devices/system/cpu/online", cpu_list()),
        file("devices/system/cpu/possible", cpu_list()),
        file("devices/system/cpu/present", cpu_list()),
        constant("devices/system/cpu/offline", ""),
        file("devices/system/cpu/kernel_max", move || cpus.saturating_sub(1).to_string()),
        constant("devices/system/node/online", "0"),
        constant("devices/system/node/possible", "0"),
        constant("devices/system/node/has_memory", "0"),
        constant("devices/system/node/has_cpu", "0"),
        file("devices/system/node/node0/cpulist", cpu_list()),
        file("devices/system/node/node0/cpumap", move || cpu_mask(cpus, 0, cpus)),
        constant("devices/system/node/node0/distance", "10"),
        file("devices/system/node/node0/meminfo", move || node_meminfo(total_memory)),
        constant("kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
        constant("kernel/mm/transparent_hugepage/hpage_pmd_size", "2097152"),
    ];
    all.extend(devices.iter().flat_map(net_device));
    for n in 0..cpus {
        let base = format!("devices/system/cpu/cpu{n}");
        all.push(file(format!("{base}/topology/core_id"), move || n.to_string()));
        all.push(file(format!("{base}/topology/physical_package_id"), || "0".into()));
        all.push(file(format!("{base}/topology/thread_siblings_list"), move || n.to_string()));
        all.push(file(format!("{base}/topology/core_siblings_list"), cpu_list()));
        let own = move || cpu_mask(cpus, n, n.saturating_add(1));
        all.push(file(format!("{base}/topology/thread_siblings"), own));
        all.push(file(format!("{base}/topology/core_siblings"), move || cpu_mask(cpus, 0, cpus)));
        // The first CPU can't be taken offline, and has no such file.
        if n > 0 {
            all.push(file(format!("{base}/online"), || "1".into()));
        }
    }
    all
}

/// A sysfs that shows the devices of a network namespace, and the CPUs of the container whose cgroup it is.
///
/// # Errors
/// None.
pub fn mount(kernel: &Kernel, namespaces: &Namespaces) -> Result<Arc<dyn FileSystem>> {
    let container = ContainerGroup::of(&namespaces.cgroup);
    let cpus = container.as_ref().map_or(kernel.cpu_count, |c| c.allowance().cpu_count());
    let (net, total_memory) = (namespaces.net.clone(), kernel.total_memory);
    // A sandbox gets its links after its root container's file systems are mounted.
    let source = move |shown: usize| {
        let devices = net.devices();
        // 0 is the state of a tree that was never made.
        let state = devices.len().saturating_add(1);
        (state != shown).then(|| (state, files(cpus, total_memory, &container, &devices)))
    };
    Ok(TreeFs::changing(kernel.vfs.new_device(), "sysfs", SYSFS_MAGIC, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_as_wide_as_there_are_cpus() {
        assert_eq!((cpu_mask(1, 0, 1), cpu_mask(2, 0, 2), cpu_mask(5, 4, 5)), ("1".into(), "3".into(), "10".into()));
        assert_eq!(cpu_mask(32, 0, 32), "ffffffff");
        assert_eq!((cpu_mask(33, 0, 33), cpu_mask(40, 1, 2)), ("1,ffffffff".into(), "00,00000002".into()));
    }
}
