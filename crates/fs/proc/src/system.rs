//! Files about the whole system: cpuinfo, meminfo, stat and their like, proc(5).

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_identity::Namespaces;
use moat_kernel::kernel::{Kernel, RELEASE, VERSION};
use moat_kernel::process::container::ContainerGroup;
use moat_vfs::registry::Backing;

/// A file of /proc itself.
pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) mode: u32,
    pub(crate) make: Make,
}

/// Whose file it is.
#[derive(Clone, Copy)]
pub(crate) enum Make {
    /// The kernel's.
    Kernel(fn(&Kernel) -> Vec<u8>),
    /// The machine's, of which a container sees its share.
    Machine(fn(&Machine<'_>) -> Vec<u8>),
}

const fn file(name: &'static str, make: fn(&Kernel) -> Vec<u8>) -> File {
    File { name, mode: 0o444, make: Make::Kernel(make) }
}

const fn machine(name: &'static str, make: fn(&Machine<'_>) -> Vec<u8>) -> File {
    File { name, mode: 0o444, make: Make::Machine(make) }
}

/// The machine as those see it for whom a proc was mounted.
pub(crate) struct Machine<'a> {
    kernel: &'a Kernel,
    /// None for the sentry itself.
    container: Option<Arc<ContainerGroup>>,
}

impl Machine<'_> {
    pub(crate) fn of<'a>(kernel: &'a Kernel, namespaces: &Namespaces) -> Machine<'a> {
        Machine { kernel, container: ContainerGroup::of(&namespaces.cgroup) }
    }

    fn cpu_count(&self) -> usize {
        self.container.as_ref().map_or(self.kernel.cpu_count, |c| c.allowance().cpu_count())
    }

    fn total_memory(&self) -> u64 {
        self.container.as_ref().map_or(self.kernel.total_memory, |c| c.allowance().shares().total_memory)
    }

    /// Bytes of guest memory in use, by the address spaces' own estimates.
    fn used_bytes(&self) -> u64 {
        let groups = self.container.as_ref().map_or_else(|| self.kernel.processes(), |c| c.processes());
        // Threads share memory: one of each process is enough.
        groups.iter().filter_map(|g| g.leader()?.mm_of()).map(|mm| mm.usage().rss).sum()
    }
}

pub(crate) const FILES: &[File] = &[
    file("cgroups", |_| b"#subsys_name\thierarchy\tnum_cgroups\tenabled\n".to_vec()),
    file("cmdline", |_| b"moat\n".to_vec()),
    file("consoles", |_| Vec::new()),
    machine("cpuinfo", cpuinfo),
    file("devices", devices),
    file("diskstats", |_| Vec::new()),
    file("filesystems", filesystems),
    file("interrupts", |_| Vec::new()),
    file("loadavg", loadavg),
    machine("meminfo", meminfo),
    file("misc", |_| Vec::new()),
    file("modules", |_| Vec::new()),
    file("partitions", |_| b"major minor  #blocks  name\n\n".to_vec()),
    machine("stat", stat),
    file("swaps", |_| b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".to_vec()),
    machine("uptime", uptime),
    file("version", version),
    machine("vmstat", vmstat),
];

/// A mask of `count` CPUs, as /proc writes it.
pub(crate) fn cpu_mask(count: usize) -> String {
    let mut words = Vec::new();
    let mut left = count;
    // Words of 32 bits, the highest first.
    while left > 0 {
        let here = left.min(32);
        words.push(if here == 32 { u32::MAX } else { (1u32 << here) - 1 });
        left -= here;
    }
    words.iter().rev().map(|w| format!("{w:x}")).collect::<Vec<_>>().join(",")
}

/// A list of `count` CPUs: "0-3".
pub(crate) fn cpu_list(count: usize) -> String {
    if count <= 1 { "0".into() } else { format!("0-{}", count - 1) }
}

fn cpuinfo(machine: &Machine<'_>) -> Vec<u8> {
    let cpu = moat_host::cpu::describe();
    let count = machine.cpu_count();
    let mut o = String::new();
    for n in 0..count {
        let _ = writeln!(o, "processor\t: {n}");
        let _ = writeln!(o, "vendor_id\t: {}", cpu.vendor);
        let _ = writeln!(o, "cpu family\t: {}\nmodel\t\t: {}\nmodel name\t: {}", cpu.family, cpu.model, cpu.model_name);
        let _ = writeln!(o, "stepping\t: {}", cpu.stepping);
        // A host in a virtual machine may not say.
        if let Some(mhz) = cpu.mhz {
            let _ = writeln!(o, "cpu MHz\t\t: {mhz}.000");
        }
        let _ = writeln!(o, "physical id\t: 0\nsiblings\t: {count}\ncore id\t\t: {n}\ncpu cores\t: {count}");
        let _ = writeln!(
            o,
            "apicid\t\t: {n}\ninitial apicid\t: {n}\nfpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: 13\nwp\t\t: yes"
        );
        let _ = writeln!(o, "flags\t\t: {}\nbugs\t\t:", cpu.flags.join(" "));
        let _ = writeln!(o, "clflush size\t: 64\ncache_alignment\t: 64");
        let _ = writeln!(
            o,
            "address sizes\t: {} bits physical, {} bits virtual\npower management:\n",
            cpu.physical_bits, cpu.virtual_bits
        );
    }
    o.into_bytes()
}

fn devices(_: &Kernel) -> Vec<u8> {
    b"Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/ptmx\n136 pts\n\nBlock devices:\n".to_vec()
}

fn filesystems(kernel: &Kernel) -> Vec<u8> {
    let mut o = String::new();
    for (name, backing) in kernel.vfs.registry.filesystem_types() {
        let _ = writeln!(o, "{}\t{name}", if backing == Backing::Nothing { "nodev" } else { "" });
    }
    o.into_bytes()
}

/// Tasks that run and all tasks.
fn task_counts(kernel: &Kernel) -> (usize, usize) {
    let groups = kernel.processes();
    let (mut running, mut all) = (0, 0);
    for g in groups {
        for t in g.threads() {
            all += 1;
            // What waits for nothing runs, or would.
            running += usize::from(t.waits_in().is_none());
        }
    }
    (running, all)
}

fn loadavg(kernel: &Kernel) -> Vec<u8> {
    let (running, all) = task_counts(kernel);
    // Averages are not kept.
    format!("0.00 0.00 0.00 {running}/{all} {}\n", kernel.root_pid_ns.last_pid()).into_bytes()
}

fn meminfo(machine: &Machine<'_>) -> Vec<u8> {
    let total = machine.total_memory() / 1024;
    // Of the container; the sentry's own part can take it above what is shown as all.
    let used = (machine.used_bytes() / 1024).min(total);
    let free = total - used;
    let mut o = String::new();
    for (label, kib) in [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", used),
        ("Inactive", 0),
        ("Active(anon)", used),
        ("Inactive(anon)", 0),
        ("Active(file)", 0),
        ("Inactive(file)", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", used),
        ("Mapped", 0),
        ("Shmem", 0),
        ("KReclaimable", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("KernelStack", 0),
        ("PageTables", 0),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", total),
        ("Committed_AS", used),
        // The size of the area on x86-64.
        ("VmallocTotal", 34_359_738_367),
        ("VmallocUsed", 0),
        // Shown as 0 by Linux as well, because nobody could afford the count.
        ("VmallocChunk", 0),
    ] {
        let _ = writeln!(o, "{:<15} {kib:>8} kB", format!("{label}:"));
    }
    for label in ["HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp"] {
        let _ = writeln!(o, "{:<15} {:>8}", format!("{label}:"), 0);
    }
    let _ = writeln!(o, "{:<15} {:>8} kB", "Hugepagesize:", 2048);
    o.into_bytes()
}

fn stat(machine: &Machine<'_>) -> Vec<u8> {
    let kernel = machine.kernel;
    let groups = kernel.processes();
    let (mut user, mut system) = (0, 0);
    for g in &groups {
        let u = g.usage();
        user += u.user_ticks();
        system += u.system_ticks();
    }
    let cpus = i64::try_from(machine.cpu_count()).unwrap_or(1);
    // Idle is what all CPUs had and no process used.
    let total_ticks = i64::try_from(kernel.uptime_ns() / 10_000_000).unwrap_or(0) * cpus;
    let idle = (total_ticks - user - system).max(0);
    let mut o = format!("cpu  {user} 0 {system} {idle} 0 0 0 0 0 0\n");
    for n in 0..cpus {
        let _ = writeln!(o, "cpu{n} {} 0 {} {} 0 0 0 0 0 0", user / cpus, system / cpus, idle / cpus);
    }
    let (running, _) = task_counts(kernel);
    let _ = writeln!(o, "intr 0\nctxt 0\nbtime {}", kernel.boot_realtime_ns / 1_000_000_000);
    let _ = writeln!(
        o,
        "processes {}\nprocs_running {running}\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0",
        kernel.forks.load(Ordering::Relaxed)
    );
    o.into_bytes()
}

fn uptime(machine: &Machine<'_>) -> Vec<u8> {
    let cs = machine.kernel.uptime_ns() / 10_000_000;
    let idle = cs.saturating_mul(u64::try_from(machine.cpu_count()).unwrap_or(1));
    format!("{}.{:02} {}.{:02}\n", cs / 100, cs % 100, idle / 100, idle % 100).into_bytes()
}

fn version(_: &Kernel) -> Vec<u8> {
    format!("Linux version {RELEASE} (moat) {VERSION}\n").into_bytes()
}

fn vmstat(machine: &Machine<'_>) -> Vec<u8> {
    let pages = machine.total_memory() / 4096;
    let used = (machine.used_bytes() / 4096).min(pages);
    format!("nr_free_pages {}\nnr_anon_pages {used}\npgfault 0\npgmajfault 0\npswpin 0\npswpout 0\n", pages - used)
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_sets_are_written_as_linux_does() {
        assert_eq!((cpu_mask(1), cpu_list(1)), ("1".into(), "0".into()));
        assert_eq!((cpu_mask(6), cpu_list(6)), ("3f".into(), "0-5".into()));
        assert_eq!(cpu_mask(36), "f,ffffffff");
    }
}
