//! What a container is doing and using.

use std::sync::Arc;

use moat_control::{EventInfo, ProcessInfo};
use moat_identity::PidNamespace;
use moat_kernel::process::group::ThreadGroup;
use moat_kernel::task::Task;
use moat_mm::UserAddr;

use crate::container::GuestContainer;

/// Bytes of a command line that are shown.
const MAX_ARGS_BYTES: u64 = 32 << 10;

/// Bytes of all command lines together: the guest decides how long they are, and the answer has to fit a message.
const MAX_ALL_ARGS_BYTES: u64 = 2 << 20;

/// The container's processes, eldest first.
pub(super) fn processes(container: &GuestContainer) -> Vec<ProcessInfo> {
    let ns = &container.member.place.pid_ns;
    let groups = container.member.processes.processes();
    let mut budget = MAX_ALL_ARGS_BYTES;
    groups.iter().filter_map(|group| describe(container, group, ns, &mut budget)).collect()
}

fn describe(
    container: &GuestContainer,
    group: &Arc<ThreadGroup>,
    ns: &PidNamespace,
    budget: &mut u64,
) -> Option<ProcessInfo> {
    let leader = group.main_thread()?;
    let tty = moat_tty::terminal_of(&*group.session()?);
    let parent = group.parent().filter(|p| Arc::ptr_eq(&p.container, &container.member.processes));
    let usage = group.usage();
    // A leader that has ended left its memory to the other threads.
    let living = group.any_thread();
    let mm = living.as_ref().and_then(|t| t.mm_of());
    Some(ProcessInfo {
        pid: group.pid().number_in(ns),
        parent_pid: parent.map_or(0, |p| p.pid().number_in(ns)),
        sandbox_pid: mm.as_ref().map_or(0, |mm| mm.space().host_pid()),
        uid: leader.creds().uid,
        threads: u32::try_from(group.thread_count()).unwrap_or(u32::MAX),
        cpu_time_ns: usage.user_ns.saturating_add(usage.system_ns),
        start_time_ns: leader.start_boot_ns.saturating_sub(group.kernel().boot_boottime_ns),
        tty: tty.map_or(0, |t| t.device_number()),
        command: String::from_utf8_lossy(&leader.comm()).into_owned(),
        args: living.map(|t| arguments(&t, budget)).unwrap_or_default(),
    })
}

fn arguments(task: &Task, budget: &mut u64) -> Vec<String> {
    let Some(mm) = task.mm_of() else { return Vec::new() };
    let range = mm.image().args;
    let length = range.end.saturating_sub(range.start).min(MAX_ARGS_BYTES).min(*budget);
    *budget -= length;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    // The process may have unmapped it, or be ending.
    if mm.read_bytes(UserAddr::new(range.start), &mut bytes).is_err() {
        return Vec::new();
    }
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    bytes.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// What the container uses.
pub(super) fn event(container: &GuestContainer) -> EventInfo {
    let allowance = container.member.processes.allowance();
    let (tasks, tasks_max) = (allowance.tasks(), allowance.tasks_max());
    let mut event = EventInfo { processes: 0, threads: 0, cpu_time_ns: 0, resident_bytes: 0, tasks, tasks_max };
    // Threads that end between the two sums are not counted at all; the next look sees them.
    let mut used = container.member.processes.dead_usage();
    for group in container.member.processes.processes() {
        let threads = group.threads();
        let Some(first) = threads.first() else { continue };
        event.processes += 1;
        event.threads += u64::try_from(threads.len()).unwrap_or(0);
        for thread in &threads {
            used.add(&thread.usage.get());
        }
        event.resident_bytes += first.mm_of().map_or(0, |mm| mm.usage().rss);
    }
    event.cpu_time_ns = used.user_ns.saturating_add(used.system_ns);
    event
}
