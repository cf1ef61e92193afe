//! [`registry`]: what a guest's kernel is made of. Whoever adds a file system, a device, an address family or a file of
//! /proc/net adds it here.

use std::sync::Weak;

use moat_control::spec::NetworkMode;
use moat_identity::NetNamespace;
use moat_kernel::Kernel;
use moat_vfs::Registry;

/// File system types, devices, FIFOs, address families and texts. `kernel` is for those that show or use it.
pub(crate) fn registry(network: NetworkMode, kernel: &Weak<Kernel>) -> Registry {
    let mut registry = Registry::default();
    // File systems: tmpfs and ramfs; proc; sysfs and cgroup2; devpts with the devices tty, console, ptmx; mqueue.
    moat_fs_tmpfs::register(&mut registry);
    moat_fs_proc::register(&mut registry, kernel);
    moat_fs_sys::register(&mut registry, kernel);
    moat_fs_devpts::register(&mut registry, kernel);
    moat_fs_mqueue::register(&mut registry, kernel);
    // Devices: null, zero, full, random, urandom.
    moat_fs_dev::register(&mut registry);
    // FIFOs, on whatever file system they are.
    moat_fs_anon::register(&mut registry);
    // Address families, with their files of /proc/net and the ioctls about devices.
    moat_net_unix::register(&mut registry);
    match network {
        NetworkMode::None | NetworkMode::Sandbox => moat_net_inet::register(&mut registry),
        NetworkMode::Host => moat_net_host::register(&mut registry),
    }
    registry
}

/// Gives the first network namespace its devices.
pub(crate) fn add_devices(network: NetworkMode, net: &NetNamespace) {
    match network {
        NetworkMode::None | NetworkMode::Sandbox => moat_net_inet::device::add_loopback(net),
        NetworkMode::Host => moat_net_host::device::list_all().into_iter().for_each(|device| net.add_device(device)),
    }
}
