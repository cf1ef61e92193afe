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

fn constant(path: &str, text: &'static str) -> File {
    file(path, move || text.to_owned())
}

/// The files of a network device. They stay as they were when the file system was mounted.
fn net_device(device: &NetDevice) -> Vec<File> {
    let loopback = device.flags & IFF_LOOPBACK != 0;
    let state = match device.flags & IFF_RUNNING {
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
fn files(cpus: usize, container: &Option<Arc<ContainerGroup>>, devices: &[NetDevice]) -> Vec<File> {
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
        file("devices/system/node/node0/cpulist", cpu_list()),
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
    let net = namespaces.net.clone();
    // A sandbox gets its links after its root container's file systems are mounted.
    let source = move |shown: usize| {
        let devices = net.devices();
        let state = devices.len().saturating_add(1);
        (state != shown).then(|| (state, files(cpus, &container, &devices)))
    };
    Ok(TreeFs::changing(kernel.vfs.new_device(), "sysfs", SYSFS_MAGIC, source))
}
