//! Which limits a configuration really asks for.
//!
//! Clients write sections full of zeroes; a zero means "as it is", as it does for runc.

use moat_control::spec::TaskLimit;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxPids, LinuxResources,
};

/// The sections of `resources` that ask for something, with what is without effect taken out.
///
/// Rules for devices are: a guest's devices are made in the sentry, whatever the host would allow. So are limits of
/// kernel memory, which the host's kernel does not know any more.
pub(super) fn asked_for(resources: &LinuxResources) -> LinuxResources {
    let mut asked = resources.clone();
    // The sentry's to enforce: no node of the host's is ever opened.
    asked.set_devices(None);
    asked.set_memory(resources.memory().as_ref().and_then(memory));
    asked.set_cpu(resources.cpu().as_ref().and_then(cpu));
    asked.set_pids(resources.pids().filter(|pids: &LinuxPids| pids.limit() != 0).map(host_tasks));
    asked.set_block_io(resources.block_io().as_ref().and_then(block_io));
    asked.set_hugepage_limits(
        resources.hugepage_limits().clone().filter(|all: &Vec<LinuxHugepageLimit>| !all.is_empty()),
    );
    asked.set_network(resources.network().as_ref().and_then(network));
    asked.set_rdma(resources.rdma().clone().filter(|all| !all.is_empty()));
    asked.set_unified(resources.unified().clone().filter(|all| !all.is_empty()));
    asked
}

/// Host tasks that a container has besides those that run its guest tasks: up to 128 threads of the sentry's executor and some
/// more, the template with the blank processes made ahead, waiter and gofer.
const OVERHEAD_TASKS: i64 = 192;

/// Host tasks for each guest task: itself, a second process while it executes a program, and the threads without a task that
/// a process keeps.
const HOST_TASKS_PER_TASK: i64 = 10;

/// The most that the host's kernel takes (`PID_MAX_LIMIT`).
const MAX_HOST_TASKS: i64 = 4_194_304;

/// The host's limit behind a guest's, which the sentry enforces: there for the case that it no longer does.
fn host_tasks(pids: LinuxPids) -> LinuxPids {
    let mut limit = pids.limit();
    if (1..=MAX_HOST_TASKS).contains(&limit) {
        limit = limit.saturating_mul(HOST_TASKS_PER_TASK).saturating_add(OVERHEAD_TASKS).min(MAX_HOST_TASKS);
    }
    let mut raised = LinuxPids::default();
    raised.set_limit(limit);
    raised
}

/// The limit of guest tasks that is asked for.
pub(crate) fn task_limit(resources: Option<&LinuxResources>) -> TaskLimit {
    match resources.and_then(|resources| resources.pids().as_ref()).map(LinuxPids::limit) {
        None | Some(0) => TaskLimit::Kept,
        Some(limit) => u64::try_from(limit).map_or(TaskLimit::Unlimited, TaskLimit::Max),
    }
}

/// Whether anything is asked for.
pub(super) fn any(resources: &LinuxResources) -> bool {
    let asked = asked_for(resources);
    asked.memory().is_some()
        || asked.cpu().is_some()
        || asked.pids().is_some()
        || asked.block_io().is_some()
        || asked.hugepage_limits().is_some()
        || asked.network().is_some()
        || asked.rdma().is_some()
        || asked.unified().is_some()
}

#[allow(deprecated)]
fn memory(memory: &LinuxMemory) -> Option<LinuxMemory> {
    let number = |value: Option<i64>| value.filter(|&value| value != 0);
    let mut asked = LinuxMemory::default();
    asked.set_limit(number(memory.limit()));
    asked.set_reservation(number(memory.reservation()));
    asked.set_swap(number(memory.swap()));
    asked.set_kernel(None);
    asked.set_kernel_tcp(number(memory.kernel_tcp()));
    // Docker writes -1, as an unsigned number, for "as it is".
    asked.set_swappiness(memory.swappiness().filter(|&value| value != u64::MAX));
    asked.set_disable_oom_killer(memory.disable_oom_killer().filter(|&disabled| disabled));
    asked.set_check_before_update(memory.check_before_update().filter(|&check| check));
    asked.set_use_hierarchy(None);
    (asked.limit().is_some()
        || asked.reservation().is_some()
        || asked.swap().is_some()
        || asked.kernel_tcp().is_some()
        || asked.swappiness().is_some()
        || asked.disable_oom_killer().is_some())
    .then_some(asked)
}

fn cpu(cpu: &LinuxCpu) -> Option<LinuxCpu> {
    let text = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
    let mut asked = LinuxCpu::default();
    // Zero says "unset" in what clients write (runc takes it so), not a limit of nothing.
    asked.set_shares(cpu.shares().filter(|&value| value != 0));
    asked.set_quota(cpu.quota().filter(|&value| value != 0));
    asked.set_period(cpu.period().filter(|&value| value != 0));
    asked.set_burst(cpu.burst());
    asked.set_idle(cpu.idle());
    asked.set_realtime_runtime(cpu.realtime_runtime().filter(|&value| value != 0));
    asked.set_realtime_period(cpu.realtime_period().filter(|&value| value != 0));
    asked.set_cpus(text(cpu.cpus()));
    asked.set_mems(text(cpu.mems()));
    (asked.shares().is_some()
        || asked.quota().is_some()
        || asked.period().is_some()
        || asked.burst().is_some()
        || asked.idle().is_some()
        || asked.realtime_runtime().is_some()
        || asked.realtime_period().is_some()
        || asked.cpus().is_some()
        || asked.mems().is_some())
    .then_some(asked)
}

fn block_io(io: &LinuxBlockIo) -> Option<LinuxBlockIo> {
    fn list<T: Clone>(all: &Option<Vec<T>>) -> Option<Vec<T>> {
        all.clone().filter(|all| !all.is_empty())
    }
    let mut asked = LinuxBlockIo::default();
    asked.set_weight(io.weight().filter(|&weight| weight != 0));
    asked.set_leaf_weight(io.leaf_weight().filter(|&weight| weight != 0));
    asked.set_weight_device(list(io.weight_device()));
    asked.set_throttle_read_bps_device(list(io.throttle_read_bps_device()));
    asked.set_throttle_write_bps_device(list(io.throttle_write_bps_device()));
    asked.set_throttle_read_iops_device(list(io.throttle_read_iops_device()));
    asked.set_throttle_write_iops_device(list(io.throttle_write_iops_device()));
    (asked != LinuxBlockIo::default()).then_some(asked)
}

fn network(network: &LinuxNetwork) -> Option<LinuxNetwork> {
    let mut asked = LinuxNetwork::default();
    asked.set_class_id(network.class_id().filter(|&class| class != 0));
    asked.set_priorities(network.priorities().clone().filter(|all| !all.is_empty()));
    (asked.class_id().is_some() || asked.priorities().is_some()).then_some(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn zeroes_ask_for_nothing() {
        for json in [
            "{}",
            r#"{"devices":[{"allow":false,"access":"rwm"}],"memory":{},"cpu":{"shares":0},"pids":{"limit":0},"blockIO":{"weight":0}}"#,
            r#"{"memory":{"limit":0,"swap":0,"kernel":1000,"disableOOMKiller":false,"useHierarchy":true}}"#,
            r#"{"cpu":{"cpus":"","mems":"","quota":0},"network":{"classID":0,"priorities":[]},"unified":{},"rdma":{},"hugepageLimits":[]}"#,
        ] {
            assert!(!any(&parse(json)), "{json}: {:?}", asked_for(&parse(json)));
        }
    }

    #[test]
    fn the_hosts_limit_of_tasks_is_higher() {
        let limits = |json: &str| {
            let resources = parse(json);
            (task_limit(Some(&resources)), asked_for(&resources).pids().map(|pids| pids.limit()))
        };
        assert_eq!(limits(r#"{"pids":{"limit":5}}"#), (TaskLimit::Max(5), Some(242)));
        assert_eq!(limits(r#"{"pids":{"limit":4194304}}"#), (TaskLimit::Max(4_194_304), Some(MAX_HOST_TASKS)));
        // The host refuses it.
        let too_many = MAX_HOST_TASKS + 1;
        assert_eq!(limits(&format!(r#"{{"pids":{{"limit":{too_many}}}}}"#)).1, Some(too_many));
        assert_eq!(limits(r#"{"pids":{"limit":-1}}"#), (TaskLimit::Unlimited, Some(-1)));
        assert_eq!(limits(r#"{"pids":{"limit":0}}"#), (TaskLimit::Kept, None));
        assert_eq!(task_limit(None), TaskLimit::Kept);
    }

    #[test]
    fn everything_else_asks_for_something() {
        for json in [
            r#"{"memory":{"limit":-1}}"#,
            r#"{"memory":{"disableOOMKiller":true}}"#,
            r#"{"cpu":{"idle":1}}"#,
            r#"{"cpu":{"realtimeRuntime":1}}"#,
            r#"{"cpu":{"cpus":"0"}}"#,
            r#"{"pids":{"limit":-1}}"#,
            r#"{"blockIO":{"weight":10}}"#,
            r#"{"network":{"classID":1}}"#,
            r#"{"unified":{"memory.high":"1"}}"#,
        ] {
            assert!(any(&parse(json)), "{json}");
        }
    }
}
