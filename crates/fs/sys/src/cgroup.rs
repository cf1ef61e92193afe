//! The container's cgroup as a read-only cgroup2: limits and use, as programs size themselves by (cgroups(7)).
//!
//! The limits are enforced by the host on the whole sandbox; these files only show them.

use std::sync::Arc;

use moat_abi::Result;
use moat_abi::stat::CGROUP2_SUPER_MAGIC;
use moat_kernel::Kernel;
use moat_vfs::filesystem::FileSystem;

use crate::tree::{TreeFs, file};

fn pids(k: &Kernel) -> Vec<i32> {
    let groups = k.processes();
    groups.iter().map(|g| g.pid().number_in(&k.root_pid_ns)).filter(|n| *n > 0).collect()
}

fn lines(numbers: &[i32]) -> String {
    numbers.iter().map(i32::to_string).collect::<Vec<_>>().join("\n")
}

fn used_bytes(k: &Kernel) -> u64 {
    let groups = k.processes();
    groups.iter().filter_map(|g| g.leader()?.mm_of()).map(|mm| mm.usage().rss).sum()
}

fn cpu_stat(k: &Kernel) -> String {
    let groups = k.processes();
    let (user, system) = groups.iter().map(|g| g.usage()).fold((0, 0), |(u, s), x| (u + x.user_ns, s + x.system_ns));
    format!("usage_usec {}\nuser_usec {}\nsystem_usec {}", (user + system) / 1000, user / 1000, system / 1000)
}

pub(crate) fn mount(kernel: &Arc<Kernel>) -> Result<Arc<dyn FileSystem>> {
    let made = |path: &'static str, make: fn(&Kernel) -> String| {
        let kernel = kernel.clone();
        file(path, move || make(&kernel))
    };
    let text = |path: &'static str, text: &'static str| file(path, move || text.to_owned());
    let files = vec![
        text("cgroup.controllers", "cpu memory pids"),
        text("cgroup.subtree_control", ""),
        text("cgroup.type", "domain"),
        text("cgroup.events", "populated 1\nfrozen 0"),
        text("cgroup.freeze", "0"),
        made("cgroup.procs", |k| lines(&pids(k))),
        made("cgroup.threads", |k| lines(&pids(k))),
        made("cpu.max", |k| format!("{} 100000", k.cpu_count * 100_000)),
        text("cpu.weight", "100"),
        made("cpu.stat", cpu_stat),
        made("memory.current", |k| used_bytes(k).to_string()),
        made("memory.max", |k| k.total_memory.to_string()),
        text("memory.high", "max"),
        text("memory.low", "0"),
        text("memory.min", "0"),
        text("memory.swap.max", "0"),
        text("memory.swap.current", "0"),
        text("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0"),
        made("memory.stat", |k| format!("anon {}\nfile 0\nkernel 0", used_bytes(k))),
        made("pids.current", |k| pids(k).len().to_string()),
        text("pids.max", "max"),
    ];
    Ok(TreeFs::new(kernel.vfs.new_device(), "cgroup2", CGROUP2_SUPER_MAGIC, files))
}
