//! The container's cgroup as a read-only cgroup2: limits and use, as programs size themselves by (cgroups(7)).
//!
//! What its processes see as the root is the container's cgroup, as in a cgroup namespace. The host enforces what these files say
//! of memory and CPU time; the number of tasks is the sentry's to limit.

use std::sync::Arc;

use moat_abi::stat::CGROUP2_SUPER_MAGIC;
use moat_abi::{Errno, Result};
use moat_identity::CgroupNamespace;
use moat_kernel::Kernel;
use moat_kernel::process::container::ContainerGroup;
use moat_vfs::filesystem::FileSystem;

use crate::tree::{TreeFs, file};

/// The numbers of processes, or of all threads, in the pid namespace of the eldest.
fn members(c: &ContainerGroup, of: Members) -> Vec<i32> {
    let groups = c.processes();
    let Some(ns) = groups.first().map(|g| g.pid().namespace().clone()) else { return Vec::new() };
    let numbers = groups.iter().flat_map(|g| match of {
        Members::Processes => vec![g.pid().number_in(&ns)],
        Members::Threads => g.threads().iter().map(|t| t.tid_in(&ns)).collect(),
    });
    numbers.filter(|n| *n > 0).collect()
}

#[derive(Clone, Copy)]
enum Members {
    Processes,
    Threads,
}

fn lines(numbers: &[i32]) -> String {
    numbers.iter().map(i32::to_string).collect::<Vec<_>>().join("\n")
}

fn or_max(limit: Option<u64>) -> String {
    limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string())
}

fn used_bytes(c: &ContainerGroup) -> u64 {
    c.processes().iter().filter_map(|g| g.leader()?.mm_of()).map(|mm| mm.usage().rss).sum()
}

fn cpu_stat(c: &ContainerGroup) -> String {
    // cgroups(7): what has ended counts on.
    let mut used = c.dead_usage();
    for group in c.processes() {
        group.threads().iter().for_each(|thread| used.add(&thread.usage.get()));
    }
    let (user, system) = (used.user_ns / 1000, used.system_ns / 1000);
    format!("usage_usec {}\nuser_usec {user}\nsystem_usec {system}", user.saturating_add(system))
}

fn cpu_max(c: &ContainerGroup) -> String {
    match c.allowance().shares().cpu_max {
        Some((quota, period)) => format!("{quota} {period}"),
        None => "max 100000".to_owned(),
    }
}

/// The cgroup at the root of `namespace`.
///
/// # Errors
/// ENODEV for the namespace of the sentry itself, which has none.
pub fn mount(kernel: &Kernel, namespace: &CgroupNamespace) -> Result<Arc<dyn FileSystem>> {
    let container = ContainerGroup::of(namespace).ok_or(Errno::ENODEV)?;
    let made = |path: &'static str, make: fn(&ContainerGroup) -> String| {
        let container = container.clone();
        file(path, move || make(&container))
    };
    let text = |path: &'static str, text: &'static str| file(path, move || text.to_owned());
    let files = vec![
        text("cgroup.controllers", "cpu memory pids"),
        text("cgroup.subtree_control", ""),
        text("cgroup.type", "domain"),
        made("cgroup.events", |c| {
            format!("populated {}\nfrozen {}", u8::from(c.has_living()), u8::from(c.is_frozen()))
        }),
        made("cgroup.freeze", |c| u8::from(c.is_frozen()).to_string()),
        made("cgroup.procs", |c| lines(&members(c, Members::Processes))),
        made("cgroup.threads", |c| lines(&members(c, Members::Threads))),
        made("cpu.max", cpu_max),
        text("cpu.weight", "100"),
        made("cpu.stat", cpu_stat),
        made("memory.current", |c| used_bytes(c).to_string()),
        made("memory.max", |c| or_max(c.allowance().shares().memory_max)),
        text("memory.high", "max"),
        text("memory.low", "0"),
        text("memory.min", "0"),
        text("memory.swap.max", "0"),
        text("memory.swap.current", "0"),
        // The host enforces the limit; its kills are not told here.
        text("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0"),
        made("memory.stat", |c| format!("anon {}\nfile 0\nkernel 0", used_bytes(c))),
        made("pids.current", |c| c.allowance().tasks().to_string()),
        made("pids.peak", |c| c.allowance().tasks_peak().to_string()),
        made("pids.events", |c| format!("max {}", c.allowance().refused())),
        made("pids.max", |c| or_max(c.allowance().tasks_max())),
    ];
    Ok(TreeFs::new(kernel.vfs.new_device(), "cgroup2", CGROUP2_SUPER_MAGIC, files))
}
