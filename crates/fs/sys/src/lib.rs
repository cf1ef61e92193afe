//! sysfs(5) and the container's view of its cgroup: what programs look up about CPUs, memory and limits.
//!
//! Both are trees of generated, read-only files; nothing of the host's own /sys is shown.
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod sysfs;
mod tree;

use std::sync::Weak;

use moat_abi::Errno;
use moat_kernel::Kernel;
use moat_vfs::Registry;

/// Makes "sysfs" and "cgroup2" mountable.
pub fn register(registry: &mut Registry, kernel: &Weak<Kernel>) {
    let of_sysfs = kernel.clone();
    registry.filesystem("sysfs", move |request| sysfs::mount(&*of_sysfs.upgrade().ok_or(Errno::ENODEV)?, request));
    let of_cgroup = kernel.clone();
    registry.filesystem("cgroup2", move |_| cgroup::mount(&of_cgroup.upgrade().ok_or(Errno::ENODEV)?));
}
