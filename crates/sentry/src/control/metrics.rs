//! What a container's sandbox counts of it, for [`moat_control::Request::Metrics`].
//!
//! Counters are kept where things happen; everything else is asked of its owner, or of the host, when somebody wants to know.

use std::collections::BTreeSet;
use std::sync::Arc;

use moat_control::ContainerMetrics;
use moat_control::metrics::{BytesMoved, CallCount, DeviceCounters, MemoryUse, SandboxMetrics};
use moat_host::process::own_usage;
use moat_host::usage::{self, ProcessMemory};
use moat_identity::NetNamespace;
use moat_kernel::Kernel;
use moat_kernel::metrics::{Event, ForkLimit, Snapshot};
use moat_net_inet::stack::stack_of;
use moat_sync::block_in_place;

use crate::container::GuestContainer;
use crate::registry::Registry;

/// All figures of a container.
pub(super) fn read(container: &GuestContainer, registry: &Registry) -> ContainerMetrics {
    let processes = &container.member.processes;
    let kernel = processes.kernel();
    let counted = processes.metrics.read();
    let living = living(container);
    let host_pids = &living.host_pids;
    // The host walks page tables.
    let memory = block_in_place(|| sum(host_pids.iter().filter_map(|pid| usage::memory_of(*pid))));
    let is_root = std::ptr::eq(container, Arc::as_ptr(registry.root()));
    ContainerMetrics {
        calls: calls(&counted),
        faults: counted.event(Event::Faults),
        kicks: counted.event(Event::Kicks),
        forks_refused: forks_refused(&counted),
        moved: moved(&counted),
        user_ns: living.user_ns,
        system_ns: living.system_ns,
        processes: living.processes,
        threads: living.threads,
        tasks: processes.allowance().tasks(),
        tasks_max: processes.allowance().tasks_max(),
        descriptors: living.descriptors,
        memory: memory_use(&memory),
        uptime_ns: moat_host::clock::boottime_ns().saturating_sub(container.made_boot_ns),
        network: network(&container.member.place.namespaces.net),
        sandbox: is_root.then(|| sandbox(kernel)),
    }
}

/// What is asked of each process.
#[derive(Default)]
struct Living {
    processes: u64,
    threads: u64,
    user_ns: u64,
    system_ns: u64,
    descriptors: u64,
    host_pids: BTreeSet<i32>,
}

fn living(container: &GuestContainer) -> Living {
    let mut sums = Living::default();
    let mut tables = BTreeSet::new();
    // Threads that end between the two sums are not counted at all; the next look sees them.
    let mut used = container.member.processes.dead_usage();
    for group in container.member.processes.processes() {
        let threads = group.threads();
        sums.processes = sums.processes.saturating_add(u64::from(!threads.is_empty()));
        for thread in &threads {
            sums.threads = sums.threads.saturating_add(1);
            used.add(&thread.usage.get());
            if let Some(table) = thread.fds_of()
                && tables.insert(table.id())
            {
                sums.descriptors = sums.descriptors.saturating_add(u64::try_from(table.count()).unwrap_or(0));
            }
            // Processes of a vfork(2) share one.
            sums.host_pids.extend(thread.mm_of().map(|mm| mm.space().host_pid()));
        }
    }
    (sums.user_ns, sums.system_ns) = (used.user_ns, used.system_ns);
    sums
}

fn calls(counted: &Snapshot) -> Vec<CallCount> {
    let call = |(name, class, count): (&str, moat_kernel::metrics::ResultClass, u64)| CallCount {
        name: name.to_owned(),
        class: class.name().to_owned(),
        count,
    };
    counted.calls().map(call).collect()
}

fn forks_refused(counted: &Snapshot) -> Vec<(String, u64)> {
    ForkLimit::ALL.map(|limit| (limit.name().to_owned(), counted.event(Event::ForkRefused(limit)))).into()
}

fn moved(counted: &Snapshot) -> BytesMoved {
    BytesMoved {
        read: counted.event(Event::BytesRead),
        written: counted.event(Event::BytesWritten),
        received: counted.event(Event::BytesReceived),
        sent: counted.event(Event::BytesSent),
        copied: counted.event(Event::BytesCopied),
    }
}

fn sum(all: impl Iterator<Item = ProcessMemory>) -> ProcessMemory {
    all.fold(ProcessMemory::default(), |mut sum, one| {
        sum.add(&one);
        sum
    })
}

fn memory_use(memory: &ProcessMemory) -> MemoryUse {
    MemoryUse {
        anonymous: memory.anonymous,
        file: memory.file,
        shared: memory.shared,
        swap: memory.swap,
        page_tables: memory.page_tables,
    }
}

fn sandbox(kernel: &Kernel) -> SandboxMetrics {
    let own = std::process::id().cast_signed();
    let (memory, shared) = block_in_place(|| (usage::memory_of(own), usage::memfd_bytes()));
    let hand_offs = kernel.platform.hand_offs();
    // Of the whole process: its threads serve all containers.
    let used = own_usage();
    SandboxMetrics {
        user_ns: used.user_ns,
        host_ns: used.system_ns,
        memory: memory_use(&memory.unwrap_or_default()),
        shared: shared.unwrap_or(0),
        hand_offs: hand_offs.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
        uptime_ns: kernel.uptime_ns(),
    }
}

/// What the interfaces of a stack of moat's own have carried; nothing where the network is the host's.
fn network(namespace: &NetNamespace) -> Vec<DeviceCounters> {
    let Some(stack) = stack_of(namespace) else { return Vec::new() };
    let device = |device: moat_identity::net::NetDevice| {
        let c = stack.change(|s| s.counters(device.index));
        DeviceCounters {
            name: device.name,
            received_bytes: c.received_bytes,
            received_packets: c.received_packets,
            received_dropped: c.received_dropped,
            sent_bytes: c.sent_bytes,
            sent_packets: c.sent_packets,
            sent_dropped: c.sent_dropped,
        }
    };
    namespace.devices().into_iter().map(device).collect()
}
