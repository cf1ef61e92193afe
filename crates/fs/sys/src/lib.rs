//! sysfs(5) and the container's view of its cgroup: what programs look up about CPUs, memory and limits.
//!
//! Both are trees of generated, read-only files; nothing of the host's own /sys is shown.
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod sysfs;
mod tree;

use std::sync::{Arc, Weak};

use moat_abi::Errno;
use moat_identity::Namespaces;
use moat_kernel::Kernel;
use moat_vfs::Registry;
use moat_vfs::filesystem::MountRequest;

/// The mounter's namespaces; the first ones when the sentry itself mounts.
fn namespaces(kernel: &Kernel, request: &MountRequest<'_>) -> Arc<Namespaces> {
    request.caller.task().map_or_else(|| Arc::new(kernel.root_namespaces.clone()), |t| t.namespaces())
}

/// Makes "sysfs" and "cgroup2" mountable.
pub fn register(registry: &mut Registry, kernel: &Weak<Kernel>) {
    let of_sysfs = kernel.clone();
    registry.filesystem("sysfs", move |request| {
        let kernel = of_sysfs.upgrade().ok_or(Errno::ENODEV)?;
        sysfs::mount(&kernel, &namespaces(&kernel, request))
    });
    let of_cgroup = kernel.clone();
    registry.filesystem("cgroup2", move |request| {
        let kernel = of_cgroup.upgrade().ok_or(Errno::ENODEV)?;
        cgroup::mount(&kernel, &namespaces(&kernel, request).cgroup)
    });
}
