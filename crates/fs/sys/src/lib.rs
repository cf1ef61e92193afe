//! sysfs(5) and the container's view of its cgroup: what programs look up about CPUs, memory and limits.
//!
//! Both are trees of generated, read-only files; nothing of the host's own /sys is shown.
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod sysfs;
mod tree;

/// Makes "sysfs", "cgroup2" and "cgroup" mountable.
pub fn register() {
    sysfs::register();
    cgroup::register();
}
